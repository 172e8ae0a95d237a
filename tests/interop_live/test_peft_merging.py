"""Several adapters of PEFT become one run, and merge as PEFT's `add_weighted_adapter` merges them."""

import jax
import numpy as np
import pytest

import poly_jax
from poly_jax import cli, configuration
from poly_jax.training.open_run import open_run
from poly_jax.transfer.combined_skills import merge_skills
from poly_jax.transfer.merging import DareLinear, DareTies, MagnitudePrune, TaskArithmetic, Ties
from poly_jax.weights.tree import flatten, unflatten

NAMES = ("drop", "sort", "upper")
WEIGHTS = (0.7, -0.4, 1.3)
QUERY = "encoder.block.0.layer.0.SelfAttention.q"
PLACE = "encoder/layers_0/attention/query/skills"


@pytest.fixture
def peft_model(t5):
    """A function that makes a PEFT model with three adapters, saved in folders of their names."""
    import torch
    from peft import LoraConfig, get_peft_model

    def make(configs):
        base = t5("v1.1")
        base.save_pretrained("base")
        model = None
        for name, options in zip(NAMES, configs, strict=True):
            config = LoraConfig(task_type="SEQ_2_SEQ_LM", **options)
            if model is None:
                model = get_peft_model(base, config, adapter_name=name)
            else:
                model.add_adapter(name, config)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.3 * torch.randn_like(parameter)
        for name in NAMES:
            model.save_pretrained(".", selected_adapters=[name])
        return model.eval()

    return make


def imported():
    assert cli.main(["import", "--from", *NAMES, "--backbone=base", "--output=run"]) == 0
    experiment = configuration.load([], recorded=configuration.run_config("run")).experiment()
    return open_run("run", experiment)


def test_every_skill_of_an_imported_inventory_has_its_adapters_logits(peft_model, their_logits, our_logits):
    model = peft_model(
        [
            {"r": 2, "lora_alpha": 8, "target_modules": ["q", "v"]},
            {"r": 5, "lora_alpha": 3, "target_modules": ["q", "wo"], "use_rslora": True},
            {"r": 3, "lora_alpha": 3, "target_modules": ["k", "wi_0"], "rank_pattern": {"k": 1}},
        ]
    )
    imported()
    loaded = poly_jax.load("run")
    for name in NAMES:
        model.set_adapter(name)
        np.testing.assert_allclose(our_logits(loaded, name), their_logits(model), atol=1e-4)


def merged_by_peft(model, kind, **more):
    model.add_weighted_adapter(list(NAMES), list(WEIGHTS), "merged", combination_type=kind, **more)
    found = dict(model.named_modules())[f"base_model.model.{QUERY}"]
    return found.get_delta_weight("merged").detach().numpy().T


def product(factors, scale):
    return scale * factors[f"{PLACE}/lora_a"][0, 0] @ factors[f"{PLACE}/lora_b"][0, 0]


@pytest.mark.parametrize(
    ("merging", "kind", "more"),
    [
        (TaskArithmetic(WEIGHTS), "linear", {}),
        (MagnitudePrune(WEIGHTS, 0.29), "magnitude_prune", {"density": 0.29}),
        (Ties(WEIGHTS, 0.4), "ties", {"density": 0.4}),
        (
            Ties(WEIGHTS, 0.7, "frequency"),
            "ties",
            {"density": 0.7, "majority_sign_method": "frequency"},
        ),
    ],
)
def test_skills_merge_as_peft_merges_adapters(peft_model, merging, kind, more):
    model = peft_model([{"r": 4, "lora_alpha": 6, "target_modules": ["q", "wo"]}] * 3)
    skills = unflatten(imported().skills)
    ours = flatten(jax.jit(lambda tree: merge_skills(tree, merging, jax.random.key(0)))(skills))
    np.testing.assert_allclose(product(ours, 1.5), merged_by_peft(model, kind, **more), atol=1e-5)


@pytest.mark.parametrize("merging", [DareLinear(WEIGHTS, 0.6), DareTies(WEIGHTS, 0.6)])
def test_dare_is_pefts_with_the_same_numbers_dropped(peft_model, merging, monkeypatch):
    import torch

    model = peft_model([{"r": 4, "lora_alpha": 6, "target_modules": QUERY}] * 3)
    draw, masks = torch.bernoulli, []

    def recorded(*arguments):
        masks.append(draw(*arguments))
        return masks[-1]

    monkeypatch.setattr(torch, "bernoulli", recorded)
    kind = "dare_linear" if isinstance(merging, DareLinear) else "dare_ties"
    expected = merged_by_peft(model, kind, density=0.6)
    # PEFT draws for the A of all adapters and then for the B of all, in torch's layout.
    drawn = {
        "lora_a": [mask.numpy().T for mask in masks[:3]],
        "lora_b": [mask.numpy().T for mask in masks[3:]],
    }
    ours = {}
    for name, leaf in imported().skills.items():
        kept = np.stack(drawn[name.rpartition("/")[2]])[:, None]
        weights = np.array(WEIGHTS)
        roots = np.sqrt(np.abs(weights)) * (np.sign(weights) if name.endswith("lora_a") else 1)
        one = merging.merge(np.moveaxis(leaf, 1, 0), roots, lambda shape, kept=kept: 1 - kept)
        ours[name] = np.asarray(one)[:, None]
    np.testing.assert_allclose(product(ours, 1.5), expected, atol=1e-5)
