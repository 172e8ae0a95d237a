"""What TensorStore tells a closed event loop is not printed; other errors that nobody can catch are."""

import asyncio
import sys
import types

import pytest

from poly_jax.cli.unfinished_writes import hide_unfinished_writes


@pytest.fixture
def shown(monkeypatch):
    """The errors that are printed."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: errors.append(unraisable.exc_value))
    hide_unfinished_writes()
    return errors


def test_what_a_closed_event_loop_is_told_is_left_out(shown):
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as closed:
        loop.call_soon_threadsafe(print)
    sys.unraisablehook(types.SimpleNamespace(exc_value=closed.value))
    assert shown == []


def test_other_errors_are_shown(shown):
    error = RuntimeError("a bug")
    sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert shown == [error]
