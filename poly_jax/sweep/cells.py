"""One adaptation of a sweep: which task, which seed, and what makes its result another one."""

import dataclasses
import hashlib
from typing import Any

from poly_jax.configuration import Loaded
from poly_jax.sweep.method import Method

# A sweep that grows by tasks, seeds or methods keeps the results that it has.
_NOT_OF_A_RESULT = ("sweep", "Method")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A place in a sweep's table, for one seed.

    Attributes:
      task: as the sweep names it; "{seed}" in it stands for the seed.
      seed: of the adaptation.
    """

    task: str
    seed: int

    @property
    def seqio_task(self) -> str:
        """The registered task."""
        return self.task.replace("{seed}", str(self.seed))

    @property
    def column(self) -> str:
        """The task's name in tables."""
        return column(self.task)


def column(task: str) -> str:
    """A task's name in tables: without the place of the seed."""
    return task.replace("{seed}", "").strip("_-")


def configuration_digest(loaded: Loaded, method: Method, *others: Any) -> str:
    """Eight hexadecimal digits that stand for all bindings but the sweep's own, the method, and `others`."""
    bound = [text for owner, text in loaded.bindings() if owner not in _NOT_OF_A_RESULT]
    own = dataclasses.asdict(method) | {"name": ""}
    text = "\n".join([*sorted(bound), repr(sorted(own.items())), *map(repr, others)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
