"""The JobSet: it satisfies Kubernetes' schemas and GKE's table, and the checks that say so catch mistakes."""

import copy
import pathlib
import re

import pytest
import yaml
from jobset_checks import problems

from poly_jax.launch.targets import TARGETS
from poly_jax.launch.targets.jobset import manifest

JOB = ("spec", "replicatedJobs", 0, "template", "spec")
POD = (*JOB, "template", "spec")
CONTAINER = (*POD, "containers", 0)
POLICY = (*JOB, "podFailurePolicy", "rules")
GONE = object()

MISTAKES = {
    "another version of the API": (("apiVersion",), "jobset.x-k8s.io/v1"),
    "another kind": (("kind",), "Jobset"),
    "no name": (("metadata", "name"), GONE),
    "a name with capitals": (("metadata", "name"), "MHR"),
    "a name too long for its pods": (("metadata", "name"), "m" * 60),
    "a label that is a number": (("metadata", "labels"), {"kueue.x-k8s.io/queue-name": 3}),
    "a misspelt field of the JobSet": (("spec", "failurePolicies"), {}),
    "no jobs": (("spec", "replicatedJobs"), []),
    "replicas as text": (("spec", "replicatedJobs", 0, "replicas"), "2"),
    "negative restarts": (("spec", "failurePolicy", "maxRestarts"), -1),
    "an unknown action of the JobSet": (("spec", "failurePolicy", "rules", 0, "action"), "Fail"),
    "an unknown reason": (("spec", "failurePolicy", "rules", 0, "onJobFailureReasons"), ["ExitCode"]),
    "a rule without a name": (("spec", "failurePolicy", "rules", 0, "name"), GONE),
    "a rule for a job that is absent": (
        ("spec", "failurePolicy", "rules", 0, "targetReplicatedJobs"),
        ["leader"],
    ),
    "a misspelt field of the Job": ((*JOB, "backOffLimit"), 0),
    "parallelism as text": ((*JOB, "parallelism"), "4"),
    "fewer pods at a time than hosts": ((*JOB, "parallelism"), 2),
    "pods without an index": ((*JOB, "completionMode"), "NonIndexed"),
    "pods that are replaced alone": ((*JOB, "backoffLimit"), 3),
    "no backoffLimit, whose default is 6": ((*JOB, "backoffLimit"), GONE),
    "an unknown action of the Job": ((*POLICY, 1, "action"), "Fail"),
    "exit code 42 ends the job": ((*POLICY, 1, "onExitCodes", "values"), [1, 2, 42]),
    "exit code 2 does not end the job": ((*POLICY, 1, "onExitCodes", "values"), [1]),
    "exit code 0 among the failures": ((*POLICY, 1, "onExitCodes", "values"), [0, 1, 2]),
    "exit codes as text": ((*POLICY, 1, "onExitCodes", "values"), ["1", "2"]),
    "exit codes twice": ((*POLICY, 1, "onExitCodes", "values"), [1, 1, 2]),
    "exit codes of another container": ((*POLICY, 1, "onExitCodes", "containerName"), "main"),
    "an unknown operator": ((*POLICY, 1, "onExitCodes", "operator"), "Is"),
    "a rule with neither codes nor conditions": ((*POLICY, 1, "onExitCodes"), GONE),
    "pods that restart by themselves": ((*POD, "restartPolicy"), "OnFailure"),
    "no time to save": ((*POD, "terminationGracePeriodSeconds"), 5),
    "a grace period as text": ((*POD, "terminationGracePeriodSeconds"), "30s"),
    "no node selector": ((*POD, "nodeSelector"), GONE),
    "a topology that the accelerator lacks": (
        (*POD, "nodeSelector", "cloud.google.com/gke-tpu-topology"),
        "4x5",
    ),
    "an accelerator that is unknown": (
        (*POD, "nodeSelector", "cloud.google.com/gke-tpu-accelerator"),
        "tpu-v9",
    ),
    "a topology with more hosts": ((*POD, "nodeSelector", "cloud.google.com/gke-tpu-topology"), "16x16"),
    "more chips than a host has": ((*CONTAINER, "resources", "limits"), {"google.com/tpu": 8}),
    "a request unlike the limit": ((*CONTAINER, "resources", "requests"), {"google.com/tpu": 2}),
    "no chips": ((*CONTAINER, "resources"), GONE),
    "no image": ((*CONTAINER, "image"), GONE),
    "an image without a tag": ((*CONTAINER, "image"), "us-docker.pkg.dev/acme/images/poly-jax"),
    "a command that is one text": ((*CONTAINER, "command"), "poly-jax train"),
    "an environment that is a mapping": ((*CONTAINER, "env"), {"A": "b"}),
    "a variable that is a number": ((*CONTAINER, "env"), [{"name": "A", "value": 3}]),
    "a secret without a key": (
        (*CONTAINER, "env"),
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
    ),
    "slices without the nodes' network": ((*POD, "hostNetwork"), GONE),
}


def changed(content, path, value):
    copied = copy.deepcopy(content)
    place = copied
    for step in path[:-1]:
        place = place[step]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied


@pytest.mark.parametrize(
    ("slice_", "fields"),
    [
        ("v5e:1x1", {}),
        ("v5e:2x4", {}),
        ("v5e:4x4", {"slices": 2, "spot": True}),
        ("v5e:16x16", {"queue": "train", "service_account": "trainer"}),
        ("v6e:4x8", {"env": {"A": "3"}}),
        ("v4:2x2x2", {"secrets": {"HF_TOKEN": "hub/token"}}),
        ("v5p:4x4x4", {"slices": 4}),
        ("v7x:2x2x2", {}),
    ],
)
def test_a_jobset_satisfies_the_schemas_and_gkes_table(make_job, slice_, fields):
    made = manifest(make_job(slice_, **fields))
    assert problems(made) == []
    assert made["spec"]["replicatedJobs"][0]["replicas"] == fields.get("slices", 1)


def test_the_longest_allowed_name_fits_on_the_largest_slice(make_job):
    assert problems(manifest(make_job("v5e:16x16", name="m" * 28, slices=10))) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_checks_catch(make_job, mistake):
    path, value = MISTAKES[mistake]
    assert problems(changed(manifest(make_job(slices=2)), path, value)), mistake


def test_the_mistakes_are_as_many_as_the_page_says_and_each_is_the_only_one(make_job):
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "launching.md").read_text()
    (told,) = re.findall(r"all of (\d+) mistakes", " ".join(page.split()))
    assert len(MISTAKES) == int(told) >= 30
    right = manifest(make_job(slices=2))
    assert problems(right) == []
    made = [changed(right, path, value) for path, value in MISTAKES.values()]
    assert all(other not in made[:index] for index, other in enumerate(made))


def test_the_file_holds_the_manifest_and_no_value_of_a_secret(make_job, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_the_value")
    job = make_job(secrets={"HF_TOKEN": "hub/token"}, env={"COUNT": "3"})
    (text,) = TARGETS["jobset"].submit(job).files.values()
    assert yaml.safe_load(text) == manifest(job)
    assert "hf_the_value" not in text
    container = manifest(job)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert container["env"] == [
        {"name": "COUNT", "value": "3"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    ]


def test_a_pod_runs_the_command_word_by_word(make_job):
    container = manifest(make_job())["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert container["command"] == [
        "poly-jax",
        "train",
        "--gin_file=my.gin",
        "--gin.T5Config.dtype='bfloat16'",
        "--output_dir=gs://acme/runs/mhr",
    ]
