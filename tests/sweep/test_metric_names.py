"""The names of a task's metrics are known before any model is evaluated on it."""

import pytest

from poly_jax.data.quiet import seqio, tf
from poly_jax.experiment import Data, Experiment
from poly_jax.sweep.scoring import TaskScorer

VOCABULARY = seqio.ByteVocabulary()


def of_predictions(targets, predictions):
    return {"hits": 100.0 * (targets == predictions), "longest": max(map(len, predictions))}


def of_scores(targets, scores):
    return {"score": sum(scores)}


def with_both(targets, predictions, aux_values):
    return {"sure": sum(aux_values["scores"]) / len(predictions), "text": seqio.metrics.Text("no number")}


def of_choices(targets, scores):
    return {"count": float(len(scores[0]))}


def only_of_models(targets, scores):
    if not any(scores):
        raise ValueError("no model gives such scores")
    return {"score": scores[0]}


@pytest.fixture
def scorer():
    """A function that makes a `TaskScorer` for two examples, with or without answer choices, and metrics."""

    def make(*metric_fns, choices=False):
        columns = {"inputs": [[7, 1]] * 2, "targets": [[8, 9, 1], [8, 5, 1]]}
        if choices:
            columns |= {"choices": [[[4, 1], [5, 1], [0, 0]]] * 2, "label": [0, 1], "example_id": [0, 1]}
        rows = {name: tf.constant(column, tf.int32) for name, column in columns.items()}

        def read(split, shuffle_files, seed=None):
            return tf.data.Dataset.from_tensor_slices(rows)

        seqio.TaskRegistry.remove("measured")
        seqio.TaskRegistry.add(
            "measured",
            source=seqio.FunctionDataSource(read, ("test",)),
            output_features={name: seqio.Feature(VOCABULARY) for name in ("inputs", "targets")},
            metric_fns=list(metric_fns),
        )
        data = Data("measured", inputs_length=4, targets_length=4)
        return TaskScorer(Experiment(None, data), "measured", "test")

    yield make
    seqio.TaskRegistry.remove("measured")


def test_metric_names_are_those_of_the_numbers_that_the_metric_functions_return(scorer):
    names = scorer(of_predictions, of_scores, with_both).metric_names
    assert sorted(names) == ["hits", "longest", "score", "sure"]


def test_metrics_of_tasks_with_choices_get_a_score_for_each_choice(scorer):
    assert scorer(of_choices, choices=True).metric_names == ("count",)


def test_the_names_of_metrics_that_need_a_model_are_unknown(scorer):
    assert scorer(only_of_models).metric_names is None
