"""Measures how a mixture of thousands of tasks starts and reads, beside one of few tasks with as many rows.

    python benchmarks/many_tasks.py

Writes tasks of short texts as JSON lines to a temporary folder and, in a program of its own for each row of
the table, registers them, puts the first batch of 64 rows on a device and draws more. The tasks are those of
`tasks.from_files` with a SentencePiece vocabulary, from the JSON lines and from caches that `poly-jax
prepare` makes; and tasks of seqio's own preprocessors with a byte vocabulary. `indexed` and `streamed` are
the values of `Data.reading`; seqio's pipelines are only measured for the few tasks unless --streamed_many is
given, because they take minutes.

Prints a Markdown table. The time to the first batch counts from the start of the program. Examples/s are
those of the fastest of five rounds. No thread reads ahead where `indexed`, so that they are counted in CPU
time there, which other programs on the machine change less.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

LENGTHS = {"inputs": 64, "targets": 16}
BATCH_SIZE = 64
ROUNDS = 5
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda"]


def write_tasks(folder: pathlib.Path, tasks: int, rows: int) -> None:
    """Write `tasks` files of together `rows` rows."""
    rng = random.Random(0)
    for number in range(tasks):
        with (folder / f"task{number:05}.jsonl").open("w") as file:
            for _ in range(rows // tasks):
                text = " ".join(rng.choices(WORDS, k=rng.randint(3, 9)))
                file.write(json.dumps({"inputs": text, "targets": text.split()[0]}) + "\n")


def write_vocabulary(path: pathlib.Path) -> None:
    """Write a SentencePiece model of the words of the tasks."""
    import sentencepiece

    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(WORDS)] * 100),
            model_writer=file,
            vocab_size=200,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )


def prepare(folder: pathlib.Path, cache: pathlib.Path, vocabulary: str) -> None:
    """Make the caches of the tasks of a folder."""
    gin = cache.with_suffix(".gin")
    gin.write_text(
        f"Data.mixture = 'all'\nData.inputs_length = {LENGTHS['inputs']}\n"
        f"Data.targets_length = {LENGTHS['targets']}\nData.register = @from_files.register\n"
        f"from_files.register.folder = '{folder}'\nfrom_files.register.prefix = 'all'\n"
        "from_files.register.vocabulary = @vocabularies.sentencepiece()\n"
        f"vocabularies.sentencepiece.path = '{vocabulary}'\n"
    )
    start = "import sys; from poly_jax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "prepare", f"--gin_file={gin}", f"--output_dir={cache}"]
    subprocess.run(command, check=True, capture_output=True)


def register_seqio_tasks(folder: pathlib.Path) -> None:
    """Register the tasks of a folder with seqio's own preprocessors, and the mixture `all`."""
    from poly_jax.data import vocabularies
    from poly_jax.data.quiet import seqio, tf

    feature = seqio.Feature(vocabularies.byte(), add_eos=True)
    names = []
    for path in sorted(folder.glob("*.jsonl")):

        def read(split: str, shuffle_files: bool, path: pathlib.Path = path) -> tf.data.Dataset:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            return tf.data.Dataset.from_tensor_slices({name: [row[name] for row in rows] for name in rows[0]})

        seqio.TaskRegistry.add(
            path.stem,
            source=seqio.FunctionDataSource(read, splits=("train",)),
            preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
            output_features={"inputs": feature, "targets": feature},
        )
        names.append(path.stem)
    seqio.MixtureRegistry.add("all", names, default_rate=1.0)


def register_own_files(folder: pathlib.Path, vocabulary: str, cache: str) -> None:
    """Register the tasks of a folder as `tasks.from_files` does, and use their caches if there are any."""
    from poly_jax.data import vocabularies
    from poly_jax.data.offline_cache import use_cache
    from poly_jax.tasks import from_files

    from_files.register(folder, vocabularies.sentencepiece(vocabulary), prefix="all")
    if cache:
        use_cache(cache, "all")


def measure(register: Callable[[], None], reading: str, cached: bool, batches: int) -> None:
    """Read the tasks that a function registers, and print the measurements as JSON."""
    began = time.perf_counter()
    import jax

    from poly_jax.data.batches import train_batches
    from poly_jax.data.task_table import TaskTable

    register()
    stream = train_batches(
        "all",
        TaskTable.of("all"),
        sequence_length=LENGTHS,
        batch_size=BATCH_SIZE,
        seed=0,
        reading=reading,
        use_cached=cached,
    )
    jax.block_until_ready(jax.device_put(next(stream)))
    start, cpu = time.perf_counter() - began, time.process_time()
    clock = time.process_time if reading == "indexed" else time.perf_counter
    seconds = []
    for _ in range(ROUNDS):
        began = clock()
        for _ in range(batches):
            next(stream)
        seconds.append(clock() - began)
    speed = batches * BATCH_SIZE / min(seconds)
    files = len(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryDirectory() as saved:
        stream.save(f"{saved}/position")
        position = sum(path.stat().st_size for path in pathlib.Path(saved).iterdir())
        began = time.perf_counter()
        stream.restore(f"{saved}/position")
        next(stream)
        restore = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {"start": start, "cpu": cpu, "speed": speed, "memory": memory, "files": files}
            | {"position": position, "restore": restore}
        )
    )
    sys.stdout.flush()
    # The threads of seqio's pipelines would hold the process up.
    os._exit(0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", type=int, default=20, help="number of tasks of the small mixture")
    parser.add_argument("--many", type=int, default=2000, help="number of tasks of the large mixture")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of all tasks together")
    parser.add_argument("--batches", type=int, default=400, help="batches of a round")
    parser.add_argument("--vocabulary", help="SentencePiece model (default: one of the words of the tasks)")
    parser.add_argument("--streamed_many", action="store_true", help="stream the large mixture, too")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        folder, reading, cache = args.measure
        own = functools.partial(register_own_files, pathlib.Path(folder), args.vocabulary, cache)
        seqio_tasks = functools.partial(register_seqio_tasks, pathlib.Path(folder))
        measure(own if args.vocabulary else seqio_tasks, reading, bool(cache), args.batches)
        return
    columns = ["tasks of", "reading", "tasks", "first batch, s", "CPU time, s", "examples/s"]
    columns += ["peak memory, MiB", "open files", "position, KiB", "restored, s"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|", flush=True)
    speeds = {}
    with tempfile.TemporaryDirectory() as temporary:
        vocabulary = args.vocabulary or f"{temporary}/spiece.model"
        if not args.vocabulary:
            write_vocabulary(pathlib.Path(vocabulary))
        for tasks in (args.few, args.many):
            folder, cache = pathlib.Path(temporary, str(tasks)), pathlib.Path(temporary, f"cache_{tasks}")
            folder.mkdir()
            write_tasks(folder, tasks, args.rows)
            prepare(folder, cache, vocabulary)
            own = f"--vocabulary={os.path.abspath(vocabulary)}"
            cases = [
                ("from_files, JSON lines", "indexed", "", [own]),
                ("from_files, caches", "indexed", str(cache), [own]),
                ("seqio's preprocessors", "indexed", "", []),
            ]
            if tasks == args.few or args.streamed_many:
                cases.append(("seqio's preprocessors", "streamed", "", []))
            for kind, reading, cached, options in cases:
                command = [sys.executable, __file__, "--measure", str(folder), reading, cached, *options]
                command.append(f"--batches={args.batches}")
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                speeds[kind, reading, tasks] = found["speed"]
                print(
                    f"| {kind} | {reading} | {tasks:,} | {found['start']:.1f} | {found['cpu']:.1f} | "
                    f"{found['speed']:,.0f} | {found['memory'] / 2**20:,.0f} | {found['files']} | "
                    f"{found['position'] / 2**10:,.1f} | {found['restore']:.2f} |",
                    flush=True,
                )
    for kind, reading, tasks in speeds:
        if tasks == args.few and (kind, reading, args.many) in speeds:
            ratio = speeds[kind, reading, args.many] / speeds[kind, reading, args.few]
            print(f"{kind}, {reading}: {args.many:,} tasks at {ratio:.2f} times the speed of {args.few:,}.")


if __name__ == "__main__":
    main()
