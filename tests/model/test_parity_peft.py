"""Poly and MHR compute the same as PEFT's Poly on the same weights, as recorded from peft 0.21.2."""

import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.interop.peft.folder import open_peft
from poly_jax.interop.peft.poly import poly_adapters
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights.backbone import open_backbone, read_backbone
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.t5_names import to_t5x
from poly_jax.weights.tree import merge, split

ATOL = 2e-5
PREFIX = "base_model.model."


def ours(name: str) -> str:
    """Translate PEFT's name of a tensor to the project's path."""
    module, _, parameter = name.removeprefix(PREFIX).rpartition(".poly_")
    part = {"lora_A": "skills/lora_a", "lora_B": "skills/lora_b", "router.module_logits": "router/logits"}
    return f"{to_t5x(module)}/{part[parameter]}"


@pytest.fixture(scope="module", params=["poly_k1_s1_r2", "poly_k4_s1_r2", "poly_k4_s4_r4"])
def case(request, shared_data):
    folder = shared_data / "peft" / request.param
    meta = json.loads((folder / "meta.json").read_text())
    base = open_backbone(folder / "base")
    backbone = read_backbone(folder / "base")
    config = T5Config.of_checkpoint(base.stated_fields(), base.path)
    adapter = poly_adapters(open_peft(folder / "adapter"), config).tree
    adapters = Adapters(
        LoRA(rank=meta["r"], alpha=1.0),
        LearnedRouter(),
        n_tasks=meta["n_tasks"],
        n_skills=meta["n_skills"],
        n_splits=meta["n_splits"],
    )
    expected = np.load(folder / "fixture.npz", allow_pickle=False)
    inputs, decoder_inputs, task_ids = (
        jnp.asarray(expected[name], jnp.int32) for name in ("input_ids", "decoder_input_ids", "task_ids")
    )
    return SimpleNamespace(
        model=Transformer(config, adapters),
        backbone=backbone,
        parameters=merge(backbone, adapter),
        expected=expected,
        inputs=inputs,
        decoder_inputs=decoder_inputs,
        task_ids=task_ids,
        n_beams=meta["beams"],
        max_length=meta["max_new_tokens"],
    )


def loss_and_gradients(case, model, noise=None):
    trained, frozen = split(case.parameters, is_adapter_parameter)
    labels = jnp.asarray(case.expected["labels"], jnp.int32)
    weights = (labels != -100).astype(jnp.float32)

    def loss(trained):
        variables = {"params": merge(trained, frozen)} | ({"noise": noise} if noise else {})
        logits = model.apply(variables, case.inputs, case.decoder_inputs, case.task_ids)
        total = TokenLoss().total(logits, jnp.maximum(labels, 0), weights)
        return total / TokenLoss().divisor(weights), logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
    return value, logits, traverse_util.flatten_dict(gradients, sep="/")


def assert_gradients_equal(gradients, expected, prefix):
    names = [name.removeprefix(prefix) for name in expected.files if name.startswith(prefix)]
    assert {ours(name) for name in names} == set(gradients)
    for name in names:
        got = gradients[ours(name)]
        np.testing.assert_allclose(got, expected[prefix + name].reshape(got.shape), atol=ATOL, err_msg=name)


def test_logits_without_adapters_equal_transformers(case):
    bare = Transformer(case.model.config)
    logits = jax.jit(bare.apply)({"params": case.backbone}, case.inputs, case.decoder_inputs)
    np.testing.assert_allclose(logits, case.expected["base_logits"], atol=1e-4)


def test_evaluation_logits_loss_and_every_gradient_equal_peft(case):
    value, logits, gradients = loss_and_gradients(case, case.model)
    np.testing.assert_allclose(logits, case.expected["logits"], atol=ATOL)
    np.testing.assert_allclose(value, case.expected["loss"], atol=ATOL)
    assert_gradients_equal(gradients, case.expected, "grad/")


def test_training_pass_with_recorded_noise_equals_peft(case):
    noise = {}
    for name in case.expected.files:
        if name.startswith("train_uniforms/"):
            module = name.removeprefix("train_uniforms/").removeprefix(PREFIX).removesuffix(".poly_router")
            noise[f"{to_t5x(module)}/router/uniform"] = case.expected[name]
    assert noise
    noise = traverse_util.unflatten_dict(noise, sep="/")
    value, logits, gradients = loss_and_gradients(case, case.model.clone(train=True), noise)
    np.testing.assert_allclose(logits, case.expected["train_logits"], atol=ATOL)
    np.testing.assert_allclose(value, case.expected["train_loss"], atol=ATOL)
    assert_gradients_equal(gradients, case.expected, "train_grad/")


def test_mixing_weights_equal_peft(case):
    _, state = jax.jit(functools.partial(case.model.apply, mutable=["intermediates"]))(
        {"params": case.parameters}, case.inputs, case.decoder_inputs, case.task_ids
    )
    weights = traverse_util.flatten_dict(state["intermediates"], sep="/")
    names = [name for name in case.expected.files if name.startswith("weights/")]
    assert len(names) == 36
    for name in names:
        module = name.removeprefix("weights/").removeprefix(PREFIX).removesuffix(".poly_router")
        (got,) = weights[f"{to_t5x(module)}/router/weights"]
        np.testing.assert_allclose(got, case.expected[name].reshape(got.shape), atol=ATOL)


def test_forcing_every_row_to_one_task_equals_peft(case):
    for task in (0, 1):
        logits = jax.jit(case.model.apply)(
            {"params": case.parameters}, case.inputs, case.decoder_inputs, jnp.full_like(case.task_ids, task)
        )
        np.testing.assert_allclose(logits, case.expected[f"logits_task_{task}"], atol=ATOL)


def decoded(case, **settings):
    decoding = Decoding(max_length=case.max_length, **settings)
    run = jax.jit(functools.partial(generate, case.model, decoding=decoding))
    return run(case.parameters, encoder_input_tokens=case.inputs, task_ids=case.task_ids)


def without_start(ids, length):
    """Remove the start token that Hugging Face returns, and pad: it stops at the longest row of the batch."""
    rows = np.zeros((ids.shape[0], length), np.int32)
    rows[:, : ids.shape[1] - 1] = ids[:, 1:]
    return rows


def test_greedy_decodes_equal_peft(case):
    expected = without_start(case.expected["greedy_ids"], case.max_length)
    np.testing.assert_array_equal(decoded(case).tokens, expected)


def test_best_beams_equal_beam_search_on_merged_weights(case):
    result = decoded(case, n_beams=case.n_beams)
    expected = without_start(case.expected["beam_ids"], case.max_length)
    np.testing.assert_array_equal(result.tokens[:, 0], expected)
    np.testing.assert_allclose(result.scores[:, 0], case.expected["beam_scores"], atol=1e-4)
