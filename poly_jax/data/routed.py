"""A view of any seqio task or mixture whose examples say, by id, which task they are from."""

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

# A task with fewer examples than this per shard is split after it repeats: splitting before would leave
# shards empty, or show some examples visibly more often than others.
_LEAST_EXAMPLES_PER_SHARD = 16


class RoutedTask(seqio.Task):
    """A seqio task under its own name whose examples carry `task_ids`, int32 [1].

    A vector rather than a scalar, because seqio measures, trims and packs features along their first axis.
    """

    def __init__(self, task: seqio.Task, task_id: int, num_tasks: int) -> None:
        if TASK_IDS in task.output_features:
            raise UserError(
                f"task {task.name!r} already has a feature {TASK_IDS!r}; rename it, poly_jax adds its own"
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
        """The task with a row for each target an example may have; None for one that draws no targets.

        A task draws them by a preprocessor with the method `one_row_per_target`, itself a preprocessor, which
        gives the rows of one example the same `example_id`.
        """
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
        """The task's own number of examples in a split, if it knows."""
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
        """The task's own dataset (see `seqio.Task.get_dataset`), with the id added at its end."""
        task = self._watched
        if seed is not None and not use_cached:
            task = _with_seedable_source(task)
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
    """The tasks of a seqio mixture (or the one task), routed, at the mixture's own rates."""

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
                # A function, as a task may know its size only when it is read.
                (RoutedTask(task, table.id(task.name), len(table)), lambda view: rate(view.unrouted))
                for task in tasks
            ],
            source_info=unrouted.source_info,
            **sampling,
        )
        self.unrouted = unrouted
        self.table = table

    def get_rate(self, task: seqio.Task) -> float:
        """The share at which the original mixture draws a task's examples, before normalisation.

        Raises:
          UserError: the rate cannot be computed, such as one by a number of examples that the task does not
            tell, or it is negative or not finite.
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
        """Raises a UserError where the mixture cannot draw examples of a split by its rates."""
        tasks = [task for task in self.tasks if split in task.splits]
        if not any([self.get_rate(task) for task in tasks]):
            raise UserError(
                f"every task of mixture {self.unrouted.name!r} with a split {split!r} has rate 0; give at "
                "least one a rate above 0"
            )


def routed(name: str, table: TaskTable) -> RoutedMixture:
    """The view of a registered task or mixture whose examples carry their task's id in `table`.

    The view is registered too, so that programs that know mixtures by name find it: as `<name>@routed` for
    the mixture's own table, and with the table's digest appended for another. Calling again returns the same
    object. Caching, rates, splits, metrics, postprocessors and features are those of the original.

    Args:
      name: a registered task or mixture, of any kind: it needs no special preprocessors.
      table: gives the ids; it may hold more tasks than the mixture.

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
        # The name was given to another mixture since, which happens in notebooks.
        seqio.MixtureRegistry.remove(view)
    mixture = RoutedMixture(view, unrouted, table)
    seqio.MixtureRegistry.add_provider(view, mixture)
    return mixture


def _training_split(task: seqio.Task) -> str:
    return "train" if "train" in task.splits else next(iter(task.splits))


def _equal_rate(task: seqio.Task) -> float:
    del task
    return 1.0


def _with_seedable_source(task: seqio.Task) -> seqio.Task:
    """The task, reading a source function that takes no seed as if it did.

    seqio refuses to seed such a function. It is then read in its own order, so that the stream is
    reproducible and only seqio's own shuffling orders it.
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

    return task.replace(
        source=seqio.FunctionDataSource(
            read_in_order,
            splits=source.splits,
            num_input_examples=source._num_input_examples,
            caching_permitted=source.caching_permitted,
        )
    )
