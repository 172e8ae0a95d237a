"""Accuracy of rank classification, for scores written by hand."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot.metrics import labelled, rank_accuracy


def target(label, tokens, template="a"):
    return {"label": label, "tokens": tokens, "template": template}


# By summed log-probability the first choice is best; by the mean over its tokens, the second.
SCORES = np.array([[-2.0, -3.0], [-2.0, -3.0]])
TOKENS = [1, 3]


@pytest.mark.parametrize(("length_norm", "label"), [(0.0, 0), (1.0, 1)])
def test_scores_are_divided_by_a_power_of_the_length_before_they_are_compared(length_norm, label):
    right = [target(label, TOKENS), target(label, TOKENS)]
    assert rank_accuracy(right, SCORES, length_norm=length_norm) == {"accuracy": 100.0}
    half = [target(label, TOKENS), target(1 - label, TOKENS)]
    assert rank_accuracy(half, SCORES, length_norm=length_norm) == {"accuracy": 50.0}


def test_an_absent_choice_is_never_the_best():
    scores = np.array([[-9.0, -np.inf, -8.0]])
    assert rank_accuracy([target(2, [4, 0, 4])], scores) == {"accuracy": 100.0}


@pytest.mark.parametrize(
    ("scores", "tokens", "labels", "accuracy"),
    [
        # Each of two equal choices is the prediction half of the time, whichever is right.
        ([-5.0, -5.0], [3, 3], (0, 1, 0, 0), 50.0),
        # Two of three choices tie; if the right one is among them, it counts one half.
        ([-2.0, -1.0, -1.0], [1, 1, 1], (0, 1, 2, 1), 100 * 1.5 / 4),
        # An absent choice is ignored, whatever its score.
        ([-1.0, -1.0, -1.0, np.nan], [1, 1, 1, 0], (0, 1), 100 / 3),
        ([-np.inf, -np.inf], [1, 1], (0, 0), 50.0),
    ],
)
def test_ties_are_scored_as_a_random_choice_among_the_best(scores, tokens, labels, accuracy):
    targets = [target(label, tokens) for label in labels]
    result = rank_accuracy(targets, np.tile(scores, (len(labels), 1)))
    assert result == {"accuracy": pytest.approx(accuracy)}


def test_a_score_that_is_not_a_number_is_an_error_that_names_the_example():
    targets = [target(0, [1, 1]), target(1, [1, 1], "does it follow")]
    with pytest.raises(UserError, match=r"1 of 2 examples .* example 1 \(template 'does it follow'\)"):
        rank_accuracy(targets, np.array([[-1.0, -2.0], [np.nan, -1.0]]))


def test_the_median_accuracy_is_over_templates():
    # With templates a, b and c, 2, 0 and 1 of 2 examples are right.
    labels = {"a": (0, 0), "b": (1, 1), "c": (0, 1)}
    targets = [target(labels[name][row], [1, 1], name) for row in range(2) for name in "abc"]
    scores = np.tile([-1.0, -2.0], (6, 1))
    assert rank_accuracy(targets, scores, by_template=True) == {
        "accuracy": 50.0,
        "median_accuracy": 50.0,
        # The accuracies are 0, 50 and 100, and half of the way to the next one are the quartiles 25 and 75.
        "interquartile_range": 50.0,
    }
    targets[2]["label"] = targets[5]["label"] = 1
    results = rank_accuracy(targets, scores, by_template=True)
    assert results == {
        "accuracy": pytest.approx(100 / 3),
        "median_accuracy": 0.0,
        "interquartile_range": pytest.approx(50.0),
    }


def test_the_interquartile_range_ignores_the_best_and_the_worst_quarter_of_the_templates():
    # Of ten examples, the five templates have 1, 4, 5, 7 and 10 right.
    rights = dict(zip("abcde", (1, 4, 5, 7, 10), strict=True))
    targets = [target(int(row >= right), [1, 1], name) for name, right in rights.items() for row in range(10)]
    scores = np.tile([-1.0, -2.0], (50, 1))
    results = rank_accuracy(targets, scores, by_template=True)
    assert results == {"accuracy": 54.0, "median_accuracy": 50.0, "interquartile_range": pytest.approx(30.0)}
    one = rank_accuracy(targets[:10], scores[:10], by_template=True)
    assert one == {"accuracy": 10.0, "median_accuracy": 10.0, "interquartile_range": 0.0}


def test_a_target_is_its_label_and_the_lengths_of_the_choices():
    example = {"label": 1, "choices": np.array([[5, 1, 0], [5, 6, 1]]), "template": b"does it follow"}
    assert labelled("No", example=example, is_target=True) == target(1, [2, 3], "does it follow")
    assert labelled("No") == "No"
