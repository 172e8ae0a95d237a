"""`poly-jax status`."""

import argparse

from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration


class Status(Command):
    """Show how far a run is, what of it is intact, and where its time went."""

    name = "status"
    help = "show a run's step, speed, intact checkpoints, and where its time went; or what a sweep has done"
    example = "poly-jax status runs/mine"
    hosts = "first"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "run", type=path, metavar="RUN", help="output folder of `train`, `adapt` or `sweep`"
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Show the status of the run or sweep."""
        from poly_jax.inspection.show_status import show_status

        show_status(args.run)


COMMAND = Status()
