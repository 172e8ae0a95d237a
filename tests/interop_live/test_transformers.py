"""transformers and this project compute the same outputs from each other's folders."""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest

import poly_jax
from poly_jax import cli
from poly_jax.model.config import T5Config
from poly_jax.weights.backbone import open_backbone, read_backbone
from poly_jax.weights.tree import flatten

FORMS = ["v1.0", "v1.1", "mt5"]


@pytest.mark.parametrize("form", FORMS)
def test_a_model_saved_by_transformers_computes_the_same_here(t5, their_logits, our_logits, form):
    model = t5(form)
    model.save_pretrained("hf")
    np.testing.assert_allclose(our_logits(poly_jax.load("hf")), their_logits(model), atol=1e-4)


@pytest.mark.parametrize("form", ["v1.0", "v1.1"])
def test_an_exported_model_computes_the_same_in_transformers(t5, their_logits, our_logits, form):
    from transformers import AutoModelForSeq2SeqLM

    model = t5(form)
    model.save_pretrained("hf")
    assert cli.main(["import", "--from=hf", "--output=b.safetensors"]) == 0
    assert cli.main(["export", "--backbone=b.safetensors", "--output=out", "--format=hugging_face"]) == 0
    loaded = AutoModelForSeq2SeqLM.from_pretrained("out").eval()
    np.testing.assert_allclose(their_logits(loaded), their_logits(model), atol=1e-5)
    np.testing.assert_allclose(their_logits(loaded), our_logits(poly_jax.load("b.safetensors")), atol=1e-4)


def test_an_umt5_computes_the_same_except_for_a_scale_that_its_config_does_not_give(
    t5, their_logits, our_logits
):
    from transformers import AutoModelForSeq2SeqLM

    model = t5("umt5")
    # Versions 5.0 to 5.23 say that all are tied, and scale what goes into the head, which stays its own.
    untold = model.config.tie_word_embeddings and not hasattr(model.config, "scale_decoder_outputs")
    scale = model.config.d_model**-0.5 if untold else 1.0
    model.save_pretrained("hf")
    np.testing.assert_allclose(our_logits(poly_jax.load("hf")) * scale, their_logits(model), atol=1e-4)
    assert cli.main(["import", "--from=hf", "--output=b"]) == 0
    assert cli.main(["export", "--backbone=b", "--output=out", "--format=hugging_face"]) == 0
    loaded = AutoModelForSeq2SeqLM.from_pretrained("out").eval()
    np.testing.assert_allclose(their_logits(loaded), their_logits(model), atol=1e-5)


@pytest.mark.parametrize("form", ["v1.0", "v1.1", "umt5"])
def test_every_parameter_comes_back_bit_for_bit(t5, form):
    from transformers import AutoModelForSeq2SeqLM

    model = t5(form)
    model.save_pretrained("hf")
    assert cli.main(["export", "--backbone=hf", "--output=out", "--format=hugging_face"]) == 0
    loaded = AutoModelForSeq2SeqLM.from_pretrained("out")
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.equal(expected[name]), name


def test_a_t5x_checkpoint_computes_the_same_in_transformers(shared_data):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    for version in ("t5x_tiny_v1_0", "t5x_tiny_v1_1"):
        source = shared_data / "t5x" / version
        output = f"hf_{version}"
        arguments = [f"--backbone={source / 'checkpoint_1100000'}", f"--output={output}"]
        assert cli.main(["export", *arguments, "--format=hugging_face"]) == 0
        model = AutoModelForSeq2SeqLM.from_pretrained(output).eval()
        expected = np.load(source / "expected.npz")
        inputs = torch.tensor(expected["encoder_input_tokens"]).long()
        targets = torch.tensor(expected["decoder_input_tokens"]).long()
        with torch.no_grad():
            got = model(
                input_ids=inputs, attention_mask=(inputs > 0).long(), decoder_input_ids=targets
            ).logits
        # T5X masks the padding of targets and transformers does not, so compare only at real targets.
        there = expected["decoder_target_tokens"] > 0
        np.testing.assert_allclose(got.numpy()[there], expected["logits"][there], atol=1e-4)


def test_sharded_checkpoints_are_loaded(t5, their_logits, monkeypatch):
    from transformers import AutoModelForSeq2SeqLM

    from poly_jax.interop.hugging_face.writer import write_hugging_face

    model = t5("v1.1")
    model.save_pretrained("hf")
    backbone = open_backbone("hf")
    write_hugging_face(
        "out",
        backbone.tensors,
        T5Config.of_checkpoint(backbone.stated_fields(), backbone.path),
        shard_bytes=20_000,
    )
    assert len(list(pathlib.Path("out").glob("model-*.safetensors"))) > 2
    loaded = AutoModelForSeq2SeqLM.from_pretrained("out").eval()
    np.testing.assert_array_equal(their_logits(loaded), their_logits(model))


def test_the_vocabulary_gives_the_same_ids(shared_data):
    from transformers import AutoTokenizer

    from poly_jax.data import vocabularies
    from poly_jax.data.tokenizer import Tokenizer
    from poly_jax.interop.hugging_face.writer import write_tokenizer

    model = shared_data / "t5_vocab" / "spiece.model"
    folder = pathlib.Path("out")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    write_tokenizer(folder, Tokenizer(model, 100))
    theirs = AutoTokenizer.from_pretrained("out")
    ours = vocabularies.sentencepiece(str(model))
    for text in ("Translate English to German: That is good.", "déjà vu, 3.14!"):
        assert theirs(text).input_ids == [*ours.encode(text), 1]


def test_bfloat16_keeps_its_bits(t5):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    model = t5("v1.1").to(torch.bfloat16)
    model.save_pretrained("hf")
    leaves = flatten(read_backbone("hf"))
    assert {leaf.dtype.name for leaf in leaves.values()} == {"bfloat16"}
    assert cli.main(["export", "--backbone=hf", "--output=out", "--format=hugging_face"]) == 0
    loaded = AutoModelForSeq2SeqLM.from_pretrained("out", dtype=torch.bfloat16)
    for name, tensor in loaded.state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name


# PyTorch's own files.


@pytest.mark.parametrize(("dtype", "archive"), [("float32", True), ("bfloat16", True), ("float32", False)])
def test_pickled_weights_are_read_without_running_them(t5, dtype, archive):
    import torch

    model = t5("v1.0").to(getattr(torch, dtype))
    model.save_pretrained("safe")
    pathlib.Path("pickled").mkdir()
    pathlib.Path("pickled/config.json").write_text(pathlib.Path("safe/config.json").read_text())
    # T5's first checkpoints on the hub are in the older format, which is not a zip archive.
    torch.save(model.state_dict(), "pickled/pytorch_model.bin", _use_new_zipfile_serialization=archive)
    got, expected = flatten(read_backbone("pickled")), flatten(read_backbone("safe"))
    assert got.keys() == expected.keys()
    for name, leaf in expected.items():
        assert got[name].dtype == leaf.dtype == (np.float32 if dtype == "float32" else ml_dtypes.bfloat16)
        np.testing.assert_array_equal(got[name], leaf)


class Malicious:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("executed"),)


def test_code_in_a_pickle_is_not_run(t5, capsys):
    import torch

    t5("v1.0").save_pretrained("hf")
    pathlib.Path("hf/model.safetensors").unlink()
    torch.save({"shared.weight": torch.zeros(1), "x": Malicious()}, "hf/pytorch_model.bin")
    assert cli.main(["import", "--from=hf", "--output=b.safetensors"]) == 1
    assert "pytorch_model.bin holds more than tensors or is broken" in capsys.readouterr().err
    assert not pathlib.Path("executed").exists()


def test_a_truncated_pickle_is_reported_by_name(t5, capsys):
    import torch

    t5("v1.0").save_pretrained("hf")
    pathlib.Path("hf/model.safetensors").unlink()
    torch.save({"shared.weight": torch.zeros(1000)}, "hf/pytorch_model.bin")
    whole = pathlib.Path("hf/pytorch_model.bin").read_bytes()
    pathlib.Path("hf/pytorch_model.bin").write_bytes(whole[:-100])
    assert cli.main(["import", "--from=hf", "--output=b.safetensors"]) == 1
    assert "pytorch_model.bin holds more than tensors or is broken" in capsys.readouterr().err
