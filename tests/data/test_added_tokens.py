"""Tokens added to a SentencePiece vocabulary get the same ids as in transformers, or are refused by name."""

import copy
import json
import pathlib

import numpy as np
import pytest
import sentencepiece

from poly_jax import configuration
from poly_jax.data.quiet import tf
from poly_jax.data.tokenizer import find_tokenizer
from poly_jax.data.vocabularies import sentencepiece as make
from poly_jax.errors import UserError
from poly_jax.interface.vocabulary import beside
from poly_jax.model.config import T5Config

CONFIG = T5Config(vocab_size=400)


@pytest.fixture(scope="module")
def model(sentencepiece_model):
    return sentencepiece_model


@pytest.fixture
def folder(model, tmp_path):
    """A function that writes a Hugging Face folder's tokenizer from its JSON files."""

    def write(**files):
        (tmp_path / "spiece.model").write_bytes(model)
        files = {"tokenizer_config": {"extra_ids": 10}, **files}
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


def size(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size() + 10


def encoded(model, text):
    return sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)


def test_text_between_added_tokens_is_encoded_as_if_it_stood_alone(folder, model):
    first = size(model)
    vocabulary = beside(str(folder(added_tokens={"{": first, "{{": first + 1})), CONFIG)
    assert vocabulary.vocab_size == first + 2
    expected = [*encoded(model, "if x"), first + 1, *encoded(model, "return"), first, *encoded(model, "y")]
    for text in ("if x {{ return{y", " if x  {{return { y "):
        assert list(vocabulary.encode(text)) == expected
        assert vocabulary.encode_tf(tf.constant(text)).numpy().tolist() == expected
    ragged = vocabulary.encode_tf(tf.constant(["if x {{ return{y", "{"]))
    assert ragged.to_list() == [expected, [first]]
    assert vocabulary.decode([*expected, 1, 5]) == "if x{{ return{ y"
    assert vocabulary.decode_tf(tf.constant([*expected, 1, 0, 0])).numpy() == b"if x{{ return{ y"


def test_special_tokens_and_sentinels_in_a_text_have_their_own_ids(folder, model):
    vocabulary = beside(str(folder(added_tokens={"{": size(model)})), CONFIG)
    expected = [*encoded(model, "the"), size(model) - 1, 1, size(model) - 10]
    assert list(vocabulary.encode("the <extra_id_0></s><extra_id_9>")) == expected


def test_a_vocabulary_without_added_tokens_is_a_plain_seqio_vocabulary(folder, model):
    own = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<extra_id_0>": size(model) - 1}
    vocabulary = beside(str(folder(added_tokens=own)), CONFIG)
    assert type(vocabulary) is type(make(str(folder() / "spiece.model"), 10))


def test_equal_vocabularies_are_equal_and_can_be_copied(folder, model):
    place = str(folder() / "spiece.model")
    one, other = (make(place, 10, {"{": size(model) + i}) for i in range(2))
    assert copy.deepcopy(one) == one != other
    assert make(place, 10, {"{": size(model)}) == one


def test_added_tokens_can_be_bound_in_gin(folder, model, own_folder):
    found = find_tokenizer(folder(added_tokens={"{": size(model), "'": size(model) + 1}), 400)
    pathlib.Path("vocabulary.gin").write_text("\n".join(found.gin_lines(found.model)))
    bound = configuration.load(["vocabulary.gin"]).bound("vocabularies.sentencepiece")
    assert make(**bound) == beside(str(found.model.parent), CONFIG)


def described(token, number, **flags):
    return {"extra_ids": 10, "added_tokens_decoder": {str(number): {"content": token, **flags}}}


def test_a_token_that_is_matched_in_the_raw_text_may_be_white_space(folder, model):
    config = described("\n", size(model), normalized=False)
    vocabulary = beside(str(folder(tokenizer_config=config)), CONFIG)
    expected = [*encoded(model, "if"), size(model), *encoded(model, "you")]
    assert list(vocabulary.encode("if\nyou")) == expected


def test_tokens_that_transformers_would_match_differently_are_refused_by_name(folder, model):
    first = size(model)
    cases = [
        ({"tokenizer_config": described("\n", first)}, r"'\\n' is looked for in the normalised text"),
        (
            {"tokenizer_config": described("zz", first, single_word=True)},
            "'zz' matches whole words only",
        ),
        ({"added_tokens": {"{": 7}}, "token '{' the id 7, and .*spiece.model has another piece there"),
        ({"added_tokens": {"</s>": first}}, rf"'</s>' the id {first}, and .*spiece.model gives it 1"),
        ({"added_tokens": {"<extra_id_0>": first}}, "'<extra_id_0>' the id"),
        ({"added_tokens": {"{": first + 500}}, "with its added tokens has ids 0 to"),
        ({"added_tokens": {"{": "7"}}, "an added token '{' with the id '7'"),
        ({"special_tokens_map": {"additional_special_tokens": ["<sep>"]}}, "without an id .*'<sep>'"),
        ({"special_tokens_map": {"eos_token": {"content": "the"}}}, "eos_token is 'the', with the id"),
        ({"special_tokens_map": {"pad_token": "</s>"}}, "pad_token is '</s>', with the id 1"),
        ({"tokenizer_config": {"extra_ids": True}}, "extra_ids is True, not a number"),
    ]
    for files, message in cases:
        for file in ("added_tokens", "special_tokens_map"):
            (folder() / f"{file}.json").unlink(missing_ok=True)
        with pytest.raises(UserError, match=message) as error:
            beside(str(folder(**files)), CONFIG)
        assert "\n" not in str(error.value)


def test_two_ids_for_one_token_are_refused(folder, model):
    config = described("{", size(model))
    with pytest.raises(UserError, match=r"added_tokens\.json gives the token '{' the id .*keep one"):
        beside(str(folder(tokenizer_config=config, added_tokens={"{": size(model) + 1})), CONFIG)


def tokenizer_json(proto, **changes):
    """A tokenizer.json with the pieces and sentinels of the model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    n = processor.get_piece_size()
    vocab = [[processor.id_to_piece(i), processor.get_score(i)] for i in range(n)]
    vocab += [[f"<extra_id_{9 - i}>", 0.0] for i in range(10)]
    return {"added_tokens": [], "model": {"type": "Unigram", "vocab": vocab}} | changes


def test_a_tokenizer_json_with_the_same_pieces_is_accepted(folder, model):
    added = [{"id": size(model), "content": "{", "normalized": True, "special": False}]
    vocabulary = beside(str(folder(tokenizer=tokenizer_json(model, added_tokens=added))), CONFIG)
    assert list(vocabulary.encode("{")) == [size(model)]


def test_a_tokenizer_json_that_splits_texts_differently_is_refused(folder, model):
    own = tokenizer_json(model)["model"]["vocab"]
    renamed = [*own[:9], ["other", own[9][1]], *own[10:]]
    scored = [*own[:9], [own[9][0], own[9][1] - 1], *own[10:]]
    cases = [
        ({"model": {"type": "Unigram", "vocab": renamed}}, "the id 9 is 'other'"),
        ({"model": {"type": "Unigram", "vocab": scored}}, "differ: the id 9 is"),
        ({"model": {"type": "Unigram", "vocab": own[:20]}}, "they have 20 and"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "'WordPiece' is not 'Unigram'"),
        ({"model": {"type": "Unigram", "vocab": "abc"}}, "vocab is not a list"),
        ({"model": None}, "model is not an object"),
        ({"normalizer": {"type": "Lowercase"}}, 'the step "Lowercase" is not in SentencePiece'),
        ({"pre_tokenizer": {"type": "Digits"}}, 'the step "Digits" is not in SentencePiece'),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {}}, {"Sequence": {}}],
                }
            },
            r"adds tokens to a text \(post_processor\) other than the one at its end",
        ),
    ]
    for changes, message in cases:
        with pytest.raises(UserError, match=message) as error:
            beside(str(folder(tokenizer=tokenizer_json(model, **changes))), CONFIG)
        assert "\n" not in str(error.value)


def test_ids_and_text_of_the_recorded_case_equal_those_of_transformers(shared_cases):
    case = shared_cases / "hf_added_tokens"
    expected = json.loads((case / "expected.json").read_text())
    vocabulary = beside(str(case / "model"), T5Config(vocab_size=32128))
    assert [*vocabulary.encode(expected["text"]), 1] == expected["ids"]
    assert vocabulary.encode_tf(tf.constant(expected["text"])).numpy().tolist() == expected["ids"][:-1]
    assert vocabulary.decode(expected["ids"]) == expected["decoded"]


def test_the_real_tokenizer_json_agrees_with_its_model(shared_data):
    vocabulary = beside(str(shared_data / "t5_vocab"), T5Config(vocab_size=32128))
    assert vocabulary.vocab_size == 32100
    np.testing.assert_array_equal(vocabulary.encode("if (x < 1)")[:2], [3, 99])
