"""`poly-jax infer`: predicts with one task's adapters for texts from a file."""

import jax
import numpy as np

from poly_jax.counts import check_counts
from poly_jax.data.quiet import seqio
from poly_jax.data.registry import mixture_or_task
from poly_jax.data.task_table import TaskTable
from poly_jax.evaluation.predict import Predictor, rows_for
from poly_jax.evaluation.text_encoding import say_if_endless, task_encoder
from poly_jax.evaluation.texts import check_output, read_records, text_of, write_answers
from poly_jax.evaluation.unknown_answers import Unknown
from poly_jax.evaluation.unknown_tasks import (
    UnknownTasks,
    check_rows,
    serves_any_task,
    unknown_task,
    with_shares,
)
from poly_jax.experiment import Experiment
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.restore import restore
from poly_jax.training.saved_step import read_table
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.vocabulary_room import check_features


def infer(
    run: str,
    task: str,
    input: str,
    output: str,
    experiment: Experiment,
    batch_size: int = 32,
    partitioning: Partitioning = Partitioning(),
    unknown: Unknown | None = None,
    descriptions: str | None = None,
) -> None:
    """Predict for texts with a task's adapters.

    A text is tokenized as the task's own preprocessors tokenize the `inputs` of an example. The preprocessors
    before tokenization are skipped: a text must already have the form that they give an example, with its
    prompt or prefix, as in the field `input` of an evaluation's predictions. Standard error says how many
    texts had to be cut.

    Args:
      run: folder of the run, or one of its checkpoints.
      task: name of one of the run's tasks; with `unknown` any name.
      input: path of a file with one text per line, or of a `.jsonl` file with "inputs" or "input" and other
        fields; "-" is standard input.
      output: path of the file for predictions as lines, or of a `.jsonl` file with the input's fields,
        "prediction" and "score" (the prediction's log-probability); "-" is standard output. The file is
        written after all predictions have been made.
      experiment: the run's experiment.
      batch_size: largest number of examples in a batch, over all devices.
      partitioning: shape of the device mesh.
      unknown: way to answer where the run does not know the task: "average" (the mean of all tasks' mixing
        weights), "nearest" (those of the task whose text is most similar to the texts, or to the task's
        description) or "regression" (those that ridge regression predicts from such texts); None for an
        error. A run whose adapters do not depend on the task needs no row, and refuses it.
      descriptions: file of texts that describe tasks for "nearest" and "regression", a JSON object by the
        tasks' names; None to describe the run's tasks by their training examples.

    Raises:
      UserError: the run has no such task, the input cannot be read, or the output cannot be written.
    """
    mesh = partitioning.mesh_for(experiment.model, experiment.adapters)
    check_counts("infer", batch_size=batch_size)
    check_batch_size(batch_size, mesh)
    known = read_table(step_folder(run))
    stand_ins = UnknownTasks.of(unknown, descriptions)
    needs_row = task not in known.names and not serves_any_task(experiment.adapters)
    if stand_ins is not None:
        check_rows(experiment.adapters, run)
    elif needs_row:
        raise unknown_task(task, known)
    check_output(output, input)
    records = read_records(input)
    experiment.data.register_tasks()
    described = _registered_task(task, experiment.data.mixture)
    check_features(repr(task), described.output_features, experiment.model)
    lengths = experiment.data.sequence_length
    say_if_endless(described, lengths)
    texts = [text_of(record) for record in records]
    inputs = task_encoder(described, lengths)(texts)
    restored = restore(experiment, run, mesh)
    if needs_row and stand_ins is not None:
        wanted = TaskTable((task,))
        shares = stand_ins.shares(known, wanted, lambda _: "\n".join(texts), lengths)
        restored = with_shares(restored, shares, wanted)
    # Where adapters do not depend on the task, the first task stands for every other one.
    task_id = restored.table.id(task) if task in restored.table.names else 0
    rows = rows_for(len(inputs), batch_size, mesh)
    predictor = Predictor(restored, experiment.decoding, mesh, rows)
    predictions = predictor.predict(inputs, np.full(len(inputs), task_id, np.int32))
    vocabulary = described.output_features["targets"].vocabulary
    answers = [vocabulary.decode(tokens) for tokens in predictions.tokens.tolist()]
    if jax.process_index() == 0:
        write_answers(output, records, answers, predictions.scores.tolist())


def _registered_task(task: str, mixture: str) -> seqio.Task:
    """Return the task; where it is not registered, the mixture's first task, which has the same features."""
    found = mixture_or_task(task if task in seqio.TaskRegistry.names() else mixture)
    return found.tasks[0] if isinstance(found, seqio.Mixture) else found
