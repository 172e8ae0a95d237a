"""What a collective moves, told from the shapes of a T5-XL on 16 chips."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from poly_jax.planning.collectives import Collective
from poly_jax.planning.reshards import Contents

MESH = AbstractMesh((1, 4, 4), ("data", "fsdp", "model"))


def parameter(shape, *axes):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(MESH, PartitionSpec(*axes)))


@pytest.fixture(scope="module")
def contents():
    layer = {
        "wi_0": {"kernel": parameter((24, 2048, 5120), None, "fsdp", "model")},
        "query": {"kernel": parameter((24, 2048, 2048), None, "fsdp", "model")},
        "norm": {"scale": parameter((24, 2048))},
    }
    batch = {
        "encoder_input_tokens": jax.ShapeDtypeStruct((128, 256), jnp.int32),
        "decoder_target_tokens": jax.ShapeDtypeStruct((128, 64), jnp.int32),
    }
    return Contents({"encoder": {"layers": layer}}, batch)


def gathered(shape, kind="all-gather"):
    return Collective(kind, 1, 1, shape, "", "ici")


@pytest.mark.parametrize(
    ("shape", "moved"),
    [
        # A kernel whole, of one layer of the scan, and gathered over one of its two mesh axes.
        ("bf16[1,2048,5120]", "weights"),
        ("bf16[2048,1280]", "weights"),
        ("bf16[24,512,5120]", "weights"),
        # A vector, cut into tiles.
        ("f32[16,1,128]", "weights"),
        # Rows of all chips, of one, and rows and tokens joined into one axis.
        ("bf16[128,256,2048]", "activations"),
        ("bf16[32,64,512]", "activations"),
        ("bf16[2048,1,2048]", "weights"),
        ("bf16[8192,1280]", "activations"),
        # Tokens themselves, and something unknown.
        ("s32[128,256]", "other"),
        ("f32[24,320,60,8]", "other"),
        # A table of tasks by splits by skills, with as many splits as a target has tokens.
        ("f32[24,320,64,8]", "other"),
    ],
)
def test_a_shape_tells_what_is_moved(contents, shape, moved):
    assert contents.moved(gathered(shape)) == moved


def test_only_moves_of_activations_are_reshards(contents):
    activation = "bf16[128,256,2048]"
    found = [
        gathered(activation),
        gathered(activation, "all-to-all"),
        gathered(activation, "all-reduce"),
        gathered("bf16[2048,5120]"),
    ]
    assert contents.reshards(found) == found[:2]
