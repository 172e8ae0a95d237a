"""The skills that a router which looks at inputs gives to each task, measured on examples."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from poly_jax.analysis.first_examples import first_examples
from poly_jax.analysis.weights import Weights, router_leaves
from poly_jax.experiment import Data
from poly_jax.training.mesh import on_mesh, to_mesh
from poly_jax.training.restore import Restored

_READ = ("encoder_input_tokens", "decoder_input_tokens", "task_ids", "decoder_target_tokens")


@dataclasses.dataclass(frozen=True)
class Load:
    """How a router that looks at inputs spread a run's tasks over the skills.

    Attributes:
      weights: mean mixing weights of each task, by the place of the router. The mean is over positions that
        are not padding, or over examples where the router pools.
      effective_skills: exp of the mean entropy of one row's weights, over tasks, by the place of the router:
        from 1, a single skill at each position, to the number of skills.
      n_examples: largest number of examples of a task that were looked at.
    """

    weights: Weights
    effective_skills: dict[str, float]
    n_examples: int


def measure_load(restored: Restored, data: Data, mesh: Mesh, n_examples: int) -> Load:
    """The load of a run's skills, with the mixing weights of evaluation.

    The decoder reads the targets, as in training.

    Args:
      restored: the run, whose router is an `InputRouter`.
      data: its data; the tasks are registered.
      mesh: the devices that hold the parameters.
      n_examples: number of examples of each task; all of them where a task has fewer.

    Raises:
      UserError: a task is not registered, or lacks the split.
    """

    @jax.jit
    def loads(parameters: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        arrays = [batch[name] for name in _READ]
        _, state = restored.model.apply({"params": parameters}, *arrays, mutable=["intermediates"])
        return _sown(state["intermediates"])

    tasks: list[dict[str, _Sum]] = []
    for task in restored.table.names:
        sums: dict[str, _Sum] = {}
        for batch in first_examples(restored, data, mesh, task, n_examples):
            with on_mesh(mesh):
                found = jax.device_get(loads(restored.parameters, to_mesh(batch, mesh)))
            for place, load in router_leaves(found).items():
                sums[place] = sums.get(place, _Sum()) + _Sum.of(load)
        tasks.append(sums)
    places = list(tasks[0])
    return Load(
        {place: np.stack([sums[place].mean_weights for sums in tasks])[:, None] for place in places},
        {place: float(np.exp(np.mean([sums[place].mean_entropy for sums in tasks]))) for place in places},
        n_examples,
    )


@dataclasses.dataclass(frozen=True)
class _Sum:
    """Sums over the rows of several batches."""

    weights: Float[np.ndarray, "skills"] | float = 0.0
    entropy: float = 0.0
    rows: float = 0.0

    @classmethod
    def of(cls, load: Any) -> "_Sum":
        rows = float(load["rows"])
        return cls(np.asarray(load["weight"], np.float64) * rows, float(load["entropy"]) * rows, rows)

    def __add__(self, other: "_Sum") -> "_Sum":
        return _Sum(self.weights + other.weights, self.entropy + other.entropy, self.rows + other.rows)

    @property
    def mean_weights(self) -> Float[np.ndarray, "skills"]:
        return np.asarray(self.weights) / max(self.rows, 1)

    @property
    def mean_entropy(self) -> float:
        return self.entropy / max(self.rows, 1)


def _sown(tree: dict[str, Any]) -> dict[str, Any]:
    """The sown loads, where the parameters of the routers stand."""
    found: dict[str, Any] = {}
    for name, child in tree.items():
        if not isinstance(child, dict):
            continue
        # Sown values come as one for each call of a module, and a router is called once.
        below = child["load"][0] if "load" in child else _sown(child)
        if below:
            found[name] = below
    return found
