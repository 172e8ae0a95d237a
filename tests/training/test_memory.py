"""What cannot fit into memory is refused before anything is allocated."""

import jax
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.training import memory
from poly_jax.training.memory import check_memory
from poly_jax.training.mesh import Partitioning, replicated


@pytest.fixture
def place():
    return replicated(Partitioning().mesh())


def test_parameters_of_terabytes_are_refused_in_one_line(place):
    shapes = {"lora_a": jax.ShapeDtypeStruct((10**6, 10**9), np.float32)}
    # 4e15 bytes.
    with pytest.raises(UserError, match=r"take 3,725,290\.3 GiB on each device.*choose a smaller model"):
        check_memory(shapes, {"lora_a": place})


def test_what_fits_is_allowed_up_to_the_last_byte(place, monkeypatch):
    shapes = {"a": jax.ShapeDtypeStruct((3,), np.float32), "b": jax.ShapeDtypeStruct((2,), np.int8)}
    places = {"a": place, "b": place}
    monkeypatch.setattr(memory, "_memory", lambda place: 14)
    check_memory(shapes, places)
    monkeypatch.setattr(memory, "_memory", lambda place: 13)
    with pytest.raises(UserError):
        check_memory(shapes, places)


def test_nothing_fits_anywhere():
    check_memory({}, {})
