"""The rows of a task at the place of its `CacheDatasetPlaceholder`, whole or in shards."""

import collections
import copy
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from poly_jax.data.quick_options import quick_options
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import seedable
from poly_jax.data.user_code import blaming, reading_error
from poly_jax.prepare.records import Columns

ROWS_PER_SHARD = 50_000
"""A split with more rows than this number has several shards, which several processes make."""

BATCH = 256
"""Number of rows that are handled at a time."""

# seqio reads this many files at a time, and this many rows from each in turn. Rows that are dealt to so many
# shards in the same way come back in the order of the source.
_FILES_AT_A_TIME = 16
_ROWS_IN_TURN = 16

# Tasks that are made alike share one traced function. A function of a task of another kind may hold a
# vocabulary, so that not all of them are kept.
_KEPT = 16


class Traced:
    """TensorFlow functions that are traced once for all tasks with equal preprocessors."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[Hashable, tuple[Any, Any]] = collections.OrderedDict()

    def function(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Return the function for a key, made where no equal key has one.

        Parts of the key that cannot be hashed are compared by identity.
        """
        hashable = tuple(_hashable(part) for part in key)
        if hashable not in self._kept:
            # The key is kept with the function, because the identity of a deleted object may be used again.
            self._kept[hashable] = (make(), key)
        self._kept.move_to_end(hashable)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[hashable][0]


TRACED = Traced()


def _hashable(part: Any) -> Hashable:
    if isinstance(part, tuple | list):
        return tuple(map(_hashable, part))
    try:
        hash(part)
    except TypeError:
        return id(part)
    return part


def spec_key(spec: Any) -> Hashable:
    """Return a key that is equal for equal specifications of elements."""
    return tuple((name, spec[name]) for name in sorted(spec))


def preprocessors_key(task: seqio.Task, *, cached: bool) -> tuple[Any, ...]:
    """Return the preprocessors before the cache placeholder (after it: `cached`), and the output features."""
    preprocessors = list(task.preprocessors)
    place = next(i for i, each in enumerate(preprocessors) if isinstance(each, seqio.CacheDatasetPlaceholder))
    chosen = preprocessors[place + 1 :] if cached else preprocessors[:place]
    features = [
        (name, feature.vocabulary, feature.add_eos, feature.dtype, feature.rank)
        for name, feature in task.output_features.items()
    ]
    return (chosen, features)


@functools.lru_cache(maxsize=1)
def forgetful(task: seqio.Task) -> seqio.Task:
    """Return the task with a copy of its source, so that what the source keeps in memory can be freed.

    The copy of the last task is kept, so that a process reads the raw files once for all shards of a task.
    """
    if type(task) is not seqio.Task:
        return task
    source = copy.copy(task.source)
    for name, value in vars(source).items():
        if isinstance(value, dict | list):
            setattr(source, name, copy.copy(value))
    return task.replace(source=source)


def n_shards(task: seqio.Task, split: str) -> int:
    """Return the number of shards of a split, which depends on its source and nothing else.

    A source with several files gives a shard for each. Any other source gives up to 16 shards.
    """
    rows = task.num_input_examples(split)
    files = len(task.source.list_shards(split))
    if rows is not None and rows <= ROWS_PER_SHARD:
        return 1
    if files > 1:
        return files
    return 1 if rows is None else min(_FILES_AT_A_TIME, -(-rows // ROWS_PER_SHARD))


def shard(task: seqio.Task, split: str, index: int, count: int) -> tf.data.Dataset:
    """Return one shard of a split's rows, as its preprocessors before the placeholder make them.

    Args:
      task: a task with a placeholder.
      split: name of the split.
      index: number of the shard, from 0.
      count: number of shards, see `n_shards`.
    """
    with blaming(f"the data of task {task.name!r}, split {split!r},"):
        source = seedable(task).source
        options: dict[str, Any] = {"seed": 0}
        if count > 1 and len(source.list_shards(split)) > 1:
            options["shard_info"] = seqio.ShardInfo(index=index, num_shards=count)
        rows = source.get_dataset(split=split, shuffle=False, **options)
        if count > 1 and "shard_info" not in options:
            rows = _dealt(rows, index, count)
        preprocessors, features = preprocessors_key(task, cached=False)
        if preprocessors:
            spec = rows.element_spec
            key = (preprocessors, features, spec_key(spec) if isinstance(spec, dict) else spec, index)
            rows = TRACED.function(
                key,
                lambda: tf.function(
                    lambda dataset: task.preprocess_precache(dataset, seed=index),
                    input_signature=[tf.data.DatasetSpec(spec)],
                ),
            )(rows)
    return rows


def batches(rows: tf.data.Dataset, task: seqio.Task, split: str) -> Iterator[Columns]:
    """Yield the rows of a dataset, `BATCH` at a time.

    Raises:
      UserError: the source or a preprocessor fails on a row; the message names it.
    """
    with blaming(f"the data of task {task.name!r}, split {split!r},"):
        try:
            yield from rows.ragged_batch(BATCH).with_options(quick_options())
        except tf.errors.OpError as error:
            raise reading_error([task], split, {}, error) from error


def _dealt(rows: tf.data.Dataset, index: int, count: int) -> tf.data.Dataset:
    """Return every `count`-th group of 16 rows, from group `index` on."""

    @tf.autograph.experimental.do_not_convert
    def is_ours(place: tf.Tensor, row: Any) -> tf.Tensor:
        del row
        return place // _ROWS_IN_TURN % count == index

    @tf.autograph.experimental.do_not_convert
    def row_alone(place: tf.Tensor, row: Any) -> Any:
        del place
        return row

    return rows.enumerate().filter(is_ours).map(row_alone)
