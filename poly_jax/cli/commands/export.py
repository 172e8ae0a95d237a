"""`poly-jax export`."""

import argparse

from poly_jax.cli.command import Command
from poly_jax.configuration import Configuration


class Export(Command):
    """A trained backbone as one file."""

    name = "export"
    help = "write the backbone of a run that trained all parameters as one file"
    example = "poly-jax export --run=runs/backbone --output=backbone.safetensors"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--run", required=True, metavar="DIR", help="output folder of a run, or a step in it"
        )
        parser.add_argument(
            "--output",
            required=True,
            metavar="FILE",
            help="a .safetensors file, for Experiment.backbone",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Export."""
        config.load(run=args.run)
        import gin

        from poly_jax.interop.export import export_backbone

        # The run's configuration says what its Experiment is, whichever program it was bound for.
        export_backbone(run=args.run, output=args.output, experiment=gin.get_configurable("Experiment")())


COMMAND = Export()
