"""Kubernetes: a plain JobSet for a GKE cluster, with one Job for each slice and one pod for each host.

Fields: https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2. JAX finds the other hosts by itself, from
the variables that GKE gives to the pods of a TPU slice.
"""

from typing import Any

from poly_jax.launch.exit_codes import HOPELESS
from poly_jax.launch.job import Job
from poly_jax.launch.steps import Steps
from poly_jax.launch.targets.target import GRACE_SECONDS, Target
from poly_jax.launch.yaml_text import yaml_text

_CONTAINER = "poly-jax"
_JOB_NAME = "jobset.sigs.k8s.io/jobset-name"


class JobSet(Target):
    """Renders a JobSet and `kubectl` commands, which use kubectl's current context."""

    name = "jobset"
    submit_needs = ("slice", "image")
    secret = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+"
    secret_form = "SECRET/KEY, a Kubernetes secret and a key in it"

    def submit(self, job: Job) -> Steps:
        """Return the steps that start a job."""
        file = f"{job.name}.jobset.yaml"
        text = yaml_text(manifest(job))
        return Steps([["kubectl", "apply", f"--filename={file}"]], {file: text})

    def status(self, job: Job) -> Steps:
        """Return the steps that show how far a job is."""
        pods = ["kubectl", "get", "pods", f"--selector={_JOB_NAME}={job.name}", "--output=wide"]
        return Steps([["kubectl", "get", "jobset", job.name], pods])

    def logs(self, job: Job) -> Steps:
        """Return the steps that follow a job's output."""
        chosen = [f"--selector={_JOB_NAME}={job.name}", f"--container={_CONTAINER}"]
        return Steps([["kubectl", "logs", *chosen, "--follow", "--prefix", "--max-log-requests=1000"]])

    def stop(self, job: Job) -> Steps:
        """Return the steps that end a job and free what it holds."""
        return Steps([["kubectl", "delete", "jobset", job.name]])


def manifest(job: Job) -> dict[str, Any]:
    """Return a job's JobSet.

    A pod that ends with a hopeless exit code fails its Job at once, and with it the JobSet. Any other failure
    (preempted, killed, the node gone) fails the Job as well, because `backoffLimit` is 0, and the JobSet then
    starts all its Jobs again, up to `maxRestarts` times: a step of training needs every host.
    """
    slice_ = job.slice
    assert slice_ is not None, "the job was checked"
    node = {
        "cloud.google.com/gke-tpu-accelerator": slice_.generation.node_label,
        "cloud.google.com/gke-tpu-topology": slice_.topology,
        **({"cloud.google.com/gke-spot": "true"} if job.spot else {}),
    }
    chips = {"google.com/tpu": slice_.chips_per_host}
    container = {
        "name": _CONTAINER,
        "image": job.image,
        "command": list(job.words),
        "env": [{"name": name, "value": value} for name, value in job.env.items()] + _secrets(job),
        "resources": {"requests": chips, "limits": dict(chips)},
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # Slices reach each other by their nodes' own addresses.
        **({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if job.slices > 1 else {}),
        **({"serviceAccountName": job.service_account} if job.service_account else {}),
        "nodeSelector": node,
        "containers": [{field: value for field, value in container.items() if value}],
    }
    failures = [
        # A pod that lost its node says so, whatever its exit code: that is no error of the program.
        {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": _CONTAINER, "operator": "In", "values": list(HOPELESS)},
        },
    ]
    slice_job = {
        "parallelism": slice_.hosts,
        "completions": slice_.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": failures},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            **({"labels": {"kueue.x-k8s.io/queue-name": job.queue}} if job.queue else {}),
            # One slice has one node pool, and no two slices share one.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": job.max_restarts,
                "rules": [
                    {"name": "hopeless", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
                ],
            },
            "replicatedJobs": [{"name": "slice", "replicas": job.slices, "template": {"spec": slice_job}}],
        },
    }


def _secrets(job: Job) -> list[dict[str, Any]]:
    pairs = {name: reference.split("/") for name, reference in job.secrets.items()}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, (secret, key) in pairs.items()
    ]
