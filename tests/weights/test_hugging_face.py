"""Hugging Face folders give T5X's arrays and a configuration, or an error that says what is wrong."""

import json
import re
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.weights.hugging_face import open_hugging_face
from poly_jax.weights.hugging_face_config import scales_outputs
from poly_jax.weights.tensors import read_all
from poly_jax.weights.tree import flatten

HEAD = "lm_head.weight"


def read(folder, dtype=None):
    fields, tensors = open_hugging_face(folder)
    return fields, read_all(tensors, dtype)


@pytest.fixture
def model(hugging_face_config, hugging_face_tensors):
    return hugging_face_config, hugging_face_tensors(hugging_face_config)


def logits(config, tree, hidden):
    """Compute the logits as in T5X's network, where a tied head is scaled and a separate head is not."""
    if config["logits_via_embedding"]:
        return hidden @ tree["token_embedder"]["embedding"].T / np.sqrt(hidden.shape[-1])
    return hidden @ tree["decoder"]["logits_dense"]["kernel"]


def test_fixture_arrays_are_torchs_transposed(shared_data):
    folder = shared_data / "peft" / "poly_k1_s1_r2" / "base"
    stored = load_file(folder / "model.safetensors")
    config, tree = read(folder)
    block = "decoder.block.1.layer."
    layer = tree["decoder"]["layers_1"]
    for path, tensor in {
        "self_attention/query/kernel": "0.SelfAttention.q",
        "self_attention/out/kernel": "0.SelfAttention.o",
        "encoder_decoder_attention/key/kernel": "1.EncDecAttention.k",
        "mlp/wi_1/kernel": "2.DenseReluDense.wi_1",
        "mlp/wo/kernel": "2.DenseReluDense.wo",
    }.items():
        np.testing.assert_array_equal(flatten(layer)[path], stored[f"{block}{tensor}.weight"].T)
    norms = ["pre_self_attention_layer_norm", "pre_cross_attention_layer_norm", "pre_mlp_layer_norm"]
    for i, norm in enumerate(norms):
        np.testing.assert_array_equal(layer[norm]["scale"], stored[f"{block}{i}.layer_norm.weight"])
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    np.testing.assert_array_equal(tree["encoder"]["relpos_bias"]["rel_embedding"], stored[bias].T)
    np.testing.assert_array_equal(tree["token_embedder"]["embedding"], stored["shared.weight"])
    np.testing.assert_array_equal(tree["decoder"]["logits_dense"]["kernel"], stored[HEAD].T)
    assert len(flatten(tree)) == len(stored)
    assert T5Config(**config) == T5Config(
        vocab_size=128,
        emb_dim=64,
        num_heads=4,
        head_dim=16,
        mlp_dim=128,
        num_encoder_layers=2,
        num_decoder_layers=2,
        mlp_activations=("gelu", "linear"),
        logits_via_embedding=False,
        dropout_rate=0.0,
    )


def test_both_forms_of_the_fixtures_config_describe_the_same_model(shared_data, tmp_path):
    base = shared_data / "peft" / "poly_k1_s1_r2" / "base"
    (tmp_path / "config.json").write_bytes((base / "config.transformers5.json").read_bytes())
    (tmp_path / "model.safetensors").symlink_to(base / "model.safetensors")
    config, tree = read(tmp_path)
    hub_config, hub_tree = read(base)
    assert config == hub_config
    np.testing.assert_equal(flatten(tree), flatten(hub_tree))


def test_shards_give_the_same_tensors_as_one_file(model, write_hugging_face):
    config, tensors = model
    tree = flatten(read(write_hugging_face(config, tensors, n_shards=3))[1])
    assert len(tree) == len(tensors)
    kernel = tensors["encoder.block.1.layer.1.DenseReluDense.wi_0.weight"].T
    np.testing.assert_array_equal(tree["encoder/layers_1/mlp/wi_0/kernel"], kernel)


def test_relu_and_equal_depths_are_the_defaults_of_v1_0(model, write_hugging_face, hugging_face_tensors):
    config = model[0] | {"feed_forward_proj": "relu", "num_layers": 2, "num_decoder_layers": 2}
    tensors = hugging_face_tensors(config)
    for key in ("feed_forward_proj", "num_decoder_layers", "tie_word_embeddings"):
        del config[key]
    del tensors[HEAD]
    fields, tree = read(write_hugging_face(config, tensors))
    assert fields["mlp_activations"] == ("relu",)
    assert fields["num_decoder_layers"] == 2
    assert fields["logits_via_embedding"]
    assert set(tree["decoder"]["layers_1"]["mlp"]) == {"wi", "wo"}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_the_stored_dtype_is_kept_unless_another_is_asked_for(model, write_hugging_face, dtype):
    config, tensors = model
    folder = write_hugging_face(config, {name: array.astype(dtype) for name, array in tensors.items()})
    assert {array.dtype for array in flatten(read(folder)[1]).values()} == {np.dtype(dtype)}
    tree = flatten(read(folder, dtype="bfloat16")[1])
    expected = tensors["decoder.block.0.layer.2.DenseReluDense.wo.weight"].T.astype(dtype).astype("bfloat16")
    np.testing.assert_array_equal(tree["decoder/layers_0/mlp/wo/kernel"], expected)
    assert all(array.flags.c_contiguous for array in tree.values())


# The rule of transformers 5, checked against transformers 5.23 for every line: the head is that of the file,
# or else the embedding, scaled by d_model^-0.5 if T5's config says so in the way of either major version.
@pytest.mark.parametrize(
    ("model_type", "own", "config", "scaled"),
    [
        ("t5", True, {"tie_word_embeddings": False}, False),
        ("t5", True, {"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ("t5", True, {"tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ("t5", True, {"tie_word_embeddings": True}, True),
        ("t5", False, {"tie_word_embeddings": True}, True),
        ("t5", False, {}, True),
        ("t5", False, {"tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ("t5", False, {"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ("mt5", True, {"tie_word_embeddings": False}, False),
        ("mt5", True, {"tie_word_embeddings": True}, False),
        ("mt5", False, {"tie_word_embeddings": True}, False),
    ],
)
def test_the_head_gives_the_logits_of_transformers(
    model, write_hugging_face, model_type, own, config, scaled
):
    raw, tensors = model
    del raw["tie_word_embeddings"]
    if not own:
        del tensors[HEAD]
    fields, tree = read(write_hugging_face(raw | config | {"model_type": model_type}, tensors))
    hidden = np.random.default_rng(1).normal(size=(3, raw["d_model"])).astype(np.float32)
    expected = (
        hidden @ tensors[HEAD if own else "shared.weight"].T * (raw["d_model"] ** -0.5 if scaled else 1)
    )
    np.testing.assert_allclose(logits(fields, tree, hidden), expected, rtol=1e-5)


# As in transformers 5.24; earlier versions ignored tie_word_embeddings of an umT5.
@pytest.mark.parametrize(
    ("config", "scaled"),
    [
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
    ],
)
def test_an_umt5_is_scaled_only_if_its_config_asks_for_it_explicitly(config, scaled):
    assert scales_outputs({"model_type": "umt5", **config}) == scaled


def test_a_head_that_is_a_copy_of_the_embedding_is_tied(model, write_hugging_face):
    config, tensors = model
    config["tie_word_embeddings"] = True
    tensors[HEAD] = tensors["shared.weight"]
    fields, tree = read(write_hugging_face(config, tensors))
    assert fields["logits_via_embedding"]
    assert "logits_dense" not in tree["decoder"]


def test_copies_of_the_embedding_and_the_unread_bias_of_old_files_are_accepted(model, write_hugging_face):
    config, tensors = model
    embedding = tensors.pop("shared.weight")
    tensors["encoder.embed_tokens.weight"] = tensors["decoder.embed_tokens.weight"] = embedding
    unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[unread] = np.ones((32, 2), np.float32)
    tree = read(write_hugging_face(config, tensors))[1]
    np.testing.assert_array_equal(tree["token_embedder"]["embedding"], embedding)


def test_two_different_embeddings_are_refused(model, write_hugging_face):
    config, tensors = model
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"] + 1
    with pytest.raises(UserError, match=r"shared\.weight and decoder\.embed_tokens\.weight differ"):
        read(write_hugging_face(config, tensors))


def test_missing_and_unknown_tensors_are_counted_and_at_most_ten_are_listed(model, write_hugging_face):
    config, tensors = model
    removed = sorted(name for name in tensors if name.startswith("encoder.block.1"))[:9]
    removed = sorted([*removed, "shared.weight", HEAD])
    kept = {name: array for name, array in tensors.items() if name not in removed}
    kept["classifier.weight"] = np.ones(3, np.float32)
    listed = re.escape(", ".join(removed[:10]))
    with pytest.raises(
        UserError, match=rf"11 missing \(first 10: {listed}\); 1 unknown \(classifier\.weight\)"
    ):
        read(write_hugging_face(config, kept))


def test_a_vocabulary_size_that_does_not_fit_is_refused_with_both_shapes(model, write_hugging_face):
    config, tensors = model
    folder = write_hugging_face(config | {"vocab_size": 13}, tensors)
    with pytest.raises(UserError, match=r"shared\.weight is \[12, 4\] and the model has \[13, 4\]"):
        read(folder)


def test_a_truncated_shard_is_reported_by_name(model, write_hugging_face):
    folder = write_hugging_face(*model, n_shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors cannot be read as safetensors"):
        read(folder)


def test_a_missing_shard_is_reported_by_name(model, write_hugging_face):
    folder = write_hugging_face(*model, n_shards=2)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00001-of-00002\.safetensors is missing"):
        read(folder)


def test_a_shard_that_lacks_a_tensor_of_the_index_is_refused(model, write_hugging_face):
    folder = write_hugging_face(*model, n_shards=2)
    shard = folder / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    lost = sorted(tensors)[0]
    save_file({name: array for name, array in tensors.items() if name != lost}, shard)
    with pytest.raises(UserError, match=f"lists 1 tensor that their shards do not hold .{re.escape(lost)}"):
        read(folder)


def test_a_shard_outside_the_folder_is_refused(model, write_hugging_face):
    folder = write_hugging_face(*model, n_shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"shared.weight": "../other.safetensors"}}))
    with pytest.raises(UserError, match=r"names a shard '\.\./other\.safetensors' outside its folder"):
        read(folder)


def test_pickles_are_not_read_without_pytorch(model, write_hugging_face, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    folder = write_hugging_face(*model)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"pytorch_model\.bin is a pickle, which can run code.* install torch"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'; use a model of type t5, mt5, umt5"),
        (
            {"feed_forward_proj": "gated-silu"},
            "feed_forward_proj is 'gated-silu'; use a model with relu or gated-gelu",
        ),
        ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon is 1e-05"),
    ],
)
def test_a_model_that_is_not_supported_is_refused(model, write_hugging_face, change, message):
    with pytest.raises(UserError, match=message):
        read(write_hugging_face(model[0] | change, model[1]))


@pytest.mark.parametrize(
    ("key", "value"), [("d_model", None), ("d_kv", "64"), ("num_heads", 0), ("num_decoder_layers", -1)]
)
def test_a_config_without_a_size_is_reported_by_name(model, write_hugging_face, key, value):
    folder = write_hugging_face(model[0] | {key: value}, model[1])
    with pytest.raises(UserError, match=rf"config\.json: {key} is {value!r}, not a number of 1 or more"):
        read(folder)


def test_a_broken_config_is_named_with_its_position(model, write_hugging_face):
    folder = write_hugging_face(*model)
    (folder / "config.json").write_text('{"model_type": "t5",\n oops}')
    with pytest.raises(UserError, match=r"config\.json is not valid JSON .*line 2 column 2"):
        read(folder)


def test_a_folder_without_a_config_or_weights_is_refused(model, write_hugging_face, tmp_path):
    with pytest.raises(UserError, match=r"nothing/config\.json is missing"):
        read(tmp_path / "nothing")
    folder = write_hugging_face(*model)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json nor pytorch"
    ):
        read(folder)


def test_a_bucket_is_refused():
    with pytest.raises(UserError, match="gs://bucket/t5 is not a local folder"):
        read("gs://bucket/t5")
