"""Finds the data of a task, its source or its offline cache, and opens that of many tasks in one graph."""

import dataclasses
import functools
import json
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import RoutedTask, seedable
from poly_jax.data.user_code import blaming

# seqio reads the files of a cache in turn; the order of examples is the same for the same number.
_FILES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Cache:
    """An offline cache of seqio: the files of a split, and the format of their records as JSON.

    Attributes:
      files: paths of the files.
      format: the features of a record, and the version of seqio that wrote it.
    """

    files: tuple[str, ...]
    format: str

    @classmethod
    def of(cls, task: seqio.Task, split: str) -> "Cache":
        """Find the cache of a task, which must have one."""
        task.assert_cached()
        with tf.io.gfile.GFile(seqio.utils.get_cached_info_path(task.cache_dir, split)) as file:
            info = json.load(file)
        prefix = seqio.utils.get_cached_tfrecord_prefix(task.cache_dir, split)
        shards = info["num_shards"]
        files = tuple(f"{prefix}-{shard:05}-of-{shards:05}" for shard in range(shards))
        about = {name: info.get(name) for name in ("features", "seqio_version")}
        return cls(files, json.dumps(about, sort_keys=True))


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of the examples of a task.

    Attributes:
      routed: the task.
      dataset: the dataset of its data source.
      cache: the files of its offline cache, instead of a dataset. A task whose class is not seqio's own has
        neither.
      alike: equal for tasks that one pipeline can read.
    """

    routed: RoutedTask
    dataset: tf.data.Dataset | None
    cache: Cache | None
    alike: Any

    @property
    def preprocessors(self) -> Sequence[Any]:
        """The preprocessors that the examples of the dataset or of the cache have still to go through."""
        every = list(self.routed.unrouted.preprocessors)
        marks = [isinstance(part, seqio.CacheDatasetPlaceholder) for part in every]
        if self.cache is not None:
            return every[marks.index(True) + 1 :]
        return [part for part, is_mark in zip(every, marks, strict=True) if not is_mark]


class SourceFinder:
    """Finds the sources of tasks.

    Args:
      split: the split to read.
      use_cached: whether to read seqio's offline caches where a task allows it.
    """

    def __init__(self, split: str, use_cached: bool) -> None:
        self._split, self._use_cached = split, use_cached
        self._vocabularies = _Distinct()

    def find(self, task: RoutedTask) -> Source:
        """Find the source of a task.

        Raises:
          UserError: the data source fails, or the cache is not complete.
        """
        unrouted = task.unrouted
        with blaming(f"the data of task {task.name!r}, split {self._split!r},"):
            # A class of its own may do more than its parts do.
            if type(unrouted) is not seqio.Task:
                return Source(task, None, None, ("a class of its own", id(unrouted)))
            parts = tuple(map(_identity, unrouted.preprocessors))
            features = repr(
                [
                    (
                        name,
                        self._vocabularies.number(feature.vocabulary),
                        dataclasses.replace(feature, vocabulary=None),
                    )
                    for name, feature in unrouted.output_features.items()
                ]
            )
            if self._use_cached and unrouted.supports_caching:
                cache = Cache.of(unrouted, self._split)
                return Source(task, None, cache, (parts, features, cache.format))
            dataset = seedable(unrouted).source.get_dataset(split=self._split, shuffle=False, seed=0)
            return Source(task, dataset, None, (parts, features, repr(dataset.element_spec)))


def dataset_opener(sources: Sequence[Source]) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return a function from the place of a source that has a dataset, as a tensor, to this dataset."""
    spec = _dataset(sources[0]).element_spec
    variants = tf.stack([tf.data.experimental.to_variant(_dataset(source)) for source in sources])
    return lambda place: tf.data.experimental.from_variant(variants[place], spec)


def cache_opener(
    sources: Sequence[Source], read_file: Callable[[tf.Tensor], tf.data.Dataset]
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return a function from the place of a source to what `read_file` makes of the files of its cache."""
    files = tf.ragged.constant([source.cache.files for source in sources if source.cache is not None])

    def open_cache(place: tf.Tensor) -> tf.data.Dataset:
        paths = tf.data.Dataset.from_tensor_slices(files[place])
        return paths.interleave(read_file, cycle_length=_FILES_AT_ONCE, block_length=_FILES_AT_ONCE)

    return open_cache


def record_features(cache: Cache) -> Mapping[str, tf.TensorSpec] | None:
    """Return the features of a cache's records; None where the sizes of some differ from record to record."""
    about = json.loads(cache.format)
    features = about["features"]
    # seqio reads the records of its first versions in a way of its own.
    if about["seqio_version"] is None or any(name.endswith("_plaintext") for name in features):
        return None
    if any(None in feature["shape"] for feature in features.values()):
        return None
    return {name: tf.TensorSpec(each["shape"], each["dtype"]) for name, each in features.items()}


def _dataset(source: Source) -> tf.data.Dataset:
    assert source.dataset is not None
    return source.dataset


def _identity(part: Any) -> Any:
    """A value that is equal for two preprocessors that do the same."""
    if isinstance(part, seqio.CacheDatasetPlaceholder):
        return seqio.CacheDatasetPlaceholder, part.required
    if isinstance(part, functools.partial):
        return _identity(part.func), part.args, tuple(sorted(part.keywords.items()))
    # Two methods of objects that are equal, but not the same, do the same too.
    if isinstance(part, types.MethodType):
        return part.__func__, _identity(part.__self__)
    try:
        hash(part)
    except TypeError:
        return id(part)
    return part


class _Distinct:
    """Numbers vocabularies so that equal ones have the same number."""

    def __init__(self) -> None:
        self._found: list[seqio.Vocabulary] = []

    def number(self, vocabulary: seqio.Vocabulary) -> int:
        # An identical vocabulary is found first, because comparing two loads both.
        for same in (operator.is_, operator.eq):
            for number, other in enumerate(self._found):
                if same(other, vocabulary):
                    return number
        self._found.append(vocabulary)
        return len(self._found) - 1
