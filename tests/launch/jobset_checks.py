"""What a JobSet for TPUs must satisfy, told again from its documentation and independently of the code.

The schema is an excerpt of jobset.x-k8s.io/v1alpha2 (https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2)
with the fields that poly_jax writes: unknown fields are errors. Jobs and pods are checked by
`kubernetes-validate`, which holds Kubernetes' own schemas. The numbers of hosts are GKE's
(https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus).
"""

import re
from typing import Any

import jsonschema
import kubernetes_validate

_KUBERNETES = "1.31"
_RULE = {
    "type": "object",
    "required": ["name", "action"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", "maxLength": 128},
        "action": {
            "enum": [
                "FailJobSet",
                "RestartJobSet",
                "RestartJobSetAndIgnoreMaxRestarts",
                "RestartJob",
                "RestartJobAndIgnoreMaxRestarts",
            ]
        },
        "onJobFailureReasons": {
            "type": "array",
            "items": {
                "enum": [
                    "BackoffLimitExceeded",
                    "DeadlineExceeded",
                    "FailedIndexes",
                    "MaxFailedIndexesExceeded",
                    "PodFailurePolicy",
                ]
            },
        },
        "targetReplicatedJobs": {"type": "array", "items": {"type": "string"}},
    },
}
_REPLICATED_JOB = {
    "type": "object",
    "required": ["name", "template"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
        "replicas": {"type": "integer", "minimum": 0},
        "template": {
            "type": "object",
            "required": ["spec"],
            "additionalProperties": False,
            "properties": {"metadata": {"type": "object"}, "spec": {"type": "object"}},
        },
    },
}
_SCHEMA = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        "spec": {
            "type": "object",
            "required": ["replicatedJobs"],
            "additionalProperties": False,
            "properties": {
                "replicatedJobs": {"type": "array", "minItems": 1, "items": _REPLICATED_JOB},
                "failurePolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "maxRestarts": {"type": "integer", "minimum": 0},
                        "rules": {"type": "array", "items": _RULE},
                    },
                },
            },
        },
    },
}
# Hosts, and chips of each host, by accelerator and topology.
_HOSTS = {
    ("tpu-v5-lite-podslice", "1x1"): (1, 1),
    ("tpu-v5-lite-podslice", "2x4"): (1, 8),
    ("tpu-v5-lite-podslice", "4x4"): (4, 4),
    ("tpu-v5-lite-podslice", "16x16"): (64, 4),
    ("tpu-v6e-slice", "4x8"): (8, 4),
    ("tpu-v4-podslice", "2x2x2"): (2, 4),
    ("tpu-v5p-slice", "4x4x4"): (16, 4),
    ("tpu7x", "2x2x2"): (2, 4),
}


def problems(manifest: dict[str, Any]) -> list[str]:
    """Return what is wrong with a JobSet; nothing for one that runs on its slice."""
    found = [error.message for error in jsonschema.Draft202012Validator(_SCHEMA).iter_errors(manifest)]
    if found:
        return found
    jobs = manifest["spec"]["replicatedJobs"]
    names = [job["name"] for job in jobs]
    for rule in manifest["spec"].get("failurePolicy", {}).get("rules", []):
        found += [f"no job {name}" for name in rule.get("targetReplicatedJobs", []) if name not in names]
    for job in jobs:
        found += _job_problems(manifest["metadata"]["name"], job)
    return found


def _job_problems(jobset: str, job: dict[str, Any]) -> list[str]:
    spec = job["template"]["spec"]
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec}
    try:
        kubernetes_validate.validate(whole, _KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return [str(error)]
    found = []
    hosts = spec.get("completions", 1)
    longest = f"{jobset}-{job['name']}-{job.get('replicas', 1) - 1}-{hosts - 1}"
    if len(longest) > 63:
        found.append(f"the name of a pod is too long: {longest}")
    if spec.get("parallelism") != hosts or spec.get("completionMode") != "Indexed":
        found.append("the pods of a slice must all run at the same time, each with its own index")
    if spec.get("backoffLimit") != 0:
        found.append("a failed pod is replaced alone, while the others wait for the old one")
    return [*found, *_policy_problems(spec), *_slice_problems(spec, hosts, job.get("replicas", 1))]


def _policy_problems(spec: dict[str, Any]) -> list[str]:
    found = []
    containers = [container["name"] for container in spec["template"]["spec"]["containers"]]
    if spec["template"]["spec"].get("restartPolicy") != "Never":
        found.append("podFailurePolicy needs restartPolicy Never")
    codes: set[int] = set()
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        on = rule.get("onExitCodes")
        if rule["action"] not in ("Count", "FailJob", "FailIndex", "Ignore"):
            found.append(f"no action {rule['action']}")
        if (on is None) == (rule.get("onPodConditions") is None):
            found.append("a rule has either exit codes or conditions")
        if on is None:
            continue
        if on.get("containerName") not in (None, *containers):
            found.append(f"no container {on['containerName']}")
        if on["operator"] not in ("In", "NotIn") or (on["operator"] == "In" and 0 in on["values"]):
            found.append("malformed exit codes")
        if on["values"] != sorted(set(on["values"])):
            found.append("exit codes must be in order and unique")
        if on["operator"] == "In" and rule["action"] == "FailJob":
            codes |= set(on["values"])
    if not {1, 2} <= codes or 42 in codes:
        found.append("1 and 2 must end the job, and 42 must not")
    return found


def _slice_problems(spec: dict[str, Any], hosts: int, slices: int) -> list[str]:
    pod = spec["template"]["spec"]
    nodes = pod.get("nodeSelector", {})
    place = tuple(nodes.get(f"cloud.google.com/gke-tpu-{what}") for what in ("accelerator", "topology"))
    if place not in _HOSTS:
        return [f"no such slice: {place}"]
    found = []
    resources = pod["containers"][0].get("resources", {})
    limit, request = (resources.get(kind, {}).get("google.com/tpu") for kind in ("limits", "requests"))
    if (hosts, limit) != _HOSTS[place] or request != limit:
        found.append(f"{place} has {_HOSTS[place]} hosts and chips, not {(hosts, limit, request)}")
    if not re.fullmatch(
        r"[^\s:]+(:[0-9]+)?/[^\s:]+(:[\w.-]+|@sha256:[0-9a-f]{64})", pod["containers"][0].get("image", "")
    ):
        found.append("an image needs a registry and a tag")
    if pod.get("terminationGracePeriodSeconds", 0) < 30:
        found.append("the state takes up to 25 s to save")
    if slices > 1 and not (pod.get("hostNetwork") and pod.get("dnsPolicy") == "ClusterFirstWithHostNet"):
        found.append("slices reach each other by the nodes' network")
    return found
