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

_SMALL_ROWS = 50


def _write(folder: pathlib.Path, tasks: int, rows: int) -> None:
    for task in range(tasks):
        lines = [
            json.dumps({"inputs": f"task {task}: what follows {row}?", "targets": f"{row + task}"})
            for row in range(rows)
        ]
        (folder / f"task_{task:05d}.jsonl").write_text("\n".join(lines) + "\n")


def _measure(raw: pathlib.Path, output: pathlib.Path, processes: int, vocabulary: str) -> None:
    gin = raw.with_suffix(".gin")
    gin.write_text(
        "Data.mixture = 'mine'\nData.inputs_length = 64\nData.targets_length = 16\n"
        "Data.register = @from_files.register\n"
        f"from_files.register.folder = '{raw}'\n"
        f"from_files.register.vocabulary = {vocabulary}\n"
    )
    start = time.perf_counter()
    run = subprocess.Popen(
        [
            *(sys.executable, "-c", "import sys; from poly_jax.cli import main; sys.exit(main())"),
            *("prepare", f"--gin_file={gin}", f"--output_dir={output}", f"--processes={processes}"),
        ],
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", default="", help="SentencePiece model (default: bytes)")
    parser.add_argument("--tasks", type=int, default=2000, help="number of small tasks")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the large task")
    args = parser.parse_args()
    vocabulary = "@vocabularies.byte()"
    if args.vocabulary:
        path = os.path.abspath(args.vocabulary)
        vocabulary = f"@vocabularies.sentencepiece()\nvocabularies.sentencepiece.path = '{path}'"
    with tempfile.TemporaryDirectory() as temporary:
        for name, tasks, rows, processes in (
            ("small", args.tasks, _SMALL_ROWS, (2,)),
            ("large", 1, args.rows, (1, 2)),
        ):
            raw = pathlib.Path(temporary, name)
            raw.mkdir()
            _write(raw, tasks, rows)
            for count in processes:
                _measure(raw, pathlib.Path(temporary, f"{name}_{count}"), count, vocabulary)


if __name__ == "__main__":
    main()
