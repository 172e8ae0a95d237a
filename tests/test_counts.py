"""Settings that count something are whole numbers of at least 1, in Python as in gin files."""

import numpy as np
import pytest

import poly_jax
from poly_jax.counts import check_counts
from poly_jax.errors import UserError
from poly_jax.experiment import Data


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "train.steps is 0; it must be at least 1"),
        (-1, "train.steps is -1; it must be at least 1"),
        ("4", "train.steps is '4'; it must be a whole number"),
        (4.0, "train.steps is 4.0; it must be a whole number"),
        (True, "train.steps is True; it must be a whole number"),
        (None, "train.steps is None; it must be a whole number"),
    ],
)
def test_what_is_no_count_is_refused_with_its_name_and_value(value, message):
    with pytest.raises(UserError) as refused:
        check_counts("train", steps=value)
    assert str(refused.value) == message


def test_whole_numbers_of_numpy_are_counts():
    check_counts("train", steps=np.int32(4), save_every=1)


@pytest.mark.parametrize("name", ["inputs_length", "targets_length", "batch_size", "max_segments"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_of_the_data_are_checked_by_name(name, value):
    lengths = {"inputs_length": 4, "targets_length": 4, name: value}
    with pytest.raises(UserError, match=rf"Data.{name} is {value}; it must be at least 1"):
        Data("mixture", **lengths)


def test_an_experiment_without_data_has_no_lengths():
    assert Data("", 0, 0).sequence_length == {"inputs": 0, "targets": 0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: poly_jax.LoRA(rank="4"), "LoRA.rank is '4'; it must be a whole number"),
        (lambda: poly_jax.LoRA(alpha="4"), "LoRA.alpha is '4'; it must be a number"),
        (lambda: poly_jax.LoRA(dropout=None), "LoRA.dropout is None; it must be a number"),
        (lambda: adapters(router=None), "Adapters.router is None; give a router, such as LearnedRouter"),
        (lambda: adapters(router=poly_jax.LearnedRouter), "Adapters.router is <class .*; give a router"),
        (lambda: adapters(skill=None), "Adapters.skill is None; give a skill, such as LoRA"),
        (lambda: adapters(skill=poly_jax.LoRA), "Adapters.skill is <class .*; give a skill"),
        (lambda: adapters(n_tasks="3"), "Adapters.n_tasks is '3'; it must be a whole number"),
        (lambda: poly_jax.load("nowhere", inputs_length=0), "inputs_length is 0; it must be at least 1"),
        (lambda: poly_jax.load("nowhere", inputs_length=-1), "inputs_length is -1; it must be at least 1"),
        (lambda: poly_jax.load("nowhere", inputs_length="12"), "inputs_length is '12'; it must be a whole"),
        (lambda: poly_jax.load("nowhere", batch_size=0), "batch_size is 0; it must be at least 1"),
    ],
)
def test_a_wrong_argument_in_python_is_refused_in_one_line(make, message):
    with pytest.raises(UserError, match=f"^{message}.*$"):
        make()


def adapters(**changed):
    settings = {"skill": poly_jax.LoRA(), "router": poly_jax.LearnedRouter(), "n_tasks": 3}
    return poly_jax.Adapters(**{**settings, **changed})
