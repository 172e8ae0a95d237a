"""The skills that a router which looks at inputs gives to each task, measured on examples."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from poly_jax.analysis.first_batches import first_batches
from poly_jax.analysis.weights import Weights, router_leaves
from poly_jax.errors import UserError
from poly_jax.experiment import Data
from poly_jax.training.mesh import on_mesh, to_mesh
from poly_jax.training.restore import Restored

_READ = ("encoder_input_tokens", "decoder_input_tokens", "task_ids", "decoder_target_tokens")


@dataclasses.dataclass(frozen=True)
class Load:
    """The load of the skills under a router of inputs, for each task of a run.

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
      UserError: a task is not registered, lacks the split, or has no examples.
    """

    @jax.jit
    def loads(parameters: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        arrays = [batch[name] for name in _READ]
        _, state = restored.model.apply({"params": parameters}, *arrays, mutable=["intermediates"])
        return _sown(state["intermediates"])

    tasks: list[dict[str, Any]] = []
    for task in restored.table.names:
        found: dict[str, list[Any]] = {}
        for batch in first_batches(restored, data, mesh, task, n_examples):
            with on_mesh(mesh):
                sown = jax.device_get(loads(restored.parameters, to_mesh(batch, mesh)))
            for place, load in router_leaves(sown).items():
                found.setdefault(place, []).append(load)
        if not found:
            raise UserError(f"{task} has no examples in the split {data.split!r} to measure its mixes on")
        tasks.append({place: _over_batches(batches) for place, batches in found.items()})
    places = list(tasks[0])
    return Load(
        {place: np.stack([task[place]["weight"] for task in tasks])[:, None] for place in places},
        {place: float(np.exp(np.mean([task[place]["entropy"] for task in tasks]))) for place in places},
        n_examples,
    )


def _over_batches(batches: Sequence[Any]) -> dict[str, np.ndarray]:
    """The means over all rows of several batches, from the means and the number of rows of each batch."""
    # The means of a batch without rows are 0, and so are those of batches that all have none.
    rows = np.maximum([batch["rows"] for batch in batches], np.finfo(np.float32).tiny)
    return {
        name: np.average(np.asarray([batch[name] for batch in batches], np.float64), axis=0, weights=rows)
        for name in ("weight", "entropy")
    }


def _sown(tree: dict[str, Any]) -> dict[str, Any]:
    """The loads that the routers have sown, at the paths of the routers' parameters."""
    found: dict[str, Any] = {}
    for name, child in tree.items():
        if not isinstance(child, dict):
            continue
        # Sown values come as one for each call of a module, and a router is called once.
        below = child["load"][0] if "load" in child else _sown(child)
        if below:
            found[name] = below
    return found
