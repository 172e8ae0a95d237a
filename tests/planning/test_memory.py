"""Bytes of a device: shares of sharded arrays, and what the compiler says of programs that do not fit."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.errors import JaxRuntimeError
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from poly_jax.planning.abstract_run import Arguments
from poly_jax.planning.memory import Memory, TooLarge, bytes_on_device, compile_or_measure, memory_of

GIB = 2**30
TOLD = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (19.59G)"
    " exceeds available HBM (15.75G)."
)


def described(shape, dtype, *axes):
    place = NamedSharding(AbstractMesh((2, 4), ("data", "model")), PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def failing(message):
    def compile():
        raise JaxRuntimeError(message)

    return SimpleNamespace(compile=compile)


def test_a_devices_bytes_are_its_share_of_each_array():
    tree = {
        "whole": described((8, 16), jnp.float32),
        "shared": described((8, 16), jnp.bfloat16, "data", "model"),
    }
    assert bytes_on_device(tree) == 4 * 8 * 16 + 2 * 8 * 16 // 8


def test_two_int4_are_a_byte_as_on_a_tpu():
    # libtpu 0.0.42.1 reports 8 MiB for an argument of 4,096 x 4,096 int4 on v5e, and 16 MiB for int8.
    assert bytes_on_device(described((4096, 4096), jnp.int4)) == 8 * 2**20
    assert bytes_on_device(described((4096, 4096), jnp.int8)) == 16 * 2**20


def test_a_program_that_is_too_large_says_what_it_needs():
    found = compile_or_measure(failing(TOLD))
    assert found == TooLarge(int(19.59 * GIB), int(15.75 * GIB))


def test_another_error_of_the_compiler_is_not_hidden():
    with pytest.raises(JaxRuntimeError, match="INTERNAL"):
        compile_or_measure(failing("INTERNAL: something else"))


def test_the_kinds_of_memory_add_up_to_the_peak():
    one = described((8, 16), jnp.float32)
    arguments = Arguments({"k": one}, {"a": one}, [one, one], {})
    found = memory_of(TooLarge(10_000, 9_000), arguments)
    assert found == Memory(512, 512, 1024, 10_000 - 2048, None, 10_000)


def test_a_chip_of_two_devices_has_the_bytes_of_both():
    assert Memory(1, 2, 3, 4, 5, 15).per_chip(2) == Memory(2, 4, 6, 8, 10, 30)
    assert Memory(1, 2, 3, 4, None, 10).per_chip(2).program is None
