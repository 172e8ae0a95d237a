"""Slurm clusters with GPUs: a batch script that asks to be queued again when the job was preempted.

Options: https://slurm.schedmd.com/sbatch.html. An image needs the plug-in pyxis (`srun --container-image`);
without one the job uses the environment in which it is submitted.
"""

from poly_jax.errors import UserError
from poly_jax.launch.exit_codes import FINISHED, HOPELESS
from poly_jax.launch.job import Job
from poly_jax.launch.steps import Steps
from poly_jax.launch.targets.target import Target
from poly_jax.launch.templates import script

_GRACE_SECONDS = 120


class Slurm(Target):
    """Renders a batch script and Slurm's commands."""

    name = "slurm"
    submit_needs = ("slice",)
    keeps_disk = True
    secret = "env"
    secret_form = "`env`: the variable of this name, where the command is run"

    def submit(self, job: Job) -> Steps:
        """Return the steps that start a job."""
        file = f"{job.name}.slurm.sh"
        return Steps([["sbatch", file]], {file: _script(job)})

    def status(self, job: Job) -> Steps:
        """Return the steps that show how far a job is."""
        return Steps([["squeue", "--me", f"--name={job.name}", "--states=all"]])

    def logs(self, job: Job) -> Steps:
        """Return the steps that follow a job's output."""
        return Steps([["tail", "--follow=name", "--retry", "--lines=100", _log(job)]])

    def stop(self, job: Job) -> Steps:
        """Return the steps that end a job and free what it holds."""
        return Steps([["scancel", "--me", f"--name={job.name}"]])


def _log(job: Job) -> str:
    return f"{job.name}.slurm.log"


def _script(job: Job) -> str:
    slice_ = job.slice
    assert slice_ is not None, "the job was checked"
    if slice_.tpu is not None:
        raise UserError(
            f"slice {slice_.name} has TPUs, and target slurm has GPUs; choose a slice such as h100:2x8"
        )
    if job.slices > 1:
        raise UserError(f"target slurm has no slices; write the number of hosts, such as {slice_.kind}:4x8")
    return script(
        "slurm.sh.jinja",
        name=job.name,
        nodes=slice_.hosts,
        gpus=slice_.chips_per_host,
        partition=job.queue,
        log=_log(job),
        grace=_GRACE_SECONDS,
        secrets=tuple(job.secrets),
        env=[f"{name}={value}" for name, value in job.env.items()],
        words=job.words,
        # One process that ends in error leaves the others waiting for it.
        srun_flags=["--kill-on-bad-exit=1", *([f"--container-image={job.image}"] if job.image else [])],
        ended=(FINISHED, *HOPELESS),
        max_restarts=job.max_restarts,
    )
