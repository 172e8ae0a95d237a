"""Combinations of skills that are chosen for a new task without gradients."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.transfer.gradient_free_search import SearchedWeights, SelectedSkills


def weights_of(combination):
    return np.asarray(combination.factors) / combination.factors.shape[-1]


def distance_to(target, seen=None):
    """Make a loss that is lowest at the given weights and records the weights that it is called with."""

    def losses(combinations):
        weights = weights_of(combinations)
        if seen is not None:
            seen.append(weights)
        return np.square(weights - target).sum(-1)

    return losses


def test_the_skills_with_the_lowest_individual_losses_are_selected():
    asked = []

    def losses(combinations):
        asked.append(combinations)
        return np.array([0.9, 0.1, 0.5, 0.2])

    chosen = SelectedSkills(count=2).choose(4, losses, seed=0)
    assert np.asarray(chosen.skills).tolist() == [1, 3]
    np.testing.assert_array_equal(chosen.factors, [1.0, 1.0])
    assert np.asarray(asked[0].skills).tolist() == [[0], [1], [2], [3]]


def test_if_there_are_fewer_skills_than_the_count_all_are_averaged():
    assert SelectedSkills(count=5).size(3) == 3


def test_the_search_finds_the_weights_of_the_lowest_loss_within_its_bounds():
    target = np.array([1.0, -0.5, 0.0])
    chosen = SearchedWeights(evaluations=2000, l1=0.0).choose(3, distance_to(target), seed=3)
    np.testing.assert_allclose(weights_of(chosen), target, atol=0.02)
    beyond = SearchedWeights(evaluations=2000, l1=0.0, bound=0.7).choose(3, distance_to(2 * target), seed=3)
    np.testing.assert_allclose(weights_of(beyond), [0.7, -0.7, 0.0], atol=0.02)


def test_the_penalty_is_the_mean_absolute_weight():
    # (w - 1)^2 + l1 |w| / 2 has its minimum at 1 - l1 / 4.
    chosen = SearchedWeights(evaluations=3000, l1=2.0).choose(2, distance_to(np.ones(2)), seed=0)
    np.testing.assert_allclose(weights_of(chosen), [0.5, 0.5], atol=0.02)


def test_the_search_tries_the_allowed_number_of_mixes_and_keeps_the_best():
    seen = []
    target = np.full(8, 0.4)
    chosen = SearchedWeights(l1=0.0).choose(8, distance_to(target, seen), seed=1)
    tried = np.concatenate(seen)
    assert len(tried) == 40
    best = np.square(tried - target).sum(-1).argmin()
    np.testing.assert_allclose(weights_of(chosen), tried[best], rtol=1e-5)


def test_the_candidates_and_the_search_are_determined_by_the_seed():
    search = SearchedWeights(candidates=3)
    a, b, c = (search.choose(50, distance_to(np.zeros(3)), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.skills, b.skills)
    np.testing.assert_array_equal(a.factors, b.factors)
    assert len(set(np.asarray(a.skills).tolist())) == 3
    assert np.asarray(a.skills).tolist() != np.asarray(c.skills).tolist()


def test_losses_that_overflow_do_not_end_the_search():
    def losses(combinations):
        values = np.square(weights_of(combinations)).sum(-1)
        return np.where(values > 0.5, np.inf, np.where(values > 0.4, np.nan, values))

    chosen = SearchedWeights(evaluations=200).choose(4, losses, seed=0)
    assert np.square(weights_of(chosen)).sum() < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelectedSkills(count=0), "SelectedSkills.count is 0"),
        (lambda: SearchedWeights(evaluations=0), "evaluations is 0"),
        (lambda: SearchedWeights(candidates=1), "candidates is 1"),
        (lambda: SearchedWeights(bound=0.0), "bound is 0.0"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(UserError, match=message):
        make()
