"""Prints the tables of docs/planning.md: T5-XL and T5-XXL with MHR on slices of each generation of TPUs.

    python benchmarks/plans.py [--models XL] [--slices v5e:4x4 v4:2x2x2] > plans.md

It needs libtpu (extra `plan`) and 2 to 6 minutes of one CPU for each row.
"""

import argparse
import subprocess
import sys

_RECIPE = (
    "--gin_file=recipes/t0/pretrain.gin",
    "--tasks=313",
    "--gin.Data.packing='none'",
    "--gin.Data.inputs_length=256",
    "--gin.Data.targets_length=64",
    "--gin.T5Config.remat='full'",
)
MODELS = {
    "XL": (),
    "XXL": ("--gin_file=models/t5_1_1_xxl.gin",),
}
_ROWS_PER_DEVICE = 8
SLICES = {"v4:2x2x2": 8, "v5e:4x4": 16, "v5p:2x2x2": 8, "v6e:4x4": 16, "v7x:2x2x1": 8}
"""The number of JAX devices of each slice, over which the parameters are sharded."""


def _mesh(name: str) -> tuple[str, ...]:
    """The flags that shard the parameters over all devices of a slice."""
    devices = SLICES[name]
    return f"--gin.Partitioning.fsdp={devices}", f"--gin.Data.batch_size={_ROWS_PER_DEVICE * devices}"


def arguments(description: str | None, slices: list[str]) -> argparse.ArgumentParser:
    """A parser of models and slices."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--slices", nargs="+", choices=SLICES, default=slices)
    return parser


def planned(model: str, name: str, form: str, *flags: str) -> str:
    """What `poly-jax plan` prints for a slice; a process of its own, as each compiles for one machine."""
    command = [sys.executable, "-m", "poly_jax.cli", "plan", f"--topology={name}", f"--format={form}"]
    words = [*command, *_RECIPE, *MODELS[model], *_mesh(name), *flags]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    """Print each row as soon as it is known."""
    args = arguments(__doc__, list(SLICES)).parse_args()
    for model in args.models:
        for name in args.slices:
            head, line, row = planned(model, name, "markdown").splitlines()
            if (model, name) == (args.models[0], args.slices[0]):
                print(f"| model {head}", f"| --- {line}", sep="\n")
            print(f"| {model} {row}", flush=True)


if __name__ == "__main__":
    main()
