"""A view of any seqio task or mixture whose examples carry the id of their task."""

import copy
import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from poly_jax.data.quiet import seqio, tf
from poly_jax.data.registry import mixture_or_task
from poly_jax.data.task_table import TaskTable
from poly_jax.data.user_code import blaming, cause, watched
from poly_jax.errors import UserError

TASK_IDS = "task_ids"

# A task with fewer examples per shard than this number is divided into shards after it is repeated. If it
# were divided before, some shards could be empty, and some examples would come visibly more often.
_LEAST_EXAMPLES_PER_SHARD = 16


class RoutedTask(seqio.Task):
    """A seqio task under its own name whose examples carry `task_ids`, int32 [1].

    The id is a vector and not a scalar, because seqio measures, trims and packs features along their first
    axis.
    """

    def __init__(self, task: seqio.Task, task_id: int, num_tasks: int) -> None:
        if TASK_IDS in task.output_features:
            raise UserError(
                f"task {task.name!r} already has a feature {TASK_IDS!r}, which poly_jax adds; rename yours"
            )
        ids = seqio.Feature(seqio.PassThroughVocabulary(num_tasks), add_eos=False, dtype=tf.int32)
        super().__init__(
            name=task.name,
            source=task.source,
            output_features={**task.output_features, TASK_IDS: ids},
            preprocessors=task.preprocessors,
            postprocess_fn=task.postprocessor,
            metric_fns=task.metric_fns,
            shuffle_buffer_size=task.shuffle_buffer_size,
            source_info=task.source_info,
        )
        self.unrouted = task
        self.task_id = task_id
        self._num_tasks = num_tasks

    def one_row_per_target(self) -> "RoutedTask | None":
        """Return the task with one row for each possible target of an example; None if it draws no targets.

        A task that draws targets has a preprocessor with a method `one_row_per_target`. This method is itself
        a preprocessor and gives the rows of one example the same `example_id`.
        """
        return self._row_per_target

    @functools.cached_property
    def _row_per_target(self) -> "RoutedTask | None":
        every = [getattr(each, "one_row_per_target", each) for each in self.unrouted.preprocessors]
        if every == list(self.unrouted.preprocessors):
            return None
        return RoutedTask(self.unrouted.replace(preprocessors=every), self.task_id, self._num_tasks)

    @functools.cached_property
    def _watched(self) -> seqio.Task:
        return watched(self.unrouted)

    @property
    def metric_objs(self) -> Sequence[Any]:
        """The task's own metrics."""
        return self._watched.metric_objs

    @property
    def splits(self) -> Sequence[str]:
        """The task's own splits."""
        return self.unrouted.splits

    def num_input_examples(self, split: str) -> int | None:
        """Return the number of examples in a split, if the task states it."""
        return self.unrouted.num_input_examples(split)

    def get_dataset(
        self,
        sequence_length: Mapping[str, int] | None = None,
        split: str = "train",
        use_cached: bool = False,
        shuffle: bool = True,
        shuffle_buffer_size: int | None = None,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        num_epochs: int | None = 1,
        trim_output_features: bool = True,
        try_in_mem_cache: bool = True,
    ) -> tf.data.Dataset:
        """Return the task's own dataset (see `seqio.Task.get_dataset`) with the task id added at the end."""
        task = self._watched
        if seed is not None and not use_cached:
            task = seedable(task)
        split_late = num_epochs is None and shard_info and self._is_small(split, shard_info.num_shards)
        with blaming(f"the data of task {self.name!r}, split {split!r},"):
            dataset = task.get_dataset(
                sequence_length=sequence_length,
                split=split,
                use_cached=use_cached,
                shuffle=shuffle,
                shuffle_buffer_size=shuffle_buffer_size,
                seed=seed,
                shard_info=None if split_late else shard_info,
                num_epochs=num_epochs,
                trim_output_features=trim_output_features,
                try_in_mem_cache=try_in_mem_cache,
            )
        if shard_info and split_late:
            dataset = dataset.shard(shard_info.num_shards, shard_info.index)

        @tf.autograph.experimental.do_not_convert
        def add_id(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {**example, TASK_IDS: tf.constant([self.task_id], tf.int32)}

        return dataset.map(add_id, num_parallel_calls=tf.data.AUTOTUNE)

    def _is_small(self, split: str, num_shards: int) -> bool:
        examples = self.num_input_examples(split)
        return num_shards > 1 and examples is not None and examples < _LEAST_EXAMPLES_PER_SHARD * num_shards


class RoutedMixture(seqio.Mixture):
    """The routed tasks of a seqio mixture, at the mixture's own rates, or a single routed task."""

    def __init__(self, name: str, unrouted: seqio.Mixture | seqio.Task, table: TaskTable) -> None:
        sampling: dict[str, Any] = {}
        tasks, rate = [unrouted], _equal_rate
        if isinstance(unrouted, seqio.Mixture):
            # seqio has no public name for a mixture's way of sampling.
            sampling = {"sample_fn": unrouted._sample_fn}
            tasks, rate = unrouted.tasks, unrouted.get_rate
        super().__init__(
            name,
            [
                # The rate is a function, because a task may know its size only when it is read.
                (RoutedTask(task, table.id(task.name), len(table)), lambda view: rate(view.unrouted))
                for task in tasks
            ],
            source_info=unrouted.source_info,
            **sampling,
        )
        self.unrouted = unrouted
        self.table = table

    def get_rate(self, task: seqio.Task) -> float:
        """Return the rate at which the original mixture draws a task's examples, before normalisation.

        Raises:
          UserError: the rate is negative or not finite, or cannot be computed, for example because it depends
            on a number of examples that the task does not state.
        """
        mixture = self.unrouted.name
        try:
            rate = float(super().get_rate(task))
        except Exception as error:
            if task.num_input_examples(_training_split(task)) is None:
                raise UserError(
                    f"task {task.name!r} does not say how many examples it has, which its rate in mixture "
                    f"{mixture!r} needs; give its data source num_input_examples, or the mixture a rate"
                ) from error
            raise UserError(
                f"the rate of task {task.name!r} in mixture {mixture!r} cannot be computed: {cause(error)}"
            ) from error
        if not (rate >= 0 and math.isfinite(rate)):
            raise UserError(
                f"the rate of task {task.name!r} in mixture {mixture!r} is {rate:g}; give a finite number, "
                "0 or more"
            )
        return rate

    def check_rates(self, split: str) -> None:
        """Raise a UserError where the mixture cannot draw examples of a split by its rates."""
        tasks = [task for task in self.tasks if split in task.splits]
        if not any([self.get_rate(task) for task in tasks]):
            raise UserError(
                f"every task of mixture {self.unrouted.name!r} with a split {split!r} has rate 0; give at "
                "least one a rate above 0"
            )

    def check_sampling(self) -> None:
        """Raise a UserError where the mixture has a way of its own to sample from its tasks."""
        default = inspect.signature(seqio.Mixture.__init__).parameters["sample_fn"].default
        ours = self._sample_fn
        same = ours is default or (
            isinstance(ours, functools.partial)
            and (ours.func, ours.args, ours.keywords) == (default.func, default.args, default.keywords)
        )
        if not same:
            raise UserError(
                f"mixture {self.unrouted.name!r} has a sample_fn of its own, which only seqio's pipelines "
                "call; set Data.reading = 'streamed'"
            )


def routed(name: str, table: TaskTable) -> RoutedMixture:
    """Return the view of a registered task or mixture whose examples carry the id of their task.

    The view is registered too, and programs find it by its name. This name is `<name>@routed` for the
    mixture's own table; for another table, the table's digest is appended. A second call returns the same
    object. Caching, rates, splits, metrics, postprocessors and features are the same as in the original.

    Args:
      name: name of any registered task or mixture; it needs no special preprocessors.
      table: table of the task ids, which may hold more tasks than the mixture.

    Raises:
      UserError: nothing is registered under the name, or a task is not in the table.
    """
    unrouted = mixture_or_task(name)
    if isinstance(unrouted, RoutedMixture):
        unrouted = unrouted.unrouted
    view = f"{unrouted.name}@routed"
    if table != TaskTable.of(unrouted.name):
        view += f"-{table.digest}"
    if view in seqio.MixtureRegistry.names():
        registered = seqio.MixtureRegistry.get(view)
        if registered.unrouted is unrouted:
            return registered
        # Another mixture has taken the name since, as happens in notebooks.
        seqio.MixtureRegistry.remove(view)
    mixture = RoutedMixture(view, unrouted, table)
    seqio.MixtureRegistry.add_provider(view, mixture)
    return mixture


def _training_split(task: seqio.Task) -> str:
    return "train" if "train" in task.splits else next(iter(task.splits))


def _equal_rate(task: seqio.Task) -> float:
    del task
    return 1.0


def seedable(task: seqio.Task) -> seqio.Task:
    """Return the task with a source function that accepts a seed, even if its own function does not.

    seqio refuses to pass a seed to a function that takes none. Such a function is read in its own order: the
    stream is reproducible, and only seqio's own shuffling changes the order.
    """
    source = task.source
    if not isinstance(source, seqio.FunctionDataSource):
        return task
    read = source._dataset_fn
    if "seed" in inspect.signature(read).parameters:
        return task

    def read_in_order(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        return read(split=split, shuffle_files=False)

    # A copy, because `replace` would make a plain task of one with a class of its own.
    copied = copy.copy(task)
    copied._source = seqio.FunctionDataSource(
        read_in_order,
        splits=source.splits,
        num_input_examples=source._num_input_examples,
        caching_permitted=source.caching_permitted,
    )
    return copied
