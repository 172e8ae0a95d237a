"""`poly-jax infer`."""

import argparse

from poly_jax.cli.command import Command, add_unknown_flags, given, path
from poly_jax.configuration import Configuration


class Infer(Command):
    """Predict outputs for texts from a file or standard input."""

    name = "infer"
    help = "predict the outputs of one task of a run for the texts in a file"
    example = "poly-jax infer --run=runs/mine --task=my_task --input=questions.txt --output=answers.txt"
    hosts = "together"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run", required=True, type=path, metavar="DIR", help="output folder of a run, or a step in it"
        )
        parser.add_argument(
            "--task", required=True, help="task of the run whose skills are used; any name with --unknown"
        )
        parser.add_argument(
            "--input",
            default="-",
            type=path,
            metavar="FILE",
            help="one text per line, or .jsonl with a field `inputs` or `input`; "
            "- is standard input (default)",
        )
        parser.add_argument(
            "--output",
            default="-",
            type=path,
            metavar="FILE",
            help="one prediction per line, or .jsonl with the input's fields, `prediction` and `score`; "
            "- is standard output (default)",
        )
        add_unknown_flags(parser)

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Predict outputs for the texts."""
        loaded = config.load(run=args.run)
        loaded.check_read("infer")
        from poly_jax.evaluation.infer import infer
        from poly_jax.training.recorded_mesh import arguments_here

        flags = given(args, "run", "task", "input", "output", "unknown", "descriptions")
        infer(**arguments_here(loaded, "infer", **flags))


COMMAND = Infer()
