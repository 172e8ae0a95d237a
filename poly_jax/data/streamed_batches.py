"""Batches of a mixture that is read as it is drawn, by seqio's own pipelines."""

from collections.abc import Mapping
from typing import Any

from poly_jax.data.feature_converter import CHOICE_FEATURES, RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import RoutedMixture
from poly_jax.data.stream import BatchStream
from poly_jax.data.user_code import reading_error
from poly_jax.errors import UserError

_HAS_CHOICES = set(CHOICE_FEATURES)


def streamed_batches(
    mixture: RoutedMixture,
    *,
    split: str,
    sequence_length: Mapping[str, int],
    batch_size: int,
    seed: int,
    shuffle: bool,
    use_cached: bool,
    choices: bool,
    start_id: int,
    num_shards: int,
    shard_id: int,
) -> BatchStream:
    """Make the stream; see `poly_jax.data.batches.train_batches`."""

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
        "tasks": mixture.table.digest,
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
