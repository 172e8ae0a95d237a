"""`poly-jax demo`."""

import argparse

from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration


class Demo(Command):
    """Show the methods in a few minutes, without any data."""

    name = "demo"
    help = "train, adapt and compare MHR, Poly and a shared LoRA on the embedded benchmark"
    example = "poly-jax demo"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--output_dir",
            default="runs/demo",
            type=path,
            metavar="DIR",
            help="folder for the runs and results (default: %(default)s)",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Run the demonstration."""
        from poly_jax.study.demonstration import demo

        demo(output_dir=args.output_dir, bindings=config.bindings)


COMMAND = Demo()
