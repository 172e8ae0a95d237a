"""xpk, which makes a JobSet on a GKE cluster that it set up. Cluster Toolkit replaces it.

Flags: https://github.com/AI-Hypercomputer/xpk. xpk restarts on exit codes 42 and 127 to 255 by itself.
"""

from poly_jax.errors import UserError
from poly_jax.launch.exit_codes import PREEMPTED
from poly_jax.launch.job import Job
from poly_jax.launch.slices import Slice
from poly_jax.launch.steps import Steps
from poly_jax.launch.targets.target import GRACE_SECONDS, Target, shell_command

_FAMILIES = {"v5e": "v5litepod", "v7x": "tpu7x"}
# xpk's table has v5e only from two hosts on.
_ABSENT = ("v5e:1x1", "v5e:2x2")


class Xpk(Target):
    """Renders `xpk workload` commands."""

    name = "xpk"
    needs = ("project", "location", "cluster")
    submit_needs = ("slice", "image")

    def submit(self, job: Job) -> Steps:
        """Return the steps that start a job."""
        assert job.slice is not None, "the job was checked"
        command = [
            *self._workload("create", job),
            f"--workload={job.name}",
            f"--docker-image={job.image}",
            f"--tpu-type={_tpu_type(job.slice)}",
            f"--num-slices={job.slices}",
            f"--max-restarts={job.max_restarts}",
            f"--restart-on-exit-codes={PREEMPTED}",
            f"--termination-grace-period-seconds={GRACE_SECONDS}",
        ]
        if job.queue or job.service_account:
            raise UserError(
                "target xpk takes the queue and the service account from its cluster; leave them out"
            )
        if job.spot:
            command.append("--spot")
        return Steps([[*command, f"--command={shell_command(job)}"]])

    def status(self, job: Job) -> Steps:
        """Return the steps that show how far a job is."""
        return Steps([[*self._workload("list", job), f"--filter-by-job={job.name}"]])

    def logs(self, job: Job) -> Steps:
        """Return the steps that follow a job's output."""
        chosen = f"--selector=jobset.sigs.k8s.io/jobset-name={job.name}"
        return Steps([["kubectl", "logs", chosen, "--follow", "--prefix", "--max-log-requests=1000"]])

    def stop(self, job: Job) -> Steps:
        """Return the steps that end a job and free what it holds."""
        return Steps([[*self._workload("delete", job), f"--workload={job.name}", "--force"]])

    def _workload(self, verb: str, job: Job) -> list[str]:
        where = [f"--project={job.project}", f"--zone={job.location}", f"--cluster={job.cluster}"]
        return ["xpk", "workload", verb, *where]


def _tpu_type(slice_: Slice) -> str:
    if slice_.name in _ABSENT:
        raise UserError(f"xpk does not have slice {slice_.name}; choose v5e:2x4 or larger, or another target")
    kind = slice_.generation.name
    return f"{_FAMILIES.get(kind, kind)}-{slice_.topology}"
