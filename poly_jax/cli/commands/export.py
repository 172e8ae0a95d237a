"""`poly-jax export`."""

import argparse
import pathlib
from typing import TYPE_CHECKING

from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration, Loaded
from poly_jax.errors import UserError
from poly_jax.interop.formats import FORMATS

if TYPE_CHECKING:
    from poly_jax.data.tokenizer import Tokenizer

_SENTENCEPIECE = "vocabularies.sentencepiece"


class Export(Command):
    """Export a run or a backbone to the formats of other systems."""

    name = "export"
    help = "write a run or a backbone for T5X, transformers or PEFT, or as a backbone for new runs"
    example = (
        "poly-jax export --run=runs/mine --task=my_task --format=hugging_face --output=my_task\n"
        "  poly-jax export --run=runs/backbone --output=backbone.safetensors"
    )
    hosts = "first"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--run", type=path, metavar="DIR", help="output folder of a run, or a step in it")
        source.add_argument(
            "--backbone", type=path, metavar="PATH", help="a checkpoint of a T5 to convert, instead of a run"
        )
        parser.add_argument(
            "--output",
            required=True,
            type=path,
            metavar="PATH",
            help="a new folder, or for --format=backbone a .safetensors file or a new folder",
        )
        parser.add_argument(
            "--format",
            choices=FORMATS,
            default="backbone",
            help="backbone (default; for Experiment.backbone), t5x and hugging_face write a T5 without "
            "adapters; t5x_adapters writes the T5 with all skills and routers, for t5x's own programs; "
            "peft_poly writes all skills and routers as a PEFT folder, and peft_lora the mix of one task",
        )
        parser.add_argument(
            "--task", help="task of the run whose mix is merged into the T5 or written by peft_lora"
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Export the run or the backbone."""
        if args.backbone is not None:
            if args.task is not None:
                raise UserError(
                    f"--task={args.task} cannot be used with --backbone, which has no adapters; give a --run"
                )
            loaded = config.load()
            loaded.check_read("T5Config", _SENTENCEPIECE)
            from poly_jax.interop.export import export_backbone

            settings, tokenizer = loaded.bound("T5Config"), _tokenizer(loaded)
            export_backbone(args.backbone, args.output, args.format, settings, tokenizer)
            return
        loaded = config.load(run=args.run)
        loaded.check_read("Experiment", _SENTENCEPIECE)
        from poly_jax.interop.export import export_run

        # The run's configuration defines its Experiment, whichever program it was bound for.
        experiment, tokenizer = loaded.experiment(), _tokenizer(loaded)
        export_run(args.run, args.output, args.format, experiment, args.task, tokenizer)


def _tokenizer(loaded: Loaded) -> "Tokenizer | None":
    """Return the SentencePiece model that a configuration binds, or None."""
    from poly_jax.data.tokenizer import Tokenizer

    bound = loaded.bound(_SENTENCEPIECE)
    path = bound.get("path")
    if not path:
        return None
    return Tokenizer(pathlib.Path(path), bound.get("extra_ids", 100), bound.get("added_tokens") or {})


COMMAND = Export()
