"""PEFT's LoRA folders give one shared skill of the same update, and options without a like are refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.adapters import holds_adapters, read_adapters
from poly_jax.model.config import T5Config
from poly_jax.routing.fixed import SharedRouter
from poly_jax.weights.tree import flatten

MODEL = T5Config(
    vocab_size=9, emb_dim=4, num_heads=2, head_dim=3, mlp_dim=8, num_encoder_layers=2, num_decoder_layers=1
)
QUERY = "base_model.model.encoder.block.{}.layer.0.SelfAttention.q"
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """An adapter of both encoder queries, as a function that changes its config and tensors."""

    def write(config=None, tensors=None, without=()):
        raw = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "target_modules": ["q"]}
        (tmp_path / "adapter_config.json").write_text(json.dumps(raw | (config or {})))
        stored = {}
        for layer in range(2):
            stored[f"{QUERY.format(layer)}.lora_A.weight"] = RNG.normal(size=(2, 4)).astype(np.float32)
            stored[f"{QUERY.format(layer)}.lora_B.weight"] = RNG.normal(size=(6, 2)).astype(np.float32)
        stored = {n: a for n, a in (stored | (tensors or {})).items() if n not in without}
        save_file(stored, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return write


def test_the_skill_makes_pefts_update(folder):
    place = folder()
    assert holds_adapters(str(place))
    read = read_adapters(str(place), MODEL)
    assert (read.skill, read.router) == (LoRA(rank=2, alpha=6.0), SharedRouter())
    assert (read.n_tasks, read.n_skills, read.n_splits) == (1, 1, 1)
    assert read.sites == ("encoder/attention/query",)
    stored, leaves = load_file(place / "adapter_model.safetensors"), flatten(read.tree)
    assert len(leaves) == len(stored) == 4
    x = RNG.normal(size=(3, 4))
    theirs = (
        x
        @ stored[f"{QUERY.format(1)}.lora_A.weight"].T
        @ stored[f"{QUERY.format(1)}.lora_B.weight"].T
        * 6
        / 2
    )
    a, b = (leaves[f"encoder/layers_1/attention/query/skills/lora_{m}"][0, 0] for m in "ab")
    np.testing.assert_allclose(x @ a @ b * read.skill.alpha / read.skill.rank, theirs, rtol=1e-6)


def test_rank_stabilised_lora_scales_by_the_root_of_the_rank(folder):
    skill = read_adapters(str(folder({"use_rslora": True})), MODEL).skill
    assert skill.alpha / skill.rank == pytest.approx(6 / np.sqrt(2))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q": 4}),
        ("alpha_pattern", {"q": 4}),
        ("lora_bias", True),
    ],
)
def test_options_without_a_like_are_refused(folder, option, value):
    with pytest.raises(UserError, match=rf"{option} is .*, which is not supported"):
        read_adapters(str(folder({option: value})), MODEL)


def test_empty_options_are_none(folder):
    read_adapters(str(folder({"rank_pattern": {}, "modules_to_save": [], "use_dora": False})), MODEL)


def test_a_missing_factor_and_another_rank_are_named(folder):
    name = f"{QUERY.format(0)}.lora_B.weight"
    with pytest.raises(UserError, match=rf"1 missing \({name}\)"):
        read_adapters(str(folder(without=[name])), MODEL)
    with pytest.raises(
        UserError, match=r"4 of another shape .*lora_A.weight is \[2, 4\] and .* has \[3, 4\]"
    ):
        read_adapters(str(folder({"r": 3})), MODEL)


def test_tensors_of_another_place_are_named(folder):
    odd = {"base_model.model.shared.lora_embedding_A": np.zeros((2, 9), np.float32)}
    with pytest.raises(UserError, match=r"1 tensors that are not LoRA's on a T5 \(base_model.model.shared"):
        read_adapters(str(folder(tensors=odd)), MODEL)
