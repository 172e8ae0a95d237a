"""Which processes of several hosts run a command, how they find each other, and how they end."""

import argparse
import atexit
import os
import subprocess
import sys

import pytest

from poly_jax import cli
from poly_jax.cli import many_hosts
from poly_jax.cli.commands.demo import COMMAND as DEMO
from poly_jax.cli.commands.export import COMMAND as EXPORT
from poly_jax.cli.commands.train import COMMAND as TRAIN
from poly_jax.errors import UserError

NO_FLAGS = argparse.Namespace(coordinator=None, num_processes=None, process_id=None)
SLURM = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
MPI = {"OMPI_MCA_orte_hnp_uri": "1;tcp://n1", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}
GKE = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}
SECOND_SLICE = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}


@pytest.fixture
def environment(monkeypatch):
    """Set variables, and take away those of the machine that runs the test."""
    names = ("SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "POLY_JAX_", "JAX_PLATFORMS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    monkeypatch.setattr(os, "environ", kept)

    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("variables", [SLURM, MPI, {**GKE, "TPU_WORKER_ID": "1"}, {**GKE, **SECOND_SLICE}])
def test_what_the_first_host_does_alone_the_others_leave_to_it(environment, variables):
    environment(variables)
    assert not many_hosts.runs_here(EXPORT, NO_FLAGS)
    assert many_hosts.runs_here(TRAIN, NO_FLAGS)


@pytest.mark.parametrize(
    "variables",
    [{}, {**SLURM, "SLURM_PROCID": "0"}, {**MPI, "OMPI_COMM_WORLD_RANK": "0"}, GKE, {"TPU_WORKER_ID": "0"}],
)
def test_the_first_host_and_a_single_one_run_every_command(environment, variables):
    environment(variables)
    assert many_hosts.runs_here(EXPORT, NO_FLAGS)
    assert many_hosts.runs_here(TRAIN, NO_FLAGS)


@pytest.mark.parametrize(
    ("variables", "count"), [(SLURM, 2), (MPI, 4), (GKE, 2), ({**GKE, **SECOND_SLICE}, 4)]
)
def test_a_program_for_one_process_refuses_more_and_says_how_many(environment, variables, count):
    environment(variables)
    with pytest.raises(UserError, match=f"poly-jax demo runs in one process, and was started in {count};"):
        many_hosts.runs_here(DEMO, NO_FLAGS)


@pytest.fixture
def asked(monkeypatch):
    """What JAX is asked to join: a list of the flags it gets. The machine seems to have a TPU."""
    calls = []
    monkeypatch.setattr(many_hosts, "_initialize", calls.append)
    monkeypatch.setattr(many_hosts, "has_tpu", lambda: True)
    return calls


def test_on_a_machine_with_a_tpu_jax_looks_for_the_other_hosts_of_the_slice(environment, asked):
    with many_hosts.joined(TRAIN, NO_FLAGS):
        assert asked == [{}]


@pytest.mark.parametrize(
    ("command", "variables", "platforms"),
    [
        (EXPORT, GKE, "cpu"),
        (EXPORT, {**GKE, "JAX_PLATFORMS": "tpu,cpu"}, "tpu,cpu"),
        (EXPORT, {}, None),
        (EXPORT, {**GKE, "TPU_WORKER_HOSTNAMES": "a"}, None),
        (TRAIN, GKE, None),
    ],
)
def test_host_0_alone_uses_cpus_where_the_tpu_would_wait_for_all_hosts(
    environment, asked, command, variables, platforms
):
    environment(variables)
    with many_hosts.joined(command, NO_FLAGS):
        assert os.environ.get("JAX_PLATFORMS") == platforms


def test_nothing_is_looked_for_where_cpus_were_asked_for_or_there_is_no_tpu(environment, asked, monkeypatch):
    environment({"JAX_PLATFORMS": "cpu"})
    with many_hosts.joined(TRAIN, NO_FLAGS):
        pass
    environment({"JAX_PLATFORMS": "tpu"})
    monkeypatch.setattr(many_hosts, "has_tpu", lambda: False)
    with many_hosts.joined(TRAIN, NO_FLAGS):
        pass
    assert not asked


def test_a_tpu_outside_of_a_cloud_is_used_alone(environment, asked, monkeypatch):
    # JAX's own words where it detects no cluster.
    words = "import jax; jax.distributed.initialize(cluster_detection_method='deactivate')"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    message = done.stderr.splitlines()[-1].removeprefix("ValueError: ")

    def find_nothing(given):
        raise ValueError(message)

    monkeypatch.setattr(many_hosts, "_initialize", find_nothing)
    ran = []
    with many_hosts.joined(TRAIN, NO_FLAGS):
        ran.append(True)
    assert ran
    # A cluster that is there, and cannot be joined, is an error.
    environment(SLURM)
    with pytest.raises(ValueError, match="coordinator_address"), many_hosts.joined(TRAIN, NO_FLAGS):
        pass


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("Timed out while waiting for async_write_complete barrier."),
        ValueError("UNKNOWN: Gloo AllReduce failed: Connection closed by peer [127.0.0.1]:4711"),
        RuntimeError("UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats): 1"),
    ],
)
def test_an_error_by_which_a_library_tells_that_another_host_is_gone_is_taken_for_that(
    environment, asked, monkeypatch, error
):
    environment({"POLY_JAX_COORDINATOR": "a:1", "POLY_JAX_NUM_PROCESSES": "2", "POLY_JAX_PROCESS_ID": "0"})
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(many_hosts.LostHostError), many_hosts.joined(TRAIN, NO_FLAGS):
        raise error
    # An error of this host's disk is its own.
    with pytest.raises(TimeoutError, match="the disk"), many_hosts.joined(TRAIN, NO_FLAGS):
        raise TimeoutError("the disk does not answer")


def test_an_unexpected_error_ends_one_of_several_hosts_at_once_and_names_it(monkeypatch, capsys):
    ended = []

    def end(code):
        ended.append(code)
        raise SystemExit(code)

    def fail():
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(os, "_exit", end)
    # The handler that a program leaves by would end the tests with its exit code.
    monkeypatch.setattr(atexit, "register", lambda handler: handler)
    monkeypatch.setattr(cli, "main", fail)
    monkeypatch.setattr(many_hosts, "_number", 3)
    with pytest.raises(SystemExit):
        cli.program()
    assert ended == [1]
    told = capsys.readouterr().err
    assert "ZeroDivisionError: nobody foresaw this" in told
    assert told.endswith("poly-jax: host 3: ended by the error above\n")
    monkeypatch.setattr(many_hosts, "_number", None)
    with pytest.raises(ZeroDivisionError):
        cli.program()
