"""Batches of a mixture as NumPy arrays: an endless stream to train on, one pass to evaluate."""

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from poly_jax.data.feature_converter import CHOICE_FEATURES, RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import RoutedMixture, RoutedTask, routed
from poly_jax.data.stream import Batch, BatchStream
from poly_jax.data.task_table import TaskTable
from poly_jax.data.user_code import reading_error
from poly_jax.errors import UserError

# Evaluation is not shuffled; the seed fixes the random numbers of a task's own preprocessors.
_EVALUATION_SEED = 0
_HAS_CHOICES = set(CHOICE_FEATURES)


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
) -> BatchStream:
    """Make an endless stream of batches of a registered mixture or task; a seed always gives the same stream.

    Every batch has `encoder_input_tokens` [batch_size, inputs], `decoder_input_tokens`,
    `decoder_target_tokens` and `decoder_loss_weights` [batch_size, targets] and `task_ids` [batch_size], all
    int32.

    Args:
      mixture_name: name of a registered seqio mixture or task that is not routed yet.
      table: the task table, which must hold all the mixture's tasks.
      sequence_length: number of tokens of `inputs` and of `targets`; longer examples are cut.
      batch_size: number of examples in each batch of this shard.
      seed: seed of the order of examples, the mixing of tasks, and the tasks' own preprocessors.
      split: name of the split to read; tasks without this split are left out.
      shuffle: whether each task's examples are shuffled.
      use_cached: whether to read seqio's offline caches where a task allows it.
      choices: whether to add the answer choices (see `RoutedEncDecFeatureConverter`), which every example
        must then have. Examples with fewer choices than the most are filled up with absent choices.
      start_id: the id that `decoder_input_tokens` begin with; the model's is `T5Config.decoder_start_id`.
      num_shards: number of hosts that share the examples.
      shard_id: index of this host, from 0; every host gives the same seed.

    Raises:
      UserError: the mixture, split or task is unknown, there are no examples, or a setting is out of range.
    """
    mixture = _mixture(mixture_name, table, split, sequence_length, batch_size, num_shards, shard_id)
    mixture.check_rates(split)

    # This is seqio.get_dataset, except that it also passes on arrays that are not features of the task.
    def unconverted(source: seqio.Mixture | seqio.Task, **options: Any) -> tf.data.Dataset:
        endless = {
            "num_epochs": None,
            "shard_info": seqio.ShardInfo(index=shard_id, num_shards=num_shards),
        }
        return source.get_dataset(
            dict(sequence_length), split=split, use_cached=use_cached, seed=seed, **{**endless, **options}
        )

    tasks = [task for task in mixture.tasks if split in task.splits]
    most = None
    if choices:
        most = _most_choices({task.name: unconverted(task, shuffle=False).element_spec for task in tasks})
    converter = RoutedEncDecFeatureConverter(choices=choices, n_choices=most, bos_id=start_id)

    def read(source: seqio.Mixture | seqio.Task, **options: Any) -> tf.data.Dataset:
        return converter(unconverted(source, **options), dict(sequence_length))

    options = tf.data.Options()
    options.deterministic = True

    def make_dataset() -> tf.data.Dataset:
        carried = {"passthrough_features": CHOICE_FEATURES} if choices else {}
        dataset = read(mixture, shuffle=shuffle, **carried)
        dataset = dataset.batch(batch_size, drop_remainder=True)
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)

    stream = {
        "mixture": mixture.unrouted.name,
        "split": split,
        "tasks": table.digest,
        "sequence_length": dict(sequence_length),
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "num_shards": num_shards,
        "shard_id": shard_id,
    }

    def empty_task(dropped: bool) -> str | None:
        # Where a preprocessor drops every example, an endless dataset has no end; one epoch has.
        options = {"num_epochs": 1, "shard_info": None} if dropped else {}
        for task in tasks:
            if not any(True for _ in unconverted(task, shuffle=False, **options)):
                return task.name
        return None

    def explain(error: Exception) -> UserError:
        return reading_error([task.unrouted for task in tasks], split, sequence_length, error)

    return BatchStream(make_dataset, stream, empty_task, explain)


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
    rows = _rows(mixture, split, sequence_length, use_cached, choices, every_target, start_id)
    try:
        first = next(rows)
    except StopIteration:
        raise UserError(f"mixture {mixture_name!r} has no example in split {split!r}") from None
    return _padded(itertools.chain([first], rows), batch_size, num_shards, shard_id)


def _most_choices(specs: Mapping[str, Mapping[str, tf.TensorSpec]]) -> int:
    """Return the largest number of answer choices that a task has.

    Args:
      specs: TensorFlow's description of the examples of each task.

    Raises:
      UserError: a task has no choices, or does not state their number.
    """
    for task, spec in specs.items():
        if not set(spec) >= _HAS_CHOICES:
            raise UserError(f"task {task!r} has no answer choices, which the loss needs; use TokenLoss")
        if spec["choices"].shape[0] is None:
            raise UserError(
                f"task {task!r} does not state how many answer choices its examples have; fill them up with"
                " rows of zeros to one number, and state the number with tf.ensure_shape in a preprocessor"
            )
    return max(spec["choices"].shape[0] for spec in specs.values())


def _rows(
    mixture: RoutedMixture,
    split: str,
    sequence_length: Mapping[str, int],
    use_cached: bool,
    choices: bool,
    every_target: bool,
    start_id: int,
) -> Iterator[Batch]:
    tasks = {task.name: task for task in mixture.tasks if split in task.splits}
    drawn = {name: task.one_row_per_target() for name, task in tasks.items()} if every_target else {}
    drawn = {name: task for name, task in drawn.items() if task is not None}
    datasets = {
        name: task.get_dataset(
            sequence_length,
            split=split,
            use_cached=use_cached,
            shuffle=False,
            seed=_EVALUATION_SEED,
            num_epochs=1,
        )
        for name, task in (tasks | drawn).items()
    }
    specs = {name: dataset.element_spec for name, dataset in datasets.items()}
    choices = choices and all(set(spec) >= _HAS_CHOICES for spec in specs.values())
    most = _most_choices(specs) if choices else None
    converter = RoutedEncDecFeatureConverter(choices=choices, n_choices=most, bos_id=start_id)
    for name, dataset in datasets.items():
        rows = _explained(converter(dataset, dict(sequence_length)), tasks[name], split, sequence_length)
        if choices or not drawn:
            yield from rows
            continue
        numbers: Iterable[Any] = itertools.count()
        if name in drawn:
            numbers = dataset.map(operator.itemgetter("example_id")).as_numpy_iterator()
        for row, number in zip(rows, numbers, strict=False):
            yield {**row, "example_ids": np.asarray(number, np.int32)}


def _explained(
    dataset: tf.data.Dataset, task: RoutedTask, split: str, sequence_length: Mapping[str, int]
) -> Iterator[Batch]:
    """Yield the rows of a task's examples; an error inside the task's code becomes a message of one line."""
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise reading_error([task.unrouted], split, sequence_length, error) from error


def _padded(rows: Iterator[Batch], batch_size: int, num_shards: int, shard_id: int) -> Iterator[Batch]:
    ours = slice(shard_id * batch_size, (shard_id + 1) * batch_size)
    while group := list(itertools.islice(rows, batch_size * num_shards)):
        absent = {name: np.zeros_like(array) for name, array in group[0].items()}
        group += [absent] * (batch_size * num_shards - len(group))
        yield {name: np.stack([row[name] for row in group[ours]]) for name in absent}


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
