"""The memory of a step's intermediate results is used again by the next step."""

import platform
import subprocess
import sys
import types

import pytest

from poly_jax import cli
from poly_jax.cli import allocation

_SCRIPT = """
import resource, sys
from poly_jax.cli.allocation import reuse_memory

if sys.argv[1] == "reused":
    reuse_memory()

import jax, jax.numpy as jnp

@jax.jit
def step(x):
    # The product of 64 MiB is an intermediate result, which is not fused into the sum.
    return (x @ x.T).sum(axis=0).max()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

x = jnp.ones((4096, 16))
for _ in range(3):
    step(x).block_until_ready()
before = faults()
for _ in range(3):
    step(x).block_until_ready()
print(faults() - before)
"""


def _faults(allocation: str) -> int:
    """Pages that the system had to clear for three steps."""
    command = [sys.executable, "-c", _SCRIPT, allocation]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_step_takes_the_pages_that_the_step_before_it_freed():
    if platform.libc_ver()[0] != "glibc" or allocation.has_accelerator():
        pytest.skip("only glibc is told so, and only where CPUs do the work")
    pages = 64 * 2**20 // 4096
    assert _faults("reused") < pages / 10
    # Otherwise the claim would hold without it.
    assert _faults("as it is") > 2 * pages


def test_nothing_is_changed_beside_an_accelerator(monkeypatch):
    def refuse(option, value):
        raise AssertionError(f"option {option} was set to {value}")

    monkeypatch.setattr(allocation, "has_accelerator", lambda: True)
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: types.SimpleNamespace(mallopt=refuse))
    allocation.reuse_memory()


def test_nothing_is_changed_in_another_c_library(monkeypatch):
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: object())
    allocation.reuse_memory()


@pytest.mark.parametrize(
    ("words", "expected"), [(["eval", "--run=nowhere"], 1), (["export", "--run=nowhere"], 0)]
)
def test_commands_that_compute_with_a_model_reuse_memory(words, expected, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(cli, "reuse_memory", lambda: called.append(1))
    monkeypatch.setattr(cli.program_start, "mark", lambda: None)
    monkeypatch.setattr(sys, "argv", ["poly-jax", *words, *(["--output=x"] if words[0] == "export" else [])])
    assert cli.main() == 1
    assert "nowhere" in capsys.readouterr().err
    assert len(called) == expected
