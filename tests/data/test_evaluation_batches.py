"""Tests of the batches that models are evaluated with."""

import pytest

from poly_jax.data.batches import eval_batches
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError

LENGTHS = {"inputs": 12, "targets": 12}


def evaluated(name, **settings):
    settings = {"batch_size": 5, **settings}
    return list(eval_batches(name, TaskTable.of(name), split="test", sequence_length=LENGTHS, **settings))


def test_evaluation_sees_every_example_once_in_order(plain_mixture, decode):
    batches = evaluated(plain_mixture)
    inputs = [decode(row) for batch in batches for row in batch["encoder_input_tokens"] if row.any()]
    sizes = {"ant": 3, "cat": 4, "owl": 5}
    assert inputs == [f"{name} in {number:02}" for name, size in sizes.items() for number in range(size)]


def test_the_last_batch_of_an_evaluation_is_padded_with_rows_of_weight_zero(plain_mixture):
    batches = evaluated(plain_mixture)
    assert [batch["task_ids"].shape for batch in batches] == [(5,)] * 3
    assert [batch["decoder_loss_weights"].any(axis=1).tolist() for batch in batches] == [
        [True] * 5,
        [True] * 5,
        [True, True, False, False, False],
    ]


def test_shards_of_an_evaluation_have_equally_many_batches_and_no_common_example(plain_task, decode):
    plain_task("owl", size=10)
    shards = [evaluated("owl", batch_size=2, num_shards=3, shard_id=shard) for shard in range(3)]
    assert [len(batches) for batches in shards] == [2, 2, 2]
    rows = [row for batches in shards for batch in batches for row in batch["encoder_input_tokens"]]
    texts = [decode(row) for row in rows if row.any()]
    assert len(texts) == len(set(texts)) == 10


def test_an_evaluation_without_examples_is_refused(plain_task):
    plain_task("hollow", size=0)
    with pytest.raises(UserError, match=r"'hollow' has no example in split 'test'"):
        evaluated("hollow")
