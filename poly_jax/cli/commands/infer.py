"""`poly-jax infer`."""

import argparse

from poly_jax.cli.command import Command, given, path
from poly_jax.configuration import Configuration


class Infer(Command):
    """Predictions for texts that are no data set."""

    name = "infer"
    help = "predict for lines or JSONL as one task of a run"
    example = "poly-jax infer --run=runs/mine --task=my_task --input=questions.txt --output=answers.txt"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run", required=True, type=path, metavar="DIR", help="output folder of a run, or a step in it"
        )
        parser.add_argument("--task", required=True, help="task of the run whose skills are used")
        parser.add_argument(
            "--input",
            default="-",
            type=path,
            metavar="FILE",
            help="a text per line, or .jsonl; - is standard input (default)",
        )
        parser.add_argument(
            "--output",
            default="-",
            type=path,
            metavar="FILE",
            help="predictions; - is standard output (default)",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Predict."""
        loaded = config.load(run=args.run)
        from poly_jax.evaluation.infer import infer

        infer(**loaded.arguments("infer", **given(args, "run", "task", "input", "output")))


COMMAND = Infer()
