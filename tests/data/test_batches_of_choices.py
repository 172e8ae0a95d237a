"""Tests of the batches of tasks with answer choices, whose numbers differ from task to task."""

import numpy as np
import pytest

from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError


def test_tasks_without_answer_choices_are_refused_where_a_loss_needs_them(plain_mixture):
    with pytest.raises(UserError, match=r"task '\w+' has no answer choices.*use TokenLoss"):
        train_batches(
            plain_mixture,
            TaskTable.of(plain_mixture),
            sequence_length={"inputs": 8, "targets": 8},
            batch_size=1,
            seed=0,
            choices=True,
        )


WORDS = {"two": ((7, 1), (8, 9, 1)), "three": ((4, 1), (5, 5, 1), (6, 1))}


@pytest.fixture
def choice_task(plain_task):
    """A function that registers five examples with the choices in `WORDS`; `told`: their number is static."""

    def register(name, told=True):
        words = WORDS[name]
        choices = np.zeros((len(words), 4), np.int32)
        for row, word in zip(choices, words, strict=True):
            row[: len(word)] = word

        def read(split, shuffle_files):
            return tf.data.Dataset.range(5).map(
                lambda number: {
                    "inputs": tf.constant([3, 1]),
                    "targets": tf.gather(choices, number % len(words)),
                    "choices": tf.constant(choices)[: len(words) if told else number + 9],
                    "label": tf.cast(number % len(words), tf.int32),
                    "example_id": tf.cast(number, tf.int32),
                }
            )

        plain_task(name, source=seqio.FunctionDataSource(read, splits=("train", "test")))

    return register


@pytest.fixture
def choosing(choice_task):
    """A mixture of a task with two choices and one with three."""
    for name in WORDS:
        choice_task(name)
    seqio.MixtureRegistry.add("choosing", list(WORDS), default_rate=1.0)
    return "choosing"


def test_tasks_with_different_numbers_of_choices_train_in_one_batch(stream, choosing):
    from poly_jax.model.choice_loss import ChoiceLoss

    table = TaskTable.of(choosing)
    batch = next(stream(choosing, choices=True, batch_size=8))
    assert set(batch["task_ids"]) == {0, 1}
    assert batch["choices"].shape == (8, 3, 12)
    logits = np.random.default_rng(0).normal(size=(8, 3, 12, 10)).astype(np.float32)
    totals = ChoiceLoss().totals_of(logits, batch["choices"], batch["labels"])
    # The paper's formula, over the choices of the row's own task.
    log_probs = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    expected = 0.0
    for row, (task, label) in enumerate(zip(batch["task_ids"], batch["labels"], strict=True)):
        words = WORDS[table.names[task]]
        scores = [
            np.mean([log_probs[row, choice, place, token] for place, token in enumerate(word)])
            for choice, word in enumerate(words)
        ]
        expected += np.log(np.exp(scores).sum()) - scores[label]
        assert batch["decoder_target_tokens"][row][: len(words[label])].tolist() == list(words[label])
    np.testing.assert_allclose(totals["multiple_choice"], expected, rtol=1e-5)


def test_few_shot_examples_may_have_different_numbers_of_choices(choosing):
    from poly_jax.experiment import Data, Experiment
    from poly_jax.model.config import T5Config
    from poly_jax.transfer.adapt import read_examples
    from poly_jax.transfer.few_shot import count_examples

    experiment = Experiment(T5Config(), Data(choosing, inputs_length=4, targets_length=4))
    found = read_examples(experiment, TaskTable.of(choosing), choosing, "train")
    assert found["choices"].shape == (10, 3, 4)
    assert (found["choices"].any(axis=-1).sum(axis=1) == [3] * 5 + [2] * 5).all()
    # Both tasks number their examples from 0.
    assert count_examples(found) == 10


def test_a_stream_needs_to_be_told_the_number_of_choices(choice_task):
    choice_task("two", told=False)
    settings = {"sequence_length": {"inputs": 12, "targets": 12}, "batch_size": 4, "seed": 1, "choices": True}
    with pytest.raises(UserError, match="task 'two' does not state how many answer choices"):
        train_batches("two", TaskTable.of("two"), reading="streamed", **settings)
    batch = next(train_batches("two", TaskTable.of("two"), **settings))
    assert batch["choices"].any(axis=-1).sum(axis=1).tolist() == [2] * 4
