"""The metric of a CrossFit task for seqio, in percent, and the postprocessor that prepares its arguments."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from poly_jax.data.quiet import seqio
from poly_jax.tasks.crossfit.scores import METRICS, MetricName


@dataclasses.dataclass(frozen=True)
class Score:
    """The score of a task by one of CrossFit's metrics.

    All tasks have the same key, so that its mean over tasks is the benchmark's number.

    Attributes:
      metric: the metric's name in CrossFit.
    """

    metric: MetricName

    def __call__(self, targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, Any]:
        """Compute the score of a task.

        Args:
          targets: the references of each example.
          predictions: the stripped prediction for each example.

        Returns:
          `score`, in percent (100 times the fraction of `scores.py`), and the metric's name in `metric`.

        Raises:
          UserError: a label is not a number, and the metric is Pearson's correlation.
        """
        value = 100.0 * METRICS[self.metric](targets, predictions)
        return {"score": value, "metric": seqio.metrics.Text(self.metric)}


def stripped_or_references(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> Any:
    """Return a target's references, and a prediction without blanks around it: a seqio postprocessor."""
    if not is_target or example is None:
        return text.strip()
    return [reference.decode() for reference in example["references"]]
