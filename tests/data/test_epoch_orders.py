"""Tests of the orders in which tasks go through their examples."""

import hashlib
import itertools

import numpy as np
import pytest

from poly_jax.data.epoch_orders import EpochOrders
from poly_jax.data.keyed_random import random_bits

SIZES = {"one": 1, "two": 2, "also two": 2, "many": 70}
SEED = 3


@pytest.fixture
def orders():
    return EpochOrders(list(SIZES), np.array(list(SIZES.values())), SEED)


def order(name, epoch):
    """The order of one task, whose numbers are sorted by random bits of a key of seed, name and epoch."""
    text = f"{SEED}\norder\n{name}\n{epoch}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    bits = random_bits(np.full(SIZES[name], key, np.uint64), np.arange(SIZES[name]))
    return sorted(range(SIZES[name]), key=bits.tolist().__getitem__)


def ask(orders, draws):
    """The examples of draws, which are a task's name and the number of its earlier draws."""
    names = list(SIZES)
    tasks = np.array([names.index(name) for name, _ in draws])
    numbers = np.array([number for _, number in draws])
    epochs, places = np.divmod(numbers, np.array(list(SIZES.values()))[tasks])
    return orders.examples(tasks, epochs, places).tolist()


def expected(draws):
    return [order(name, number // SIZES[name])[number % SIZES[name]] for name, number in draws]


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_each_epoch_has_its_own_order_however_many_draws_are_asked_for_together(orders, at_once):
    rng = np.random.default_rng(0)
    # Each task's draws come in their order. Those of small tasks cover many epochs.
    names = rng.choice(list(SIZES), 500, p=[0.2, 0.3, 0.1, 0.4]).tolist()
    draws = [(name, names[:place].count(name)) for place, name in enumerate(names)]
    found = [ask(orders, draws[begin : begin + at_once]) for begin in range(0, len(draws), at_once)]
    assert list(itertools.chain(*found)) == expected(draws)


def test_an_earlier_epoch_can_be_asked_for_again(orders):
    late = [("many", 210), ("two", 9), ("many", 3), ("two", 0)]
    for draws in (late, late[::-1], late):
        assert ask(orders, draws) == expected(draws)
