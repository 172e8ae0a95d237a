"""The devices of a slice as libtpu describes them, beside what `Slice` says from the vendor's pages.

Run as a program, this prints the descriptions of slices as JSON.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from jax.experimental import topologies

from poly_jax import cli
from poly_jax.launch.slices import parse_slice
from poly_jax.planning.devices import tpu_devices
from poly_jax.planning.environment import prepare_environment

# Chips and hosts. libtpu has two hosts for v5e:2x4, which is rented as one of eight chips.
SLICES = {
    "v5e:1x1": (1, 1),
    "v5e:2x2": (4, 1),
    "v5e:4x4": (16, 4),
    "v5e:16x16": (256, 64),
    "v6e:4x8": (32, 8),
    "v4:2x2x2": (8, 2),
    "v5p:4x4x4": (64, 16),
    "v7x:2x2x2": (8, 2),
}


def main() -> None:
    prepare_environment()
    found = {}
    for name in SLICES:
        described = tpu_devices(parse_slice(name))
        found[name] = (len(described.devices), len({device.process_index for device in described.devices}))
    two = tpu_devices(parse_slice("v5e:4x4"), 2).devices
    found["two slices"] = (len(two), len({device.slice_index for device in two}))
    print(json.dumps(found))


@pytest.fixture(scope="module")
def described():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra `plan`)")
    done = subprocess.run(
        [sys.executable, __file__], env=os.environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: tuple(numbers) for name, numbers in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.parametrize("name", SLICES)
def test_libtpu_describes_the_devices_and_hosts_that_a_slice_has(described, name):
    slice_, (chips, hosts) = parse_slice(name), SLICES[name]
    assert (slice_.chips, slice_.hosts) == (chips, hosts)
    assert described[name] == (slice_.devices, hosts)


def test_each_of_two_slices_has_all_its_devices(described):
    assert described["two slices"] == (32, 2)


@pytest.mark.usefixtures("own_folder")
def test_a_slice_that_libtpu_does_not_describe_is_named_in_one_line(capsys, monkeypatch):
    def refuses(**settings):
        raise RuntimeError(f"INVALID_ARGUMENT: no topology\n  {settings['topology_name']}")

    monkeypatch.setattr("poly_jax.planning.environment.prepare_environment", lambda simulated=0: None)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: object() if name == "libtpu" else found(name, *more)
    )
    monkeypatch.setattr(topologies, "get_topology_desc", refuses)
    words = ["plan", "--gin_file=recipes/skillbench/mhr.gin", "--tasks=5", "--topology=v7x:2x2x1"]
    assert cli.main([*words, "--gin.Data.batch_size=8"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "poly-jax: error: libtpu does not describe tpu7x:2x2x1: INVALID_ARGUMENT: no topology tpu7x:2x2x1"
    )


if __name__ == "__main__":
    main()
