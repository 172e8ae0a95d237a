"""Tests of which instances belong to which split."""

import functools

from poly_jax.tasks.super_natural_instructions.reading import Instance
from poly_jax.tasks.super_natural_instructions.splits import test_task_splits as splits_of_test_task
from poly_jax.tasks.super_natural_instructions.splits import train_task_splits


def instances(size):
    return [Instance(str(n), f"question {n}", (f"answer {n}",)) for n in range(size)]


def sizes(splits):
    return {name: len(members) for name, members in splits.items()}


def numbers(split):
    return [int(instance.id) for instance in split]


def test_a_train_task_is_shuffled_and_capped():
    splits = train_task_splits(instances(250), seed=42, max_instances=100)
    assert sizes(splits) == {"train": 100, "validation": 100}
    assert not set(numbers(splits["train"])) & set(numbers(splits["validation"]))
    assert numbers(splits["train"]) != sorted(numbers(splits["train"]))
    assert splits == train_task_splits(instances(250), seed=42, max_instances=100)
    assert splits != train_task_splits(instances(250), seed=13, max_instances=100)


def test_a_small_train_task_has_all_its_instances():
    split = functools.partial(train_task_splits, seed=1, max_instances=100)
    assert sizes(split(instances(120))) == {"train": 100, "validation": 20}
    assert sizes(split(instances(60))) == {"train": 60}


def test_a_test_task_is_evaluated_on_its_first_100_instances_in_order():
    splits = splits_of_test_task(instances(200), seeds=(13, 42), shots=32)
    assert numbers(splits["test"]) == list(range(100))


def test_shots_are_drawn_from_the_remaining_instances_and_differ_by_seed():
    splits = splits_of_test_task(instances(200), seeds=(13, 42), shots=32)
    names = ("train", "validation", "train_13", "validation_13", "train_42", "validation_42")
    assert {name: len(splits[name]) for name in names} == dict.fromkeys(names, 32)
    for seed in (13, 42):
        pool = numbers(splits[f"train_{seed}"]) + numbers(splits[f"validation_{seed}"])
        assert len(set(pool)) == 64
        assert min(pool) >= 100
    assert splits["train"] == splits["train_13"] != splits["train_42"]
    assert splits["validation"] == splits["validation_13"]


def test_a_test_task_without_more_than_100_instances_has_no_shots():
    assert sizes(splits_of_test_task(instances(100), seeds=(13,), shots=32)) == {"test": 100}
    few = splits_of_test_task(instances(110), seeds=(13,), shots=32)
    assert sizes(few) == {"test": 100, "train": 10, "train_13": 10}
