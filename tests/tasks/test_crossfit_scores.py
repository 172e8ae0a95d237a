"""CrossFit's seven metrics, against numbers of other programs and numbers made by hand."""

import math
import random

import pytest

from poly_jax.errors import UserError
from poly_jax.tasks.crossfit.metrics import Score, stripped_or_references
from poly_jax.tasks.crossfit.rouge_l import rouge_l_f
from poly_jax.tasks.crossfit.scores import (
    METRICS,
    accuracy,
    classification_f1,
    exact_match,
    matthews_correlation,
    pearson_correlation,
    question_f1,
    rouge_l,
)


def one(metric, prediction, *references):
    return metric([references], [prediction])


def labels(*texts):
    return [(text,) for text in texts]


def test_accuracy_ignores_case_and_nothing_else():
    assert one(accuracy, "Yes", "no", "yes") == 1
    assert one(accuracy, "yes.", "yes") == 0
    assert one(accuracy, "the cat", "cat") == 0
    assert accuracy([("a",), ("b", "c"), ("d",), ("e",)], ["A", "c", "x", "e "]) == 0.5


def test_exact_match_ignores_case_punctuation_articles_and_blanks():
    assert one(exact_match, "The  U.S.", "us") == 1
    assert one(exact_match, "an apple, a pear", "apple pear") == 1
    assert one(exact_match, "theory", "ory") == 0
    assert one(exact_match, "x", "y", "X!") == 1
    # Punctuation is deleted, not replaced by a blank.
    assert one(exact_match, "well-known", "well known") == 0


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        # 2 common words of 3 and of 2: P 2/3, R 1.
        ("the big red dog", ("red big",), 0.8),
        # A bag: "a" is an article, and each "b" counts once on each side. P 1/2, R 1/3.
        ("b c", ("a b b b",), 0.4),
        ("b c", ("x", "c b"), 1.0),
        ("", ("",), 0.0),
        ("the", ("the",), 0.0),
    ],
)
def test_question_f1_compares_bags_of_words(prediction, references, expected):
    assert question_f1([references], [prediction]) == pytest.approx(expected)


def test_every_invented_label_is_a_class_of_the_classification_f1():
    # a: P 1, R 1/2. b: P 1/2, R 1/2. c: 0. The mean of 2/3, 1/2 and 0 is 7/18.
    assert classification_f1(labels("a", "a", "b", "b"), list("abbc")) == pytest.approx(7 / 18)
    assert classification_f1(labels("a", "b"), ["a", "B"]) == pytest.approx(1 / 3)
    assert classification_f1([("a", "b")], ["b"]) == 0


def test_matthews_correlation_asks_for_the_word_acceptable():
    yes, no = "acceptable", "unacceptable"
    # 2 true and 1 false positives, 1 true and 1 false negatives: (2 - 1) / sqrt(3 * 3 * 2 * 2).
    got = matthews_correlation(labels(yes, yes, no, no, yes), [yes, "Acceptable", "x", yes, yes])
    assert got == pytest.approx(1 / 6)
    assert matthews_correlation(labels(yes, no), [yes, yes]) == 0
    assert matthews_correlation(labels(yes, no), [yes, ""]) == 1


def test_pearson_correlation_takes_the_first_number_of_a_prediction():
    # By hand: deviations (-1.5, -0.5, 0.5, 1.5) and (0.875, -1.125, 2.375, -2.125), so r is this quotient.
    expected = -2.75 / math.sqrt(5 * 12.1875)
    got = pearson_correlation(labels("1", "2", "3", "4.0"), ["2 stars", "none", "it is 3.5 of 5", "-1"])
    assert got == pytest.approx(expected)
    assert pearson_correlation(labels("1", "2"), [".5", "+7"]) == pytest.approx(1)


def test_a_pearson_correlation_of_constants_is_not_a_number():
    assert math.isnan(pearson_correlation(labels("1", "2"), ["3", "3"]))
    assert math.isnan(pearson_correlation(labels("1", "1"), ["3", "4"]))
    assert math.isnan(pearson_correlation(labels("1"), ["3"]))


def test_a_pearson_label_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="label 'good' is not a number, which Pearson-Correlation needs"):
        pearson_correlation(labels("1", "good"), ["1", "2"])


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        # Computed by the package rouge 1.0.1.
        ("the the the", "the", 0.999999995),
        ("x y. z", "x z y", 0.999999995),
        ("Hello World", "hello world", 0.0),
        ("a . b", "a. . b", 0.7999999952000001),
        ("a b. c d", "c d. a b", 0.999999995),
        ("police kill the gunman . end", "the gunman kill police", 0.4444444395061729),
        ("the cat sat on the mat. it was red", "a cat sat on a mat. it was blue. it is", 0.7058823479584776),
        ("b a c", "a b d c", 0.5714285665306124),
    ],
)
def test_rouge_l_is_that_of_the_package_rouge(prediction, reference, expected):
    assert rouge_l_f(prediction, reference) == pytest.approx(expected, abs=1e-12)


def test_rouge_l_is_that_of_the_package_rouge_on_random_sentences():
    package = pytest.importorskip(
        "rouge", reason="the package rouge is not installed; it is in the extra 'test'"
    )
    scorer = package.Rouge(metrics=["rouge-l"])
    draw = random.Random(0)
    for _ in range(500):
        first, second = (
            " ".join(draw.choice(["a", "b", "c", "d", "e.", "the", "The", "f. g"]) for _ in range(size))
            for size in (draw.randint(1, 12), draw.randint(1, 12))
        )
        (wanted,) = scorer.get_scores(first, second)
        assert rouge_l_f(first, second) == pytest.approx(wanted["rouge-l"]["f"], abs=1e-12), (first, second)


def test_rouge_l_without_words_is_0():
    assert rouge_l_f("", "x") == rouge_l_f("...", "x") == rouge_l_f("x", ".") == 0
    assert one(rouge_l, "!?", "!?") == 0
    assert one(rouge_l, "", "x") == 0


def test_rouge_l_takes_the_best_reference_and_scores_long_sentences():
    long = " ".join(f"w{n}" for n in range(1200))
    # Two words are common: P 2/2, R 2/1201. The package rouge ends with a RecursionError here.
    recall = 2 / 1201
    got = one(rouge_l, "q w3", f"q {long}", "nothing")
    assert got == pytest.approx(2 * recall / (1 + recall), abs=1e-8)


def test_a_score_is_in_percent_and_says_its_metric():
    got = Score("ACC")([["a"], ["b", "c"]], ["a", "x"])
    assert got["score"] == 50
    assert got["metric"].textdata == "ACC"
    assert set(METRICS) == {
        *("ACC", "Classification-F1", "EM", "QA-F1", "Rouge-L"),
        *("Pearson-Correlation", "Matthew-Correlation"),
    }


def test_predictions_are_stripped_and_targets_are_references():
    assert stripped_or_references(" a b\n") == "a b"
    example = {"references": [b"x", "é".encode()]}
    assert stripped_or_references("x", example=example, is_target=True) == ["x", "é"]
