"""Training, held-out and pretraining sets are disjoint, fixed and cover all skills; names reveal nothing."""

import itertools
import string
import subprocess
import sys

import numpy as np
import pytest

from poly_jax.tasks.skillbench import skills
from poly_jax.tasks.skillbench.compositions import abbreviates, benchmark, skill_matrix, skill_sets
from poly_jax.tasks.skillbench.skills import LETTERS, Inventory

BENCHMARK = benchmark()
ALL_TASKS = BENCHMARK.train + BENCHMARK.heldout + BENCHMARK.tuning


def test_all_pairs_and_triples_are_divided_without_overlap():
    train = {task.skills for task in BENCHMARK.train}
    heldout = {task.skills for task in BENCHMARK.heldout}
    left_over = set(BENCHMARK.left_over)
    assert (len(train), len(heldout), len(left_over)) == (32, 8, 44)
    expected = {*itertools.combinations(range(8), 2), *itertools.combinations(range(8), 3)}
    assert train | heldout | left_over == expected
    assert len(expected) == 84  # The three groups have 84 members in all, so they are disjoint.


def test_every_skill_is_trained_on_and_held_out_often_enough():
    assert skill_matrix(BENCHMARK.train).sum(0).min() >= 8
    assert skill_matrix(BENCHMARK.heldout).sum(0).min() >= 2
    assert skill_matrix(BENCHMARK.tuning).sum(0).min() >= 1


def test_every_group_mixes_pairs_and_triples_in_proportion():
    for tasks in (BENCHMARK.train, BENCHMARK.heldout, BENCHMARK.tuning):
        pairs = sum(len(task.skills) == 2 for task in tasks)
        assert abs(pairs - len(tasks) / 3) < 1  # 28 of the 84 sets are pairs.


def test_tuning_tasks_are_training_tasks_under_fresh_names():
    assert len(BENCHMARK.tuning) == 8
    trained = {task.skills for task in BENCHMARK.train}
    assert {task.skills for task in BENCHMARK.tuning} <= trained
    assert not {task.name for task in BENCHMARK.tuning} & {task.name for task in BENCHMARK.train}


def test_the_split_is_the_one_with_which_backbones_were_pretrained():
    # Literal values on purpose: if the split changed unnoticed, a stored backbone might know the benchmark.
    assert {task.name: task.skills for task in BENCHMARK.heldout} == {
        "nzp": (2, 3, 5),
        "kvp": (3, 4, 6),
        "txz": (0, 5),
        "ktv": (0, 1, 6),
        "wwt": (2, 5, 7),
        "zrk": (0, 3),
        "mlt": (1, 4, 5),
        "xrx": (0, 5, 7),
    }
    assert [(task.name, task.skills) for task in BENCHMARK.train[:3]] == [
        ("rlx", (1, 2, 4)),
        ("vpk", (3, 5)),
        ("vzw", (0, 1, 2)),
    ]


def test_names_are_unique_have_one_format_and_share_no_letters_with_the_strings():
    names = [task.name for task in ALL_TASKS]
    assert len(set(names)) == len(names) == 48
    for name in names:
        assert len(name) == 3
        assert set(name) <= set(string.ascii_lowercase) - set(LETTERS.letters)


def test_any_two_names_differ_in_at_least_two_letters():
    for one, other in itertools.combinations([task.name for task in ALL_TASKS], 2):
        assert sum(a != b for a, b in zip(one, other, strict=True)) >= 2


def test_no_name_abbreviates_a_skill():
    assert abbreviates("rvs", "reverse")
    assert not abbreviates("srv", "reverse")
    assert not any(abbreviates(task.name, skill) for task in ALL_TASKS for skill in LETTERS.skill_names)


def test_the_skill_matrix_marks_the_true_skills():
    matrix = skill_matrix(BENCHMARK.train)
    assert matrix.shape == (32, 8)
    assert [tuple(np.flatnonzero(row)) for row in matrix] == [task.skills for task in BENCHMARK.train]


def test_another_inventory_has_its_own_split_and_a_small_one_is_refused():
    other = Inventory("other", LETTERS.skills, LETTERS.letters, 4, 7, 9, LETTERS.accepts)
    assert {task.skills for task in benchmark(other).heldout} != {task.skills for task in BENCHMARK.heldout}
    small = Inventory("small", (skills.upper,) * 4, "ab", 1, 2, 4, bool)
    assert len(skill_sets(small)) == 10
    with pytest.raises(ValueError, match="too few compositions"):
        benchmark(small)


def test_the_generator_imports_neither_tensorflow_nor_seqio_nor_jax():
    code = (
        "import sys, poly_jax.tasks.skillbench.pretraining\n"
        "print([name for name in ('tensorflow', 'seqio', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
