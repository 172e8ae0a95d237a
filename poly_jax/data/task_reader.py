"""Reads all examples of many seqio tasks, with one TensorFlow graph for all tasks that are made alike."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from poly_jax.data.example_chunks import TEXTS, ExampleChunk, joined
from poly_jax.data.example_rows import ReadTasks
from poly_jax.data.feature_converter import CHOICE_FEATURES
from poly_jax.data.many_rows import many_rows
from poly_jax.data.quick_options import quick_options
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import RoutedTask
from poly_jax.data.task_sources import Source, SourceFinder, cache_opener, dataset_opener
from poly_jax.data.user_code import blaming, reading_error, watched
from poly_jax.errors import UserError

# Examples that TensorFlow hands over at a time.
_CHUNK = 256
# The share of the machine's memory that examples may take, which leaves room for the model.
_MEMORY_SHARE = 0.5
# TensorFlow's operations whose results differ from one run of a graph to the next, or may do so.
_RANDOM_OPERATIONS = ("Random", "Multinomial", "Shuffle", "PyFunc")


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

    def read(self, tasks: Sequence[RoutedTask], seed: int) -> ReadTasks:
        """Return the rows of all tasks.

        Args:
          tasks: tasks with the split.
          seed: seed of the preprocessors' random numbers.

        Raises:
          UserError: a part of a task fails, or the examples need more than half of the machine's memory.
        """
        groups: dict[Any, list[tuple[int, Source]]] = {}
        finder = SourceFinder(self.split, self.use_cached)
        for place, task in enumerate(tasks):
            source = finder.find((self.every_target and task.one_row_per_target()) or task)
            groups.setdefault(source.alike, []).append((place, source))
        memory = _Memory(self.split)
        chunks: list[ExampleChunk] = []
        owners = [np.zeros(0, np.int64)]
        random = np.zeros(len(tasks), bool)
        for members in groups.values():
            places, sources = zip(*members, strict=True)
            is_random, found = self._read_alike(sources, seed, memory)
            random[list(places)] = is_random
            owners += [np.array(places)[chunk.places] for chunk in found]
            chunks += found
        ids = np.array([task.task_id for task in tasks], np.int32)
        return joined(chunks, np.concatenate(owners), ids, random)

    def _read_alike(
        self, sources: Sequence[Source], seed: int, memory: "_Memory"
    ) -> tuple[bool, list[ExampleChunk]]:
        """Return whether the rows of sources may differ when they are read again, and the rows."""
        with blaming(f"the data of task {sources[0].routed.name!r}, split {self.split!r},"):
            random, dataset = False, many_rows(sources, self.sequence_length, _CHUNK)
            if dataset is None:
                random, dataset = self._row_by_row(sources, seed)
        chunks: list[ExampleChunk] = []
        last = 0
        try:
            for chunk in dataset.with_options(quick_options()).as_numpy_iterator():
                chunks.append(ExampleChunk(chunk))
                last = int(chunks[-1].places[-1])
                memory.add(chunks[-1], sources[last].routed.name)
        except tf.errors.OpError as error:
            # The task that fails is this one or a later one.
            later = [source.routed.unrouted for source in sources[last:]]
            raise reading_error(later, self.split, self.sequence_length, error) from error
        return random, chunks

    def _row_by_row(self, sources: Sequence[Source], seed: int) -> tuple[bool, tf.data.Dataset]:
        """Return whether the rows of sources may differ when they are read again, and some rows at a time."""
        rows = self._rows(sources, seed)
        graph = rows.get_concrete_function().graph.as_graph_def()
        nodes = [graph.node, *(function.node_def for function in graph.library.function)]
        random = any(name in node.op for part in nodes for node in part for name in _RANDOM_OPERATIONS)
        return random, tf.data.Dataset.range(len(sources)).flat_map(rows).padded_batch(_CHUNK)

    def _rows(self, sources: Sequence[Source], seed: int) -> Any:
        """A TensorFlow function from the place of a source to the dataset of its rows."""
        first = sources[0]
        lengths = dict(self.sequence_length)
        options: dict[str, Any] = {"split": self.split, "shuffle": False, "seed": seed, "num_epochs": 1}
        task = watched(first.routed.unrouted)

        if first.dataset is None and first.cache is None:

            def read(place: tf.Tensor) -> tf.data.Dataset:
                return first.routed.get_dataset(lengths, use_cached=self.use_cached, **options)

        else:
            if first.cache is None:
                open_source = dataset_opener(sources)
            else:
                # seqio has no public name for the function that reads the records of a cache's file.
                read_file = first.routed.unrouted._get_cached_source(self.split)._reader
                open_source = cache_opener(sources, read_file)
                behind = len(first.preprocessors)
                task = task.replace(preprocessors=task.preprocessors[len(task.preprocessors) - behind :])

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
