"""`poly-jax sweep`."""

import argparse
import dataclasses

from poly_jax.cli.command import Command, given, path
from poly_jax.configuration import Configuration
from poly_jax.errors import UserError


class Sweep(Command):
    """Adapt every method to every task with every seed."""

    name = "sweep"
    help = "compare methods on tasks and seeds in a table and a picture; resumes when run again"
    example = (
        "poly-jax sweep --methods runs/mhr:mhr runs/mhr:mhr-z lora=runs/shared:shared --tasks task_a task_b "
        "--output_dir=runs/sweep"
    )
    hosts = "together"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--methods",
            nargs="+",
            metavar="RUN:VARIANT",
            help="methods: a run's folder and a variant of `poly-jax adapt`; NAME=RUN:VARIANT names the row",
        )
        parser.add_argument(
            "--tasks", nargs="+", metavar="TASK", help='seqio tasks; "{seed}" in a name stands for the seed'
        )
        parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds (default: 0 1 2)")
        parser.add_argument("--split", help="split that is scored (default: test)")
        parser.add_argument(
            "--output_dir", required=True, type=path, metavar="DIR", help="folder for the results"
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Run the sweep."""
        loaded = config.load()
        from poly_jax.sweep.method import Method
        from poly_jax.sweep.run_sweep import sweep

        flags = given(args, "output_dir", "tasks", "seeds", "split")
        if args.methods is not None:
            if bound := loaded.bound("Method"):
                raise UserError(
                    f"Method.{next(iter(bound))} is bound, and --methods says the run and the variant of each"
                    " row alone; bind the setting of adapt (such as adapt.steps) for all rows, or"
                    " sweep.methods in a gin file in place of --methods"
                )
            methods = [Method.parse(text) for text in args.methods]
            flags["methods"] = [dataclasses.replace(method, run=path(method.run)) for method in methods]
        sweep(**loaded.arguments("sweep", configuration=config, **flags))


COMMAND = Sweep()
