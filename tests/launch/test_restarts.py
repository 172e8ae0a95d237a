"""Exit codes and restarts: a JobSet and the scripts for TPU VMs and Slurm, played with local processes."""

import os
import subprocess
import sys

import pytest
from jobset_simulation import simulate

from poly_jax.launch.targets import TARGETS
from poly_jax.launch.targets.jobset import manifest

# Counts the starts of each host in a file, as a run counts its steps in a checkpoint.
PROGRAM = """
import pathlib, sys
count = pathlib.Path(sys.argv[1], sys.argv[2])
done = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (done + 1))
codes = {codes}
host = codes.get(int(sys.argv[2]), [])
sys.exit(host[done] if done < len(host) else 0)
"""


def played(make_job, tmp_path, codes, **fields):
    job = make_job("v4:2x2x2", **fields)  # Two hosts.
    return simulate(manifest(job), PROGRAM.format(codes=codes), str(tmp_path))


def starts(tmp_path):
    return {path.name: len(path.read_text()) for path in tmp_path.iterdir()}


@pytest.mark.parametrize("code", [42, 134, 137, 143])
def test_a_preempted_jobset_starts_all_its_hosts_again_and_completes(make_job, tmp_path, code):
    assert played(make_job, tmp_path, {1: [code]}) == ("Completed", 1)
    assert starts(tmp_path) == {"0": 2, "1": 2}


@pytest.mark.parametrize("code", [1, 2, 127])
def test_an_error_in_the_input_ends_a_jobset_at_once(make_job, tmp_path, code):
    assert played(make_job, tmp_path, {0: [code]}) == ("Failed", 0)
    assert starts(tmp_path) == {"0": 1, "1": 1}


def test_a_jobset_is_given_up_after_its_restarts(make_job, tmp_path):
    assert played(make_job, tmp_path, {0: [42] * 9}, max_restarts=2) == ("Failed", 2)
    assert starts(tmp_path) == {"0": 3, "1": 3}


def test_an_error_after_a_preemption_ends_a_jobset(make_job, tmp_path):
    assert played(make_job, tmp_path, {0: [42, 1]}) == ("Failed", 1)


# A stand-in for gcloud: it notes every call, and answers with the next line of a file of answers.
GCLOUD = """#!{python}
import pathlib, sys
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
with open(folder / "calls", "a") as calls:
    calls.write(" ".join(words).replace("\\n", "; ") + "\\n")
def answer(name):
    file = folder / name
    first, _, rest = file.read_text().partition("\\n")
    file.write_text(rest or first)
    print(first.replace("|", "\\n"))
    return first
if "list" in words:
    sys.exit(answer("states") == "unreachable")
if any("inspect" in word for word in words):
    sys.exit(answer("reports") == "unreachable")
"""


@pytest.fixture
def babysit(make_job, tmp_path):
    """A function that plays the script for TPU VMs; it returns its exit code, actions and messages."""

    def play(states, reports, **fields):
        job = make_job("v4:2x2x2", **fields)
        ((name, text),) = TARGETS["tpu_vm"].submit(job).files.items()
        (tmp_path / name).write_text(text)
        (tmp_path / "states").write_text("\n".join(states))
        (tmp_path / "reports").write_text("\n".join(reports))
        tool = tmp_path / "gcloud"
        tool.write_text(GCLOUD.format(python=sys.executable, folder=str(tmp_path)))
        tool.chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "POLL_SECONDS": "0"}
        done = subprocess.run(
            ["bash", name, "babysit"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        calls = (tmp_path / "calls").read_text().splitlines()
        kinds = {" create ": "create", "docker pull": "install", "docker run": "run", " delete ": "delete"}
        actions = [kind for call in calls for part, kind in kinds.items() if part in call]
        return done.returncode, actions, done.stderr

    return play


RUNNING = "poly-jax running 0|poly-jax running 0"
ENDED = "poly-jax exited 0|poly-jax exited 0"
ABSENT = "poly-jax absent 0|poly-jax absent 0"


def test_tpu_vms_are_created_used_and_given_back(babysit):
    code, actions, _ = babysit(["", "PROVISIONING", "ACTIVE"], [ABSENT, RUNNING, ENDED])
    assert (code, actions) == (0, ["create", "install", "run", "delete"])


def test_a_preempted_worker_is_started_again_on_all_tpu_vms(babysit):
    code, actions, told = babysit(
        ["ACTIVE"], [RUNNING, "poly-jax exited 42|poly-jax running 0", RUNNING, ENDED]
    )
    assert (code, actions) == (0, ["run", "delete"])
    assert "restart 1 of at most 10 after exit code 42" in told


def test_an_error_in_the_input_gives_the_tpu_vms_back_at_once(babysit):
    code, actions, told = babysit(["ACTIVE"], ["poly-jax exited 42|poly-jax exited 1"])
    assert (code, actions) == (1, ["delete"])
    assert "a worker ended with exit code 1" in told


def test_tpu_vms_that_were_taken_back_are_asked_for_again(babysit):
    code, actions, _ = babysit(["ACTIVE", "SUSPENDED", "", "ACTIVE"], [RUNNING, ABSENT, ENDED])
    assert (code, actions) == (0, ["delete", "create", "install", "run", "delete"])


def test_a_job_on_tpu_vms_is_given_up_after_its_restarts(babysit):
    code, actions, told = babysit(["ACTIVE"], ["poly-jax exited 42|poly-jax exited 42"], max_restarts=2)
    assert (code, actions) == (42, ["run", "run", "delete"])
    assert "not started again after 2 restarts" in told


def test_a_worker_that_cannot_be_reached_for_a_while_does_not_end_the_job(babysit):
    code, actions, _ = babysit(["ACTIVE", "unreachable", "ACTIVE"], ["unreachable", RUNNING, ENDED])
    assert (code, actions) == (0, ["delete"])


def test_tpu_vms_that_cannot_be_had_end_the_job(babysit):
    assert babysit(["FAILED"], [RUNNING])[:2] == (1, ["delete"])


@pytest.mark.parametrize(
    ("code", "before", "requeued"),
    [(0, 0, False), (42, 0, True), (1, 0, False), (137, 1, True), (42, 2, False)],
)
def test_slurm_queues_a_job_again_as_its_exit_code_says(make_job, tmp_path, code, before, requeued):
    job = make_job("h100:2x8", max_restarts=2, secrets={"HF_TOKEN": "env"}, env={"A": "b c"})
    ((name, text),) = TARGETS["slurm"].submit(job).files.items()
    (tmp_path / name).write_text(text)
    for tool, lines in (
        ("srun", f'echo "$A" "$@" > srun_words; exit {code}'),
        ("scontrol", 'echo "$@" > requeued'),
    ):
        (tmp_path / tool).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / tool).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(before), "HF_TOKEN": "hf_value"}
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm}
    done = subprocess.run(["bash", name], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert (tmp_path / "requeued").exists() == requeued
    assert (tmp_path / "srun_words").read_text().startswith("b c --kill-on-bad-exit=1 --container-image=")
    assert "hf_value" not in done.stdout + done.stderr + text
