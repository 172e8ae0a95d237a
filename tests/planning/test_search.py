"""The search for the largest batch, on made-up programs."""

import pytest

from poly_jax.planning.search import Trial, largest_size


@pytest.mark.parametrize("first", [1, 3, 40, 900])
@pytest.mark.parametrize(("fixed", "each", "limit"), [(0, 7, 1000), (600, 3, 1000), (10, 1, 500)])
def test_the_largest_size_is_found_with_few_trials(first, fixed, each, limit):
    tried = []

    def attempt(size):
        tried.append(size)
        used = fixed + each * size
        return Trial(size, used, used <= limit)

    largest = (limit - fixed) // each
    found = largest_size(attempt, Trial(first, fixed + each * first, fixed + each * first <= limit), limit)
    assert largest - max(1, largest // 32) <= found <= largest
    assert len(tried) <= 6


def test_nothing_fits_where_even_one_does_not():
    assert largest_size(lambda size: Trial(size, 100 + size, False), Trial(4, 104, False), 50) == 0


def test_uneven_growth_is_found_too():
    def used(size):
        return 10 * size + 130 * (size // 8)

    def attempt(size):
        return Trial(size, used(size), used(size) <= 1000)

    largest = max(size for size in range(200) if used(size) <= 1000)
    assert largest - 1 <= largest_size(attempt, attempt(2), 1000) <= largest


def test_a_jump_of_the_bytes_is_not_approached_size_by_size():
    tried = []

    def attempt(size):
        tried.append(size)
        used = 60 * size + (5_000 if size >= 248 else 0)
        return Trial(size, used, used <= 16_000)

    assert largest_size(attempt, Trial(64, 3_840, True), 16_000) in range(240, 248)
    assert len(tried) <= 6
