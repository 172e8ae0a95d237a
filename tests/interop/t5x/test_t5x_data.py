"""t5x's data functions give poly_jax's batches, with task ids from the mixture that was trained on."""

import numpy as np
import pytest

REASON = "t5x is not installed (docs/t5x.md says how)"
pytest.importorskip("t5x.models", reason=REASON, exc_type=ImportError)

import gin  # noqa: E402
from t5x import utils  # noqa: E402

from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter  # noqa: E402
from poly_jax.data.quiet import seqio  # noqa: E402
from poly_jax.errors import UserError  # noqa: E402
from poly_jax.interop.t5x import configurables, data  # noqa: E402, F401

LENGTHS = {"inputs": 12, "targets": 10}


@pytest.fixture(autouse=True)
def _bindings():
    gin.parse_config("Experiment.model = @T5Config()\nExperiment.data = @Data()")
    yield
    gin.clear_config()


def config(name, **changes):
    settings = {
        "mixture_or_task_name": name,
        "task_feature_lengths": LENGTHS,
        "split": "train",
        "batch_size": 8,
        "shuffle": False,
        "seed": 0,
        **changes,
    }
    return utils.DatasetConfig(**settings)


def tasks_of(batch):
    """Return the task names: every input of the benchmark begins with the name of its task."""
    vocabulary = seqio.ByteVocabulary(0)
    return [f"skillbench_{vocabulary.decode(row.tolist())[:3]}" for row in batch["encoder_input_tokens"]]


def test_the_converter_gives_the_id_of_every_rows_task(mixture):
    table = data.table_of(mixture)
    name = data.routed_name(mixture, table)
    dataset = utils.get_dataset(config(name), 0, 1, RoutedEncDecFeatureConverter)
    batch = next(dataset.as_numpy_iterator())
    assert {name: array.shape for name, array in batch.items()} == {
        "encoder_input_tokens": (8, 12),
        "decoder_input_tokens": (8, 10),
        "decoder_target_tokens": (8, 10),
        "decoder_loss_weights": (8, 10),
        "task_ids": (8,),
    }
    assert [table.name(id) for id in batch["task_ids"]] == tasks_of(batch)
    assert len(set(batch["task_ids"].tolist())) > 1


def test_a_task_on_its_own_keeps_its_id(mixture):
    table = data.table_of(mixture)
    name = data.routed_name(table.names[2], table)
    batch = next(utils.get_dataset(config(name), 0, 1, RoutedEncDecFeatureConverter).as_numpy_iterator())
    assert batch["task_ids"].tolist() == [2] * 8


def test_t5xs_evaluator_finds_the_tasks_under_their_own_names(mixture):
    table = data.table_of(mixture)
    tasks = seqio.get_subtasks(seqio.get_mixture_or_task(data.routed_name(mixture, table)))
    assert sorted(task.name for task in tasks) == list(table.names)


def test_a_task_that_the_run_does_not_know_is_refused_in_one_line(mixture):
    with pytest.raises(UserError) as error:
        data.routed_name("skillbench_pretrain", data.table_of(mixture))
    assert str(error.value).startswith("task 'skillbench_pretrain' is not in the table of 3 tasks")
    assert "\n" not in str(error.value)


def test_evaluation_during_training_has_every_task_and_the_mixture_with_ids(mixture):
    table = data.table_of(mixture)
    name = data.routed_name(mixture, table)
    datasets = data.train_eval_datasets(
        config(name, split="validation"), 0, 1, 2, RoutedEncDecFeatureConverter
    )
    assert set(datasets) == {*table.names, mixture}
    for task, dataset in datasets.items():
        batches = list(dataset.as_numpy_iterator())
        assert len(batches) == 2
        for batch in batches:
            assert [table.name(id) for id in batch["task_ids"]] == tasks_of(batch)
            if task != mixture:
                assert np.all(batch["task_ids"] == table.id(task))


@pytest.mark.parametrize("function", [data.mixture, data.feature_lengths])
def test_data_that_is_not_bound_is_reported_in_one_line(function):
    with pytest.raises(UserError, match=r"bind (MIXTURE_OR_TASK_NAME|TASK_FEATURE_LENGTHS)"):
        function()
