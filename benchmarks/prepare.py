"""Measures `poly-jax prepare`: many small tasks, and one large task in one process and in two.

python benchmarks/prepare.py --vocabulary=sentencepiece.model --tasks=2000 --rows=200000
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from poly_jax.data.quiet import seqio, tf

_SMALL_ROWS = 50


def _parsed(dataset: tf.data.Dataset) -> tf.data.Dataset:
    def parse(line: bytes) -> tuple[bytes, bytes]:
        row = json.loads(line)
        return row["inputs"].encode(), row["targets"].encode()

    @tf.autograph.experimental.do_not_convert
    def example(line: tf.Tensor) -> dict[str, tf.Tensor]:
        texts = tf.numpy_function(parse, [line], [tf.string] * 2, stateful=False)
        return {
            name: tf.ensure_shape(text, []) for name, text in zip(("inputs", "targets"), texts, strict=True)
        }

    return dataset.map(example)


def register() -> None:
    """Register the tasks of the folder BENCHMARK_FOLDER and the mixture `benchmark`."""
    folder = pathlib.Path(os.environ["BENCHMARK_FOLDER"])
    vocabulary = seqio.ByteVocabulary()
    if os.environ.get("BENCHMARK_VOCABULARY"):
        vocabulary = seqio.SentencePieceVocabulary(os.environ["BENCHMARK_VOCABULARY"])
    feature = seqio.Feature(vocabulary, add_eos=True)
    preprocessors = [
        _parsed,
        seqio.CacheDatasetPlaceholder(),
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
    ]
    paths = sorted(folder.glob("*.jsonl"))
    for path in paths:
        rows = int(path.stem.rpartition("_")[2])
        seqio.TaskRegistry.add(
            path.stem,
            source=seqio.TextLineDataSource({"train": str(path)}, num_input_examples={"train": rows}),
            preprocessors=preprocessors,
            output_features={"inputs": feature, "targets": feature},
        )
    seqio.MixtureRegistry.add("benchmark", [path.stem for path in paths], default_rate=1.0)


def _write(folder: pathlib.Path, tasks: int, rows: int) -> None:
    for task in range(tasks):
        lines = [
            json.dumps({"inputs": f"task {task}: what follows {row}?", "targets": f"{row + task}"})
            for row in range(rows)
        ]
        (folder / f"task_{task:05d}_{rows}.jsonl").write_text("\n".join(lines) + "\n")


def _measure(raw: pathlib.Path, output: pathlib.Path, processes: int, vocabulary: str) -> None:
    gin = raw / "benchmark.gin"
    gin.write_text(
        "import prepare as benchmark\n"
        "Data.mixture = 'benchmark'\nData.inputs_length = 64\nData.targets_length = 16\n"
    )
    environment = {
        **os.environ,
        "BENCHMARK_FOLDER": str(raw),
        "BENCHMARK_VOCABULARY": vocabulary,
        "PYTHONPATH": os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    start = time.perf_counter()
    run = subprocess.Popen(
        [
            *(sys.executable, "-c", "import sys; from poly_jax.cli import main; sys.exit(main())"),
            *("prepare", f"--gin_file={gin}", f"--output_dir={output}", f"--processes={processes}"),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    before = os.times()
    most_memory = most_files = 0
    while run.poll() is None:
        memory, files = _usage(run.pid)
        most_memory, most_files = max(most_memory, memory), max(most_files, files)
        time.sleep(1)
    seconds, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(
        f"{raw.name}, {processes} process(es): {seconds:.0f} s ({cpu:.0f} s of CPU time); all processes "
        f"together: at most {most_memory / 2**30:.2f} GiB of memory and {most_files} open files",
        flush=True,
    )


def _usage(process: int) -> tuple[int, int]:
    """Return the memory in bytes and the open files of a process and its children; 0 where it has ended."""
    folder = pathlib.Path("/proc", str(process))
    try:
        children = [path.read_text().split() for path in folder.glob("task/*/children")]
        pages = int((folder / "statm").read_text().split()[1])
        files = len(list((folder / "fd").iterdir()))
    except OSError:
        return 0, 0
    below = [_usage(int(child)) for each in children for child in each]
    memory = pages * os.sysconf("SC_PAGE_SIZE") + sum(memory for memory, _ in below)
    return memory, files + sum(files for _, files in below)


def main() -> None:
    """Make the files, prepare them, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", default="", help="SentencePiece model (default: bytes)")
    parser.add_argument("--tasks", type=int, default=2000, help="number of small tasks")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the large task")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name, tasks, rows, processes in (
            ("small", args.tasks, _SMALL_ROWS, (2,)),
            ("large", 1, args.rows, (1, 2)),
        ):
            raw = pathlib.Path(temporary, name)
            raw.mkdir()
            _write(raw, tasks, rows)
            for count in processes:
                _measure(raw, pathlib.Path(temporary, f"{name}_{count}"), count, args.vocabulary)


if __name__ == "__main__":
    main()
else:
    register()
