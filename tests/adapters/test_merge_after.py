"""Merge-after LoRA: the outputs of the skills are averaged, head by head, against loops in NumPy float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import AverageRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.transfer.combined_skills import average_skills
from poly_jax.transfer.new_adapters import averaged_adapters
from poly_jax.weights.parameter_names import is_inventory
from poly_jax.weights.tree import merge, split

D_IN, D_OUT, RANK, ALPHA = 8, 12, 3, 2.0
SKILL = LoRA(rank=RANK, alpha=ALPHA, merge_after=True)
SHAPES = [(1, 1), (1, 3), (4, 1), (4, 3)]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def drawn(rng, h, k):
    return {
        "lora_a": normal(rng, h, k, D_IN // h, RANK),
        "lora_b": normal(rng, h, k, RANK, D_OUT // h),
    }


def by_hand(skills, weights, x, kernel):
    """`y_q = (x W0)_q + (alpha / r) sum_k w[q,k] (x A_k) B[q,k]` for one row."""
    a, b = (skills[name].astype(np.float64) for name in ("lora_a", "lora_b"))
    h, k = weights.shape
    x = x.astype(np.float64)
    heads = []
    for q in range(h):
        head = 0
        for s in range(k):
            whole_a = np.concatenate([a[p, s] for p in range(h)], axis=0)
            head = head + weights[q, s] * (x @ whole_a) @ b[q, s]
        heads.append(head)
    return x @ kernel + (ALPHA / RANK) * np.concatenate(heads, axis=-1)


@pytest.mark.parametrize(("h", "k"), SHAPES)
def test_outputs_of_skills_are_averaged_by_each_rows_weights(rng, h, k):
    skills, x, kernel = drawn(rng, h, k), normal(rng, 3, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = rng.uniform(size=(3, h, k)).astype(np.float32)
    got = SKILL.apply(SKILL.mix(skills, weights), x, x @ kernel)
    expected = np.stack([by_hand(skills, weights[row], x[row], kernel) for row in range(3)])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("h", "k"), SHAPES)
def test_one_mix_for_all_rows_and_the_merged_kernel_agree(rng, h, k):
    skills, x, kernel = drawn(rng, h, k), normal(rng, 2, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = rng.uniform(size=(h, k)).astype(np.float32)
    expected = np.stack([by_hand(skills, weights, row, kernel) for row in x])
    mixed = SKILL.mix(skills, weights)
    np.testing.assert_allclose(SKILL.apply(mixed, x, x @ kernel), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x @ SKILL.merge(mixed, kernel), expected, rtol=1e-4, atol=1e-4)


def test_it_equals_mixing_first_with_one_skill_and_differs_with_several(rng):
    first = dataclasses.replace(SKILL, merge_after=False)
    x, kernel = normal(rng, 2, 5, D_IN), normal(rng, D_IN, D_OUT)
    for k, alike in ((1, True), (2, False)):
        skills, weights = drawn(rng, 4, k), np.full((4, k), 1 / k, np.float32)
        both = [skill.apply(skill.mix(skills, weights), x, x @ kernel) for skill in (SKILL, first)]
        assert np.allclose(*both, atol=1e-4) == alike


def test_the_weights_have_the_gradients_of_the_averaged_outputs(rng):
    skills, x = drawn(rng, 2, 3), normal(rng, 1, 4, D_IN)
    weights = rng.uniform(size=(1, 2, 3)).astype(np.float32)
    zero = np.zeros((D_IN, D_OUT))

    def total(weights):
        return jnp.sum(SKILL.apply(SKILL.mix(skills, weights), x, jnp.zeros((1, 4, D_OUT))))

    got = jax.grad(total)(weights)
    for q, s in ((0, 0), (1, 2)):
        # The output is linear in the weights, so the gradient of a weight is the sum of its skill's output.
        one = np.zeros((2, 3))
        one[q, s] = 1
        np.testing.assert_allclose(got[0, q, s], by_hand(skills, one, x[0], zero).sum(), rtol=1e-4)


@pytest.fixture(scope="module")
def model():
    config = T5Config(
        vocab_size=32,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=16,
        num_encoder_layers=1,
        num_decoder_layers=1,
        mlp_activations=("relu",),
    )
    adapters = Adapters(
        LoRA(rank=2, alpha=3.0, merge_after=True),
        LearnedRouter(),
        n_tasks=3,
        n_skills=3,
        n_splits=2,
        sites=(".*/query", "decoder/.*"),
    )
    return Transformer(config, adapters)


@pytest.fixture(scope="module")
def parameters(model):
    rng = np.random.default_rng(0)
    leaves = traverse_util.flatten_dict(parameter_shapes(model)[0], sep="/")
    drawn = {
        name: (rng.normal(size=leaf.shape) * (3 if "router" in name else 0.4)).astype(np.float32)
        for name, leaf in sorted(leaves.items())
    }
    return traverse_util.unflatten_dict(drawn, sep="/")


INPUTS = np.random.default_rng(1).integers(2, 32, (4, 5)).astype(np.int32)


@pytest.mark.parametrize("n_beams", [1, 2])
def test_decoding_with_kept_mixes_gives_the_scores_of_whole_targets(model, parameters, n_beams):
    ids = np.array([0, 2, 1, 0], np.int32)
    decoding = Decoding(max_length=4, n_beams=n_beams, length_penalty=0.0)
    decoded = jax.jit(generate, static_argnums=(0, 4))(model, parameters, INPUTS, ids, decoding)
    tokens = np.asarray(decoded.tokens).reshape(4, n_beams, -1)
    scores = np.asarray(decoded.scores).reshape(4, n_beams)
    for beam in range(n_beams):
        targets = tokens[:, beam]
        logits = model.apply({"params": parameters}, INPUTS, np.pad(targets, ((0, 0), (1, 0)))[:, :-1], ids)
        log_probabilities = np.asarray(jax.nn.log_softmax(logits))
        rows, places = np.indices(targets.shape)
        # Compare up to the first end of sequence.
        counted = np.cumsum(targets == 1, axis=1) - (targets == 1) == 0
        expected = (log_probabilities[rows, places, targets] * counted).sum(1)
        np.testing.assert_allclose(scores[:, beam], expected, rtol=1e-4, atol=1e-4)


def test_the_collapsed_average_equals_a_mix_with_equal_weights(model, parameters):
    """It is one adapter whose rank is the sum of all ranks, because the mean of the outputs has that rank."""
    skills, rest = split(parameters, is_inventory)
    adapters = averaged_adapters(model.adapters)
    assert adapters.inventory_size == 1
    assert (adapters.skill, adapters.router) == (LoRA(rank=6, alpha=9.0, merge_after=True), SharedRouter())
    collapsed = merge(rest, average_skills(skills, model.adapters.skill))
    uniform = Transformer(model.config, dataclasses.replace(model.adapters, router=AverageRouter()))
    one = Transformer(model.config, adapters)
    wanted = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(parameter_shapes(one)[0]).items()}
    there = traverse_util.flatten_dict(collapsed)
    assert {path: there[path].shape for path in wanted} == wanted
    ids = np.zeros(4, np.int32)
    got = one.apply({"params": collapsed}, INPUTS, INPUTS, ids)
    np.testing.assert_allclose(
        got, uniform.apply({"params": parameters}, INPUTS, INPUTS, ids), rtol=1e-4, atol=1e-4
    )


def test_averaging_scanned_skills_leaves_the_layer_axis_alone(rng):
    layers = [drawn(rng, 2, 3) for _ in range(2)]
    stacked = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    means = SKILL.average(stacked)
    for i, layer in enumerate(layers):
        for name, mean in SKILL.average(layer).items():
            np.testing.assert_array_equal(means[name][i], mean)
