"""Evaluates a model while it is trained, on tasks that it is trained on or zero-shot on others."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from poly_jax.counted import counted
from poly_jax.counts import check_counts
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.mixture_evaluation import Evaluated, MixtureEvaluation
from poly_jax.evaluation.predict import Predictor
from poly_jax.evaluation.report import MEAN
from poly_jax.experiment import Experiment, call_register
from poly_jax.model.transformer import Transformer
from poly_jax.training.mesh import check_batch_size
from poly_jax.training.periodic_evaluation import Scores, check_named
from poly_jax.training.restore import Restored
from poly_jax.training.saved_step import Origin
from poly_jax.training.vocabulary_room import check_vocabularies
from poly_jax.transfer.zero_shot import averaged
from poly_jax.weights.tree import listing, merge


@dataclasses.dataclass(frozen=True)
class OnlineEvaluation:
    """An evaluation that `train` makes every `train.eval_every` steps.

    The metrics are those of `poly-jax eval` with the same settings, and are logged as
    `eval/<task>/<metric>`. The examples are read once, before the first step.

    Attributes:
      mixture: name of a registered seqio mixture or task; None for the mixture that is trained on.
      register: function that registers the mixture's tasks with seqio, such as `@t0_few_shot.register`; None
        where `Data.register` does, or a module that gin imports.
      split: name of the split; tasks without it are left out.
      zero_shot: whether to use the average of the skills for every task, as on tasks that are not trained on;
        otherwise each task uses its own mix.
      batch_size: number of examples in a batch, over all devices.
    """

    mixture: str | None = None
    register: Callable[[], None] | None = None
    split: str = "validation"
    zero_shot: bool = False
    batch_size: int = 32

    def prepare(
        self,
        experiment: Experiment,
        table: TaskTable,
        model: Transformer,
        mesh: Mesh,
        keep_best: str | None = None,
    ) -> Scores:
        """Read the examples and return the function that evaluates parameters; see `Evaluation.prepare`.

        Raises:
          UserError: the mixture is unknown or has tasks that are not trained on, there are no skills to
            average, the split, the examples or the metrics are missing, or no metric is `keep_best`.
        """
        check_counts("OnlineEvaluation", batch_size=self.batch_size)
        check_batch_size(self.batch_size, mesh)
        if self.register is not None:
            call_register(self.register, "OnlineEvaluation.register")
        name = self.mixture or experiment.data.mixture
        wanted = TaskTable.of(name)
        unknown = [task for task in wanted.names if task not in table.names]
        if self.zero_shot:
            if model.adapters is None:
                raise UserError(
                    "OnlineEvaluation.zero_shot is True, and Experiment.adapters is not bound, so there are "
                    "no skills to average; bind OnlineEvaluation.zero_shot = False"
                )
        elif unknown and model.adapters is not None:
            raise UserError(
                f"OnlineEvaluation.mixture is {name!r}, and {len(unknown)} of its"
                f" {counted(len(wanted), 'task')} are "
                f"not trained on ({listing(unknown)}); bind OnlineEvaluation.zero_shot = True"
            )
        # A bare T5 ignores task ids, so that the table may be that of any tasks.
        ids = wanted if self.zero_shot or unknown else table
        check_vocabularies(name, experiment.model)
        evaluation = MixtureEvaluation(name, ids, self.split)
        evaluation.read(experiment.data.sequence_length)
        if keep_best is not None and (names := evaluation.names()) is not None:
            check_named(keep_best, [f"{task}/{metric}" for task, metric in names])
        said = f"{name}, {self.split}{', zero-shot' if self.zero_shot else ''}"
        predictors: list[Predictor] = []

        def scores(
            trained: dict[str, Any], frozen: dict[str, Any], after_batch: Callable[[], None]
        ) -> dict[str, float]:
            restored = Restored(model, merge(frozen, trained), table, "this run", Origin())
            if self.zero_shot:
                restored = averaged(restored, ids)
            if not predictors:
                # It is kept without parameters, so that those of this step do not stay in memory.
                kept = dataclasses.replace(restored, parameters={}, table=ids)
                predictors.append(Predictor(kept, experiment.decoding, mesh, self.batch_size))
            predictor = predictors[0].with_parameters(restored.parameters)
            done = evaluation(predictor, keep_bar=False, after_batch=after_batch)
            if jax.process_index() == 0:
                print(_line(said, done), file=sys.stderr, flush=True)
            return {
                f"eval/{task}/{metric}": value
                for task, values in done.results.items()
                for metric, value in values.items()
            }

        return scores


def _line(said: str, done: Evaluated) -> str:
    means = " ".join(f"{metric} {value:.2f}" for metric, value in done.results[MEAN].items())
    examples = counted(done.examples, "example")
    return f"evaluated {said}: mean over tasks {means}  {examples} in {done.seconds:.1f} s"
