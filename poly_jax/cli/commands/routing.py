"""`poly-jax routing`."""

import argparse

from poly_jax.cli.command import Command, given, positive
from poly_jax.configuration import Configuration


class Routing(Command):
    """What a router learned."""

    name = "routing"
    help = "analyse what a run's router learned: a page, its pictures, and JSON"
    example = "poly-jax routing --run=runs/mine --reference=groups.json --gradients=32 --output_dir=routing"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run", required=True, metavar="DIR", help="output folder of a run, or a step in it"
        )
        parser.add_argument("--output_dir", required=True, metavar="DIR", help="where the files go")
        parser.add_argument(
            "--reference",
            metavar="FILE",
            help="known groups of the tasks to compare with: .json with an object of each task's group or "
            "list of groups, or .csv with a header and lines of a task and its groups",
        )
        parser.add_argument(
            "--gradients",
            type=positive,
            metavar="N",
            help="also compare the gradients of tasks, on N examples of each; needs the run's backbone and "
            "data",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Analyse."""
        config.load(run=args.run)
        from poly_jax.analysis.analyse import analyse_routing
        from poly_jax.interop.run_experiment import run_experiment
        from poly_jax.transfer import adapted_from

        analyse_routing(
            run=args.run,
            output_dir=args.output_dir,
            experiment=run_experiment(),
            adapted=adapted_from.bound(),
            **given(args, "reference", "gradients"),
        )


COMMAND = Routing()
