"""The rule for the checkpoints of a run that are kept: the newest, and the best by a metric."""

import dataclasses
from collections.abc import Mapping, Sequence

from orbax.checkpoint import checkpoint_managers


@dataclasses.dataclass(frozen=True)
class Score:
    """The value of a metric of an evaluation during training, at the step of a checkpoint.

    Attributes:
      metric: name of the metric, as `task/metric`.
      value: its value; larger is better.
    """

    metric: str
    value: float


def best_step(scores: Mapping[int, Score], metric: str) -> int | None:
    """Return the first of the steps with the largest value of a metric; None where none has the metric."""
    values = {step: score.value for step, score in scores.items() if score.metric == metric}
    return min(values, key=lambda step: (-values[step], step), default=None)


@dataclasses.dataclass(frozen=True)
class NewestAndBest(checkpoint_managers.PreservationPolicy):
    """Orbax's policy of keeping the newest checkpoints, and the best by a metric.

    Attributes:
      newest: number of the newest checkpoints that are kept.
      metric: name of the metric; None for no best checkpoint.
      scores: the scores of the checkpoints by step, which may grow.
    """

    newest: int
    metric: str | None
    scores: Mapping[int, Score]

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        """Return for each checkpoint whether it is kept."""
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        kept = set(steps[-self.newest :])
        if self.metric is not None:
            there = {step: score for step, score in self.scores.items() if step in steps}
            kept.add(best_step(there, self.metric))
        return [checkpoint.step in kept for checkpoint in checkpoints]
