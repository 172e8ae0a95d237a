"""Tests of the two forms of prompts."""

import pytest

from poly_jax.data import vocabularies
from poly_jax.data.encoded_text import encoded_text
from poly_jax.data.quiet import tf
from poly_jax.errors import UserError
from poly_jax.tasks.super_natural_instructions.prompts import encode_prompt, form, punctuated

BYTES = vocabularies.byte()


@pytest.fixture
def t5(shared_data):
    return vocabularies.sentencepiece(shared_data / "t5_vocab" / "spiece.model")


def example(demonstrations=(), text="How old are you?"):
    fields = {"task": "task7_sums", "definition": "Answer briefly.", "input": text}
    if demonstrations:
        fields["demonstration_inputs"] = [one for one, _ in demonstrations]
        fields["demonstration_outputs"] = [other for _, other in demonstrations]
    return {name: tf.constant(field) for name, field in fields.items()}


def encode(name, vocabulary=BYTES, length=None, **fields):
    ids, text = encode_prompt(example(**fields), form(name), vocabulary, length)
    return ids.numpy().tolist(), text.numpy().decode()


TWO = (("1+1.", "2."), ("2+2.", "4."))
NEW = (
    "Task definition: Answer briefly.\nNow complete the following example -\nInput: How old are you?\nOutput:"
)
OLD = (
    "task7_sums. Definition: Answer briefly.\n\n"
    "Now complete the following example -\nInput: How old are you?\nOutput: "
)
NEW_WITH_TWO = (
    "Task definition: Answer briefly.\n"
    " Positive Example 1 -\nInput: 1+1.\n Output: 2. </s>\n\n"
    " Positive Example 2 -\nInput: 2+2.\n Output: 4. </s>\n\n"
    "Now complete the following example -\nInput: How old are you?\nOutput:"
)
OLD_WITH_TWO = (
    "task7_sums. Definition: Answer briefly.\n\n"
    " Positive Example 1 -\nInput: 1+1.\n Output: 2.\n"
    " Positive Example 2 -\nInput: 2+2.\n Output: 4.\n"
    "Now complete the following example -\nInput: How old are you?\nOutput: "
)


@pytest.mark.parametrize(
    ("name", "demonstrations", "text"),
    [("NEW", (), NEW), ("OLD", (), OLD), ("NEW", TWO, NEW_WITH_TWO), ("OLD", TWO, OLD_WITH_TWO)],
)
def test_a_prompt_is_written_as_published(name, demonstrations, text):
    ids, written = encode(name, demonstrations=demonstrations)
    assert written == text
    # As byte ids, every character is compared; an end of sequence within the text is its id.
    pieces = [BYTES.encode(piece) for piece in text.split("</s>")]
    assert ids == [id for piece in pieces for id in [*piece, 1]]


@pytest.mark.parametrize(("name", "demonstrations"), [("NEW", ()), ("OLD", ()), ("OLD", TWO)])
def test_ids_encoded_piece_by_piece_equal_the_ids_of_the_whole_text(t5, name, demonstrations):
    ids, text = encode(name, t5, demonstrations=demonstrations)
    assert ids == [*t5.encode(text), 1]


def test_a_demonstration_ends_with_the_end_of_sequence_in_the_new_form(t5):
    ids, text = encode("NEW", t5, demonstrations=TWO)
    assert ids == [id for piece in text.split("</s>") for id in [*t5.encode(piece), 1]]
    assert ids.count(1) == 3


def test_a_new_prompt_that_is_cut_keeps_its_end(t5):
    long = " ".join(["word"] * 200) + "."
    whole, _ = encode("NEW", t5, text=long)
    ids, _ = encode("NEW", t5, length=64, text=long)
    assert len(ids) == 64
    assert t5.decode(ids).endswith("word word Output:")
    assert ids[-4:] == [*t5.encode("\nOutput:"), 1]
    assert ids[:60] == whole[:60]


def test_an_old_prompt_is_cut_at_its_end(t5):
    long = " ".join(["word"] * 200) + "."
    whole, _ = encode("OLD", t5, text=long)
    ids, _ = encode("OLD", t5, length=64, text=long)
    assert ids == [*whole[:63], 1]


@pytest.mark.parametrize("name", ["NEW", "OLD"])
def test_a_prompt_that_just_fits_is_not_cut(name):
    whole, _ = encode(name)
    assert encode(name, length=len(whole))[0] == whole
    assert encode(name, length=len(whole) - 1)[0] != whole[:-1]
    assert len(encode(name, length=len(whole) - 1)[0]) == len(whole) - 1


@pytest.mark.parametrize("name", ["NEW", "OLD"])
def test_demonstrations_are_added_up_to_the_first_that_does_not_fit(name):
    shown = (("a.", "b."), ("x" * 300 + ".", "y."), ("c.", "d."))
    with_one, _ = encode(name, demonstrations=shown[:1])
    ids, text = encode(name, demonstrations=shown, length=len(with_one) + 100)
    assert ids == with_one
    assert text.count("Positive Example") == 1
    assert encode(name, demonstrations=shown, length=len(with_one))[0] == with_one
    assert encode(name, demonstrations=shown, length=len(with_one) - 1)[0] == encode(name)[0]


def test_a_target_ends_with_the_end_of_sequence_whether_or_not_it_is_cut():
    text = tf.constant("abcdef")
    assert encoded_text(text, BYTES, None).numpy().tolist() == [*BYTES.encode("abcdef"), 1]
    assert encoded_text(text, BYTES, 7).numpy().tolist() == [*BYTES.encode("abcdef"), 1]
    assert encoded_text(text, BYTES, 4).numpy().tolist() == [*BYTES.encode("abc"), 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "Yes."),
        ("Yes.", "Yes."),
        ("Why?", "Why?"),
        ("(b)", "(b)"),
        ("", "."),
        ("né", "né."),
        ("。", "。."),
    ],
)
def test_a_piece_ends_in_ascii_punctuation(text, expected):
    assert punctuated(text) == expected


def test_an_unknown_form_is_reported_by_name():
    with pytest.raises(UserError, match="prompt 'new' is not known; give one of 'NEW', 'OLD'"):
        form("new")
