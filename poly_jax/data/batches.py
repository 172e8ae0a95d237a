"""Batches of a mixture as NumPy arrays: an endless stream to train on, one pass to evaluate."""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from poly_jax.data.example_rows import ExampleRows, Rows
from poly_jax.data.example_sequences import EXAMPLES_TAKEN, IndexedSequence, StreamedSequence
from poly_jax.data.indexed_batches import IndexedBatches, most_choices
from poly_jax.data.indexed_examples import IndexedExamples
from poly_jax.data.packed_stream import PackedStream
from poly_jax.data.packing import Packing
from poly_jax.data.padded_rows import padded_choices, padded_rows
from poly_jax.data.routed import RoutedMixture, routed
from poly_jax.data.stream import Batch, BatchStream
from poly_jax.data.streamed_batches import streamed_batches
from poly_jax.data.task_reader import TaskReader
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError

Reading = Literal["indexed", "streamed"]
"""The ways to read examples in training: into memory at the start, or task by task as they are drawn."""

# Evaluation is not shuffled; the seed fixes the random numbers of a task's own preprocessors.
_EVALUATION_SEED = 0


def train_batches(
    mixture_name: str,
    table: TaskTable,
    *,
    sequence_length: Mapping[str, int],
    batch_size: int,
    seed: int,
    split: str = "train",
    shuffle: bool = True,
    use_cached: bool = False,
    choices: bool = False,
    start_id: int = 0,
    num_shards: int = 1,
    shard_id: int = 0,
    reading: Reading = "indexed",
    packing: Packing = "none",
    max_segments: int = 16,
) -> IndexedBatches | BatchStream | PackedStream:
    """Make an endless stream of batches of a registered mixture or task; a seed always gives the same stream.

    Every batch has `encoder_input_tokens` [batch_size, inputs], `decoder_input_tokens`,
    `decoder_target_tokens` and `decoder_loss_weights` [batch_size, targets] and `task_ids` [batch_size], all
    int32; for packed rows see `poly_jax.data.packing.pack_rows`.

    Args:
      mixture_name: name of a registered seqio mixture or task that is not routed yet.
      table: the task table, which must hold all the mixture's tasks.
      sequence_length: number of tokens of `inputs` and of `targets`; longer examples are cut.
      batch_size: number of rows in each batch of this shard.
      seed: seed of the order of examples, the mixing of tasks, and the tasks' own preprocessors.
      split: name of the split to read; tasks without this split are left out.
      shuffle: whether each task's examples are shuffled.
      use_cached: whether to read seqio's offline caches where a task allows it.
      choices: whether to add the answer choices (see `RoutedEncDecFeatureConverter`), which every example
        must then have. Examples with fewer choices than the most are filled up with absent choices.
      start_id: the id that `decoder_input_tokens` begin with; the model's is `T5Config.decoder_start_id`.
      num_shards: number of hosts that share the examples.
      shard_id: index of this host, from 0; every host gives the same seed.
      reading: way to read examples, see `poly_jax.experiment.Data`.
      packing: way to pack examples into rows, see `poly_jax.data.packing`.
      max_segments: largest number of examples in a packed row.

    Raises:
      UserError: the mixture, split or task is unknown, there are no examples, or a setting is out of range.
    """
    mixture = _mixture(mixture_name, table, split, sequence_length, batch_size, num_shards, shard_id)
    mixture.check_rates(split)
    room = (sequence_length["inputs"], sequence_length["targets"])
    if reading == "streamed":
        stream = streamed_batches(
            mixture,
            split=split,
            sequence_length=sequence_length,
            batch_size=batch_size if packing == "none" else EXAMPLES_TAKEN,
            seed=seed,
            shuffle=shuffle,
            use_cached=use_cached,
            choices=choices,
            start_id=start_id,
            num_shards=num_shards,
            shard_id=shard_id,
        )
        if packing == "none":
            return stream
        return PackedStream(StreamedSequence(stream), batch_size, room, max_segments, packing, start_id)

    tasks = {task: mixture.get_rate(task) for task in mixture.tasks if split in task.splits}
    mixture.check_sampling()
    reader = TaskReader(split, sequence_length, use_cached, every_target=True)
    rows = batch_size * num_shards
    settings = {
        "mixture": mixture.unrouted.name,
        "split": split,
        "tasks": table.digest,
        "sequence_length": dict(sequence_length),
        "batch_size": rows,
        "seed": seed,
        "shuffle": shuffle,
        **({} if packing == "none" else {"packing": packing, "max_segments": max_segments}),
    }
    drawn = {task: rate for task, rate in tasks.items() if rate}
    examples = IndexedExamples(reader, drawn, seed, shuffle, settings)
    share = slice(shard_id * batch_size, (shard_id + 1) * batch_size)
    if packing == "none":
        return IndexedBatches(examples, rows, share, sequence_length, start_id, choices)
    return PackedStream(IndexedSequence(examples), rows, room, max_segments, packing, start_id, share)


def eval_batches(
    mixture_name: str,
    table: TaskTable,
    *,
    split: str,
    sequence_length: Mapping[str, int],
    batch_size: int,
    use_cached: bool = False,
    choices: bool = False,
    every_target: bool = False,
    start_id: int = 0,
    num_shards: int = 1,
    shard_id: int = 0,
) -> Iterator[Batch]:
    """Yield batches with every example of a mixture's tasks once, in order of task name and of the source.

    The mixture's rates are ignored, because seqio ends a mixture when its first task is exhausted. The last
    batch is filled up with rows of zeros, whose `decoder_loss_weights` are all 0. Every shard gets the same
    number of batches.

    Arguments and arrays are the same as in `train_batches`, except that `choices` are present only where all
    tasks have them. With `every_target`, an example whose target is drawn from several has one row for each
    of its targets. `example_ids` [batch] is then equal for the rows of one example of a task.

    Raises:
      UserError: the mixture, split or task is unknown, there are no examples, or a setting is out of range.
    """
    mixture = _mixture(mixture_name, table, split, sequence_length, batch_size, num_shards, shard_id)
    tasks = [task for task in mixture.tasks if split in task.splits]
    reader = TaskReader(split, sequence_length, use_cached, every_target)
    read = reader.read(tasks, _EVALUATION_SEED)
    if not len(read.rows):
        raise UserError(f"mixture {mixture_name!r} has no example in split {split!r}")
    rows = np.concatenate([read.of_task(task) for task in range(len(tasks))])
    names = [task.name for task in tasks]
    most = most_choices(read, names) if choices and read.choices.all() else 0
    drawn = every_target and any(task.one_row_per_target() for task in tasks)
    return _batches(read.rows, rows, batch_size, num_shards, shard_id, sequence_length, start_id, most, drawn)


def _batches(
    examples: ExampleRows,
    rows: Rows,
    batch_size: int,
    num_shards: int,
    shard_id: int,
    sequence_length: Mapping[str, int],
    start_id: int,
    most_choices: int,
    drawn: bool,
) -> Iterator[Batch]:
    """Yield a shard's batches; `drawn` says that some examples have one row for each of their targets."""
    for begin in range(0, len(rows), batch_size * num_shards):
        first = begin + shard_id * batch_size
        numbers = rows[first : first + batch_size]
        batch = padded_rows(examples, numbers, sequence_length, start_id)
        if most_choices:
            batch.update(padded_choices(examples, numbers, most_choices, sequence_length["targets"]))
        elif drawn:
            batch["example_ids"] = examples.example_ids[numbers]
        absent = batch_size - len(numbers)
        yield {
            name: np.pad(array, [(0, absent), *[(0, 0)] * (array.ndim - 1)]) for name, array in batch.items()
        }


def _mixture(
    name: str,
    table: TaskTable,
    split: str,
    sequence_length: Mapping[str, int],
    batch_size: int,
    num_shards: int,
    shard_id: int,
) -> RoutedMixture:
    """Return the routed mixture, after checking the user's arguments."""
    if set(sequence_length) != {"inputs", "targets"} or min(sequence_length.values()) < 1:
        raise UserError(
            f"sequence_length {dict(sequence_length)} must give the tokens of inputs and targets, 1 or more"
        )
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size} must be 1 or more")
    if not 0 <= shard_id < num_shards:
        raise UserError(f"shard_id {shard_id} must be from 0 to num_shards - 1, which is {num_shards - 1}")
    mixture = routed(name, table)
    missing = {"inputs", "targets"} - set(mixture.output_features)
    if missing:
        raise UserError(f"the tasks of mixture {name!r} have no feature {min(missing)!r}, which T5 needs")
    splits = sorted(mixture.splits)
    if split not in splits:
        raise UserError(f"mixture {name!r} has no split {split!r}; its splits are {', '.join(splits)}")
    return mixture
