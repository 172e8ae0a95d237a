"""TPU VMs of a queued resource of the Cloud TPU API: a script that creates them, runs the job and watches it.

Flags: https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/create and
.../compute/tpus/tpu-vm/ssh. Every worker runs the job's image with docker. JAX finds the other workers by
itself, from the VMs' metadata.
"""

import shlex

from poly_jax.errors import UserError
from poly_jax.launch.exit_codes import HOPELESS, PREEMPTED
from poly_jax.launch.job import Job
from poly_jax.launch.steps import Steps
from poly_jax.launch.targets.target import GRACE_SECONDS, Target
from poly_jax.launch.templates import script

_REGISTRIES = ("-docker.pkg.dev", "gcr.io")


class TPUVM(Target):
    """Renders a shell script and `gcloud` commands."""

    name = "tpu_vm"
    needs = ("project", "location")
    submit_needs = ("slice", "image")
    secret = r"[A-Za-z0-9_-]+"
    secret_form = "the name of a secret in the project's Secret Manager"

    def submit(self, job: Job) -> Steps:
        """Return the steps that start a job."""
        file = f"{job.name}.tpu_vm.sh"
        return Steps([["bash", file, "babysit"]], {file: _script(job)})

    def status(self, job: Job) -> Steps:
        """Return the steps that show how far a job is."""
        return Steps([["gcloud", "compute", "tpus", "queued-resources", "describe", job.name, *_where(job)]])

    def logs(self, job: Job) -> Steps:
        """Return the steps that follow a job's output."""
        ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", _nodes(job)[0], *_where(job), "--worker=0"]
        return Steps([[*ssh, f"--command={_follow(job)}"]])

    def stop(self, job: Job) -> Steps:
        """Return the steps that end a job and free what it holds."""
        delete = ["gcloud", "compute", "tpus", "queued-resources", "delete", job.name]
        return Steps([[*delete, *_where(job), "--force", "--quiet"]])


def _where(job: Job) -> tuple[str, str]:
    return f"--project={job.project}", f"--zone={job.location}"


def _nodes(job: Job) -> list[str]:
    if job.slices == 1:
        return [job.name]
    return [f"{job.name}-{index}" for index in range(job.slices)]


def _script(job: Job) -> str:
    if job.queue:
        raise UserError("target tpu_vm has no queue of its own; leave --queue out")
    project, zone = _where(job)
    return script(
        "tpu_vm.sh.jinja",
        name=job.name,
        nodes=_nodes(job),
        hosts=job.hosts,
        max_restarts=job.max_restarts,
        project_flag=project,
        zone_flag=zone,
        create_flags=_create_flags(job),
        install=_install(job),
        run=_run(job),
        report=_report(job),
        follow=_follow(job),
        tail=f"sudo docker logs --tail=50 {job.name}",
        hopeless=HOPELESS,
        preempted=PREEMPTED,
    )


def _create_flags(job: Job) -> list[str]:
    slice_ = job.slice
    assert slice_ is not None, "the job was checked"
    if slice_.kind == "v4":
        flags = ["--type=v4", f"--topology={slice_.topology}"]
    else:
        flags = [f"--accelerator-type={slice_.accelerator_type}"]
    flags.append(f"--runtime-version={slice_.generation.software}")
    if job.slices == 1:
        flags.append(f"--node-id={job.name}")
    else:
        flags += [f"--node-count={job.slices}", f"--node-prefix={job.name}"]
    if job.service_account:
        flags.append(f"--service-account={job.service_account}")
    return [*flags, "--spot"] if job.spot else flags


def _install(job: Job) -> str:
    registry = str(job.image).partition("/")[0]
    pull = f"sudo docker pull --quiet {shlex.quote(str(job.image))}"
    if not registry.endswith(_REGISTRIES):
        return pull
    return f"sudo gcloud auth configure-docker {shlex.quote(registry)} --quiet && {pull}"


def _run(job: Job) -> str:
    """The worker's own command: it stops what is left of an earlier start, and starts the job anew."""
    lines = [
        "set -eu",
        f"sudo docker stop --time={GRACE_SECONDS} {job.name} >/dev/null 2>&1 || true",
        f"sudo docker rm --force {job.name} >/dev/null 2>&1 || true",
    ]
    for name, secret in job.secrets.items():
        value = shlex.join(["gcloud", "secrets", "versions", "access", "latest", f"--secret={secret}"])
        lines += [f'{name}="$({value} --project={shlex.quote(str(job.project))})"', f"export {name}"]
    sudo = ["sudo", *([f"--preserve-env={','.join(job.secrets)}"] if job.secrets else [])]
    variables = [
        *(f"--env={name}={value}" for name, value in job.env.items()),
        *(f"--env={n}" for n in job.secrets),
    ]
    docker = ["docker", "run", "--detach", f"--name={job.name}", "--privileged", "--network=host"]
    lines.append(shlex.join([*sudo, *docker, "--ulimit=memlock=-1", *variables, str(job.image), *job.words]))
    return "\n".join(lines)


def _report(job: Job) -> str:
    state = "'poly-jax {{.State.Status}} {{.State.ExitCode}}'"
    return f"sudo docker inspect --format={state} {job.name} 2>/dev/null || echo 'poly-jax absent 0'"


def _follow(job: Job) -> str:
    return f"sudo docker logs --follow --tail=100 {job.name}"
