"""SkyPilot's managed jobs: one YAML file, for TPU VMs of Google Cloud and for GPUs of any cloud.

Fields: https://docs.skypilot.co/en/latest/reference/yaml-spec.html.
"""

from typing import Any

from poly_jax.errors import UserError
from poly_jax.launch.exit_codes import RESTARTED
from poly_jax.launch.job import Job
from poly_jax.launch.steps import Steps
from poly_jax.launch.targets.target import Target, shell_command
from poly_jax.launch.yaml_text import yaml_text

_PORT = 8476


class SkyPilot(Target):
    """Renders a task of SkyPilot and `sky jobs` commands."""

    name = "skypilot"
    submit_needs = ("slice", "image")
    secret = "env"
    secret_form = "`env`: the variable of this name, where the command is run"

    def submit(self, job: Job) -> Steps:
        """Return the steps that start a job."""
        file = f"{job.name}.sky.yaml"
        text = yaml_text(task(job))
        secrets = [f"--secret={name}" for name in job.secrets]
        return Steps(
            [["sky", "jobs", "launch", file, f"--name={job.name}", *secrets, "--detach-run", "--yes"]],
            {file: text},
        )

    def status(self, job: Job) -> Steps:
        """Return the steps that show how far a job is."""
        return Steps([["sky", "jobs", "queue", "--refresh"]])

    def logs(self, job: Job) -> Steps:
        """Return the steps that follow a job's output."""
        return Steps([["sky", "jobs", "logs", f"--name={job.name}", "--follow"]])

    def stop(self, job: Job) -> Steps:
        """Return the steps that end a job and free what it holds."""
        return Steps([["sky", "jobs", "cancel", f"--name={job.name}", "--yes"]])


def task(job: Job) -> dict[str, Any]:
    """Return a job as a task of SkyPilot."""
    slice_ = job.slice
    assert slice_ is not None, "the job was checked"
    if job.slices > 1:
        raise UserError("target skypilot has no multislice; use one slice, or another target")
    if job.queue or job.service_account:
        raise UserError("target skypilot has neither a queue nor a service account of a job; leave them out")
    tpu = slice_.tpu is not None
    resources: dict[str, Any] = {"image_id": f"docker:{job.image}"}
    if tpu:
        resources["infra"] = f"gcp/*/{job.location}" if job.location else "gcp"
        resources["accelerators"] = f"tpu-{slice_.accelerator_type}"
        resources["accelerator_args"] = {"runtime_version": slice_.generation.software}
    else:
        resources["accelerators"] = f"{slice_.kind.upper()}:{slice_.chips_per_host}"
    resources["use_spot"] = job.spot
    resources["job_recovery"] = {"max_restarts_on_errors": 0, "recover_on_exit_codes": list(RESTARTED)}
    return {
        "name": job.name,
        "resources": resources,
        # The hosts of a TPU slice are one node to SkyPilot, which runs the command on each of them.
        "num_nodes": 1 if tpu else slice_.hosts,
        **({"envs": dict(job.env)} if job.env else {}),
        # No value: `sky jobs launch --secret=NAME` takes it from the environment.
        **({"secrets": {name: None for name in job.secrets}} if job.secrets else {}),
        "run": _gpu_hosts(job) if not tpu and slice_.hosts > 1 else _bare(job),
    }


def _bare(job: Job) -> str:
    # The variables are in `envs` already.
    return shell_command(Job(job.name, command=job.command, bucket=job.bucket))


def _gpu_hosts(job: Job) -> str:
    """The command on several GPU machines, where JAX does not find the other hosts by itself."""
    return (
        'POLY_JAX_COORDINATOR="$(head -n 1 <<< "$SKYPILOT_NODE_IPS")'
        f':{_PORT}"\n'
        'POLY_JAX_NUM_PROCESSES="$SKYPILOT_NUM_NODES"\n'
        'POLY_JAX_PROCESS_ID="$SKYPILOT_NODE_RANK"\n'
        "export POLY_JAX_COORDINATOR POLY_JAX_NUM_PROCESSES POLY_JAX_PROCESS_ID\n"
        f"{_bare(job)}\n"
    )
