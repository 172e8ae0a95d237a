"""Which meshes divide the dimensions of a T5, and what the others are refused with."""

import pytest

from poly_jax.errors import UserError
from poly_jax.weights.divided_dimensions import check_divided, divides
from poly_jax.weights.t5_dimensions import T5Dimensions

BASE = T5Dimensions(vocab_size=32128, emb_dim=768, num_heads=12, mlp_dim=2048)


@pytest.mark.parametrize(
    ("changed", "fsdp", "model", "devices", "told"),
    [
        # 3 divides the heads, but neither the other dimensions nor 8 devices.
        (
            {},
            1,
            8,
            8,
            "model 8 does not divide T5Config.num_heads 12; choose Partitioning.model from 1, 2, 4",
        ),
        # Two of the eight devices share the parameters, so that four are left.
        ({"num_heads": 2}, 2, 4, 8, "model 4 does not divide T5Config.num_heads 2; choose .* from 1, 2"),
        ({"num_heads": 64, "mlp_dim": 12}, 1, 8, 8, "T5Config.mlp_dim 12; choose .* from 1, 2, 4"),
        (
            {"num_heads": 64, "vocab_size": 32100},
            1,
            8,
            8,
            "T5Config.vocab_size 32100; choose .* from 1, 2, 4",
        ),
        ({}, 512, 1, 512, "fsdp 512 does not divide T5Config.emb_dim 768; choose .*fsdp from 1, 2, .*, 256"),
        ({"num_heads": 13}, 1, 2, 2, "T5Config.num_heads 13; choose Partitioning.model from 1$"),
    ],
)
def test_a_dimension_that_stays_undivided_is_named_with_the_sizes_that_divide_all(
    changed, fsdp, model, devices, told
):
    dimensions = T5Dimensions(**{**vars(BASE), **changed})
    assert not divides(dimensions, fsdp, model)
    with pytest.raises(UserError, match=told.replace(".*", "@").replace(".", r"\.").replace("@", ".*")):
        check_divided(dimensions, fsdp, model, devices)


@pytest.mark.parametrize(("vocab_size", "fsdp", "model"), [(32128, 256, 4), (259, 4, 2), (32128, 3, 1)])
def test_a_mesh_that_divides_every_dimension_is_accepted(vocab_size, fsdp, model):
    """A vocabulary of bytes has 259 tokens, and stays whole."""
    dimensions = T5Dimensions(**{**vars(BASE), "vocab_size": vocab_size})
    check_divided(dimensions, fsdp, model, fsdp * model)
    assert divides(dimensions, fsdp, model)
