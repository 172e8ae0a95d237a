"""Measures how a mixture of thousands of tasks starts and reads, beside one of few tasks with as many rows.

    python benchmarks/many_tasks.py

Writes tasks of short texts as JSON lines to a temporary folder and, in a program of its own for each row of
the table, registers them with seqio, makes the first batch of 64 rows and draws more. `indexed` and
`streamed` are the values of `Data.reading`; seqio's pipelines are only measured for the few tasks unless
--streamed_many is given, because they take minutes. Prints a Markdown table.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

LENGTHS = {"inputs": 64, "targets": 16}
BATCH_SIZE = 64
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda"]


def write_tasks(folder: pathlib.Path, tasks: int, rows: int) -> None:
    """Write `tasks` files of together `rows` rows."""
    rng = random.Random(0)
    for number in range(tasks):
        with (folder / f"task{number:05}.jsonl").open("w") as file:
            for _ in range(rows // tasks):
                text = " ".join(rng.choices(WORDS, k=rng.randint(3, 9)))
                file.write(json.dumps({"inputs": text, "targets": text.split()[0]}) + "\n")


def measure(folder: str, reading: str, batches: int) -> None:
    """Read the tasks of a folder and print the measurements as JSON."""
    from poly_jax.data import vocabularies
    from poly_jax.data.batches import train_batches
    from poly_jax.data.quiet import seqio, tf
    from poly_jax.data.task_table import TaskTable

    began = time.perf_counter()
    feature = seqio.Feature(vocabularies.byte(), add_eos=True)
    names = []
    for path in sorted(pathlib.Path(folder).glob("*.jsonl")):

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
    table = TaskTable.of("all")

    def make():
        return train_batches(
            "all", table, sequence_length=LENGTHS, batch_size=BATCH_SIZE, seed=0, reading=reading
        )

    stream = make()
    next(stream)
    start = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(batches):
        next(stream)
    speed = batches * BATCH_SIZE / (time.perf_counter() - began)
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
            {"start": start, "speed": speed, "memory": memory, "files": files, "position": position}
            | {"restore": restore}
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
    parser.add_argument("--batches", type=int, default=500, help="batches to read")
    parser.add_argument("--streamed_many", action="store_true", help="stream the large mixture, too")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure, args.batches)
        return
    cases = [("streamed", args.few), ("indexed", args.few), ("indexed", args.many)]
    if args.streamed_many:
        cases.append(("streamed", args.many))
    columns = ["reading", "tasks", "first batch, s", "examples/s", "peak memory, MiB", "open files"]
    columns += ["position, KiB", "restored, s"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    speeds = {}
    for reading, tasks in cases:
        with tempfile.TemporaryDirectory() as folder:
            write_tasks(pathlib.Path(folder), tasks, args.rows)
            command = [sys.executable, __file__, "--measure", folder, reading, f"--batches={args.batches}"]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        speeds[reading, tasks] = found["speed"]
        print(
            f"| {reading} | {tasks:,} | {found['start']:.1f} | {found['speed']:,.0f} | "
            f"{found['memory'] / 2**20:,.0f} | {found['files']} | {found['position'] / 2**10:,.1f} | "
            f"{found['restore']:.2f} |"
        )
    ratio = speeds["indexed", args.many] / speeds["indexed", args.few]
    print(f"\n{args.many:,} tasks are read at {ratio:.2f} times the speed of {args.few}.")


if __name__ == "__main__":
    main()
