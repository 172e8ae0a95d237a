"""`poly-jax data`."""

import argparse

from poly_jax.cli.command import Command, given, path, positive
from poly_jax.configurables import OF_A_RUN
from poly_jax.configuration import Configuration


class ShowData(Command):
    """Show what the model sees of its data."""

    name = "data"
    help = "show what the model sees: rates of a mixture, examples, tokens, lengths, and the fill of rows"
    example = (
        "poly-jax data --gin_file=my_run.gin\n"
        "  poly-jax data --run=runs/mine --task=my_task --split=test --examples=3"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run", type=path, metavar="DIR", help="a run whose configuration is read before the gin files"
        )
        parser.add_argument("--mixture", help="seqio mixture or task (default: Data.mixture)")
        parser.add_argument("--split", help="split of the tasks (default: Data.split)")
        parser.add_argument("--task", help="task of the mixture, of which alone the examples are shown")
        parser.add_argument(
            "--examples", type=positive, metavar="N", help="examples that are shown of each task (default: 1)"
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Show the data of the configuration."""
        loaded = config.load(run=args.run)
        # The flags of the run that trains on the data may be given as they are.
        loaded.check_read("Data", *OF_A_RUN)
        from poly_jax.inspection.show_data import show_data

        data = loaded.make("Data", **given(args, "mixture", "split"))
        seed = {name: value for name, value in loaded.bound("train").items() if name == "seed"}
        show_data(data, **seed, **given(args, "task", "examples"))


COMMAND = ShowData()
