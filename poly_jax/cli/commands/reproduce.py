"""`poly-jax reproduce`."""

import argparse

from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration


class Reproduce(Command):
    """Rerun the experiments that the documentation reports."""

    name = "reproduce"
    help = "rerun the comparison of methods that docs/embedded_benchmark.md reports"
    example = "poly-jax reproduce --seeds 0 1 2 3 4"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--output_dir",
            default="runs/reproduce",
            type=path,
            metavar="DIR",
            help="folder for the runs and results (default: %(default)s)",
        )
        parser.add_argument(
            "--seeds",
            type=int,
            nargs="+",
            default=[0, 1, 2, 3, 4],
            metavar="N",
            help="the seeds (default: 0 1 2 3 4)",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Rerun the comparison."""
        from poly_jax.study.reproduction import reproduce

        reproduce(output_dir=args.output_dir, seeds=tuple(args.seeds), bindings=config.bindings)


COMMAND = Reproduce()
