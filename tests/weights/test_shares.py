"""Work that is divided among several workers."""

import random

import pytest

from poly_jax.weights.shares import even_shares


@pytest.mark.parametrize("count", [1, 2, 5, 16, 300])
def test_shares_are_disjoint_complete_and_even(count):
    draw = random.Random(count)
    sizes = {f"tensor {number}": draw.randrange(1, 10_000) for number in range(200)}
    shares = even_shares(sizes, count)
    assert len(shares) == count
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    # Whoever has least takes the next name, so that no share is ahead by more than one of its names.
    assert max(loads) - min(loads) <= max(sizes.values())
    if count <= 16:
        assert max(loads) < 1.02 * sum(sizes.values()) / count


def test_the_largest_piece_comes_first():
    sizes = {"embedding": 90, **{f"small {number}": 10 for number in range(9)}}
    assert even_shares(sizes, 2)[0] == ["embedding"]


def test_every_worker_computes_the_same_division_whatever_the_order_of_the_names():
    sizes = {f"tensor {number}": 1 + number % 3 for number in range(20)}
    assert even_shares(sizes, 3) == even_shares(dict(reversed(sizes.items())), 3)
