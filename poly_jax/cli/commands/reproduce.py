"""`poly-jax reproduce`."""

import argparse

from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration


class Reproduce(Command):
    """Rerun the experiments that the documentation reports."""

    name = "reproduce"
    help = "rerun a study that the documentation reports: of methods, of heads, or of tasks without examples"
    example = "poly-jax reproduce --seeds 0 1 2 3 4"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "study",
            nargs="?",
            choices=("methods", "heads", "zero-shot"),
            default="methods",
            help="methods: docs/embedded_benchmark.md (the default); heads: docs/heads.md; "
            "zero-shot: docs/zero_shot.md",
        )
        parser.add_argument(
            "--output_dir",
            type=path,
            metavar="DIR",
            help="folder for the runs and results (default: runs/reproduce, runs/heads or runs/zero_shot)",
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
        """Rerun the study."""
        from poly_jax.study.heads import reproduce_heads
        from poly_jax.study.reproduction import reproduce
        from poly_jax.study.zero_shot import reproduce_zero_shot

        study, folder = {
            "methods": (reproduce, "runs/reproduce"),
            "heads": (reproduce_heads, "runs/heads"),
            "zero-shot": (reproduce_zero_shot, "runs/zero_shot"),
        }[args.study]
        study(output_dir=args.output_dir or folder, seeds=tuple(args.seeds), bindings=config.bindings)


COMMAND = Reproduce()
