"""`poly-jax adapt`."""

import argparse

from poly_jax.cli.command import Command, given, path, positive
from poly_jax.configuration import Configuration
from poly_jax.transfer.variants import VARIANTS


class Adapt(Command):
    """Adapt a run to a new task from a few examples."""

    name = "adapt"
    help = "adapt a training run to a new task from a few examples"
    example = "poly-jax adapt --run=runs/mine --task=my_task --variant=mhr-z --output_dir=runs/my_task"
    hosts = "together"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run",
            required=True,
            type=path,
            metavar="DIR",
            help="output folder of a training run, or a step in it",
        )
        parser.add_argument("--task", required=True, help="seqio task or mixture to adapt to")
        parser.add_argument(
            "--output_dir", required=True, type=path, metavar="DIR", help="folder of the adapted run"
        )
        parser.add_argument(
            "--variant",
            choices=tuple(VARIANTS),
            help="what is trained: the skills and a fresh router row (mhr, poly), the router row only (-z), "
            "the average of the skills as one adapter (-mu), a shared run's adapter (shared), the average of "
            "a private run's adapters (soup) or of the best (soup-selected), fresh skills and row (random), "
            "a fresh adapter (private), everything (full); without training, the average of the skills "
            "(zero-shot), a mix that a search finds (lorahub), the skills routed by their input, with the "
            "run's own router (routed) or prototypes (arrow), or a merge (task-arithmetic, ties, "
            "dare-linear, dare-ties, magnitude-prune), which is trained with -trained after its name; "
            "gates for a router of inputs (phatgoose). Default: adapt.variant, or where it is not bound mhr, "
            "poly, shared, soup, routed or full, whichever fits the run",
        )
        parser.add_argument(
            "--init_router_from",
            action="append",
            metavar="TASK",
            help="a task of the run whose router row the new row starts from; if given several times, the "
            "rows are averaged",
        )
        parser.add_argument(
            "--shots",
            type=positive,
            metavar="N",
            help="train on the first N examples of the split, for each task of a mixture (default: all)",
        )
        parser.add_argument(
            "--seed",
            type=int,
            metavar="N",
            help="seed of the fresh parameters, the batches, dropout and sampling (default: 0)",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Adapt."""
        loaded = config.load(run=args.run)
        from poly_jax.training.recorded_mesh import arguments_here
        from poly_jax.transfer.adapt import adapt
        from poly_jax.transfer.settings import configured
        from poly_jax.transfer.variants import find

        flags = given(args, "run", "output_dir", "task", "variant", "shots", "seed", "init_router_from")
        arguments = arguments_here(loaded, "adapt", **flags)
        if arguments.get("variant") is not None:
            arguments["variant"] = configured(find(arguments["variant"]), loaded)
        adapt(**arguments)


COMMAND = Adapt()
