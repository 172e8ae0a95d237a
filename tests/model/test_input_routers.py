"""A T5 whose routers look at inputs: its decoding, the forms of its stacks, and what it leaves out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.adapters.ia3 import IA3
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.scoring import decoder_inputs, sequence_scores
from poly_jax.model.transformer import Transformer
from poly_jax.routing.arrow import ArrowRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.token_router import TokenRouter
from poly_jax.weights.layer_trees import stack_layers

CASES = {
    "MoLoRA": (TokenRouter(), None),
    "MoV": (TokenRouter(top_k=2), IA3()),
    "Arrow": (ArrowRouter(top_k=2), None),
    "PHATGOOSE": (PHATGOOSERouter(), None),
    "SMEAR": (SMEARRouter(), None),
}


def model_of(name, tiny, depth):
    """A model with one of the routers, and parameters under which its weights differ between inputs."""
    router, skill = CASES[name]
    skill = skill or tiny.adapters.skill
    adapters = dataclasses.replace(tiny.adapters, router=router, skill=skill, n_splits=1)
    config = dataclasses.replace(tiny.config, num_encoder_layers=depth, num_decoder_layers=depth)
    model = Transformer(config, adapters)
    leaves = traverse_util.flatten_dict(tiny.parameters_of(model), sep="/")
    leaves = {
        path: 2 * leaf if "input_router" in path or path.endswith("ia3") else leaf
        for path, leaf in leaves.items()
    }
    return model, traverse_util.unflatten_dict(leaves, sep="/")


@pytest.fixture(scope="module", params=CASES)
def case(request, tiny):
    """A model of one layer with one of the routers, and its parameters."""
    return model_of(request.param, tiny, depth=1)


@pytest.fixture(scope="module", params=["MoLoRA", "SMEAR"])
def form(request, tiny):
    """A model of two layers with a router of tokens or of examples: the others differ in their formula."""
    return model_of(request.param, tiny, depth=2)


@pytest.fixture(scope="module")
def decode(quick_jit):
    return quick_jit(generate, static_argnums=(0, 4))


def scores_of(model, parameters, inputs, tokens, task_ids):
    """The log-probability of each output, its tokens given at once."""
    logits = model.apply({"params": parameters}, inputs, decoder_inputs(tokens, 0), task_ids)
    # Token 0 may be decoded, too: an output goes on until its end of sequence.
    ended = jnp.cumsum(tokens == model.config.eos_id, axis=1) - (tokens == model.config.eos_id)
    return sequence_scores(logits, tokens, (ended == 0).astype(jnp.float32))


def test_tokens_decoded_one_by_one_have_the_probability_that_the_whole_target_has(
    case, tiny, decode, quick_jit
):
    model, parameters = case
    inputs, ids = tiny.batch["encoder_input_tokens"], tiny.batch["task_ids"]
    teacher_forced = quick_jit(functools.partial(scores_of, model))
    greedy = decode(model, parameters, inputs, ids, Decoding(max_length=5))
    expected = teacher_forced(parameters, inputs, greedy.tokens, ids)
    np.testing.assert_allclose(greedy.scores, expected, rtol=1e-4, atol=1e-4)
    beams = decode(model, parameters, inputs, ids, Decoding(max_length=5, n_beams=2, length_penalty=0.0))
    best = teacher_forced(parameters, inputs, beams.tokens[:, 0], ids)
    np.testing.assert_allclose(beams.scores[:, 0], best, rtol=1e-4, atol=1e-4)


def test_an_output_depends_on_its_own_input_only(case, tiny, logits_of):
    model, parameters = case
    logits = logits_of(model, parameters, tiny.batch)
    # Other rows, more padding and another task change nothing.
    order = np.array([4, 2, 0, 1, 3])
    changed = {name: rows[order] for name, rows in tiny.batch.items()}
    changed["encoder_input_tokens"] = jnp.pad(changed["encoder_input_tokens"], ((0, 0), (0, 3)))
    changed["task_ids"] = (changed["task_ids"] + 1) % 3
    np.testing.assert_allclose(
        logits_of(model, parameters, changed), logits[order], rtol=1e-4, atol=1e-4 * float(abs(logits).max())
    )
    # The skills do change the output, and the router chooses among them.
    average = traverse_util.flatten_dict(parameters, sep="/")
    average = {path: 0 * leaf if "input_router" in path else leaf for path, leaf in average.items()}
    average = traverse_util.unflatten_dict(average, sep="/")
    assert np.abs(logits_of(model, average, tiny.batch) - logits).max() > 1e-2


@pytest.mark.parametrize("router", ["Arrow", "PHATGOOSE", "SMEAR"])
def test_scanned_and_recomputed_layers_have_the_gradients_of_plain_layers(router, tiny, gradients_of):
    model, parameters = model_of(router, tiny, depth=2)
    model = dataclasses.replace(model, train=True, config=dataclasses.replace(model.config, dropout_rate=0.0))
    scanned = dataclasses.replace(
        model, config=dataclasses.replace(model.config, scan_layers=True, remat="full")
    )
    rngs = {"dropout": jax.random.key(0), "routing": jax.random.key(1)}
    plain, logits = gradients_of(model, parameters, tiny.batch, **rngs)
    found, same = gradients_of(scanned, stack_layers(parameters), tiny.batch, **rngs)
    np.testing.assert_allclose(same, logits, atol=2e-5 * float(jnp.abs(logits).max()))
    found, plain = (traverse_util.flatten_dict(tree, sep="/") for tree in (found, stack_layers(plain)))
    routers = {path for path in plain if "input_router" in path}
    assert routers
    # Arrow's prototypes belong to the skills, and are not trained.
    assert all(np.asarray(plain[path]).any() == (router != "Arrow") for path in routers)
    for path, leaf in plain.items():
        scale = max(float(np.abs(leaf).max()), 1e-3)
        np.testing.assert_allclose(found[path], leaf, atol=2e-5 * scale, err_msg=path)


def test_the_load_of_every_site_is_an_intermediate_that_leaves_padding_out(form, tiny, quick_jit):
    model, parameters = form
    arrays = [tiny.batch[name] for name in ("encoder_input_tokens", "decoder_input_tokens", "task_ids")]
    apply = quick_jit(functools.partial(model.apply, mutable=["intermediates"]))
    found = []
    for inputs in (arrays[0], jnp.pad(arrays[0], ((0, 0), (0, 5)))):
        _, state = apply({"params": parameters}, inputs, *arrays[1:])
        (load,) = state["intermediates"]["encoder"]["layers_0"]["mlp"]["wo"]["input_router"]["load"]
        found.append(load)
        np.testing.assert_allclose(load["share"].sum(), 1, rtol=1e-5)
        assert load["weight"].shape == (3,)
        assert 0 <= load["entropy"] <= np.log(3) + 1e-5
    np.testing.assert_allclose(found[1]["weight"], found[0]["weight"], rtol=1e-4)


def test_many_copies_of_a_router_train_in_one_program(form, tiny, quick_jit):
    """Sweeps train adaptations under `jax.vmap`."""
    model, parameters = form

    def loss(parameters):
        apply = functools.partial(model.apply, {"params": parameters})
        return TokenLoss().totals(apply, tiny.batch)["tokens"]

    second = jax.tree.map(lambda leaf: 0.9 * leaf, parameters)
    together = quick_jit(jax.vmap(loss))(jax.tree.map(lambda *pair: jnp.stack(pair), parameters, second))
    alone = quick_jit(loss)
    np.testing.assert_allclose(together, [alone(parameters), alone(second)], rtol=1e-4)
