"""A misspelt name is reported with the closest known names."""

from poly_jax.suggestion import close_names, did_you_mean, nearest_names


def test_the_closest_names_come_first_whatever_their_case():
    assert close_names("T5CONFG", ["T6Config", "T5Config", "Adapters"]) == ["T5Config", "T6Config"]
    assert close_names("x", ["abc"]) == []


def test_the_nearest_names_are_named_though_none_is_close():
    assert close_names("sentiment", ["topic", "SEMANTICS", "parity"]) == []
    assert nearest_names("sentiment", ["topic", "SEMANTICS", "parity"], 2) == ["SEMANTICS", "topic"]


def test_the_question_names_each_suggestion_and_is_empty_without_any():
    assert did_you_mean(["a", "b"]) == "did you mean 'a' or 'b'?"
    assert did_you_mean(["a"], shown=str) == "did you mean a?"
    assert did_you_mean([]) == ""
