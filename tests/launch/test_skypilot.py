"""The tasks of SkyPilot, which its own reader checks where it is installed (`pip install skypilot`)."""

import subprocess

import pytest
import yaml

from poly_jax.launch.targets import TARGETS


def test_a_task_of_skypilot_restarts_on_a_preemption_and_not_on_an_error(make_job):
    (text,) = TARGETS["skypilot"].submit(make_job("v5p:2x2x2")).files.values()
    task = yaml.safe_load(text)
    assert task["resources"]["accelerators"] == "tpu-v5p-16"
    codes = task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert 42 in codes
    assert not {0, 1, 2} & set(codes)


def test_gpu_hosts_of_skypilot_are_told_of_each_other(make_job, tmp_path):
    (text,) = TARGETS["skypilot"].submit(make_job("h100:2x8", bucket="gs://b")).files.values()
    task = yaml.safe_load(text)
    (tmp_path / "poly-jax").write_text(
        '#!/bin/sh\necho "$POLY_JAX_COORDINATOR $POLY_JAX_NUM_PROCESSES $POLY_JAX_PROCESS_ID"\n'
    )
    (tmp_path / "poly-jax").chmod(0o755)
    sky = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", **sky}
    done = subprocess.run(["bash", "-c", task["run"]], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "10.0.0.1:8476 2 1\n"
    assert (task["num_nodes"], task["resources"]["accelerators"]) == (2, "H100:8")


@pytest.fixture(scope="module")
def sky():
    """SkyPilot, which brings about sixty packages and is therefore not among those of the tests."""
    return pytest.importorskip("sky", reason="needs SkyPilot: pip install skypilot")


@pytest.mark.parametrize(
    ("slice_", "fields", "accelerators", "nodes"),
    [
        ("v5e:4x4", {}, {"tpu-v5litepod-16": 1}, 1),
        ("v5p:2x2x2", {"location": "us-east5-a"}, {"tpu-v5p-16": 1}, 1),
        ("v6e:2x4", {"spot": True}, {"tpu-v6e-8": 1}, 1),
        ("h100:2x8", {"env": {"A": "b"}, "secrets": {"HF_TOKEN": "env"}}, {"H100": 8}, 2),
    ],
)
def test_skypilot_reads_a_task_as_it_is_meant(
    make_job, monkeypatch, sky, slice_, fields, accelerators, nodes
):
    monkeypatch.setenv("HF_TOKEN", "hidden")
    (text,) = TARGETS["skypilot"].submit(make_job(slice_, **fields)).files.values()
    config = yaml.safe_load(text)
    # `sky jobs launch --secret=NAME` puts the value of the variable here.
    config["secrets"] = {name: "hidden" for name in config.pop("secrets", {})} or None
    task = sky.Task.from_yaml_config({key: value for key, value in config.items() if value is not None})
    (resources,) = task.resources
    assert resources.accelerators == accelerators
    assert resources.use_spot == fields.get("spot", False)
    assert (
        resources.job_recovery["recover_on_exit_codes"]
        == config["resources"]["job_recovery"]["recover_on_exit_codes"]
    )
    assert task.num_nodes == nodes
    assert task.envs.items() >= fields.get("env", {}).items()
    assert set(task.secrets) == set(fields.get("secrets", {}))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("num_nodes: 2", "num_nodes: two"),
        ("num_nodes: 2", "nodes: 2"),
        ("accelerators: H100:8", "accelerator: H100:8"),
        ("use_spot: false", "use_spot: never"),
        ("- 42", "- yes"),
    ],
)
def test_skypilot_finds_a_mistake_in_a_task(make_job, sky, right, wrong):
    (text,) = TARGETS["skypilot"].submit(make_job("h100:2x8")).files.values()
    assert right in text
    with pytest.raises(Exception, match=r"(?i)invalid|did you mean|must be|expect"):
        sky.Task.from_yaml_config(yaml.safe_load(text.replace(right, wrong)))
