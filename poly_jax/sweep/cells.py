"""One adaptation of a sweep: its task, its seed, and the settings that its result depends on."""

import dataclasses
import hashlib
from typing import Any

from poly_jax.configuration import Loaded
from poly_jax.sweep.method import Method

# Results do not depend on these, so a sweep with more tasks, seeds or methods keeps its earlier results.
_NOT_OF_A_RESULT = ("sweep", "Method")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a sweep's table, for one seed.

    Attributes:
      task: the task as the sweep names it; "{seed}" in it stands for the seed.
      seed: seed of the adaptation.
    """

    task: str
    seed: int

    @property
    def seqio_task(self) -> str:
        """Name of the registered task."""
        return self.task.replace("{seed}", str(self.seed))

    @property
    def column(self) -> str:
        """The task's name in tables."""
        return column(self.task)


def column(task: str) -> str:
    """The task's name in tables, which leaves out the "{seed}" of its name."""
    return task.replace("{seed}", "").strip("_-")


def configuration_digest(loaded: Loaded, method: Method, *others: Any) -> str:
    """Eight hexadecimal digits of a hash of a method, `others` and all bindings except the sweep's own."""
    bound = [text for owner, text in loaded.bindings() if owner not in _NOT_OF_A_RESULT]
    own = dataclasses.asdict(method) | {"name": ""}
    text = "\n".join([*sorted(bound), repr(sorted(own.items())), *map(repr, others)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
