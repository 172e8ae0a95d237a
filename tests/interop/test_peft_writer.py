"""From the exported tensors, PEFT's Poly computes the mixing weights and updates of the run."""

import dataclasses

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.interop.peft.writer import write_peft_lora, write_peft_poly
from poly_jax.interop.task_mix import task_weights
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.open_run import OpenRun
from poly_jax.training.saved_step import Origin
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tensors import of_tree
from poly_jax.weights.tree import flatten

MODEL = T5Config(
    vocab_size=9, emb_dim=4, num_heads=2, head_dim=2, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
)
TABLE = TaskTable(("a", "b", "c"))
QUERY = "encoder/layers_0/attention/query"
MODULE = "base_model.model.encoder.block.0.layer.0.SelfAttention.q"


def run_of(router, skill=LoRA(rank=2, alpha=3.0), **changes):
    """A run with random skills and routers at the queries of encoder and decoder."""
    adapters = Adapters(skill, router, n_tasks=3, n_skills=4, n_splits=2, sites=(".*/query",))
    adapters = dataclasses.replace(adapters, **changes)
    rng = np.random.default_rng(0)
    shapes = flatten(parameter_shapes(Transformer(MODEL, adapters))[0])
    skills = {
        name: 3 * rng.normal(size=leaf.shape).astype(np.float32)
        for name, leaf in shapes.items()
        if is_adapter_parameter(name)
    }
    model = Transformer(MODEL, adapters)
    return OpenRun(model, TABLE, Origin(), epath.Path("1"), of_tree(skills)), adapters


def poly_weights(logits, splits, skills):
    """Compute mixing weights from a table of logits by PEFT's formula."""
    on = 1 / (1 + np.exp(-logits.astype(np.float64))).reshape(-1, splits, skills)
    return on / (on.sum(-1, keepdims=True) + 1e-12)


@pytest.mark.parametrize(
    "router",
    [
        LearnedRouter(),
        LearnedRouter(sampling=False, temperature=0.5),
        LearnedRouter(scores="straight_through", sampling=False),
        LearnedRouter(scores="softmax", top_k=2, sampling=False),
        LearnedRouter(shared_skill=True),
        AverageRouter(),
        SharedRouter(),
        PrivateRouter(),
    ],
    ids=["poly", "temperature", "straight-through", "top-k", "shared skill", "average", "shared", "private"],
)
def test_the_exported_logits_give_the_mixing_weights_of_every_router(router, tmp_path):
    run, adapters = run_of(router)
    write_peft_poly(str(tmp_path / "out"), run, adapters)
    logits = load_file(tmp_path / "out" / "adapter_model.safetensors")[f"{MODULE}.poly_router.module_logits"]
    size = adapters.inventory_size
    assert logits.shape == (3, 2 * size)
    got = poly_weights(logits, 2, size)
    for task in range(3):
        expected = np.broadcast_to(task_weights(run, adapters, QUERY, task), (2, size))
        np.testing.assert_allclose(got[task], expected, atol=1e-6)


@pytest.mark.parametrize("granularity", ["layer", "block", "stack", "coarse"])
def test_shared_routers_are_repeated_for_every_module(granularity, tmp_path):
    run, adapters = run_of(LearnedRouter(), granularity=granularity)
    write_peft_poly(str(tmp_path / "out"), run, adapters)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    place = {
        "layer": "encoder/layers_0/attention/",
        "block": "encoder/layers_0/",
        "stack": "encoder/",
        "coarse": "",
    }[granularity]
    np.testing.assert_array_equal(
        stored[f"{MODULE}.poly_router.module_logits"].reshape(3, 2, 4), run.skills[f"{place}router/logits"]
    )
    assert len(stored) == 3 * 3


def test_alpha_is_multiplied_into_b(tmp_path):
    run, adapters = run_of(LearnedRouter())
    write_peft_poly(str(tmp_path / "out"), run, adapters)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    np.testing.assert_array_equal(stored[f"{MODULE}.poly_lora_A"], run.skills[f"{QUERY}/skills/lora_a"])
    np.testing.assert_array_equal(stored[f"{MODULE}.poly_lora_B"], run.skills[f"{QUERY}/skills/lora_b"] * 3)


@pytest.mark.parametrize("router", [LearnedRouter(average_correction=True), LearnedRouter(scores="l2")])
def test_mixing_weights_that_do_not_sum_to_1_are_refused(router, tmp_path):
    run, adapters = run_of(router)
    with pytest.raises(UserError, match="LearnedRouter gives weights that do not sum to 1"):
        write_peft_poly(str(tmp_path / "out"), run, adapters)


def test_one_task_of_a_router_whose_weights_do_not_sum_to_1_is_exported_as_lora(tmp_path):
    run, adapters = run_of(LearnedRouter(average_correction=True))
    write_peft_lora(str(tmp_path / "out"), run, adapters, task=2)
    z = 1 / (1 + np.exp(-run.skills[f"{QUERY}/router/logits"][2])) * np.sqrt(2 / 4)
    a = np.einsum("hk,hkir->hir", z, run.skills[f"{QUERY}/skills/lora_a"]).reshape(4, 2)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    np.testing.assert_allclose(stored[f"{MODULE}.lora_A.weight"], a.T, rtol=1e-5)


def test_ia3_is_refused(tmp_path):
    run, adapters = run_of(LearnedRouter(), skill=IA3())
    for write in (write_peft_poly, lambda *args: write_peft_lora(*args, task=0)):
        with pytest.raises(UserError, match="skills are IA3, and this format holds LoRA"):
            write(str(tmp_path / "out"), run, adapters)


def test_a_site_in_only_one_stack_is_targeted_by_its_full_name(tmp_path):
    import json

    run, adapters = run_of(LearnedRouter(), sites=("encoder/attention/query",))
    write_peft_poly(str(tmp_path / "out"), run, adapters)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["encoder.block.0.layer.0.SelfAttention.q"]
    run, adapters = run_of(LearnedRouter())
    write_peft_poly(str(tmp_path / "all"), run, adapters)
    assert json.loads((tmp_path / "all" / "adapter_config.json").read_text())["target_modules"] == ["q"]
