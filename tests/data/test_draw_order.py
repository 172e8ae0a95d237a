"""Tests of the order in which the tasks of a mixture are drawn."""

import itertools

import numpy as np
import pytest

from poly_jax.data.draw_order import DrawOrder
from poly_jax.data.keyed_random import permutations, random_bits, uniform


def drawn(rates, blocks=3, seed=0):
    """Names of the tasks in their order, with the number of earlier draws of each."""
    order, names = DrawOrder(rates, seed), list(rates)
    pairs = [zip(*(array.tolist() for array in order.block(number)), strict=True) for number in range(blocks)]
    return [(names[task], draw) for task, draw in itertools.chain(*pairs)]


RATES = {"rare": 1.0, "common": 37.5, "half": 0.5, "equal": 37.5}


def test_every_draw_of_every_task_comes_once_and_in_its_order():
    for name in RATES:
        numbers = [draw for task, draw in drawn(RATES) if task == name]
        assert numbers == list(range(len(numbers)))


def test_tasks_are_drawn_as_often_as_their_rates_say():
    found = drawn(RATES, blocks=5)
    total = sum(RATES.values())
    for name, rate in RATES.items():
        count = sum(task == name for task, _ in found)
        # 5 blocks of 4,096 draws on average; a task's own share is met to within one draw.
        assert abs(count - 5 * 4096 * rate / total) <= 1


def test_the_other_tasks_keep_their_order_when_a_task_is_added_or_removed():
    both = drawn(RATES | {"new": 20.0}, blocks=6)
    before = drawn(RATES, blocks=6)
    kept = [each for each in both if each[0] != "new"]
    shared = min(len(kept), len(before))
    assert shared > 15_000
    assert kept[:shared] == before[:shared]


def test_equal_rates_draw_every_task_once_in_each_round_in_an_order_of_its_own():
    names = [f"task{number}" for number in range(64)]
    found = [task for task, _ in drawn(dict.fromkeys(names, 1.0), blocks=1)]
    rounds = [tuple(found[begin : begin + 64]) for begin in range(0, len(found) - 63, 64)]
    assert {tuple(sorted(each)) for each in rounds} == {tuple(sorted(names))}
    assert len(set(rounds)) == len(rounds) == 64


def test_another_seed_draws_in_another_order():
    assert drawn(RATES, seed=1) != drawn(RATES, seed=2)
    assert drawn(RATES, seed=1) == drawn(RATES, seed=1)


def test_random_bits_are_those_of_splitmix64():
    # The published test vector: the first outputs of SplitMix64 with seed 1234567, as a sequence of counters.
    # random_bits mixes twice; the first mix alone is the generator's output for the counters 1, 2, 3.
    from poly_jax.data import keyed_random

    states = np.uint64(1234567) + np.arange(1, 4).astype(np.uint64) * keyed_random._GOLDEN
    assert keyed_random._mixed(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("key", [0, 1, 2**63 + 11])
def test_uniform_numbers_fill_the_unit_interval_evenly(key):
    numbers = uniform(np.full(40_000, key, np.uint64), np.arange(40_000))
    counts = np.histogram(numbers, bins=40, range=(0, 1))[0]
    # Chi-squared with 39 degrees of freedom stays below 81.4 but for one seed in 10,000.
    assert ((counts - 1000) ** 2 / 1000).sum() < 81.4
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


def test_neighbouring_keys_are_independent():
    counters = np.arange(20_000)
    left, right = (uniform(np.full(20_000, key, np.uint64), counters) for key in (7, 8))
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.03
    assert len(set(random_bits(np.arange(1000, dtype=np.uint64), np.zeros(1000, np.int64)))) == 1000


def test_a_permutation_holds_every_number_once_and_each_order_is_as_likely_as_another():
    orders = list(map(tuple, permutations(np.arange(4800, dtype=np.uint64), 4).tolist()))
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3)}
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    # Chi-squared with 23 degrees of freedom stays below 58.6 but for one case in 10,000.
    assert ((counts - 200) ** 2 / 200).sum() < 58.6
