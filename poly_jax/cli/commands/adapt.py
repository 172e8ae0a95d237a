"""`poly-jax adapt`."""

import argparse

from poly_jax.cli.command import Command, given, path, positive
from poly_jax.configuration import Configuration
from poly_jax.transfer.variants import VARIANTS

_TRAINED: dict[str, str] = {
    "adapters": "the skills and the new row of the router",
    "skills": "the skills",
    "router": "the router only",
    "all": "all parameters",
}


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
            metavar="NAME",
            help=f"the variant, which says what is trained: {_by_what_is_trained()}; docs/transfer.md says "
            "what each starts from, and a gin file may import a module with more. Default: adapt.variant, or "
            "where it is not bound mhr, poly, shared, soup, routed or full, whichever fits the run",
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
        """Adapt the run to the task."""
        loaded = config.load(run=args.run)
        from poly_jax.training.recorded_mesh import arguments_here
        from poly_jax.transfer.adapt import adapt
        from poly_jax.transfer.adapted_from import AdaptedFrom
        from poly_jax.transfer.settings import configured, configured_parts
        from poly_jax.transfer.variants import find

        flags = given(args, "run", "output_dir", "task", "variant", "shots", "seed", "init_router_from")
        arguments = arguments_here(loaded, "adapt", **flags)
        parts: list[type] = []
        if arguments.get("variant") is not None:
            arguments["variant"] = configured(find(arguments["variant"]), loaded)
            parts = configured_parts(arguments["variant"])
        # What reads an adapted run reads its configuration.
        loaded.check_read("adapt", "evaluate", "infer", AdaptedFrom, *parts)
        if loaded.bound("AdaptedFrom"):
            arguments["before"] = loaded.make(AdaptedFrom)
        adapt(**arguments)


def _by_what_is_trained() -> str:
    """List the variants that ship with poly_jax, grouped by what they train."""
    groups: dict[str, list[str]] = {}
    for name, variant in VARIANTS.items():
        groups.setdefault(_TRAINED[variant.trainable] if variant.trains else "nothing", []).append(name)
    return "; ".join(f"{trained} ({', '.join(names)})" for trained, names in groups.items())


COMMAND = Adapt()
