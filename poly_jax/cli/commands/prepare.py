"""`poly-jax prepare`."""

import argparse

from poly_jax.cli.command import Command, given, path, positive
from poly_jax.configurables import OF_A_RUN
from poly_jax.configuration import Configuration


class Prepare(Command):
    """Write the tasks of a mixture in the layout of seqio's offline cache."""

    name = "prepare"
    help = "turn the raw files of tasks into seqio's offline cache, with a report; resumes when run again"
    example = "poly-jax prepare --gin_file=my_run.gin --output_dir=cache --processes=8"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--output_dir", required=True, type=path, metavar="DIR", help="local folder for the cache"
        )
        parser.add_argument(
            "--mixture", nargs="+", metavar="NAME", help="seqio mixtures or tasks (default: Data.mixture)"
        )
        parser.add_argument(
            "--processes", type=positive, metavar="N", help="number of processes (default: one for each CPU)"
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Prepare the tasks of the mixtures."""
        loaded = config.load()
        # The flags of the run that will train on the cache may be given as they are.
        loaded.check_read("prepare", *OF_A_RUN)
        from poly_jax.prepare.prepare import prepare

        flags = given(args, "output_dir", "mixture", "processes")
        prepare(**loaded.arguments("prepare", configuration=config, **flags))


COMMAND = Prepare()
