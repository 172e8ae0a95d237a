"""Tests of the vocabularies that gin binds."""

import copy

import pytest

from poly_jax import configuration
from poly_jax.data import vocabularies
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError


@pytest.fixture
def t5_model(shared_data):
    return shared_data / "t5_vocab" / "spiece.model"


def test_the_t5_vocabulary_has_its_pieces_and_sentinels(t5_model):
    vocabulary = vocabularies.sentencepiece(t5_model)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert vocabulary.vocab_size == 32100
    assert vocabularies.sentencepiece(t5_model, extra_ids=0).vocab_size == 32000
    # The known counts of the T5 tokenizer.
    assert [len(vocabulary.encode(word)) for word in ("Yes", "No", "True", "False", "Neither")] == [
        1,
        1,
        1,
        3,
        2,
    ]
    assert vocabulary.encode("<extra_id_0>") == [32099]


def test_the_t5_vocabulary_equals_seqios_and_its_own_copies(t5_model):
    vocabulary = vocabularies.sentencepiece(t5_model)
    vocabulary.encode_tf("used")
    assert vocabulary == seqio.SentencePieceVocabulary(str(t5_model), 100)
    assert copy.deepcopy(vocabulary) == vocabulary
    assert vocabulary != vocabularies.sentencepiece(t5_model, extra_ids=0)


def test_one_tokenizer_serves_every_dataset(t5_model):
    vocabulary = vocabularies.sentencepiece(t5_model)
    text = "Two datasets, one tokenizer."
    for _ in range(2):
        dataset = tf.data.Dataset.from_tensors(text).map(vocabulary.encode_tf)
        assert next(dataset.as_numpy_iterator()).tolist() == vocabulary.encode(text)
    assert vocabulary.tf_tokenizer is vocabulary.tf_tokenizer


def test_a_missing_model_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no SentencePiece model at '.*spiece\.model'"):
        vocabularies.sentencepiece(tmp_path / "spiece.model")


def test_a_file_that_is_not_a_model_is_reported_by_name(tmp_path):
    (tmp_path / "spiece.model").write_text("words")
    with pytest.raises(UserError, match=r"spiece\.model' is not a SentencePiece model"):
        vocabularies.sentencepiece(tmp_path / "spiece.model")


def test_bytes_follow_three_special_ids():
    vocabulary = vocabularies.byte()
    assert vocabulary.vocab_size == 259
    assert vocabulary.encode("aé") == [3 + byte for byte in "aé".encode()]


def test_both_vocabularies_can_be_bound_in_gin(t5_model):
    loaded = configuration.load([], [f"vocabularies.sentencepiece.path = {str(t5_model)!r}"])
    assert loaded.make("vocabularies.sentencepiece").vocab_size == 32100
    assert loaded.make("vocabularies.byte").vocab_size == 259
