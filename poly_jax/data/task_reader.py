"""Reads all examples of many seqio tasks, with one TensorFlow graph for all tasks that are made alike."""

import dataclasses
import functools
import json
import operator
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from poly_jax.data.example_chunks import TEXTS, ExampleChunk, by_task
from poly_jax.data.feature_converter import CHOICE_FEATURES
from poly_jax.data.quick_options import quick_options
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import RoutedTask, seedable
from poly_jax.data.task_examples import TaskExamples
from poly_jax.data.user_code import blaming, reading_error, watched
from poly_jax.errors import UserError

# Examples that TensorFlow hands over at a time.
_CHUNK = 256
# seqio reads the files of a cache in turn; the order of examples is the same for the same number.
_FILES_AT_ONCE = 16
# The share of the machine's memory that examples may take, which leaves room for the model.
_MEMORY_SHARE = 0.5
# TensorFlow's operations whose results differ from one run of a graph to the next, or may do so.
_RANDOM_OPERATIONS = ("Random", "Multinomial", "Shuffle", "PyFunc")


@dataclasses.dataclass(frozen=True)
class Read:
    """The examples of a task, and whether its preprocessors may make different ones when they run again."""

    examples: TaskExamples
    random: bool


@dataclasses.dataclass(frozen=True)
class TaskReader:
    """Reads the examples of tasks into memory.

    seqio traces and optimises a pipeline for each task, which takes about a tenth of a second even for a few
    rows. Here the tasks with the same preprocessors and features are read through one pipeline, which runs
    over their sources one after another.

    Attributes:
      split: the split to read.
      sequence_length: number of tokens of `inputs` and of `targets`; longer examples are cut.
      use_cached: whether to read seqio's offline caches where a task allows it.
      every_target: whether an example whose target is drawn from several has one row for each of them; its
        rows then share an `example_id`.
    """

    split: str
    sequence_length: Mapping[str, int]
    use_cached: bool = False
    every_target: bool = False

    def read(self, tasks: Sequence[RoutedTask], seed: int) -> list[Read]:
        """Return the examples of each task.

        Args:
          tasks: tasks with the split.
          seed: seed of the preprocessors' random numbers.

        Raises:
          UserError: a part of a task fails, or the examples need more than half of the machine's memory.
        """
        groups: dict[Any, list[tuple[int, _Source]]] = {}
        vocabularies = _Distinct()
        for place, task in enumerate(tasks):
            source = self._source(task, vocabularies)
            groups.setdefault(source.alike, []).append((place, source))
        memory = _Memory(self.split)
        found: dict[int, Read] = {}
        for members in groups.values():
            places, sources = zip(*members, strict=True)
            found.update(zip(places, self._read_alike(sources, seed, memory), strict=True))
        return [found[place] for place in range(len(tasks))]

    def _source(self, task: RoutedTask, vocabularies: "_Distinct") -> "_Source":
        task = (self.every_target and task.one_row_per_target()) or task
        unrouted = task.unrouted
        with blaming(f"the data of task {task.name!r}, split {self.split!r},"):
            # A class of its own may do more than its parts do.
            if type(unrouted) is not seqio.Task:
                return _Source(task, None, None, ("a class of its own", id(unrouted)))
            parts = tuple(map(_identity, unrouted.preprocessors))
            features = repr(
                [
                    (
                        name,
                        vocabularies.number(feature.vocabulary),
                        dataclasses.replace(feature, vocabulary=None),
                    )
                    for name, feature in unrouted.output_features.items()
                ]
            )
            if self.use_cached and unrouted.supports_caching:
                cache = _Cache.of(unrouted, self.split)
                return _Source(task, None, cache, (parts, features, cache.format))
            dataset = seedable(unrouted).source.get_dataset(split=self.split, shuffle=False, seed=0)
            return _Source(task, dataset, None, (parts, features, repr(dataset.element_spec)))

    def _read_alike(self, sources: Sequence["_Source"], seed: int, memory: "_Memory") -> Iterator[Read]:
        with blaming(f"the data of task {sources[0].routed.name!r}, split {self.split!r},"):
            rows = self._rows(sources, seed)
            graph = rows.get_concrete_function().graph.as_graph_def()
        nodes = [graph.node, *(function.node_def for function in graph.library.function)]
        random = any(name in node.op for part in nodes for node in part for name in _RANDOM_OPERATIONS)
        dataset = tf.data.Dataset.range(len(sources)).flat_map(rows).padded_batch(_CHUNK)
        chunks, last = [], 0
        try:
            for chunk in dataset.with_options(quick_options()).as_numpy_iterator():
                last = int(chunk["place"][-1])
                chunks.append(ExampleChunk(chunk))
                memory.add(chunks[-1], sources[last].routed.name)
        except tf.errors.OpError as error:
            # The task that fails is this one or a later one.
            later = [source.routed.unrouted for source in sources[last:]]
            raise reading_error(later, self.split, self.sequence_length, error) from error
        for examples in by_task(chunks, [source.routed for source in sources]):
            yield Read(examples, random)

    def _rows(self, sources: Sequence["_Source"], seed: int) -> Any:
        """A TensorFlow function from the place of a source to the dataset of its rows."""
        first = sources[0]
        lengths = dict(self.sequence_length)
        options: dict[str, Any] = {"split": self.split, "shuffle": False, "seed": seed, "num_epochs": 1}
        task = watched(first.routed.unrouted)

        if first.dataset is None and first.cache is None:

            def read(place: tf.Tensor) -> tf.data.Dataset:
                return first.routed.get_dataset(lengths, use_cached=self.use_cached, **options)

        else:
            open_source = _opener(sources, self.split)
            if first.cache is not None:
                behind = list(task.preprocessors)
                marks = [isinstance(part, seqio.CacheDatasetPlaceholder) for part in behind]
                task = task.replace(preprocessors=behind[marks.index(True) + 1 :])

            def read(place: tf.Tensor) -> tf.data.Dataset:
                def get(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
                    return open_source(place)

                source = seqio.FunctionDataSource(get, splits=(self.split,))
                return task.replace(source=source).get_dataset(lengths, **options)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def rows(place: tf.Tensor) -> tf.data.Dataset:
            dataset = read(place)
            kept = [name for name in (*TEXTS, *CHOICE_FEATURES) if name in dataset.element_spec]
            _check_texts(first.routed.name, dataset.element_spec)

            @tf.autograph.experimental.do_not_convert
            def select(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
                lengths = {f"{name}_length": tf.shape(example[name])[0] for name in TEXTS}
                return {"place": place, **lengths, **{name: example[name] for name in kept}}

            return dataset.map(select)

        return rows


@dataclasses.dataclass(frozen=True)
class _Source:
    """The source of the examples of a task.

    Attributes:
      routed: the task.
      dataset: the dataset of its data source.
      cache: the files of its offline cache, instead of a dataset.
      alike: equal for tasks that one pipeline can read.
    """

    routed: RoutedTask
    dataset: tf.data.Dataset | None
    cache: "_Cache | None"
    alike: Any


@dataclasses.dataclass(frozen=True)
class _Cache:
    """An offline cache of seqio: the files of a split, and the format of their records as JSON."""

    files: tuple[str, ...]
    format: str

    @classmethod
    def of(cls, task: seqio.Task, split: str) -> "_Cache":
        task.assert_cached()
        with tf.io.gfile.GFile(seqio.utils.get_cached_info_path(task.cache_dir, split)) as file:
            info = json.load(file)
        prefix = seqio.utils.get_cached_tfrecord_prefix(task.cache_dir, split)
        shards = info["num_shards"]
        files = tuple(f"{prefix}-{shard:05}-of-{shards:05}" for shard in range(shards))
        about = {name: info.get(name) for name in ("features", "seqio_version")}
        return cls(files, json.dumps(about, sort_keys=True))


def _opener(sources: Sequence[_Source], split: str) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """A function from the place of a source, as a tensor, to its dataset."""
    first = sources[0]
    if first.dataset is not None:
        spec = first.dataset.element_spec
        variants = tf.stack([tf.data.experimental.to_variant(source.dataset) for source in sources])
        return lambda place: tf.data.experimental.from_variant(variants[place], spec)
    # seqio has no public name for the function that reads the records of a cache's file.
    read_file = first.routed.unrouted._get_cached_source(split)._reader
    files = tf.ragged.constant([source.cache.files for source in sources if source.cache is not None])

    def open_cache(place: tf.Tensor) -> tf.data.Dataset:
        paths = tf.data.Dataset.from_tensor_slices(files[place])
        return paths.interleave(read_file, cycle_length=_FILES_AT_ONCE, block_length=_FILES_AT_ONCE)

    return open_cache


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


def _check_texts(task: str, spec: Mapping[str, tf.TensorSpec]) -> None:
    for name in TEXTS:
        if name not in spec:
            raise UserError(f"the examples of task {task!r} have no feature {name!r}, which T5 needs")
        if spec[name].shape.rank != 1 or not spec[name].dtype.is_integer:
            raise UserError(
                f"feature {name!r} of task {task!r} is {spec[name].dtype.name} {spec[name].shape}; T5 reads "
                "a vector of token ids"
            )


class _Memory:
    """Counts the bytes of the examples that were read, and refuses more than the machine can hold."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._bytes = 0
        self._most = _MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def add(self, chunk: ExampleChunk, task: str) -> None:
        self._bytes += chunk.bytes
        if self._bytes > self._most:
            raise UserError(
                f"the examples of split {self._split!r} up to task {task!r} take "
                f"{self._bytes / 2**30:,.1f} GiB, half of this machine's memory, or the task has no end; set "
                "Data.reading = 'streamed', which holds a few examples at a time"
            )
