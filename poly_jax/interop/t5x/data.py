"""Mixtures with task ids for t5x's programs, which refer to mixtures by name."""

import dataclasses
from collections.abc import Callable

import seqio
import tensorflow as tf
from t5x import utils

from poly_jax import configuration
from poly_jax.data.routed import RoutedMixture, routed
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment


def described_experiment() -> Experiment:
    """Make the experiment that t5x's gin files describe; without a mixture, its data is `Data("", 0, 0)`."""
    return configuration.current().experiment()


def registered_experiment() -> Experiment:
    """Make the experiment that gin describes, and register its tasks with seqio."""
    experiment = described_experiment()
    experiment.data.register_tasks()
    return experiment


def mixture() -> str:
    """Return the name of the mixture in `Data`; raise a UserError where it is missing."""
    name = registered_experiment().data.mixture
    if not name:
        raise UserError("no mixture is named: bind MIXTURE_OR_TASK_NAME or Data.mixture")
    return name


def feature_lengths() -> dict[str, int]:
    """Return the lengths of inputs and targets in `Data`, in tokens.

    Raises:
      UserError: `Data` has no lengths.
    """
    lengths = described_experiment().data.sequence_length
    if not all(lengths.values()):
        raise UserError("no lengths are given: bind TASK_FEATURE_LENGTHS, or Data.* with its mixture")
    return lengths


def batch_size() -> int:
    """Return the number of examples per step in `Data`."""
    return described_experiment().data.batch_size


def table_of(mixture: str) -> TaskTable:
    """Return the table of the tasks of the mixture that is trained on."""
    registered_experiment()
    return TaskTable.of(mixture)


def routed_name(mixture: str, table: TaskTable) -> str:
    """Register a view of a mixture or task whose examples carry their ids in a table, and return its name.

    Raises:
      UserError: nothing is registered under the name, or one of its tasks is not in the table.
    """
    registered_experiment()
    return routed(mixture, table).name


def train_eval_datasets(
    cfg: utils.DatasetConfig,
    shard_id: int,
    num_shards: int,
    eval_steps: int,
    feature_converter_cls: Callable[..., seqio.FeatureConverter],
) -> dict[str, tf.data.Dataset]:
    """Make the data sets of `t5x.utils.get_training_eval_datasets`, with the task ids that t5x would drop.

    Args:
      cfg: t5x's configuration of a mixture whose name came from `routed_name`.
      shard_id: index of this host.
      num_shards: number of hosts that share a batch.
      eval_steps: number of batches of every task.
      feature_converter_cls: class of the model's feature converter.

    Returns:
      The batches of each task that has the split, and of the mixture under its original name.
    """
    view = seqio.MixtureRegistry.get(cfg.mixture_or_task_name)
    assert isinstance(view, RoutedMixture)
    parts = {task.name: task for task in view.tasks if cfg.split in task.splits}
    if len(view.tasks) > 1 and parts:
        parts[view.unrouted.name] = view
    rows = cfg.batch_size // num_shards

    def batches(part: seqio.Task | seqio.Mixture) -> tf.data.Dataset:
        one = dataclasses.replace(cfg, mixture_or_task_name=part, batch_size=1)
        # The number of epochs is finite, as in t5x, because all examples of a shard may be filtered out.
        examples = utils.get_dataset(one, 0, 1, feature_converter_cls, num_epochs=eval_steps * cfg.batch_size)
        examples = examples.unbatch().repeat().shard(num_shards, shard_id)
        dataset = examples.batch(rows, drop_remainder=True).take(eval_steps)
        return dataset.cache() if cfg.use_memory_cache else dataset

    return {name: batches(part) for name, part in parts.items()}
