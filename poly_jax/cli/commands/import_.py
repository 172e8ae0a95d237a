"""`poly-jax import`."""

import argparse
import sys

from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration


class Import(Command):
    """Import checkpoints of other systems."""

    name = "import"
    help = "import a T5X or Hugging Face backbone, or adapters of PEFT or the reference implementation"
    example = (
        "poly-jax import --from=t5-v1_1-small --output=t5-v1_1-small.safetensors\n"
        "  poly-jax import --from=peft_adapter --backbone=t5-v1_1-small.safetensors --output=runs/peft"
    )
    hosts = "first"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--from",
            dest="source",
            required=True,
            type=path,
            metavar="PATH",
            help="a T5X checkpoint (legacy or Orbax, local or gs://), with or without adapters; a Hugging "
            "Face folder or hub id; a PEFT folder (LoRA, (IA)^3, Poly); or a file with the reference "
            "implementation's tensors",
        )
        parser.add_argument(
            "--output",
            required=True,
            type=path,
            metavar="PATH",
            help="for a backbone, a .safetensors file or a new folder, with shards where the backbone is "
            "large; for adapters, the folder of the new run",
        )
        parser.add_argument(
            "--dtype",
            choices=("float32", "bfloat16", "int8"),
            help="precision of an imported backbone (default: as stored); int8 makes the kernels integers",
        )
        parser.add_argument(
            "--backbone",
            type=path,
            metavar="PATH",
            help="the T5 that the adapters were trained on (default: the local folder that PEFT names)",
        )
        parser.add_argument(
            "--tasks",
            type=path,
            metavar="FILE",
            help="names of the adapters' tasks in the order of their ids: JSON, or one name per line",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Import."""
        from poly_jax.interop.adapters import holds_adapters
        from poly_jax.interop.import_backbone import download, is_hub_id
        from poly_jax.interop.t5x.import_run import has_adapters, import_t5x_run

        source = str(download(args.source)) if is_hub_id(args.source) else args.source
        of_t5x = has_adapters(source)
        if of_t5x or holds_adapters(source):
            from poly_jax.interop.import_adapters import import_adapters
            from poly_jax.weights.tree import listing

            bring_in = import_t5x_run if of_t5x else import_adapters
            table = bring_in(source, args.output, config, args.backbone, args.tasks)
            names = listing(table.names)
            print(f"{args.output}: a run of {len(table)} task(s), {names}")
            return
        loaded = config.load()
        from poly_jax.interop.import_backbone import import_backbone

        gin_file = import_backbone(source, args.output, args.dtype, loaded.bound("T5Config"))
        print(gin_file.read_text(), end="")
        print(f"written to {gin_file}", file=sys.stderr)


COMMAND = Import()
