"""The ids that start and end a sequence come from the T5's configuration wherever they are used."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import seqio
import tensorflow as tf

from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.scoring import decoder_inputs
from poly_jax.model.transformer import Transformer
from poly_jax.training.vocabulary_room import check_features
from poly_jax.weights.backbone import open_backbone, read_backbone

LENGTH = 6


@pytest.fixture(scope="module")
def with_ids(tiny):
    """A function that makes the tiny model with other special ids."""

    def make(**ids):
        return dataclasses.replace(tiny.model, config=dataclasses.replace(tiny.config, **ids))

    return make


@pytest.fixture(scope="module")
def outputs(tiny, quick_jit):
    """A function that returns the greedy outputs, or the best beams, for the tiny batch."""
    run = quick_jit(generate, static_argnums=(0, 4), static_argnames=("eos_id",))

    def tokens(model, n_beams=1, **settings):
        decoding = Decoding(max_length=LENGTH, n_beams=n_beams)
        inputs, ids = tiny.batch["encoder_input_tokens"], tiny.batch["task_ids"]
        found = run(model, tiny.parameters, inputs, ids, decoding, **settings).tokens
        return np.asarray(found if n_beams == 1 else found[:, 0])

    return tokens


def cut(rows, eos_id):
    """Keep each row up to and including the first `eos_id`, and pad the rest."""
    after = np.cumsum(rows == eos_id, axis=1) - (rows == eos_id) > 0
    return np.where(after, 0, rows)


def test_outputs_end_with_the_models_eos_id(with_ids, outputs):
    # An id outside the vocabulary lets every row run to the end.
    endless = outputs(with_ids(), eos_id=-1)
    eos_id = int(endless[0, 2])
    assert eos_id > 1
    np.testing.assert_array_equal(outputs(with_ids(eos_id=eos_id)), cut(endless, eos_id))


def test_every_beam_ends_with_the_models_eos_id(with_ids, outputs):
    eos_id = int(outputs(with_ids(), n_beams=3)[0, 1])
    ended = outputs(with_ids(eos_id=eos_id), n_beams=3)
    np.testing.assert_array_equal(ended, cut(ended, eos_id))
    assert (ended == eos_id).any()


def test_the_decoder_reads_the_models_start_id_first(with_ids, outputs, tiny, logits_of):
    model = with_ids(decoder_start_id=7)
    first = np.full((5, 1), 7, np.int32)
    logits = logits_of(model, tiny.parameters, {**tiny.batch, "decoder_input_tokens": first})
    np.testing.assert_array_equal(outputs(model)[:, 0], np.argmax(logits[:, 0], axis=-1))


def test_answer_choices_are_read_after_the_models_start_id(with_ids, tiny, logits_of, quick_jit):
    model, targets = with_ids(decoder_start_id=7), np.asarray(tiny.batch["decoder_target_tokens"])
    read = np.concatenate([np.full((5, 1), 7, np.int32), targets[:, :-1]], axis=1)
    expected = logits_of(model, tiny.parameters, {**tiny.batch, "decoder_input_tokens": read})
    run = quick_jit(lambda *args: model.apply(*args, method="choice_logits"))
    variables, inputs = {"params": tiny.parameters}, tiny.batch["encoder_input_tokens"]
    choices = run(variables, inputs, targets[:, None], tiny.batch["task_ids"])
    np.testing.assert_allclose(choices[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_targets_are_shifted_right_after_the_start_id():
    targets = jnp.array([[[5, 6, 1], [8, 1, 0]]])
    np.testing.assert_array_equal(decoder_inputs(targets, 7), [[[7, 5, 6], [7, 8, 1]]])


def test_decoder_inputs_of_converted_examples_begin_with_the_start_id():
    example = {"inputs": [3, 1], "targets": [5, 6, 1], "task_ids": [2]}
    examples = tf.data.Dataset.from_tensors({k: tf.constant(v, tf.int32) for k, v in example.items()})
    (row,) = RoutedEncDecFeatureConverter(bos_id=7)(examples, {"inputs": 3, "targets": 4}).as_numpy_iterator()
    np.testing.assert_array_equal(row["decoder_input_tokens"], [7, 5, 6, 1])
    np.testing.assert_array_equal(row["decoder_target_tokens"], [5, 6, 1, 0])


@pytest.mark.parametrize(("field", "value"), [("eos_id", 0), ("eos_id", 40), ("decoder_start_id", -1)])
def test_ids_outside_the_vocabulary_are_refused_by_name(tiny, field, value):
    with pytest.raises(UserError, match=rf"T5Config\.{field} is {value}; give a token id from [01] to 39"):
        dataclasses.replace(tiny.config, **{field: value})


def test_ids_are_read_from_the_configuration_of_a_checkpoint():
    config = T5Config.of_checkpoint({"eos_id": 2, "decoder_start_id": 5}, "config.json")
    assert (config.eos_id, config.decoder_start_id) == (2, 5)


def test_a_vocabulary_with_another_eos_id_is_refused():
    class Ends(seqio.ByteVocabulary):
        eos_id = 2

    features = {"targets": seqio.Feature(Ends())}
    check_features("'task'", features, T5Config(vocab_size=400, eos_id=2))
    expected = r"'task' \(targets\) ends targets with id 2, .* with id 1; bind T5Config\.eos_id = 2"
    with pytest.raises(UserError, match=expected):
        check_features("'task'", features, T5Config(vocab_size=400))


def test_a_hugging_face_model_decodes_as_transformers_does(shared_data, quick_jit):
    folder = shared_data.parent / "cases" / "hf_special_ids" / "eos2"
    if not folder.is_dir():
        pytest.skip(f"no case at {folder}")
    expected = np.load(folder / "expected.npz")
    config = T5Config.of_checkpoint({**open_backbone(folder).stated_fields(), "eos_id": 2}, folder)
    inputs = expected["inputs"].astype(np.int32)
    run = quick_jit(generate, static_argnums=(0, 3, 4))
    found = run(Transformer(config), read_backbone(folder), inputs, None, Decoding(max_length=12))
    np.testing.assert_array_equal(found.tokens, expected["ids"][:, 1:])
