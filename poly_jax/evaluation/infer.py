"""`poly-jax infer`: predictions of one task for texts that are no data set."""

import jax
import numpy as np
from jaxtyping import Int

from poly_jax.data.quiet import seqio
from poly_jax.data.registry import mixture_or_task
from poly_jax.errors import UserError
from poly_jax.evaluation.predict import Predictor
from poly_jax.evaluation.texts import check_output, read_records, text_of, write_answers
from poly_jax.experiment import Experiment
from poly_jax.training.checkpoints import read_table, step_folder
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.restore import restore
from poly_jax.training.vocabulary_room import check_features


def infer(
    run: str,
    task: str,
    input: str,
    output: str,
    experiment: Experiment,
    batch_size: int = 32,
    partitioning: Partitioning = Partitioning(),
) -> None:
    """Predicts for texts with a task's adapters.

    A text reaches the model as it is: no preprocessor of the task sees it, so that it must have the form that
    these make of an example (its prompt, its prefix), as in the field `input` of an evaluation's predictions.

    Args:
      run: folder of the run, or one of its checkpoints.
      task: one of the run's tasks.
      input: a text per line, or `.jsonl` with "inputs" or "input" and other fields; "-" is standard input.
      output: predictions as lines, or `.jsonl` with the input's fields, "prediction" and "score" (the
        prediction's log-probability); "-" is standard output. It is written when all is done.
      experiment: that of the run.
      batch_size: examples at a time, over all devices.
      partitioning: shape of the device mesh.

    Raises:
      UserError: the run has no such task, the input cannot be read or the output not be written.
    """
    mesh = partitioning.mesh()
    check_batch_size(batch_size, mesh)
    task_id = read_table(step_folder(run)).id(task)
    check_output(output)
    records = read_records(input)
    experiment.data.register_tasks()
    features = _features(task, experiment.data.mixture)
    check_features(repr(task), features, experiment.model)
    check_features(f"task {task!r}", features, experiment.model)
    texts = [text_of(record) for record in records]
    inputs = encode(texts, features["inputs"], experiment.data.inputs_length)
    predictor = Predictor(restore(experiment, run, mesh), experiment.decoding, mesh, batch_size)
    predictions = predictor.predict(inputs, np.full(len(inputs), task_id, np.int32))
    vocabulary = features["targets"].vocabulary
    answers = [vocabulary.decode(tokens) for tokens in predictions.tokens.tolist()]
    if jax.process_index() == 0:
        write_answers(output, records, answers, predictions.scores.tolist())


def encode(texts: list[str], feature: seqio.Feature, length: int) -> Int[np.ndarray, "examples length"]:
    """Tokens of texts, padded with 0; longer ones are cut, and end with the end of sequence nonetheless.

    Raises:
      UserError: the feature is not made of a text's tokens.
    """
    if feature.rank != 1 or feature.vocabulary.eos_id is None:
        raise UserError("the task's feature 'inputs' is not made of tokens: texts cannot be encoded")
    end = [feature.vocabulary.eos_id] if feature.add_eos else []
    rows = np.zeros((len(texts), length), np.int32)
    for row, text in zip(rows, texts, strict=True):
        tokens = [*feature.vocabulary.encode(text)[: length - len(end)], *end]
        row[: len(tokens)] = tokens
    return rows


def _features(task: str, mixture: str) -> dict[str, seqio.Feature]:
    """The task's features, or where it is not registered, those of the run's mixture, which share them."""
    return mixture_or_task(task if task in seqio.TaskRegistry.names() else mixture).output_features
