"""Slices: the vendor's own numbers, and what is refused."""

import pytest

from poly_jax.errors import UserError
from poly_jax.launch.slices import parse_slice


# From https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} and GKE's page on planning TPUs.
@pytest.mark.parametrize(
    ("name", "chips", "hosts", "machine", "accelerator"),
    [
        ("v4:2x2x1", 4, 1, "ct4p-hightpu-4t", "v4-8"),
        ("v4:8x16x16", 2048, 512, "ct4p-hightpu-4t", "v4-4096"),
        ("v5e:1x1", 1, 1, "ct5lp-hightpu-1t", "v5litepod-1"),
        ("v5e:2x4", 8, 1, "ct5lp-hightpu-8t", "v5litepod-8"),
        ("v5e:4x4", 16, 4, "ct5lp-hightpu-4t", "v5litepod-16"),
        ("v5e:16x16", 256, 64, "ct5lp-hightpu-4t", "v5litepod-256"),
        ("v5p:2x2x4", 16, 4, "ct5p-hightpu-4t", "v5p-32"),
        ("v5p:16x16x24", 6144, 1536, "ct5p-hightpu-4t", "v5p-12288"),
        ("v6e:8x16", 128, 32, "ct6e-standard-4t", "v6e-128"),
    ],
)
def test_a_slice_has_the_vendors_numbers(name, chips, hosts, machine, accelerator):
    found = parse_slice(name)
    assert (found.name, found.chips, found.hosts, found.devices) == (name, chips, hosts, chips)
    assert (found.machine, found.accelerator_type) == (machine, accelerator)


def test_a_chip_of_v7x_is_two_devices():
    found = parse_slice("v7x:4x4x4")
    assert (found.chips, found.hosts, found.devices, found.machine) == (64, 16, 128, "tpu7x-standard-4t")


def test_gpus_are_hosts_times_gpus():
    found = parse_slice("h100:2x8")
    assert (found.chips, found.hosts, found.chips_per_host) == (16, 2, 8)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v9:4x4", "names no accelerator"),
        ("v5litepod-17", "names no accelerator"),
        ("V5E:4x4", "did you mean 'v5e'"),
        ("v5e", "has no topology; write v5e:4x4 or the like"),
        ("v5p", "has no topology; write v5p:4x4x4 or the like"),
        ("h100", "has no topology; write h100:2x8 or the like"),
        ("v5e:4by4", "has no topology"),
        ("v5e:4x", "has no topology"),
        ("v5e:0x4", "has no topology"),
        ("v5e:4x4x4", "does not exist; v5e has the topologies 1x1, 2x2, 2x4, 4x4"),
        ("v5e:4x5", "does not exist"),
        ("v5e:16x32", "has 512 chips, and the largest v5e slice has 256"),
        ("v4:4x4", "does not exist; v4 has the topologies 2x2x1"),
        ("v4:4x8x4", "A <= B <= C"),
        ("v5p:2x2x8", "does not exist"),
        ("v5p:16x16x32", "has 8192 chips, and the largest v5p slice has 6144"),
        ("h100:2x16", "at most 8 GPUs"),
        ("h100:2x2x2", "HOSTSxGPUS"),
    ],
)
def test_a_slice_that_does_not_exist_is_refused(name, told):
    with pytest.raises(UserError) as refused:
        parse_slice(name)
    assert told in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_accelerator_type_is_only_for_the_usual_shape_of_its_number_of_chips():
    assert parse_slice("v5p:4x4x12").chips == 192
    with pytest.raises(UserError, match=r"slice v5p:4x4x12 has no accelerator type"):
        _ = parse_slice("v5p:4x4x12").accelerator_type
    with pytest.raises(UserError, match="Cloud TPU API does not offer v7x"):
        _ = parse_slice("v7x:2x2x2").accelerator_type
