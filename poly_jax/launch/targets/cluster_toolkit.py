"""Google's Cluster Toolkit: `gcluster job`, which makes a JobSet on a GKE cluster with Kueue.

Flags: https://docs.cloud.google.com/cluster-toolkit/docs/reference/gcluster-job-submit.
"""

from poly_jax.launch.exit_codes import RESTARTED
from poly_jax.launch.job import Job
from poly_jax.launch.steps import Steps
from poly_jax.launch.targets.target import GRACE_SECONDS, Target, shell_command


class ClusterToolkit(Target):
    """Renders `gcluster job` commands."""

    name = "cluster_toolkit"
    needs = ("project", "location", "cluster")
    submit_needs = ("slice", "image")

    def submit(self, job: Job) -> Steps:
        """Return the steps that start a job."""
        slice_ = job.slice
        assert slice_ is not None, "the job was checked"
        command = [
            *self._job("submit", job),
            f"--name={job.name}",
            f"--image={job.image}",
            f"--compute-type={slice_.machine}",
            f"--topology={slice_.topology}",
            f"--num-slices={job.slices}",
            f"--restarts={job.max_restarts}",
            f"--restart-on-exit-codes={','.join(map(str, RESTARTED))}",
            f"--grace-period={GRACE_SECONDS}s",
        ]
        if job.queue:
            command.append(f"--queue={job.queue}")
        if job.service_account:
            command.append(f"--service-account={job.service_account}")
        if job.spot:
            command.append("--node-constraint=cloud.google.com/gke-spot=true")
        return Steps([[*command, f"--command={shell_command(job)}"]])

    def status(self, job: Job) -> Steps:
        """Return the steps that show how far a job is."""
        return Steps([[*self._job("list", job), f"--name-contains={job.name}"]])

    def logs(self, job: Job) -> Steps:
        """Return the steps that follow a job's output."""
        return Steps([[*self._job("logs", job), job.name, "--follow"]])

    def stop(self, job: Job) -> Steps:
        """Return the steps that end a job and free what it holds."""
        return Steps([[*self._job("cancel", job), job.name]])

    def _job(self, verb: str, job: Job) -> list[str]:
        where = [f"--project={job.project}", f"--location={job.location}", f"--cluster={job.cluster}"]
        return ["gcluster", "job", verb, *where]
