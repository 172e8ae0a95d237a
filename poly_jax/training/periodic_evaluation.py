"""The interface of an evaluation that training makes at regular steps, which `poly_jax.evaluation` has."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from jax.sharding import Mesh

from poly_jax.counts import check_counts
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.transformer import Transformer
from poly_jax.suggestion import close_names, did_you_mean
from poly_jax.weights.tree import listing

Tree = dict[str, Any]

Scores = Callable[[Tree, Tree, Callable[[], None]], Mapping[str, float]]
"""A function from the trained and the frozen parameters to metrics by name; it changes neither.

The third argument is called after every batch, on all hosts after the same one, and ends the evaluation where
it raises an exception. The names are `eval/<task>/<metric>`, and values may be NaN.
"""


class Evaluation(Protocol):
    """Something that can be evaluated at any step of a training run."""

    def prepare(
        self,
        experiment: Experiment,
        table: TaskTable,
        model: Transformer,
        mesh: Mesh,
        keep_best: str | None = None,
    ) -> Scores:
        """Check the settings, read the examples, and return the function that evaluates parameters.

        Args:
          experiment: the experiment, whose tasks are registered.
          table: table of the training tasks.
          model: the model in evaluation mode.
          mesh: the devices that hold the parameters.
          keep_best: a metric that is needed, as `task/metric`, whose name is checked where names are known
            before the first evaluation; None for none.

        Raises:
          UserError: there is nothing to evaluate, or no metric is `keep_best`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class PeriodicEvaluation:
    """An evaluation after every `every` steps of training, and after the last one.

    Attributes:
      every: number of steps between evaluations.
      scores: the function that evaluates parameters.
    """

    every: int
    scores: Scores

    def is_due(self, step: int, steps: int) -> bool:
        """Whether to evaluate after a step of a run of `steps` steps."""
        return step % self.every == 0 or step == steps


_PREFIX = "eval/"


def score_named(name: str, scores: Mapping[str, float]) -> float | None:
    """Return the metric of an evaluation that `train.keep_best` names; None where it is not finite.

    Args:
      name: the metric, as `task/metric`.
      scores: the metrics of the evaluation, as `eval/task/metric`.

    Raises:
      UserError: the evaluation has no such metric.
    """
    check_named(name, [known.removeprefix(_PREFIX) for known in scores])
    value = scores[f"{_PREFIX}{name}"]
    return value if math.isfinite(value) else None


def check_named(name: str, names: Collection[str]) -> None:
    """Raise a UserError if `train.keep_best` is none of an evaluation's metrics, each as `task/metric`."""
    if name not in names:
        advice = did_you_mean(close_names(name, names)) or f"it has {listing(sorted(names))}"
        raise UserError(f"train.keep_best is {name!r}, and the evaluation has no such metric; {advice}")


def check_periodic(eval_every: int, evaluation: Evaluation | None, keep_best: str | None = None) -> None:
    """Raise a UserError if `train.eval_every` is negative, or there is nothing to evaluate."""
    if keep_best is not None and not eval_every:
        raise UserError(
            f"train.keep_best is {keep_best!r}, and nothing is evaluated during training; bind"
            " train.eval_every, or train.keep_best = None"
        )
    if keep_best is not None and "/" not in keep_best:
        raise UserError(
            f"train.keep_best is {keep_best!r}; give a task and its metric, or a mean over tasks, such as"
            f" 'mean/{keep_best}'"
        )
    if eval_every:
        check_counts("train", eval_every=eval_every)
        if evaluation is None:
            raise UserError(
                f"train.eval_every is {eval_every}, and train.evaluation is None; give an OnlineEvaluation"
            )
