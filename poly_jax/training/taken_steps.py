"""The metrics of steps that the devices have begun, and their means between two reports."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from poly_jax.errors import UserError
from poly_jax.training.batches import example_tasks
from poly_jax.training.finite_steps import FINITE, NonFinite
from poly_jax.training.hosts import of_all_hosts

_ABSENT = -1


class NotFiniteError(Exception):
    """A step that was not taken because its loss or its gradient is not finite."""

    def __init__(self, step: int, metrics: Mapping[str, float], batch: Mapping[str, Any]):
        super().__init__()
        self.step = step
        self._metrics = metrics
        self._batch = batch

    def tasks(self) -> list[int]:
        """The tasks of the examples in the batch. All hosts must call this method together."""
        own = example_tasks(dict(self._batch))
        rows = np.full(self._batch["task_ids"].size, _ABSENT, np.int32)
        rows[: len(own)] = own
        return sorted({int(task) for task in of_all_hosts(rows)} - {_ABSENT})

    def described(self) -> str:
        """The numbers that are not finite, as a text for people."""
        return ", ".join(f"{name} {value}" for name, value in self._metrics.items() if not np.isfinite(value))


class TakenSteps:
    """Waits for the metrics of steps, and averages them over the steps since the last report."""

    def __init__(self, non_finite: NonFinite):
        self._stops = non_finite == "stop"
        self._begun: deque[tuple[int, Mapping[str, Any], Mapping[str, Any]]] = deque()
        self._settled: list[dict[str, float]] = []
        self._skipped = 0

    def add(self, step: int, metrics: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Add a step that has begun."""
        self._begun.append((step, metrics, batch))

    def is_running(self) -> bool:
        """Whether the devices are still busy with the last step that has begun."""
        return bool(self._begun) and not self._begun[-1][1][FINITE].is_ready()

    def settle(self, but: int) -> None:
        """Wait for all steps but the last `but`.

        Raises:
          NotFiniteError: one of them was not finite, and such a step ends the run.
        """
        while len(self._begun) > but:
            step, metrics, batch = self._begun.popleft()
            values = {name: float(value) for name, value in metrics.items()}
            if values.pop(FINITE):
                self._settled.append(values)
            elif self._stops:
                raise NotFiniteError(step, values, batch)
            else:
                self._skipped += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each metric since the last call, and the number of skipped steps, if any.

        Raises:
          UserError: all steps were skipped.
        """
        if not self._settled:
            raise UserError(
                f"none of the last {self._skipped} steps is finite, so skipping them does not help; "
                "choose a smaller learning rate or another seed, in another --output_dir"
            )
        means = {name: float(np.mean([each[name] for each in self._settled])) for name in self._settled[0]}
        if self._skipped:
            means["skipped_steps"] = float(self._skipped)
        self._settled.clear()
        self._skipped = 0
        return means
