"""Operations of matrix products, against formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.planning.dot_flops import products, total_flops


def flops(function, *shapes, loop_calls=1):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return total_flops(products(jax.jit(function).trace(*arguments).jaxpr, loop_calls))


def test_a_product_counts_two_operations_for_each_multiplication():
    assert flops(lambda a, b: a @ b, (3, 5), (5, 7)) == 2 * 3 * 5 * 7


def test_a_product_of_batches_counts_every_one():
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 3, 5), (4, 5, 7)) == 4 * 2 * 3 * 5 * 7


def test_a_scan_counts_its_body_as_often_as_it_runs():
    def scanned(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    assert flops(scanned, (3, 5), (6, 5, 5)) == 6 * 2 * 3 * 5 * 5


def test_a_gradient_through_a_scan_counts_both_passes():
    def loss(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0].sum()

    # The backward pass has a product for the weights and one for the inputs.
    assert flops(jax.grad(loss, argnums=(0, 1)), (3, 5), (6, 5, 5)) == 3 * 6 * 2 * 3 * 5 * 5


def test_rematerialisation_counts_what_is_computed_again():
    def loss(x, w):
        layer = jax.checkpoint(lambda x, w: jnp.sin(x @ w))
        return jax.lax.scan(lambda x, w: (layer(x, w), None), x, w)[0].sum()

    assert flops(jax.grad(loss, argnums=(0, 1)), (3, 5), (6, 5, 5)) == 4 * 6 * 2 * 3 * 5 * 5


def test_a_while_loop_counts_as_often_as_the_caller_says():
    def looped(x, w):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)

    assert flops(looped, (3, 5), (5, 5), loop_calls=7) == 7 * 2 * 3 * 5 * 5


def test_of_the_branches_of_a_condition_the_largest_counts():
    def either(x, w, v):
        return jax.lax.cond(x.sum() > 0, lambda: (x @ w).sum(), lambda: (x @ v).sum())

    assert flops(either, (3, 5), (5, 7), (5, 11)) == 2 * 3 * 5 * 11


def test_a_product_names_its_operands_dtypes_and_its_module():
    def mixed(a, b):
        with jax.named_scope("attention"):
            return jax.lax.dot(a, b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)

    (found,) = products(
        jax.jit(mixed)
        .trace(jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.ShapeDtypeStruct((5, 7), jnp.float32))
        .jaxpr
    )
    assert found.dtypes == ("float32", "bfloat16")
    assert "attention" in found.source


@pytest.mark.parametrize("scanned", [True, False])
def test_a_forward_pass_of_t5_has_the_operations_of_the_formula(run, scanned):
    config = dataclasses.replace(
        run.experiment.model, scan_layers=scanned, num_encoder_layers=3, num_decoder_layers=2
    )
    model = Transformer(config)
    rows, inputs, targets = 4, 12, 10
    parameters, _ = parameter_shapes(model)
    tokens = [jax.ShapeDtypeStruct((rows, length), jnp.int32) for length in (inputs, targets)]
    found = jax.jit(model.apply).trace({"params": parameters}, *tokens).jaxpr

    d, k, f = config.emb_dim, config.num_heads * config.head_dim, config.mlp_dim
    # A token: four projections of an attention, scores and their sum; an MLP of one or two inputs; logits.
    mlp = d * f * (len(config.mlp_activations) + 1)
    encoder = inputs * (4 * d * k + 2 * inputs * k + mlp)
    decoder = targets * (6 * d * k + 2 * (targets + inputs) * k + mlp) + inputs * 2 * d * k
    expected = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder
    assert total_flops(products(found)) == 2 * rows * (expected + targets * d * config.vocab_size)
