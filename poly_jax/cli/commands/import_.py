"""`poly-jax import`."""

import argparse
import sys

from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration
from poly_jax.counted import counted


class Import(Command):
    """Import checkpoints of other systems."""

    name = "import"
    help = "import a T5X or Hugging Face backbone, or adapters of PEFT or the reference implementation"
    example = (
        "poly-jax import --from=t5-v1_1-small --output=t5-v1_1-small.safetensors\n"
        "  poly-jax import --from=peft_adapter --backbone=t5-v1_1-small.safetensors --output=runs/peft\n"
        "  poly-jax import --from loras/* --backbone=t5-v1_1-small.safetensors --output=runs/inventory"
    )
    hosts = "first"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--from",
            dest="source",
            required=True,
            nargs="+",
            action="extend",
            type=path,
            metavar="PATH",
            help="a T5X checkpoint (legacy or Orbax, local or gs://), with or without adapters; a Hugging "
            "Face folder or hub id; a PEFT folder (LoRA, (IA)^3, Poly); or a file with the reference "
            "implementation's tensors. Several adapters, or runs, become the skills of one run",
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
            help="names of the adapters' tasks in the order of their ids, or of the skills of several "
            "adapters: JSON, or one name per line (default for several: the last parts of their paths)",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Import the checkpoints."""
        from poly_jax.interop.adapters import holds_adapters
        from poly_jax.interop.import_backbone import download, is_hub_id
        from poly_jax.interop.skill_source import is_run, usual_name
        from poly_jax.interop.t5x.import_run import has_adapters, import_t5x_run
        from poly_jax.weights.tree import listing

        sources = [str(download(place)) if is_hub_id(place) else place for place in args.source]
        # t5x also writes a config.gin, so that a folder of its run looks like one of a run from here.
        of_t5x = len(sources) == 1 and has_adapters(sources[0])
        if len(sources) > 1 or (is_run(sources[0]) and not of_t5x):
            from poly_jax.interop.import_inventory import import_inventory

            names = [usual_name(place) for place in args.source]
            table = import_inventory(sources, args.output, config, args.backbone, args.tasks, names)
            print(f"{args.output}: a run of {counted(len(table), 'skill')}, {listing(table.names)}")
            return
        source = sources[0]
        if of_t5x or holds_adapters(source):
            from poly_jax.interop.import_adapters import import_adapters

            bring_in = import_t5x_run if of_t5x else import_adapters
            table = bring_in(source, args.output, config, args.backbone, args.tasks)
            print(f"{args.output}: a run of {counted(len(table), 'task')}, {listing(table.names)}")
            return
        loaded = config.load()
        loaded.check_read("T5Config")
        from poly_jax.interop.import_backbone import import_backbone

        gin_file = import_backbone(source, args.output, args.dtype, loaded.bound("T5Config"))
        print(gin_file.read_text(), end="")
        print(f"written to {gin_file}", file=sys.stderr)


COMMAND = Import()
