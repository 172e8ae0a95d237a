"""Rows that all have one task share one mix, and get what each would get with a mix of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.model.choices import choice_scores
from poly_jax.model.generate import Decoding, generate
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.stand_ins import StandInRows
from poly_jax.routing.token_router import TokenRouter
from poly_jax.weights.layer_trees import stack_layers

TASK, RANK = 2, 5
SHARES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 0.7, -0.2))
CASES = {
    "mhr": {},
    "coarse": {"granularity": "coarse"},
    "vectors": {"skill": IA3()},
    "averaged outputs": {"skill": LoRA(rank=RANK, merge_after=True)},
    "matrices of tasks": {"skill": MTLLoRA(rank=RANK)},
    "private": {"router": PrivateRouter()},
    "private beside the inventory": {"private_skill": IA3()},
    "stand-ins": {"router": "stand-ins"},
    "tokens": {"router": TokenRouter(), "n_splits": 1},
    "gates": {"router": PHATGOOSERouter(), "n_splits": 1, "n_skills": 3},
    "pooled": {"router": SMEARRouter(), "n_splits": 1},
}


@pytest.fixture(scope="module")
def model_of(tiny):
    def model_of(case, **config):
        changes = dict(CASES[case])
        if changes.get("router") == "stand-ins":
            changes["router"] = StandInRows(tiny.adapters.router, n_known=3, shares=SHARES)
        adapters = dataclasses.replace(tiny.adapters, **{"skill": LoRA(rank=RANK, alpha=0.5), **changes})
        return dataclasses.replace(
            tiny.model, adapters=adapters, config=dataclasses.replace(tiny.config, **config)
        )

    return model_of


def forms(batch):
    """The task of every row, and the one that all rows have."""
    rows = batch["encoder_input_tokens"].shape[0]
    return jnp.full(rows, TASK, jnp.int32), jnp.asarray(TASK, jnp.int32)


def outputs(model, parameters, batch, task):
    """Logits, scores of choices, and the best beams."""
    inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    choices = jnp.stack([targets, jnp.roll(targets, 1, axis=0)], axis=1)
    beams = generate(model, parameters, inputs, task, Decoding(max_length=3, n_beams=2))
    return {
        "logits": model.apply({"params": parameters}, inputs, batch["decoder_input_tokens"], task),
        "choices": choice_scores(model, parameters, inputs, choices, task),
        "beams": beams.tokens,
        "scores": beams.scores,
    }


@pytest.mark.parametrize("scan_layers", [False, True], ids=["apart", "scanned"])
@pytest.mark.parametrize("case", CASES)
def test_one_task_for_all_rows_gives_what_the_task_gives_row_by_row(
    case, scan_layers, tiny, model_of, quick_jit
):
    if scan_layers and case not in ("mhr", "coarse", "tokens"):
        pytest.skip("the layers of a scan mix as those apart do")
    model = model_of(case, scan_layers=scan_layers)
    parameters = tiny.parameters_of(model_of(case))
    if scan_layers:
        parameters = stack_layers(parameters)
    run = quick_jit(outputs, static_argnums=0)
    by_row, shared = (run(model, parameters, tiny.batch, task) for task in forms(tiny.batch))
    np.testing.assert_array_equal(shared["beams"], by_row["beams"])
    for name in ("logits", "choices", "scores"):
        np.testing.assert_allclose(shared[name], by_row[name], rtol=1e-5, atol=1e-5, err_msg=name)


def mixes_of_rows(program, *arguments):
    """The shapes in a program that have the axis of rows and that of the rank beside a width."""
    text = str(jax.make_jaxpr(program)(*arguments))
    return {shape for shape in (f"f32[5,{width},{RANK}]" for width in (16, 24)) if shape in text}


def test_rows_of_one_task_have_no_mix_of_their_own_in_the_program(tiny, model_of):
    model = model_of("mhr")
    parameters = tiny.parameters_of(model)

    def decode(inputs, task):
        return generate(model, parameters, inputs, task, Decoding(max_length=3))

    by_row, shared = (
        mixes_of_rows(decode, tiny.batch["encoder_input_tokens"], task) for task in forms(tiny.batch)
    )
    assert by_row == {f"f32[5,16,{RANK}]", f"f32[5,24,{RANK}]"}
    assert not shared
