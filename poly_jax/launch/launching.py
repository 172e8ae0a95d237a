"""The program `launch`: shows or carries out what a target does with a job."""

import shlex
import sys

from poly_jax.errors import UserError
from poly_jax.launch.choices import Action, Place
from poly_jax.launch.job import Job
from poly_jax.launch.local import Supervisor, process_variables
from poly_jax.launch.targets import TARGETS

LOCAL = "local"


def launch(
    job: Job, target: Place, action: Action = "submit", dry_run: bool = False, processes: int = 1
) -> int:
    """Start a job, or ask about one that was started.

    Args:
      job: the job; asking about it needs its name and its place only.
      target: place where the job runs.
      action: action to take.
      dry_run: print what would be done, as a shell script, and do nothing.
      processes: number of processes of the target "local".

    Returns:
      The job's exit code where it runs here, otherwise 0.

    Raises:
      UserError: the job cannot run there, a tool is missing, or a tool's command fails.
    """
    if target == LOCAL:
        return _launch_here(job, action, dry_run, processes)
    if processes != 1:
        raise UserError(
            f"--processes is for --target={LOCAL}; target {target} starts one process on every host"
        )
    place = TARGETS[target]
    place.check(job, action)
    steps = getattr(place, action)(job)
    if dry_run:
        print(steps.script(), end="")
    else:
        steps.execute()
    return 0


def _launch_here(job: Job, action: str, dry_run: bool, processes: int) -> int:
    if action != "submit":
        raise UserError(
            f"target {LOCAL} ends with the command that started it; --action={action} has nothing to do"
        )
    if dry_run:
        for index in range(processes):
            variables = {**job.env, **process_variables("127.0.0.1:PORT", processes, index)}
            words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
            print(" ".join((*words, shlex.join(job.words))))
        return 0
    command = [sys.executable, "-m", "poly_jax.cli", *job.words[1:]]
    return Supervisor(command, processes, job.env, job.max_restarts).run()
