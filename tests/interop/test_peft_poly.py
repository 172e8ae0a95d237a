"""PEFT's Poly folders give skills and routers under T5X's names, every tensor exactly once."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.peft.folder import open_peft
from poly_jax.interop.peft.poly import poly_adapters
from poly_jax.model.config import T5Config
from poly_jax.weights.t5_dimensions import sites
from poly_jax.weights.tree import flatten

FIXTURES = {"poly_k1_s1_r2": (1, 1, 2), "poly_k4_s1_r2": (4, 1, 2), "poly_k4_s4_r4": (4, 4, 4)}
MODEL = T5Config(
    vocab_size=128,
    emb_dim=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=2,
    num_decoder_layers=2,
)


def read_poly(folder):
    return poly_adapters(open_peft(folder), MODEL)


@pytest.fixture
def adapter(shared_data, tmp_path):
    """A function that changes config and tensors of a copy of the fixture with 4 skills and 4 splits."""
    source = shared_data / "peft" / "poly_k4_s4_r4" / "adapter"

    def change(config=None, tensors=lambda stored: stored):
        raw = json.loads((source / "adapter_config.json").read_text()) | (config or {})
        (tmp_path / "adapter_config.json").write_text(json.dumps(raw))
        save_file(
            tensors(load_file(source / "adapter_model.safetensors")), tmp_path / "adapter_model.safetensors"
        )
        return tmp_path

    return change


@pytest.mark.parametrize("fixture", FIXTURES)
def test_all_108_tensors_are_read_exactly_once(shared_data, fixture):
    folder = shared_data / "peft" / fixture / "adapter"
    stored = load_file(folder / "adapter_model.safetensors")
    read = read_poly(folder)
    leaves = flatten(read.tree)
    assert len(leaves) == len(stored) == 108
    # All values are random, so only equal tensors have equal contents.
    contents = sorted(array.tobytes() for array in stored.values())
    assert len(set(contents)) == 108
    assert sorted(array.tobytes() for array in leaves.values()) == contents
    assert set(read.sites) == set(sites(MODEL))


@pytest.mark.parametrize(("fixture", "sizes"), FIXTURES.items())
def test_shapes_equal_those_of_the_models_sites(shared_data, fixture, sizes):
    k, h, r = sizes
    read = read_poly(shared_data / "peft" / fixture / "adapter")
    assert (read.n_tasks, read.n_skills, read.n_splits) == (5, k, h)
    assert read.skill == LoRA(rank=r, alpha=1.0)
    assert read.granularity == "fine"
    leaves = flatten(read.tree)
    for site, (d_in, d_out) in sites(MODEL).items():
        stack, rest = site.split("/", 1)
        for layer in range(2):
            path = f"{stack}/layers_{layer}/{rest}"
            assert leaves[f"{path}/skills/lora_a"].shape == (h, k, d_in // h, r)
            assert leaves[f"{path}/skills/lora_b"].shape == (h, k, r, d_out // h)
            assert leaves[f"{path}/router/logits"].shape == (5, h, k)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_router_logits_give_the_mixing_weights_that_peft_recorded(shared_data, fixture):
    folder = shared_data / "peft" / fixture
    recorded = np.load(folder / "fixture.npz")
    tree = read_poly(folder / "adapter").tree
    modules = {
        "encoder/layers_1/attention/query": "encoder.block.1.layer.0.SelfAttention.q",
        "decoder/layers_0/encoder_decoder_attention/out": "decoder.block.0.layer.1.EncDecAttention.o",
        "decoder/layers_1/mlp/wi_0": "decoder.block.1.layer.2.DenseReluDense.wi_0",
    }
    for path, module in modules.items():
        z = flatten(tree)[f"{path}/router/logits"][recorded["task_ids"]]
        on = 1 / (1 + np.exp(-z.astype(np.float64)))
        weights = on / (on.sum(axis=-1, keepdims=True) + 1e-12)
        np.testing.assert_allclose(
            weights, recorded[f"weights/base_model.model.{module}.poly_router"], atol=1e-6
        )


def test_a_size_that_is_not_a_number_is_refused(adapter):
    with pytest.raises(UserError, match="n_splits is None, not a number"):
        read_poly(adapter(config={"n_splits": None}))


def test_a_config_with_other_sizes_is_refused_with_both_shapes(adapter):
    with pytest.raises(
        UserError, match=r"36 of another shape .*module_logits is \[5, 16\] and .* has \[6, 16\]"
    ):
        read_poly(adapter(config={"n_tasks": 6}))


def test_a_config_with_another_rank_is_refused_with_both_ranks(adapter):
    with pytest.raises(
        UserError, match=r"poly_lora_A has rank \d+, .* and adapter_config\.json says rank 77;"
    ):
        read_poly(adapter(config={"r": 77}))


def test_a_missing_tensor_is_reported_by_name(adapter):
    name = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.poly_lora_B"
    with pytest.raises(UserError, match=rf"1 missing \({name}\)"):
        read_poly(adapter(tensors=lambda stored: {n: a for n, a in stored.items() if n != name}))


@pytest.mark.parametrize(
    "name", ["base_model.model.lm_head.weight", "base_model.model.lm_head.poly_lora_A", "x.poly_lora_A"]
)
def test_a_tensor_that_is_not_polys_is_reported_by_name(adapter, name):
    with pytest.raises(UserError, match=rf"1 tensor besides Poly's on a T5 \({name}\)"):
        read_poly(adapter(tensors=lambda stored: stored | {name: np.zeros(2, np.float32)}))


def test_a_site_that_is_not_adapted_in_all_layers_is_reported_by_name(adapter):
    lost = "encoder.block.0.layer.1.DenseReluDense.wo."
    with pytest.raises(UserError, match=r"does not adapt encoder/mlp/wo in layers \[0\]"):
        read_poly(adapter(tensors=lambda stored: {n: a for n, a in stored.items() if lost not in n}))


def test_an_adapter_of_fewer_sites_is_read(adapter):
    folder = adapter(tensors=lambda stored: {n: a for n, a in stored.items() if ".SelfAttention.q." in n})
    read = read_poly(folder)
    assert read.sites == ("decoder/self_attention/query", "encoder/attention/query")
    assert len(flatten(read.tree)) == 4 * 3


def test_a_pickle_is_not_read_without_pytorch(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    folder = adapter()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin is a pickle, which can run code"):
        read_poly(folder)


def test_a_truncated_file_is_reported_by_name(adapter):
    file = adapter() / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors cannot be read as safetensors"):
        read_poly(file.parent)
