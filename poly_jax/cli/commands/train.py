"""`poly-jax train`."""

import argparse

from poly_jax.cli.command import Command, path
from poly_jax.cli.training_arguments import training_arguments
from poly_jax.configuration import Configuration


class Train(Command):
    """Pretrain a T5, train skills and routers on many tasks, or fine-tune a whole T5, as gin says."""

    name = "train"
    help = "train skills and routers, or a whole T5, as the gin files say; resumes when run again"
    example = "poly-jax train --gin_file=my_run.gin --output_dir=runs/mine --gin.T5Config.dropout_rate=0.1"
    hosts = "together"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--output_dir",
            required=True,
            type=path,
            metavar="DIR",
            help="folder for the checkpoints, the metrics and the configuration",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Train the configured run."""
        arguments = training_arguments(config.load(), args.output_dir)
        from poly_jax.training.train import train

        train(**arguments)


COMMAND = Train()
