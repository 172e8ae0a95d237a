"""`poly-jax eval`: evaluates a run with its tasks' own metrics, through seqio's Evaluator."""

import dataclasses
import functools
import sys

import jax
from etils import epath

from poly_jax.counted import counted
from poly_jax.counts import check_counts
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.mixture_evaluation import MixtureEvaluation
from poly_jax.evaluation.predict import Predictor
from poly_jax.evaluation.report import Results, as_json, not_finite, show
from poly_jax.evaluation.task_texts import example_texts
from poly_jax.evaluation.unknown_answers import Unknown
from poly_jax.evaluation.unknown_tasks import (
    UnknownTasks,
    check_rows,
    serves_any_task,
    with_shares,
)
from poly_jax.experiment import Experiment
from poly_jax.files.whole_file import write_whole
from poly_jax.reporting.output_folder import check_output_folder
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.restore import restore
from poly_jax.training.saved_step import read_table
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.vocabulary_room import check_vocabularies
from poly_jax.transfer.zero_shot import averaged
from poly_jax.weights.tree import listing

METRICS = "metrics.json"
PREDICTIONS = "predictions"


def evaluate(
    run: str,
    experiment: Experiment,
    mixture: str | None = None,
    split: str = "test",
    zero_shot: bool = False,
    batch_size: int = 32,
    output_dir: str | None = None,
    partitioning: Partitioning = Partitioning(),
    unknown: Unknown | None = None,
    descriptions: str | None = None,
) -> Results:
    """Evaluate a run on a mixture's tasks with their own metrics.

    The results are written to `metrics.json` and `predictions/<task>.jsonl` (see `PredictionFiles`), and
    printed as a table.

    Args:
      run: folder of the run, or one of its checkpoints.
      experiment: the run's experiment.
      mixture: name of a registered seqio mixture or task; None for the run's own mixture.
      split: name of the split to evaluate on; tasks without this split are left out.
      zero_shot: whether to use the average of the run's skills for every task, including unknown tasks.
      batch_size: number of examples in a batch, over all devices.
      output_dir: folder of the results; None for `eval/<mixture>-<split>` in the run's folder, with the
        suffix `-zero_shot` in a zero-shot evaluation, and `-average`, `-nearest` or `-regression` with
        `unknown`.
      partitioning: shape of the device mesh.
      unknown: way to answer for tasks that the run does not know: "average" (the mean of all tasks' mixing
        weights), "nearest" (those of the task whose text is most similar to the inputs of the split, or to
        the task's description) or "regression" (those that ridge regression predicts from such texts); None
        for an error. A run whose adapters do not depend on the task needs none, and refuses it.
      descriptions: file of texts that describe tasks for "nearest" and "regression"; see
        `poly_jax.evaluation.infer.infer`.

    Returns:
      The metrics by task and, under "mean", their means over tasks.

    Raises:
      UserError: the mixture is unknown or has tasks that the run does not know, or there is nothing to
        evaluate because the split, the examples or the metrics are missing.
    """
    mesh = partitioning.mesh_for(experiment.model, experiment.adapters)
    check_counts("evaluate", batch_size=batch_size)
    check_batch_size(batch_size, mesh)
    experiment.data.register_tasks()
    step = step_folder(run)
    name = mixture or experiment.data.mixture
    if zero_shot and unknown is not None:
        raise UserError(
            "--zero_shot and --unknown are two ways to answer for unknown tasks; give one of them"
        )
    stand_ins = UnknownTasks.of(unknown, descriptions)
    table = TaskTable.of(name) if zero_shot or stand_ins else _table(experiment, run, name)
    if stand_ins is not None:
        check_rows(experiment.adapters, run)
    check_vocabularies(name, experiment.model)
    evaluation = MixtureEvaluation(name, table, split)
    # The checks above need neither data nor a model, so a mistake shows at once.
    how = "zero_shot" if zero_shot else unknown or ""
    folder = epath.Path(output_dir) if output_dir else step.parent.parent / "eval" / _label(name, split, how)
    check_output_folder(folder, "eval")
    writes = jax.process_index() == 0
    evaluation.read(experiment.data.sequence_length, folder / PREDICTIONS if writes else None)
    restored = restore(experiment, run, mesh)
    if zero_shot:
        restored = averaged(restored, table)
    elif stand_ins is None:
        restored = dataclasses.replace(restored, table=table)
    else:
        lengths = experiment.data.sequence_length
        texts = functools.partial(example_texts, split=split, lengths=lengths)
        restored = with_shares(restored, stand_ins.shares(restored.table, table, texts, lengths), table)
    done = evaluation(Predictor(restored, experiment.decoding, mesh, batch_size))
    results = done.results
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / METRICS, as_json(results, done.metrics))
        show(results, f"{name}, {split}{f', {how}'.replace('_', '-') if how else ''}")
        notices = list(done.notices)
        if broken := not_finite(results):
            notices.append(f"not finite, and null in {METRICS}: {listing(broken)}")
        for notice in notices:
            print(notice, file=sys.stderr)
        print(
            f"{counted(done.examples, 'example')} in {done.seconds:.1f} s"
            f" ({done.examples / done.seconds:.1f} "
            f"examples/s); results in {folder}",
            file=sys.stderr,
        )
    return results


def _label(name: str, split: str, how: str) -> str:
    return f"{name}-{split}" + (f"-{how}" if how else "")


def _table(experiment: Experiment, run: str, name: str) -> TaskTable:
    """Return the run's task table, after checking that it has the mixture's tasks."""
    wanted = TaskTable.of(name)
    if serves_any_task(experiment.adapters):
        # The model ignores task ids and can be evaluated on any task.
        return wanted
    table = read_table(step_folder(run))
    unknown = [task for task in wanted.names if task not in table.names]
    if unknown:
        raise UserError(
            f"{run} does not know {len(unknown)} of the {counted(len(wanted), 'task')} of {name!r}"
            f" ({listing(unknown)});"
            f" evaluate one that it knows (--mixture={table.names[0]}), adapt it first"
            f" (poly-jax adapt --run={run} --task={unknown[0]} --output_dir=DIR), or answer with --zero_shot,"
            " --unknown=average, --unknown=nearest or --unknown=regression"
        )
    return table
