"""`poly-jax cluster`."""

import argparse

from poly_jax.cli.command import Command, given, path, positive
from poly_jax.configuration import Configuration


class Cluster(Command):
    """Cluster tasks by the skill that each of them has."""

    name = "cluster"
    help = "cluster the tasks of a run by the skill of each, as a table for one skill per cluster"
    example = "poly-jax cluster --run=runs/private --clusters=8 --output=clusters.json"
    hosts = "first"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run",
            required=True,
            type=path,
            metavar="DIR",
            help="output folder of a run with a skill for each task, or a step in it",
        )
        parser.add_argument(
            "--clusters", required=True, type=positive, metavar="N", help="number of clusters"
        )
        parser.add_argument(
            "--output",
            required=True,
            type=path,
            metavar="FILE",
            help="table of tasks by skills that TableRouter.path takes (.json)",
        )
        parser.add_argument("--seed", type=int, metavar="S", help="seed of k-means (default: 0)")

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Cluster the tasks of the run."""
        loaded = config.load(run=args.run)
        loaded.check_read("Experiment")
        from poly_jax.analysis.cluster_tasks import cluster_tasks

        cluster_tasks(
            run=args.run,
            output=args.output,
            experiment=loaded.experiment(),
            clusters=args.clusters,
            **given(args, "seed"),
        )


COMMAND = Cluster()
