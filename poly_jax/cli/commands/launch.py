"""`poly-jax launch`."""

import argparse
import sys
from typing import Any

from poly_jax.cli.command import Command, given, path, positive
from poly_jax.cli.training_arguments import training_arguments
from poly_jax.configuration import Configuration
from poly_jax.errors import UserError
from poly_jax.launch.choices import ACTIONS, PLACES

_TEXTS = {
    "name": ("NAME", "name of the job, of at most 28 lower-case letters, digits and hyphens"),
    "slice": ("KIND:TOPOLOGY", "the accelerators, such as v5e:4x4, v5p:2x2x2 or h100:2x8 (hosts x GPUs)"),
    "image": ("IMAGE", "container image with poly-jax and your own files in it"),
    "bucket": ("URL", "the job's folder becomes URL/NAME, unless the command has an --output_dir"),
    "project": ("PROJECT", "Google Cloud project"),
    "location": ("ZONE", "zone, or region of a regional cluster"),
    "cluster": ("CLUSTER", "name of the GKE cluster"),
    "queue": ("QUEUE", "local queue of Kueue, or partition of Slurm"),
    "service_account": ("ACCOUNT", "identity of the job"),
}


class Launch(Command):
    """Start a job on rented accelerators, or ask about one."""

    name = "launch"
    help = (
        "start a run on rented accelerators or in several local processes; show its state and logs; stop it"
    )
    example = (
        "poly-jax launch --target=jobset --name=mhr --slice=v5e:4x4 --image=IMAGE --bucket=gs://BUCKET/runs"
        " --dry_run -- train --gin_file=my.gin"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""
        parser.add_argument("--target", required=True, choices=PLACES, help="where the job runs")
        parser.add_argument(
            "--action", default="submit", choices=ACTIONS, help="what to do (default: submit)"
        )
        parser.add_argument(
            "--dry_run",
            action="store_true",
            help="print what would be done, as a shell script, and do nothing",
        )
        parser.add_argument(
            "--job", type=path, metavar="FILE", help="a YAML file with any of the flags below, and `command`"
        )
        for name, (metavar, text) in _TEXTS.items():
            parser.add_argument(f"--{name}", metavar=metavar, help=text)
        parser.add_argument("--slices", type=positive, metavar="N", help="number of slices (default: 1)")
        parser.add_argument(
            "--spot",
            action="store_const",
            const=True,
            help="rent capacity that may be taken back at any time",
        )
        parser.add_argument(
            "--env",
            action="append",
            metavar="NAME=VALUE",
            help="environment variable; may be given several times",
        )
        parser.add_argument(
            "--secret",
            action="append",
            metavar="NAME=REFERENCE",
            help="environment variable whose value the target looks up, such as HF_TOKEN=SECRET/KEY",
        )
        parser.add_argument("--max_restarts", type=int, metavar="N", help="number of restarts (default: 10)")
        parser.add_argument(
            "--processes",
            type=positive,
            default=1,
            metavar="N",
            help="processes of --target=local (default: 1)",
        )
        parser.add_argument(
            "command_line",
            nargs="*",
            metavar="-- COMMAND",
            help="what the job runs: the words after poly-jax, such as `-- train --gin_file=my.gin`",
        )

    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Start the job, or ask about it."""
        if config.gin_files or config.bindings:
            raise UserError("--gin_file and --gin. belong to the job's command; write them after `--`")
        from poly_jax.launch.job import read_job
        from poly_jax.launch.launching import launch

        job = read_job(args.job, _fields(args))
        if args.action == "submit":
            _check_command(job)
        code = launch(job, args.target, args.action, args.dry_run, args.processes)
        if code:
            sys.exit(code)


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the job's fields that the flags set."""
    fields = given(args, *_TEXTS, "slices", "spot", "max_restarts")
    for field, flag in (("env", "env"), ("secrets", "secret")):
        if getattr(args, flag):
            fields[field] = dict(_pair(flag, text) for text in getattr(args, flag))
    if args.command_line:
        fields["command"] = tuple(args.command_line)
    return fields


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        # The text may be a secret's value, so it is not shown.
        raise UserError(
            f"a --{flag} has no `=`; write --{flag}=NAME={'VALUE' if flag == 'env' else 'REFERENCE'}"
        )
    return name, value


def _check_command(job: Any) -> None:
    """Check the job's command as it would be checked on the rented machine, where a mistake costs money."""
    from poly_jax.cli.arguments import parse
    from poly_jax.launch.mesh_check import check_mesh, check_rows

    command, args, config = parse(job.words[1:])
    if command.name == Launch.name:
        raise UserError("a job cannot launch jobs; write a command such as `-- train --gin_file=my.gin`")
    if command.name != "train":
        return
    loaded = config.load()
    settings = {**loaded.defaults("train"), **training_arguments(loaded, args.output_dir)}
    if job.slice is None:
        return
    slices = job.slice.name if job.slices == 1 else f"{job.slices} slices {job.slice.name}"
    experiment = settings["experiment"]
    batch_size, microbatches = experiment.data.batch_size, settings["microbatches"]
    partitioning, devices = settings["partitioning"], job.slices * job.slice.devices
    check_mesh(partitioning, experiment.model, job.slice.devices, job.slice.name)
    check_rows("Data.batch_size", batch_size, partitioning, devices, slices, microbatches)


COMMAND = Launch()
