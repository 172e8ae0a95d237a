"""`poly-jax routing`."""

import argparse

from poly_jax.cli.command import Command, given, path, positive
from poly_jax.configuration import Configuration


class Routing(Command):
    """Show what a router learned."""

    name = "routing"
    help = "show what a run's router learned, as an HTML page with pictures and as JSON"
    example = "poly-jax routing --run=runs/mine --reference=groups.json --gradients=32 --output_dir=routing"
    hosts = "first"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run", required=True, type=path, metavar="DIR", help="output folder of a run, or a step in it"
        )
        parser.add_argument(
            "--output_dir",
            required=True,
            type=path,
            metavar="DIR",
            help="folder for the page, the pictures and the JSON",
        )
        parser.add_argument(
            "--reference",
            type=path,
            metavar="FILE",
            help="known groups of the tasks to compare with: .json with an object from each task's name to "
            "its group or list of groups, or .csv with a header and on each line a task and its groups",
        )
        parser.add_argument(
            "--gradients",
            type=positive,
            metavar="N",
            help="also compare the gradients of tasks, on N examples of each; needs the run's backbone and "
            "data",
        )
        parser.add_argument(
            "--examples",
            type=positive,
            metavar="N",
            help="for a router that looks at inputs: examples of each task on which its mixes are measured "
            "(default: 64); needs the run's backbone and data",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Analyse the router of the run."""
        loaded = config.load(run=args.run)
        loaded.check_read("Experiment", "AdaptedFrom")
        from poly_jax.analysis.analyse import analyse_routing
        from poly_jax.transfer.adapted_from import AdaptedFrom

        analyse_routing(
            run=args.run,
            output_dir=args.output_dir,
            experiment=loaded.experiment(),
            adapted=loaded.make(AdaptedFrom) if loaded.bound("AdaptedFrom") else None,
            **given(args, "reference", "gradients", "examples"),
        )


COMMAND = Routing()
