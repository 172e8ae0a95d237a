"""Runs the benchmarks of speed and memory one after another, and writes their tables and figures.

    python benchmarks/all.py [--output=runs/bench] [--sni=FOLDER --vocabulary=sentencepiece.model]

The folder gets `performance.md`, a page of tables under the machine and the versions, and `figures.jsonl`, a
line for each table. Ratios mean something only on a machine that does nothing else. Takes 16 minutes on two
cores, and 7 more with packing, which needs the files of Super-NaturalInstructions. What compares forms of
this project with one another runs by name: --only token_routing mixing_forms arrow_prototypes.
"""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

from poly_jax.cli.platforms import leave_out_tpu

HERE = pathlib.Path(__file__).parent
SCRIPTS: dict[str, tuple[str, ...]] = {
    "train_step": ("--rounds=3",),
    "compilation": (),
    "decoding": (),
    "memory": (),
    "commands": (),
    "stacked_adaptation": (),
    "short_rows": (),
    "packing": ("--rounds=2",),
    "token_routing": ("--rounds=2",),
    "mixing_forms": (),
    "arrow_prototypes": (),
}
COMPARED = (
    "train_step",
    "compilation",
    "decoding",
    "memory",
    "commands",
    "stacked_adaptation",
    "short_rows",
    "packing",
)
"""The benchmarks that compare with PEFT, or with what a user would do otherwise."""


def machine() -> str:
    """This machine and the libraries that were measured."""
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    versions = []
    for name in ("jax", "flax", "torch", "transformers", "peft"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{datetime.date.today()}, {cpu}, {cores} cores, Python {platform.python_version()}, " + ", ".join(
        versions
    )


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="runs/bench", help="folder of the results (default: runs/bench)")
    parser.add_argument("--sni", help="folder of Super-NaturalInstructions as published, for packing")
    parser.add_argument("--vocabulary", help="T5's sentencepiece.model, for packing")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=COMPARED, help="run these")
    args = parser.parse_args()
    leave_out_tpu()  # As the program does; libtpu, which plans need, would take 230 MiB.
    folder = pathlib.Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "performance.md"
    page.write_text(f"# Performance\n\n{machine()}.\n\n")
    (folder / "figures.jsonl").write_text("")
    failed = []
    for name in args.only:
        flags = [f"--json={folder / 'figures.jsonl'}", *SCRIPTS[name]]
        if name == "packing":
            if not (args.sni and args.vocabulary):
                print("packing is left out: it needs --sni and --vocabulary\n", flush=True)
                continue
            flags += [f"--folder={args.sni}", f"--vocabulary={args.vocabulary}"]
        print(f"{datetime.datetime.now():%H:%M:%S} {name}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *flags], capture_output=True, text=True
        )
        print(done.stdout, flush=True)
        with page.open("a") as text:
            text.write(done.stdout)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-2000:], file=sys.stderr)
    print(f"written to {page} and {folder / 'figures.jsonl'}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
