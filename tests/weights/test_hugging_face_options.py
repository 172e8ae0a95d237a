"""Every option of a T5's config.json is used, known to have no effect, or refused with its name and value."""

import json

import pytest

from poly_jax.errors import UserError
from poly_jax.weights.hugging_face import open_hugging_face
from poly_jax.weights.hugging_face_config import t5_fields


@pytest.fixture
def fields(hugging_face_config, tmp_path):
    """A function that reads the fields of the fixture's config with changes, and a generation_config.json."""

    def read(changes, generation=None):
        return t5_fields(hugging_face_config | changes, tmp_path / "config.json", generation)

    return read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense_act_fn": "silu"}, "feed_forward_proj is 'gated-gelu' and dense_act_fn is 'silu'"),
        ({"dense_act_fn": "gelu"}, "dense_act_fn is 'gelu'; use a model with relu or gated-gelu"),
        ({"is_gated_act": False}, "is_gated_act is False"),
        ({"feed_forward_proj": "relu", "is_gated_act": True}, "is_gated_act is True"),
        ({"feed_forward_proj": ["relu"]}, "use a model with relu or gated-gelu"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*not supported"),
        ({"tie_encoder_decoder": True}, "tie_encoder_decoder is True"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is "),
        ({"pad_token_id": 1}, "pad_token_id is 1, which is not supported; only None or 0 is"),
        ({"pad_token_id": False}, "pad_token_id is False"),
        ({"hidden_size": 8}, "hidden_size is 8 and d_model, the same size, is 4"),
        ({"num_layers": True}, "num_layers is True, not a number"),
        ({"dropout_rate": "0.1"}, "dropout_rate is '0.1', not a number"),
        ({"dropout_rate": 1}, "dropout_rate is 1; it must be"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', not true or false"),
        ({"scale_decoder_outputs": None}, "scale_decoder_outputs is None, not true or false"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon is small"),
        ({"attention_scale": 2}, "'attention_scale' is 2, an option that is not known here"),
        ({"scale_logits": False}, "'scale_logits' is False, an option that is not known here"),
        ({"eos_token_id": [1, 2]}, r"eos_token_id is \[1, 2\]; only one id is supported"),
        ({"eos_token_id": None}, "eos_token_id is None; only one id"),
        ({"eos_token_id": "1"}, "eos_token_id is '1'; only one id"),
        ({"eos_token_id": 12}, "eos_id is 12, and it has 12 ids"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id is -1"),
    ],
)
def test_options_that_change_the_computation_are_refused_in_one_line(fields, changes, message):
    with pytest.raises(UserError, match=message) as error:
        fields(changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"dense_act_fn": "gelu_new", "is_gated_act": True},
        {"dense_act_fn": "gelu_pytorch_tanh"},
        {"feed_forward_proj": "gated-gelu_new"},
        {"hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 2, "head_dim": 3},
        {"task_specific_params": {"summarization": {"prefix": "summarize: "}}, "n_positions": 512},
        {"initializer_factor": 0.5, "classifier_dropout": 0.3, "torch_dtype": "float16", "use_cache": False},
        {"num_beams": 4, "max_length": 20, "_name_or_path": "t5", "architectures": ["T5Model"]},
        {"quantization_config": None, "pruned_heads": {}, "future_option": None, "future_options": {}},
        {"pad_token_id": None, "eos_token_id": [1], "decoder_start_token_id": None},
    ],
)
def test_options_without_an_effect_are_accepted(fields, changes):
    assert fields(changes) == fields({})


def test_special_ids_are_read_from_the_config(fields):
    ids = {"eos_token_id": 2, "decoder_start_token_id": 3}
    assert fields(ids) == fields({}) | {"eos_id": 2, "decoder_start_id": 3}
    # transformers uses bos_token_id where no start id is given.
    assert fields({"bos_token_id": 5}) == fields({}) | {"decoder_start_id": 5}


def test_the_eos_id_of_generation_config_takes_precedence(fields):
    assert fields({"eos_token_id": 2}, {"eos_token_id": 3})["eos_id"] == 3
    assert fields({"eos_token_id": 2}, {"num_beams": 4})["eos_id"] == 2
    assert "eos_id" not in fields({"eos_token_id": 2}, {"eos_token_id": 1})


def test_conflicting_start_ids_are_refused(fields):
    with pytest.raises(UserError, match=r"generation_config\.json: decoder_start_token_id is 4 and .* has 0"):
        fields({"decoder_start_token_id": 0}, {"decoder_start_token_id": 4})
    with pytest.raises(UserError, match=r"generation_config\.json: pad_token_id is 1"):
        fields({}, {"pad_token_id": 1})


@pytest.mark.parametrize("depth", ["num_layers", "num_decoder_layers"])
def test_a_depth_that_the_files_cannot_fill_is_refused_at_once(
    hugging_face_config, hugging_face_tensors, write_hugging_face, depth
):
    tensors = hugging_face_tensors(hugging_face_config)
    folder = write_hugging_face(hugging_face_config | {depth: 10**9}, tensors)
    with pytest.raises(UserError, match=rf"{depth} is 1000000000, and the files hold {len(tensors)} tensors"):
        open_hugging_face(folder)


@pytest.mark.parametrize("index", [{"a": ["x"]}, {"a": None}, {"a": {}}, {"a": 3}, [], "a", None, {}])
def test_an_index_of_the_wrong_type_is_refused_in_one_line(hugging_face_config, write_hugging_face, index):
    folder = write_hugging_face(hugging_face_config, {}, n_shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(UserError, match=r"index\.json (gives no file for a|has no 'weight_map')"):
        open_hugging_face(folder)


def test_the_special_ids_of_the_recorded_case_are_read(shared_cases):
    fields, _ = open_hugging_face(shared_cases / "hf_special_ids" / "eos2")
    assert fields["eos_id"] == 2
