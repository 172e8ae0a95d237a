"""`poly-jax plan`."""

import argparse
from typing import Any

from poly_jax.cli.command import Command, path, positive
from poly_jax.cli.training_arguments import training_arguments
from poly_jax.configuration import Configuration
from poly_jax.planning.formats import FORMATS

_PROGRAMS: dict[str, Any] = {"train": ("train",), "decode": ("decode",), "both": ("train", "decode")}


class Plan(Command):
    """Say what a run takes on a slice of TPUs, without the slice."""

    name = "plan"
    help = "say whether a run fits on a slice of TPUs, what it computes and sends, and how long it takes"
    example = (
        "poly-jax plan --topology=v5e:4x4 --gin_file=recipes/t0/pretrain.gin --tasks=313"
        " --gin.Partitioning.fsdp=16 --gin.Data.batch_size=64"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument(
            "--topology",
            required=True,
            metavar="KIND:TOPOLOGY",
            help="the slice, such as v5e:16x16 or v5p:2x2x2; nothing is rented",
        )
        parser.add_argument(
            "--slices", type=positive, default=1, metavar="N", help="number of slices (default: 1)"
        )
        parser.add_argument(
            "--tasks",
            type=positive,
            metavar="N",
            help="number of tasks, instead of the mixture's own: no data is needed, and what a gin file"
            " requires to be bound may be left out",
        )
        parser.add_argument(
            "--program",
            choices=tuple(_PROGRAMS),
            default="train",
            help="the training step, the prediction of a batch in evaluation, or both (default: train)",
        )
        parser.add_argument(
            "--simulate",
            action="store_true",
            help="compile for as many CPU devices instead, without libtpu",
        )
        parser.add_argument(
            "--search",
            action="store_true",
            help="also find the largest batch that each program can have, and compile the suggested mesh: up"
            " to ten times as long",
        )
        parser.add_argument(
            "--share_of_peak",
            type=float,
            default=0.4,
            metavar="X",
            help="share of a chip's peak that matrix products are assumed to reach (default: 0.4)",
        )
        parser.add_argument(
            "--format",
            choices=FORMATS,
            default="text",
            help="form of the output (default: text)",
        )
        parser.add_argument("--html", type=path, metavar="FILE", help="also write the plan as a page")

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Plan the run."""
        from poly_jax.launch.slices import parse_slice
        from poly_jax.planning.environment import prepare_environment

        devices = parse_slice(args.topology).devices * args.slices
        prepare_environment(devices if args.simulate else 0)
        loaded = config.load(unset_is_empty=args.tasks is not None)
        arguments = training_arguments(loaded, output_dir="")
        from poly_jax.planning.abstract_run import AbstractRun
        from poly_jax.planning.plan import Accelerators
        from poly_jax.planning.planning import plan

        plan(
            AbstractRun.of(arguments),
            Accelerators.named(args.topology, args.slices, args.simulate),
            args.tasks,
            _PROGRAMS[args.program],
            loaded.bound("evaluate").get("batch_size", 32),
            args.share_of_peak,
            args.search,
            args.format,
            args.html,
        )


COMMAND = Plan()
