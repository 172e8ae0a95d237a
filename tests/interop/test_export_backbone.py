"""Backbones exported to T5X and Hugging Face are bit for bit the same, in the layouts of those systems."""

import json
import pathlib
import subprocess
import sys

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization

from poly_jax import cli
from poly_jax.errors import UserError
from poly_jax.interop.export import export_backbone
from poly_jax.interop.hugging_face.writer import write_hugging_face as write_folder
from poly_jax.model.config import T5Config
from poly_jax.weights import single_file
from poly_jax.weights.backbone import open_backbone, read_backbone
from poly_jax.weights.t5x_writer import write_t5x
from poly_jax.weights.tensors import of_tree
from poly_jax.weights.tree import flatten, unflatten


def config_of(path) -> T5Config:
    return T5Config.of_checkpoint(open_backbone(path).stated_fields(), path)


pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def model(hugging_face_config, hugging_face_tensors):
    return hugging_face_config, hugging_face_tensors(hugging_face_config)


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("version", ["t5x_tiny_v1_0", "t5x_tiny_v1_1"])
def test_t5x_to_poly_jax_to_t5x_keeps_every_bit(shared_data, version):
    source = shared_data / "t5x" / version / "legacy" / "checkpoint_1100000"
    assert cli.main(["import", f"--from={source}", "--output=b.safetensors"]) == 0
    assert cli.main(["export", "--backbone=b.safetensors", "--output=out", "--format=t5x"]) == 0
    assert_equal(flatten(read_backbone("out")), flatten(read_backbone(source)))


@pytest.mark.parametrize("version", ["t5x_tiny_v1_0", "t5x_tiny_v1_1"])
def test_the_manifest_equals_the_manifest_that_t5x_writes(shared_data, version):
    source = shared_data / "t5x" / version / "legacy" / "checkpoint_1100000"
    export_backbone(str(source), "out", "t5x")
    written = pathlib.Path("out") / "checkpoint_1100000"

    def content(folder):
        return serialization.msgpack_restore((folder / "checkpoint").read_bytes())

    got, expected = content(written), content(source)
    assert got["version"] == expected["version"]
    assert got["optimizer"]["target"] == expected["optimizer"]["target"]
    step = got["optimizer"]["state"]["step"]
    assert step.dtype == np.int32
    assert step == expected["optimizer"]["state"]["step"] == 1100000
    for folder in written.glob("target.*"):
        ours = json.loads((folder / ".zarray").read_text())
        assert ours == json.loads((source / folder.name / ".zarray").read_text())


def test_large_arrays_are_split_into_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("poly_jax.weights.t5x_writer._CHUNK_BYTES", 24)
    array = np.arange(35, dtype=np.float32).reshape(7, 5)
    folder = write_t5x(str(tmp_path), 3, of_tree({"x": array, "y": array[0], "z": array[:, 0]}))
    assert json.loads((folder / "target.x" / ".zarray").read_text())["chunks"] == [1, 5]
    assert json.loads((folder / "target.z" / ".zarray").read_text())["chunks"] == [6]
    assert_equal(flatten(read_backbone(folder)), {"x": array, "y": array[0], "z": array[:, 0]})


def test_bfloat16_reaches_t5x_as_bfloat16(tmp_path):
    array = np.array([1.5, -3e38], ml_dtypes.bfloat16)
    folder = write_t5x(str(tmp_path), 1, of_tree({"x": array}))
    assert (
        msgpack.unpackb((folder / "checkpoint").read_bytes())["optimizer"]["target"]["x"]["dtype"]
        == "bfloat16"
    )
    assert_equal(flatten(read_backbone(folder)), {"x": array})


def test_an_existing_step_is_not_overwritten(tmp_path):
    write_t5x(str(tmp_path), 1, of_tree({"x": np.zeros(1)}))
    with pytest.raises(UserError, match="checkpoint_1 exists; choose another output"):
        write_t5x(str(tmp_path), 1, of_tree({"x": np.zeros(1)}))


@pytest.mark.parametrize("gated", [True, False])
def test_hugging_face_to_poly_jax_to_hugging_face_keeps_every_bit(
    hugging_face_config, hugging_face_tensors, write_hugging_face, gated
):
    config = hugging_face_config | {"feed_forward_proj": "gated-gelu" if gated else "relu"}
    config["tie_word_embeddings"] = not gated
    tensors = hugging_face_tensors(config)
    if not gated:
        del tensors["lm_head.weight"]
    folder = write_hugging_face(config, tensors)
    assert cli.main(["import", f"--from={folder}", "--output=b"]) == 0
    assert cli.main(["export", "--backbone=b", "--output=out", "--format=hugging_face"]) == 0
    assert_equal(safetensors.numpy.load_file("out/model.safetensors"), tensors)
    written = json.loads(pathlib.Path("out/config.json").read_text())
    assert config.items() <= {"num_decoder_layers": config["num_layers"], **written}.items()
    assert config_of("out") == config_of(folder)


def test_shards_of_a_hugging_face_folder_are_read_back(model, write_hugging_face, tmp_path):
    source = open_backbone(write_hugging_face(*model))
    write_folder(str(tmp_path / "out"), source.tensors, config_of(source.path), shard_bytes=300)
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert_equal(flatten(read_backbone(tmp_path / "out")), flatten(read_backbone(source.path)))


def test_t5x_to_hugging_face_and_back_keeps_every_bit(shared_data):
    source = shared_data / "t5x" / "t5x_tiny_v1_1" / "checkpoint_1100000"
    export_backbone(str(source), "hf", "hugging_face")
    export_backbone("hf", "t5x", "t5x")
    assert_equal(flatten(read_backbone("t5x")), flatten(read_backbone(source)))


def test_the_tokenizer_of_a_hugging_face_folder_is_copied_unchanged(model, write_hugging_face, capsys):
    folder = write_hugging_face(*model)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    export_backbone(str(folder), "out", "hugging_face")
    assert pathlib.Path("out/tokenizer.json").read_text() == (folder / "tokenizer.json").read_text()
    assert "no tokenizer" not in capsys.readouterr().err


def test_a_vocabulary_beside_a_backbone_file_becomes_a_tokenizer(shared_data, zeros, tmp_path):
    config = T5Config(
        emb_dim=2, num_heads=1, head_dim=2, mlp_dim=2, num_encoder_layers=1, num_decoder_layers=1
    )
    export_backbone(str(zeros(tmp_path / "hf", config)), "b.safetensors", "backbone")
    vocabulary = (shared_data / "t5_vocab" / "spiece.model").read_bytes()
    pathlib.Path("b.spiece.model").write_bytes(vocabulary)
    export_backbone("b.safetensors", "out", "hugging_face")
    assert pathlib.Path("out/spiece.model").read_bytes() == vocabulary
    content = json.loads(pathlib.Path("out/tokenizer_config.json").read_text())
    assert (content["tokenizer_class"], content["extra_ids"]) == ("T5Tokenizer", 100)


def test_a_missing_vocabulary_is_reported(model, write_hugging_face, capsys):
    export_backbone(str(write_hugging_face(*model)), "out", "hugging_face")
    assert "out has no tokenizer: none is beside the backbone or bound" in capsys.readouterr().err


def test_a_model_that_transformers_cannot_represent_is_refused(tmp_path):
    config = T5Config(mlp_activations=("gelu",))
    tensors = of_tree(unflatten({"token_embedder/embedding": np.zeros((2, 2))}))
    with pytest.raises(UserError, match=r"mlp_activations is \('gelu',\), which transformers' T5 does not"):
        write_folder(str(tmp_path / "out"), tensors, config)


def test_formats_and_flags_for_adapters_are_refused_for_a_backbone(capsys):
    assert cli.main(["export", "--backbone=b", "--output=out", "--format=peft_poly"]) == 1
    assert "--format=peft_poly is for adapters; give the --run that has them" in capsys.readouterr().err
    assert cli.main(["export", "--backbone=b", "--output=out", "--task=a"]) == 1
    assert "--task=a cannot be used with --backbone, which has no adapters" in capsys.readouterr().err


def test_a_folder_in_use_is_not_overwritten(shared_data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    source = shared_data / "t5x" / "t5x_tiny_v1_1"
    assert cli.main(["export", f"--backbone={source}", "--output=out", "--format=hugging_face"]) == 1
    assert "out exists; choose another" in capsys.readouterr().err


def test_only_the_t5x_formats_are_written_to_buckets(capsys):
    assert cli.main(["export", "--backbone=b", "--output=gs://b/x", "--format=hugging_face"]) == 1
    assert "only --format=t5x and t5x_adapters write to buckets" in capsys.readouterr().err


def test_backbone_is_the_default_format(shared_data):
    source = shared_data / "t5x" / "t5x_tiny_v1_1"
    assert cli.main(["export", f"--backbone={source}", "--output=b.safetensors"]) == 0
    assert_equal(flatten(single_file.load("b.safetensors")[0]), flatten(read_backbone(source)))


GROWTH = """
import sys
from poly_jax.interop.export import export_backbone

def most_memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

before = most_memory()
export_backbone(sys.argv[1], "out", sys.argv[2])
print(most_memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("format", ["t5x", "hugging_face", "backbone"])
def test_a_conversion_needs_memory_for_a_few_tensors_and_not_for_the_whole_model(zeros, tmp_path, format):
    config = T5Config(
        vocab_size=1000, emb_dim=512, num_heads=8, mlp_dim=2048, num_encoder_layers=10, num_decoder_layers=10
    )
    folder = zeros(tmp_path / "hf", config)
    total = sum(tensor.nbytes for tensor in open_backbone(folder).tensors.values())
    assert total > 300 * 10**6
    command = [sys.executable, "-c", GROWTH, str(folder), format]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < total / 4
