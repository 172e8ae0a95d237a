"""`poly-jax import` of backbones: the same numbers in the project's format, and a gin file that matches."""

import json
import pathlib
import sys
import tracemalloc
import types

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from poly_jax import cli, configuration
from poly_jax.errors import UserError
from poly_jax.interop.import_backbone import import_backbone
from poly_jax.model.config import T5Config
from poly_jax.weights import single_file
from poly_jax.weights.backbone import open_backbone, read_backbone
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tree import flatten


def config_of(path) -> T5Config:
    return T5Config.of_checkpoint(open_backbone(path).stated_fields(), path)


pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def model(hugging_face_config, hugging_face_tensors):
    return hugging_face_config, hugging_face_tensors(hugging_face_config)


def assert_equal(got, expected):
    got, expected = flatten(got), flatten(expected)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("output", ["b.safetensors", "b"])
@pytest.mark.parametrize("source", ["t5x_tiny_v1_0/legacy/checkpoint_1100000", "t5x_tiny_v1_1"])
def test_t5x_checkpoints_keep_every_bit(shared_data, source, output):
    source = str(shared_data / "t5x" / source)
    assert cli.main(["import", f"--from={source}", f"--output={output}"]) == 0
    assert_equal(read_backbone(output), read_backbone(source))
    assert config_of(output) == config_of(source)


def test_hugging_face_folders_keep_every_bit_and_their_configuration(model, write_hugging_face):
    folder = write_hugging_face(*model, n_shards=2)
    assert cli.main(["import", f"--from={folder}", "--output=b.safetensors"]) == 0
    assert_equal(read_backbone("b.safetensors"), read_backbone(folder))
    fields = single_file.load("b.safetensors")[1]
    assert T5Config(**fields) == config_of(folder)
    assert fields["dropout_rate"] == 0.1


@pytest.mark.parametrize("output", ["b.safetensors", "b"])
def test_the_gin_file_describes_the_model_and_says_where_it_is(
    model, write_hugging_face, output, tmp_path, capsys
):
    folder = write_hugging_face(*model)
    assert cli.main(["import", f"--from={folder}", f"--output={output}"]) == 0
    gin_file = {"b.safetensors": "b.gin", "b": "b/model.gin"}[output]
    assert capsys.readouterr().out == pathlib.Path(gin_file).read_text()
    loaded = configuration.load([gin_file])
    assert loaded.make(T5Config) == config_of(folder)
    assert loaded.bound("Experiment")["backbone"] == str(tmp_path / output)


def test_floats_are_rounded_to_bfloat16_on_request(model, write_hugging_face):
    folder = write_hugging_face(*model)
    assert cli.main(["import", f"--from={folder}", "--output=b.safetensors", "--dtype=bfloat16"]) == 0
    got, expected = flatten(read_backbone("b.safetensors")), flatten(read_backbone(folder))
    for name, array in expected.items():
        assert got[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(got[name], array.astype(ml_dtypes.bfloat16), err_msg=name)


def test_settings_that_a_t5x_checkpoint_does_not_store_are_bound_by_the_user(shared_data):
    source = shared_data / "t5x" / "t5x_tiny_v1_1"
    distance = "--gin.T5Config.relative_attention_max_distance=40"
    assert cli.main(["import", f"--from={source}", "--output=b", distance]) == 0
    assert config_of("b").relative_attention_max_distance == 40
    assert configuration.load(["b/model.gin"]).make(T5Config).relative_attention_max_distance == 40


def test_a_configuration_that_does_not_fit_is_refused_with_both_shapes(shared_data, capsys):
    source = shared_data / "t5x" / "t5x_tiny_v1_1"
    assert cli.main(["import", f"--from={source}", "--output=b", "--gin.T5Config.vocab_size=400"]) == 1
    assert "token_embedder/embedding is [384, 16] and the model has [400, 16]" in capsys.readouterr().err
    assert not pathlib.Path("b").exists()


def test_a_missing_parameter_is_reported_by_name(shared_data, tmp_path, capsys):
    tree = read_backbone(shared_data / "t5x" / "t5x_tiny_v1_1")
    del tree["decoder"]["layers_1"]["mlp"]["wo"]
    tree["decoder"]["layers_1"]["mlp"]["bias"] = {"kernel": np.zeros(2)}
    single_file.save("broken.safetensors", tree, {})
    assert cli.main(["import", "--from=broken.safetensors", "--output=b"]) == 1
    shown = capsys.readouterr().err
    assert "1 missing (decoder/layers_1/mlp/wo/kernel)" in shown
    assert "1 unknown (decoder/layers_1/mlp/bias/kernel)" in shown


def test_a_truncated_shard_is_named_and_no_file_is_left(model, write_hugging_face, capsys):
    folder = write_hugging_face(*model, n_shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert cli.main(["import", f"--from={folder}", "--output=b.safetensors"]) == 1
    assert "model-00002-of-00002.safetensors cannot be read as safetensors" in capsys.readouterr().err
    assert not pathlib.Path("b.safetensors").exists()


def test_an_output_with_another_file_ending_is_refused(model, write_hugging_face):
    with pytest.raises(UserError, match=r"--output=b\.npz must end in \.safetensors, or be a folder"):
        import_backbone(str(write_hugging_face(*model)), "b.npz")


# The vocabulary.


@pytest.mark.parametrize("output", ["b.safetensors", "b"])
def test_the_vocabulary_is_copied_and_bound_with_the_model(shared_data, zeros, output, tmp_path):
    vocabulary = shared_data / "t5_vocab" / "spiece.model"
    config = T5Config(
        emb_dim=2, num_heads=1, head_dim=2, mlp_dim=2, num_encoder_layers=1, num_decoder_layers=1
    )
    folder = zeros(tmp_path / "hf", config)
    (folder / "spiece.model").write_bytes(vocabulary.read_bytes())
    gin_file = import_backbone(str(folder), output)
    bound = configuration.load([str(gin_file)]).bound("vocabularies.sentencepiece")
    place = pathlib.Path(bound["path"])
    assert place.read_bytes() == vocabulary.read_bytes()
    assert place.parent == (tmp_path / output if output == "b" else tmp_path)
    assert bound["extra_ids"] == 100


def test_a_vocabulary_that_does_not_fit_the_embedding_is_reported_by_name(shared_data, zeros, tmp_path):
    config = T5Config(
        vocab_size=32000,
        emb_dim=2,
        num_heads=1,
        head_dim=2,
        mlp_dim=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
    folder = zeros(tmp_path / "hf", config)
    (folder / "spiece.model").write_bytes((shared_data / "t5_vocab" / "spiece.model").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 100}))
    with pytest.raises(
        UserError, match=r"spiece\.model has ids 0 to 32099, and the embedding has 32000 rows"
    ):
        import_backbone(str(folder), "b")


def test_a_tokenizer_of_another_model_is_reported_by_name(model, write_hugging_face):
    folder = write_hugging_face(*model)
    content = {"model": {"vocab": [["<pad>", 0.0]]}, "added_tokens": [{"id": 12, "content": "x"}]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer\.json has ids 0 to 12, and the embedding has 12 rows"):
        import_backbone(str(folder), "b")


def test_a_file_that_is_not_a_sentencepiece_model_is_reported_by_name(model, write_hugging_face):
    folder = write_hugging_face(*model)
    (folder / "spiece.model").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"spiece\.model is not a SentencePiece model"):
        import_backbone(str(folder), "b")


# Memory.


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_an_import_needs_memory_for_a_few_tensors_and_not_for_the_whole_model(zeros, tmp_path, dtype):
    config = T5Config(
        vocab_size=1000, emb_dim=512, num_heads=8, mlp_dim=2048, num_encoder_layers=6, num_decoder_layers=6
    )
    folder = zeros(tmp_path / "hf", config)
    sizes = [4 * int(np.prod(shape)) for shape in t5_parameter_shapes(config).values()]
    assert sum(sizes) > 40 * max(sizes)
    tracemalloc.start()
    import_backbone(str(folder), "b", dtype)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * max(sizes)


def test_progress_is_shown(model, write_hugging_face, capsys):
    import_backbone(str(write_hugging_face(*model)), "b")
    assert "importing" in capsys.readouterr().err


# The Hugging Face hub.


def test_a_hub_id_is_downloaded(model, write_hugging_face, monkeypatch):
    folder = write_hugging_face(*model)
    asked = []

    def snapshot_download(hub_id, allow_patterns):
        asked.append((hub_id, allow_patterns))
        return str(folder)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download)
    )
    assert cli.main(["import", "--from=google/t5-v1_1-small", "--output=b.safetensors"]) == 0
    assert asked == [("google/t5-v1_1-small", ["*.json", "*.safetensors", "spiece.model"])]
    assert len(safetensors.numpy.load_file("b.safetensors")) == len(read_tensors(folder))


def read_tensors(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def test_without_the_hubs_library_a_hub_id_is_answered_with_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main(["import", "--from=google/t5-v1_1-small", "--output=b"]) == 1
    assert "google/t5-v1_1-small is not a local path; to get it from the" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_reported_in_one_line(monkeypatch, capsys):
    def snapshot_download(*_, **__):
        raise OSError("Cannot resolve host\nhuggingface.co")

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download)
    )
    assert cli.main(["import", "--from=google/t5-v1_1-small", "--output=b"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "cannot be downloaded from the Hugging Face hub (Cannot resolve host huggingface.co)" in shown


def test_the_vocabulary_beside_a_file_is_copied_into_an_output_folder(shared_data, zeros, tmp_path):
    config = T5Config(
        emb_dim=2, num_heads=1, head_dim=2, mlp_dim=2, num_encoder_layers=1, num_decoder_layers=1
    )
    folder = zeros(tmp_path / "hf", config)
    for file in (shared_data / "t5_vocab").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    import_backbone(str(folder), "b.safetensors")
    import_backbone("b.safetensors", "from_file")
    import_backbone(str(folder), "from_folder")
    for place in ("from_file", "from_folder"):
        assert pathlib.Path(place, "spiece.model").read_bytes() == (folder / "spiece.model").read_bytes()
    # transformers' own tokenizer files are kept for a later export.
    assert pathlib.Path("from_folder", "tokenizer.json").exists()
