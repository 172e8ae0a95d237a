"""Under t5x's interface the network has the same logits, predictions and loss as under poly_jax's own."""

import functools

import jax
import numpy as np
import pytest

REASON = "t5x is not installed (docs/t5x.md says how)"
pytest.importorskip("t5x.models", reason=REASON, exc_type=ImportError)

from poly_jax.data.vocabularies import byte  # noqa: E402
from poly_jax.errors import UserError  # noqa: E402
from poly_jax.interop.t5x.model import RoutedModel  # noqa: E402
from poly_jax.model.generate import Decoding, generate  # noqa: E402
from poly_jax.model.loss import TokenLoss  # noqa: E402
from poly_jax.weights.parameter_names import is_adapter_parameter  # noqa: E402


@pytest.fixture(scope="module")
def model(module):
    return RoutedModel(module, byte(), byte(), decoding=Decoding(max_length=5))


# Tracing once is much faster than running operation by operation.
decode = jax.jit(generate, static_argnums=(0, 4))


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_the_parameters_and_axes_equal_those_of_the_network(model, parameters):
    variables = model.get_initial_variables(jax.random.PRNGKey(0), {"encoder_input_tokens": (6, 7)})
    assert set(variables) == {"params", "params_axes"}
    fresh = jax.tree.map(np.shape, variables["params"].unfreeze())
    assert fresh == jax.tree.map(np.shape, parameters)


def test_the_logits_equal_those_of_the_network(model, module, parameters, batch):
    ours = module.apply(
        {"params": parameters},
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        batch["task_ids"],
    )
    np.testing.assert_array_equal(model._compute_logits(parameters, batch), ours)


def test_a_score_is_the_log_probability_of_the_targets_under_the_task_of_the_row(
    model, module, parameters, batch
):
    logits = module.apply(
        {"params": parameters},
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        batch["task_ids"],
    )
    targets = batch["decoder_target_tokens"]
    of_tokens = np.take_along_axis(log_softmax(np.asarray(logits)), targets[..., None], -1)[..., 0]
    expected = (of_tokens * (targets > 0)).sum(-1)
    np.testing.assert_allclose(model.score_batch(parameters, batch), expected, rtol=1e-5)
    elsewhere = model.score_batch(parameters, {**batch, "task_ids": (batch["task_ids"] + 1) % 3})
    assert np.all(np.abs(elsewhere - expected) > 1e-3)


def test_beams_keep_the_task_of_their_row(model, module, parameters, batch):
    beams = functools.partial(model.predict_batch_with_aux, num_decodes=3, return_all_decodes=True)
    tokens, aux = jax.jit(beams)(parameters, batch)
    assert tokens.shape == (6, 3, 5)
    for row in range(6):
        alone = decode(
            module,
            parameters,
            batch["encoder_input_tokens"][row : row + 1],
            batch["task_ids"][row : row + 1],
            Decoding(max_length=5, n_beams=3),
        )
        # In t5x the best beam is the last.
        np.testing.assert_array_equal(tokens[row, ::-1], alone.tokens[0])
        np.testing.assert_allclose(aux["scores"][row, ::-1], alone.scores[0], rtol=1e-4)


def test_the_best_beam_is_the_prediction(model, parameters, batch):
    def both(parameters, batch):
        beams = functools.partial(model.predict_batch_with_aux, parameters, batch, num_decodes=3)
        return beams(return_all_decodes=True), beams()

    (every, scores), (best, aux) = jax.jit(both)(parameters, batch)
    np.testing.assert_array_equal(best, every[:, -1])
    np.testing.assert_array_equal(aux["scores"], scores["scores"][:, -1])
    np.testing.assert_array_equal(aux["scores"], scores["scores"].max(-1))


def test_greedy_decoding_equals_generate(model, module, parameters, batch):
    ours = decode(
        module, parameters, batch["encoder_input_tokens"], batch["task_ids"], Decoding(max_length=5)
    )
    np.testing.assert_array_equal(jax.jit(model.predict_batch)(parameters, batch), ours.tokens)


@pytest.mark.parametrize("given", [{"decoder_params": {"alpha": 0.6}}, {"prompt_with_targets": True}])
def test_settings_that_only_t5xs_decoders_have_are_refused(model, parameters, batch, given):
    with pytest.raises(UserError, match=r"^(alpha|prompt_with_targets): this model has no such setting"):
        model.predict_batch_with_aux(parameters, batch, **given)


def test_the_loss_is_the_smoothed_mean_over_target_tokens(module, parameters, batch):
    eps = 0.1
    model = RoutedModel(module, byte(), byte(), loss=TokenLoss(label_smoothing=eps))
    log_probs = log_softmax(np.asarray(model._compute_logits(parameters, batch), np.float64))
    targets = batch["decoder_target_tokens"]
    of_targets = np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    of_tokens = -(1 - eps) * of_targets - eps * log_probs.mean(-1)
    total = of_tokens[targets > 0].sum()
    loss, metrics = model.loss_fn(parameters, batch, None)
    np.testing.assert_allclose(loss, total / (targets > 0).sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"].total, total, rtol=1e-5)


def test_only_skills_and_routers_have_a_gradient(model, parameters, batch):
    loss = jax.jit(jax.grad(lambda p: model.loss_fn(p, batch, jax.random.PRNGKey(0))[0]))
    gradients = loss(parameters)
    flat = {
        "/".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    }
    moving = {name for name, leaf in flat.items() if np.any(np.asarray(leaf))}
    assert moving == {name for name in flat if is_adapter_parameter(name)}
