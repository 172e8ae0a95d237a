"""An example is made of the columns and templates that a user names, and of the usual names where none is."""

import pytest

from poly_jax.errors import UserError
from poly_jax.tasks.from_files.examples import Columns, Example
from poly_jax.tasks.from_files.row_files import Label
from poly_jax.tasks.from_files.texts import RowText


def made(row, **settings):
    return Columns(**settings).maker(list(row), "t.jsonl")(row, "t.jsonl, line 1")


@pytest.mark.parametrize(
    "pair", [("input", "output"), ("inputs", "targets"), ("question", "answer"), ("text", "label")]
)
def test_usual_names_of_columns_are_found(pair):
    assert made({"id": 7, pair[0]: "2+2?", pair[1]: "4"}) == Example("2+2?", ("4",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["a", "b"], "has the columns 'a', 'b', and none of them is known as the inputs; bind from_files"),
        # One of them alone would silently leave out half of what the model needs.
        (["context", "question", "answer"], "'question' and 'context' could be the inputs"),
        (["question", "answer", "label"], "'answer' and 'label' could be the targets"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_listed(columns, message):
    with pytest.raises(UserError, match=message):
        Columns().maker(columns, "t.csv")


def test_a_template_inserts_columns_values_inside_them_and_braces():
    row = {"q": "why {x}?", "options": ["a", "b"], "meta": {"n": 3}}
    text = RowText("{{{q}}} {options[1]}\n{meta[n]}", "inputs").text(row, "line 1")
    # Braces inside a value are not a field.
    assert text == "{why {x}?} b\n3"


def test_a_target_is_a_text_a_number_or_a_list_of_references():
    assert made({"q": "x", "a": ["one", "1"]}, inputs="q", targets="a").references == ("one", "1")
    assert made({"q": "x", "a": 1.5}, inputs="q", targets="a").references == ("1.5",)
    assert made({"q": "x", "a": {"text": ["y"]}}, inputs="q", targets="{a[text]}").references == ("y",)
    assert made({"q": "x", "a": "y"}, inputs="q", targets="It is {a}.").references == ("It is y.",)
    assert made({"q": "x", "a": Label(1, "yes")}, inputs="q", targets="a").references == ("yes",)


@pytest.mark.parametrize("target", ["good", 1, "1", True, Label(1, "positive"), ["good"]])
def test_a_right_choice_is_its_text_or_its_number(target):
    example = made({"text": "x", "label": target}, choices=("bad", "good"))
    assert example == Example("x", ("good",), ("bad", "good"), 1)


@pytest.mark.parametrize(("choices", "index"), [(("true", "false"), 0), (("False", "True"), 1)])
def test_a_boolean_is_the_choice_with_its_text(choices, index):
    assert made({"text": "x", "label": True}, choices=choices).label == index


def test_the_text_of_a_choice_goes_before_its_number():
    assert made({"text": "x", "label": "1"}, choices=("1", "0")).label == 0
    assert made({"text": "x", "label": Label(0, "yes")}, choices=("no", "yes")).label == 1


def test_a_row_may_have_choices_of_its_own():
    row = {"question": "x", "options": {"text": ["p", "q", "r"]}, "answer": "r"}
    assert made(row, choices="{options[text]}") == Example("x", ("r",), ("p", "q", "r"), 2)


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"q": "x", "b": "y"}, {"inputs": "q", "targets": "a"}, "line 1 has no field 'a'"),
        (
            {"question": "x"},
            {"inputs": "qestion", "targets": "a"},
            r"'qestion' \(did you mean 'question'\?\)",
        ),
        ({"q": None, "a": "y"}, {"inputs": "q", "targets": "a"}, "'q' is null"),
        ({"q": " ", "a": "y"}, {"inputs": "q", "targets": "a"}, "line 1 has an empty input"),
        ({"q": "x", "a": " "}, {"inputs": "q", "targets": "a"}, "the target is empty"),
        ({"q": "x", "a": []}, {"inputs": "q", "targets": "a"}, "the target is empty"),
        ({"q": "x", "a": ["y", ""]}, {"inputs": "q", "targets": "a"}, "the target is empty"),
        ({"q": "x", "a": {"b": 1}}, {"inputs": "q", "targets": "a"}, "must be a text or a list of texts"),
        ({"q": ["x"], "a": "y"}, {"inputs": "q", "targets": "a"}, "'q' is a list where a text is needed"),
        ({"q": "x", "a": "y"}, {"inputs": "{q[0]}", "targets": "a"}, r"no field 'q\[0\]'"),
        (
            {"text": "x", "label": "fair"},
            {"choices": ("bad", "good")},
            "target 'fair' is not one of the 2 choices 'bad, good', nor a number from 0 to 1",
        ),
        ({"text": "x", "label": 2}, {"choices": ("bad", "good")}, "target '2' is not one of the 2 choices"),
        ({"text": "x", "label": -1}, {"choices": ("bad", "good")}, "target '-1' is not one"),
        ({"text": "x", "label": ""}, {"choices": ("bad", "good")}, "the target is empty"),
        (
            {"text": "x", "label": "y", "o": "y"},
            {"choices": "o"},
            "the choices must be a list of at least two .*or to a tuple of the choices",
        ),
        ({"text": "x", "label": "y", "o": ["y"]}, {"choices": "o"}, "a list of at least two .*; repair"),
        (
            {"text": "x", "label": 0, "o": ["a", "b", "a "]},
            {"choices": "o"},
            "the choices have 'a' twice; repair",
        ),
    ],
)
def test_a_row_that_makes_no_example_is_refused_by_its_name(row, settings, message):
    with pytest.raises(UserError, match=message) as raised:
        made(row, **settings)
    assert str(raised.value).startswith("t.jsonl, line 1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": "{question"}, "inputs '{question' is not a template"),
        ({"inputs": "{}"}, r"has the field \{\}; write \{column\}"),
        ({"inputs": "{q:>10}"}, "without a format"),
        ({"inputs": "{q!r}"}, "without a format"),
        ({"targets": ""}, "targets is empty"),
        ({"choices": ("yes",)}, r"choices is \['yes'\]; give two or more different answers"),
        ({"choices": ("yes", " ")}, "give two or more different answers"),
        ({"choices": ("yes", "no", "yes")}, "give two or more different answers"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_file_is_read(settings, message):
    with pytest.raises(UserError, match=message):
        Columns(**settings)
