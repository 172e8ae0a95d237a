"""PEFT and this project compute the same outputs from each other's adapter folders."""

import json
import pathlib

import numpy as np
import pytest

import poly_jax
from poly_jax import cli

TASKS = ["alpha", "bravo", "charlie", "delta"]
ALL = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]


def randomise(model):
    """Replace the zeros and ones that adapters start with by random numbers.

    They are small enough that float32's own rounding moves no logit by 1e-5: at six times the size, PEFT in
    float32 and in float64 differ by 1e-4.
    """
    import torch

    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = 3.0 if "module_logits" in name else 0.05
            offset = 1.0 if "ia3" in name else 0.0
            parameter.data = offset + scale * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def peft_model(t5):
    """A function that makes a PEFT model saved in `adapter`, on a fresh base model saved in `base`."""
    from peft import get_peft_model

    def make(config, form="v1.1"):
        base = t5(form)
        base.save_pretrained("base")
        model = randomise(get_peft_model(base, config))
        model.save_pretrained("adapter")
        return model

    return make


@pytest.fixture
def poly(peft_model):
    """PEFT's Poly with all maps adapted, saved in `adapter`."""
    from peft import PolyConfig

    return peft_model(
        PolyConfig(
            task_type="SEQ_2_SEQ_LM",
            r=3,
            n_tasks=4,
            n_skills=5,
            n_splits=2,
            target_modules=ALL,
            init_weights=False,
        )
    )


def task_ids(*ids):
    import torch

    return torch.tensor(ids)


@pytest.mark.parametrize("splits", [1, 4])
def test_poly_computes_the_same_here(peft_model, their_logits, our_logits, splits):
    from peft import PolyConfig

    model = peft_model(
        PolyConfig(task_type="SEQ_2_SEQ_LM", r=2, n_tasks=4, n_skills=3, n_splits=splits, target_modules=ALL)
    )
    loaded = poly_jax.load("base").attach_checkpoint("adapter", TASKS)
    expected = their_logits(model, task_ids=task_ids(3, 0, 2))
    np.testing.assert_allclose(our_logits(loaded, ["delta", "alpha", "charlie"]), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"target_modules": ["q", "v"], "lora_alpha": 7},
        {"alpha_pattern": {"q": 5}, "rank_pattern": {"wo": 2}, "lora_alpha": 4},
        {"layers_to_transform": [1], "layers_pattern": "block"},
        {"target_modules": r"encoder\.block\.0\..*\.(q|wo)"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "pissa", "rank_pattern": {"wo": 2}, "lora_alpha": 4},
    ],
)
def test_lora_computes_the_same_here(peft_model, their_logits, our_logits, options):
    from peft import LoraConfig

    settings = {"r": 4, "lora_alpha": 16, "target_modules": ALL, "lora_dropout": 0.1} | options
    model = peft_model(LoraConfig(task_type="SEQ_2_SEQ_LM", **settings))
    loaded = poly_jax.load("base").attach_checkpoint("adapter")
    # PEFT subtracts PiSSA's and OLoRA's start from the base, by an SVD and a QR in float32, which round too.
    atol = 1e-4 if "init_lora_weights" in options else 1e-5
    np.testing.assert_allclose(our_logits(loaded), their_logits(model), atol=atol)


@pytest.mark.parametrize("form", ["v1.0", "v1.1"])
def test_ia3_computes_the_same_here(peft_model, their_logits, our_logits, form):
    from peft import IA3Config

    modules = {"target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"]}
    model = peft_model(IA3Config(task_type="SEQ_2_SEQ_LM", **modules), form)
    if form == "v1.0":
        for name, parameter in model.named_parameters():
            if "ia3" in name:
                parameter.data = parameter.data.abs()
        model.save_pretrained("adapter")
    loaded = poly_jax.load("base").attach_checkpoint("adapter")
    np.testing.assert_allclose(our_logits(loaded), their_logits(model), atol=1e-5)


def imported_run(names=TASKS):
    pathlib.Path("names.json").write_text(json.dumps(names))
    assert (
        cli.main(["import", "--from=adapter", "--backbone=base", "--output=run", "--tasks=names.json"]) == 0
    )


def test_skills_and_router_load_in_peft_and_compute_the_same(poly, t5, their_logits):
    from peft import PeftModel

    imported_run()
    assert cli.main(["export", "--run=run", "--output=out", "--format=peft_poly"]) == 0
    again = PeftModel.from_pretrained(t5("v1.1"), "out").eval()
    ids = task_ids(3, 0, 2)
    expected = their_logits(poly, task_ids=ids)
    np.testing.assert_allclose(their_logits(again, task_ids=ids), expected, atol=1e-5)
    assert json.loads(pathlib.Path("out/tasks.json").read_text()) == {"tasks": TASKS}


def test_peft_to_poly_jax_to_peft_keeps_every_tensor_and_name(poly):
    from safetensors.numpy import load_file

    imported_run()
    assert cli.main(["export", "--run=run", "--output=out", "--format=peft_poly"]) == 0
    got, expected = (load_file(f"{folder}/adapter_model.safetensors") for folder in ("out", "adapter"))
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    configs = [json.loads(pathlib.Path(f"{f}/adapter_config.json").read_text()) for f in ("out", "adapter")]
    ours = {key: value for key, value in configs[0].items() if key not in ("base_model_name_or_path",)}
    theirs = {key: configs[1][key] for key in ours}
    ours["target_modules"], theirs["target_modules"] = (
        set(ours["target_modules"]),
        set(theirs["target_modules"]),
    )
    # Settings that are needed only to initialise an adapter.
    assert ours | {"init_weights": None} == theirs | {"init_weights": None}


def test_the_mix_of_one_task_loads_as_plain_lora_and_computes_the_same(poly, t5, their_logits):
    from peft import PeftModel

    imported_run()
    assert cli.main(["export", "--run=run", "--output=out", "--format=peft_lora", "--task=charlie"]) == 0
    lora = PeftModel.from_pretrained(t5("v1.1"), "out").eval()
    expected = their_logits(poly, task_ids=task_ids(2, 2, 2))
    np.testing.assert_allclose(their_logits(lora), expected, atol=1e-5)


def test_one_task_merged_loads_in_transformers_and_computes_the_same(poly, their_logits):
    from transformers import AutoModelForSeq2SeqLM

    imported_run()
    assert cli.main(["export", "--run=run", "--output=out", "--format=hugging_face", "--task=bravo"]) == 0
    merged = AutoModelForSeq2SeqLM.from_pretrained("out").eval()
    expected = their_logits(poly, task_ids=task_ids(1, 1, 1))
    np.testing.assert_allclose(their_logits(merged), expected, atol=1e-5)


def test_adapters_made_here_compute_the_same_in_peft(t5, their_logits, our_logits):
    import jax
    from peft import PeftModel

    t5("v1.1").save_pretrained("base")
    adapters = poly_jax.Adapters(
        skill=poly_jax.LoRA(rank=2, alpha=3.0),
        router=poly_jax.LearnedRouter(),
        n_tasks=2,
        n_skills=3,
        n_splits=4,
        sites=("encoder/.*", "decoder/self_attention/query"),
        granularity="block",
    )
    model = poly_jax.load("base").attach(adapters, ["one", "two"])
    # A fresh B is zero: add noise, so that every adapter changes the output.
    noisy = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
            if any(getattr(key, "key", None) in ("skills", "router") for key in path)
            else leaf
        ),
        model.restored.parameters,
    )
    import dataclasses

    model = dataclasses.replace(model, restored=dataclasses.replace(model.restored, parameters=noisy))
    model.save("run")
    assert cli.main(["export", "--run=run", "--output=out", "--format=peft_poly"]) == 0
    theirs = PeftModel.from_pretrained(t5("v1.1"), "out").eval()
    expected = our_logits(model, ["two", "one", "two"])
    np.testing.assert_allclose(their_logits(theirs, task_ids=task_ids(1, 0, 1)), expected, atol=1e-5)
    assert np.abs(expected - our_logits(model, "one"))[[0, 2]].max() > 0.01


def test_a_pickled_adapter_is_read_without_running_it(poly, our_logits):
    import torch
    from safetensors.torch import load_file

    expected = our_logits(poly_jax.load("base").attach_checkpoint("adapter", TASKS), "bravo")
    torch.save(load_file("adapter/adapter_model.safetensors"), "adapter/adapter_model.bin")
    pathlib.Path("adapter/adapter_model.safetensors").unlink()
    got = our_logits(poly_jax.load("base").attach_checkpoint("adapter", TASKS), "bravo")
    np.testing.assert_array_equal(got, expected)


def test_a_lightning_checkpoint_of_the_reference_implementation_is_read(poly, our_logits):
    import torch
    from safetensors.torch import load_file

    endings = {
        "poly_lora_A": "lora_a",
        "poly_lora_B": "lora_b",
        "poly_router.module_logits": "selector.module_logits",
    }
    state = {}
    for name, tensor in load_file("adapter/adapter_model.safetensors").items():
        for theirs, reference in endings.items():
            if name.endswith(theirs):
                state[name.removeprefix("base_model.").removesuffix(theirs) + reference] = tensor
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"n_skills": 5}}, "best.ckpt")
    expected = our_logits(poly_jax.load("base").attach_checkpoint("adapter", TASKS), "delta")
    got = our_logits(poly_jax.load("base").attach_checkpoint("best.ckpt", TASKS), "delta")
    np.testing.assert_array_equal(got, expected)
