"""`poly-jax eval`."""

import argparse

from poly_jax.cli.command import Command, add_unknown_flags, given, path
from poly_jax.configuration import Configuration


class Eval(Command):
    """Evaluate a run with the tasks' own metrics."""

    name = "eval"
    help = "evaluate a run on its own tasks or on those of another mixture; prints a table and writes JSON"
    example = "poly-jax eval --run=runs/mine --split=test"
    hosts = "together"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run", required=True, type=path, metavar="DIR", help="output folder of a run, or a step in it"
        )
        parser.add_argument("--mixture", help="seqio mixture or task (default: the run's own)")
        parser.add_argument("--split", help="split of the tasks, such as validation (default: test)")
        parser.add_argument(
            "--zero_shot",
            action="store_true",
            default=None,
            help="use the average of the skills, also for tasks that the run does not know",
        )
        parser.add_argument(
            "--output_dir",
            type=path,
            metavar="DIR",
            help="folder for the results (default: a folder inside the run)",
        )
        add_unknown_flags(parser)

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Evaluate the run."""
        loaded = config.load(run=args.run)
        loaded.check_read("evaluate")
        from poly_jax.evaluation.evaluate import evaluate
        from poly_jax.training.recorded_mesh import arguments_here

        flags = given(args, "run", "mixture", "split", "zero_shot", "output_dir", "unknown", "descriptions")
        evaluate(**arguments_here(loaded, "evaluate", **flags))


COMMAND = Eval()
