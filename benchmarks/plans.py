"""Prints the tables of docs/planning.md: T5-XL and T5-XXL with MHR on slices of each generation of TPUs.

    python benchmarks/plans.py [--models XL] [--slices v5e:4x4 v4:2x2x2] > plans.md

It needs libtpu (extra `plan`) and 3 to 10 minutes of one CPU for each row.
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
_MODELS = {
    "XL": (),
    "XXL": ("--gin_file=models/t5_1_1_xxl.gin",),
}
_ROWS_PER_DEVICE = 8
_SLICES = {"v4:2x2x2": 8, "v5e:4x4": 16, "v5p:2x2x2": 8, "v6e:4x4": 16, "v7x:2x2x1": 8}
"""The number of JAX devices of each slice, over which the parameters are sharded."""


def main() -> None:
    """Plan each slice in a process of its own, because a process compiles for one machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=_MODELS, default=list(_MODELS))
    parser.add_argument("--slices", nargs="+", choices=_SLICES, default=list(_SLICES))
    args = parser.parse_args()
    for model in args.models:
        for name in args.slices:
            devices = _SLICES[name]
            mesh = (
                f"--gin.Partitioning.fsdp={devices}",
                f"--gin.Data.batch_size={_ROWS_PER_DEVICE * devices}",
            )
            command = [
                sys.executable,
                "-m",
                "poly_jax.cli",
                "plan",
                f"--topology={name}",
                "--format=markdown",
            ]
            done = subprocess.run(
                [*command, *_RECIPE, *_MODELS[model], *mesh], stdout=subprocess.PIPE, text=True, check=True
            )
            head, line, row = done.stdout.splitlines()
            if (model, name) == (args.models[0], args.slices[0]):
                print(f"| model {head}", f"| --- {line}", sep="\n")
            print(f"| {model} {row}", flush=True)


if __name__ == "__main__":
    main()
