"""PEFT's LoRA folders give one shared skill with the same update; other options are refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.adapters import holds_adapters, read_adapters
from poly_jax.model.config import T5Config
from poly_jax.routing.fixed import SharedRouter
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.tree import flatten

MODEL = T5Config(
    vocab_size=9, emb_dim=4, num_heads=2, head_dim=3, mlp_dim=8, num_encoder_layers=2, num_decoder_layers=1
)
QUERY = "base_model.model.encoder.block.{}.layer.0.SelfAttention.q"
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """A function that writes an adapter of both encoder queries, with changes to its config and tensors."""

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


def test_the_skill_has_pefts_update(folder):
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
        ("modules_to_save", ["lm_head"]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("kasa_config", {"beta": 0.1}),
        ("layer_replication", [[0, 1], [0, 2]]),
        ("target_parameters", ["wo.weight"]),
        ("trainable_token_indices", [1]),
        ("alora_invocation_tokens", [5]),
        ("task_type", "SEQ_CLS"),
        ("bias", "some"),
        ("lora_bias", True),
    ],
)
def test_options_without_an_equivalent_are_refused(folder, option, value):
    with pytest.raises(UserError, match=rf"{option} is .*, which is not supported"):
        read_adapters(str(folder({option: value})), MODEL)


def test_empty_options_count_as_off(folder):
    read_adapters(str(folder({"rank_pattern": {}, "modules_to_save": [], "use_dora": False})), MODEL)


def test_a_missing_factor_and_another_rank_are_reported_by_name(folder):
    name = f"{QUERY.format(0)}.lora_B.weight"
    with pytest.raises(UserError, match=rf"1 missing \({name}\)"):
        read_adapters(str(folder(without=[name])), MODEL)
    name = f"{QUERY.format(0)}.lora_A.weight has rank 2, as 3 more, and adapter_config.json says rank 3; take"
    with pytest.raises(UserError, match=rf"adapter_model\.safetensors: {name} both files from one adapter$"):
        read_adapters(str(folder({"r": 3})), MODEL)


def test_tensors_of_modules_that_are_not_adapted_are_reported_by_name(folder):
    odd = {"base_model.model.shared.lora_embedding_A": np.zeros((2, 9), np.float32)}
    with pytest.raises(UserError, match=r"1 tensor besides LoRA's on a T5 \(base_model.model.shared"):
        read_adapters(str(folder(tensors=odd)), MODEL)


def product(read, path):
    """Return the update of a map, [d_in, d_out]."""
    leaves = flatten(read.tree)
    a, b = (leaves[f"{path}/skills/lora_{m}"][0, 0].astype(np.float64) for m in "ab")
    return a @ b * (read.skill.alpha / read.skill.rank)


def theirs(tensors, layer, scale):
    a, b = (tensors[f"{QUERY.format(layer)}.lora_{m}.weight"].astype(np.float64) for m in "AB")
    return scale * (b @ a).T


PLACE = "encoder/layers_{}/attention/query"


def test_an_unknown_option_is_refused_unless_it_is_off(folder):
    for value in (None, False, "", [], {}):
        read_adapters(str(folder({"use_future": value})), MODEL)
    for value in (True, 0, 1, "a", [1], {"a": None}):
        with pytest.raises(UserError, match=r"use_future' is .*, an option that is not known here"):
            read_adapters(str(folder({"use_future": value})), MODEL)


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_a_bias_setting_is_ignored_where_there_are_no_biases(folder, bias):
    place = folder({"bias": bias})
    update = product(read_adapters(str(place), MODEL), PLACE.format(1))
    np.testing.assert_allclose(
        update, theirs(load_file(place / "adapter_model.safetensors"), 1, 3), rtol=1e-5
    )


def test_an_alpha_for_one_map_scales_only_the_update_of_that_map(folder):
    place = folder({"alpha_pattern": {"block.1.*.q": 15}, "lora_dropout": 0.1})
    read, stored = read_adapters(str(place), MODEL), load_file(place / "adapter_model.safetensors")
    assert read.skill == LoRA(rank=2, alpha=6.0, dropout=0.1)
    for layer, scale in ((0, 6 / 2), (1, 15 / 2)):
        np.testing.assert_allclose(
            product(read, PLACE.format(layer)), theirs(stored, layer, scale), rtol=1e-4
        )


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("rank", [1, 5])
def test_a_map_with_a_smaller_rank_is_padded_to_the_largest_rank(folder, rank, stabilised):
    odd = {
        f"{QUERY.format(1)}.lora_A.weight": RNG.normal(size=(rank, 4)).astype(np.float32),
        f"{QUERY.format(1)}.lora_B.weight": RNG.normal(size=(6, rank)).astype(np.float32),
    }
    config = {"rank_pattern": {"encoder.block.1.layer.0.SelfAttention.q": rank}, "use_rslora": stabilised}
    place = folder(config, odd)
    read, stored = read_adapters(str(place), MODEL), load_file(place / "adapter_model.safetensors")
    assert read.skill.rank == max(2, rank)
    for layer, own in ((0, 2), (1, rank)):
        scale = 6 / (np.sqrt(own) if stabilised else own)
        np.testing.assert_allclose(
            product(read, PLACE.format(layer)), theirs(stored, layer, scale), rtol=1e-4
        )


@pytest.mark.parametrize(
    "config",
    [
        {"layers_to_transform": [0], "layers_pattern": "block"},
        {"layers_to_transform": 0},
        {"target_modules": r".*block\.0\..*q"},
        {"exclude_modules": ["encoder.block.1.layer.0.SelfAttention.q"]},
        {"exclude_modules": r"encoder\.block\.1.*"},
        {"target_modules": ["encoder.block.0.layer.0.SelfAttention.q"]},
    ],
)
def test_a_layer_that_the_config_does_not_adapt_has_no_update(folder, config):
    place = folder(config, without=[f"{QUERY.format(1)}.lora_{m}.weight" for m in "AB"])
    read, stored = read_adapters(str(place), MODEL), load_file(place / "adapter_model.safetensors")
    assert read.sites == ("encoder/attention/query",)
    np.testing.assert_allclose(product(read, PLACE.format(0)), theirs(stored, 0, 3), rtol=1e-5)
    np.testing.assert_array_equal(product(read, PLACE.format(1)), 0)


def test_a_layer_that_the_config_adapts_and_the_file_lacks_is_reported_by_name(folder):
    with pytest.raises(UserError, match=r"does not adapt encoder/attention/query in layers \[1\]"):
        read_adapters(str(folder(without=[f"{QUERY.format(1)}.lora_{m}.weight" for m in "AB"])), MODEL)


def test_tensors_that_peft_would_ignore_are_refused(folder):
    with pytest.raises(UserError, match=r"1 map that adapter_config\.json does not adapt \(encoder/layers_1"):
        read_adapters(str(folder({"layers_to_transform": [0]})), MODEL)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace(".lora_A", ".lora_A.mine").replace(".lora_B", ".lora_B.mine"),
        lambda name: name.removeprefix("base_model.model."),
        lambda name: f"module.{name}",
        lambda name: f"mine.{name}",
    ],
)
def test_name_prefixes_of_wrapped_models_and_of_adapters_are_understood(folder, rename):
    place = folder()
    expected = flatten(read_adapters(str(place), MODEL).tree)
    stored = load_file(place / "adapter_model.safetensors")
    save_file({rename(name): array for name, array in stored.items()}, place / "adapter_model.safetensors")
    got = flatten(read_adapters(str(place), MODEL).tree)
    assert got.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(got[name], leaf)


def test_two_adapters_in_a_file_are_refused(folder):
    name = f"{QUERY.format(0)}.lora_A.{{}}.weight"
    place = folder(without=[f"{QUERY.format(0)}.lora_A.weight"])
    stored = load_file(place / "adapter_model.safetensors")
    stored[name.format("one")] = np.zeros((2, 4), np.float32)
    stored[f"{QUERY.format(1)}.lora_A.other.weight"] = stored.pop(f"{QUERY.format(1)}.lora_A.weight")
    save_file(stored, place / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"tensors of 2 adapters or models \('one', 'other'\)"):
        read_adapters(str(place), MODEL)


def test_the_first_tensor_that_is_not_finite_is_reported_by_name(folder):
    name = f"{QUERY.format(1)}.lora_B.weight"
    broken = np.full((6, 2), np.nan, np.float32)
    with pytest.raises(UserError, match=rf"{name} has 12 of 12 numbers that are NaN or infinite"):
        read_adapters(str(folder(tensors={name: broken})), MODEL)


# Adapters that start from a part of the kernel, which PEFT subtracts from the kernel.


@pytest.fixture
def kernels():
    arrays = {f"{PLACE.format(i)}/kernel": RNG.normal(size=(4, 6)).astype(np.float32) for i in range(2)}
    return arrays, {name: Tensor(a.shape, a.dtype, lambda a=a: a) for name, a in arrays.items()}


def test_pissa_is_the_update_without_the_largest_singular_values(folder, kernels):
    place = folder({"init_lora_weights": "pissa"})
    read = read_adapters(str(place), MODEL, kernels[1])
    assert read.skill == LoRA(rank=4, alpha=12.0)
    stored = load_file(place / "adapter_model.safetensors")
    for layer in range(2):
        weight = kernels[0][f"{PLACE.format(layer)}/kernel"].T.astype(np.float64)
        # PEFT subtracts W's best approximation of rank 2: W projected on two eigenvectors of W'W.
        vectors = np.linalg.eigh(weight.T @ weight)[1][:, -2:]
        expected = theirs(stored, layer, 3) - (weight @ vectors @ vectors.T).T
        np.testing.assert_allclose(product(read, PLACE.format(layer)), expected, atol=1e-5)


def test_olora_is_the_update_without_the_first_columns_of_q(folder, kernels):
    place = folder({"init_lora_weights": "olora", "alpha_pattern": {"block.1.*": 5}})
    read = read_adapters(str(place), MODEL, kernels[1])
    stored = load_file(place / "adapter_model.safetensors")
    for layer, scale in ((0, 6 / 2), (1, 5 / 2)):
        weight = kernels[0][f"{PLACE.format(layer)}/kernel"].T.astype(np.float64)
        # The first columns of Q span the first columns of W (Gram-Schmidt); Q_r R_r is W projected on them.
        basis = []
        for column in weight.T[:2]:
            rest = column - sum((v @ column) * v for v in basis)
            basis.append(rest / np.linalg.norm(rest))
        q = np.stack(basis, axis=1)
        expected = theirs(stored, layer, scale) - scale * (q @ q.T @ weight).T
        np.testing.assert_allclose(product(read, PLACE.format(layer)), expected, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa_niter_4", "corda", "loftq", "lora_ga", "future", 1])
def test_an_initialisation_that_changes_the_kernel_in_another_way_is_refused(folder, kernels, init):
    with pytest.raises(UserError, match=rf"init_lora_weights is {init!r}, which changes the base model"):
        read_adapters(str(folder({"init_lora_weights": init})), MODEL, kernels[1])


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "eva", "orthogonal", "mica", "Gaussian"])
def test_an_initialisation_that_leaves_the_kernel_unchanged_is_plain_lora(folder, init):
    assert read_adapters(str(folder({"init_lora_weights": init})), MODEL).skill.rank == 2


def test_an_initialisation_from_the_kernel_needs_the_kernel(folder):
    with pytest.raises(UserError, match="give the backbone that it was trained on"):
        read_adapters(str(folder({"init_lora_weights": "pissa"})), MODEL)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": True}, "r is True, not a number of 1 or more"),
        ({"r": 10**9}, r"lora_A.weight has rank 2, .* says rank 1000000000;"),
        ({"lora_alpha": "8"}, "lora_alpha is '8', not a number"),
        ({"lora_alpha": 10**400}, r"lora_alpha is 10+\.\.\., not a number"),
        ({"lora_alpha": 1e300}, r"lora_alpha is 1e\+300, not a number"),
        ({"alpha_pattern": {"q": 10**400}}, r"alpha is 10+\.\.\., not a number"),
        ({"rank_pattern": [1]}, r"rank_pattern is \[1\], not a mapping"),
        ({"rank_pattern": {"q": "2"}}, "the rank '2'"),
        ({"alpha_pattern": {"q": None}}, "alpha is None, not a number"),
        ({"alpha_pattern": {"(": 2}}, r"alpha_pattern has .*, not a regular expression"),
        ({"target_modules": 3}, "target_modules is 3, not names of modules"),
        ({"layers_to_transform": ["a"]}, r"layers_to_transform is \['a'\], not numbers of layers"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes', not true or false"),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_in_one_line(folder, config, message):
    with pytest.raises(UserError, match=message) as error:
        read_adapters(str(folder(config)), MODEL)
    assert "\n" not in str(error.value)
