"""A call that takes long is looked after once, and given up where that finds why."""

import threading

import pytest

from poly_jax.data.waiting import waited_for


def test_a_quick_call_returns_its_result_and_raises_its_errors():
    assert waited_for(lambda: 3, 60, pytest.fail) == 3
    with pytest.raises(StopIteration):
        waited_for(lambda: next(iter(())), 60, pytest.fail)


def test_a_slow_call_is_waited_for_where_nothing_is_wrong():
    goes_on = threading.Event()
    assert waited_for(lambda: goes_on.wait(60), 0.01, goes_on.set)


def test_a_call_without_end_is_given_up():
    def refuse():
        raise ValueError("no end")

    with pytest.raises(ValueError, match="no end"):
        waited_for(threading.Event().wait, 0.01, refuse)
