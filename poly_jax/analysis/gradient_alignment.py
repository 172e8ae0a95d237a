"""The alignment of tasks' gradients: whether tasks change their shared skills in the same direction."""

import dataclasses
import functools
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float

from poly_jax.analysis.agreement import cosines, of_pairs
from poly_jax.analysis.first_batches import first_batches
from poly_jax.experiment import Data
from poly_jax.model.loss import TokenLoss
from poly_jax.training.mesh import on_mesh, to_mesh
from poly_jax.training.restore import Restored
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.parameter_names import in_order, is_inventory, layer_of
from poly_jax.weights.tree import flatten, merge, split

Gradients = dict[str, Float[np.ndarray, "parameters"]]


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Cosines of the gradients of every pair of tasks.

    Attributes:
      cosines: cosines over all shared skills together.
      of_layer: mean cosine over pairs of tasks, for the skills of each layer.
    """

    cosines: Float[np.ndarray, "tasks tasks"]
    of_layer: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean cosine over pairs of tasks."""
        return float(np.mean(of_pairs(self.cosines)))

    @property
    def conflicting(self) -> float:
        """Share of the pairs of tasks whose cosine is below 0."""
        return float(np.mean(of_pairs(self.cosines) < 0))


def alignment(gradients: Mapping[str, Float[np.ndarray, "tasks parameters"]]) -> Alignment:
    """Compare the gradients of tasks, as arXiv 2211.03831 does to compare routing methods.

    Args:
      gradients: gradients of every task, by the layer of the parameters.
    """
    products, of_layer = {}, {}
    for layer, rows in gradients.items():
        wide = np.asarray(rows, np.float64)
        products[layer] = wide @ wide.T
        of_layer[layer] = float(np.mean(of_pairs(cosines(products[layer]))))
    return Alignment(cosines(np.sum(list(products.values()), axis=0)), of_layer)


def measure_alignment(
    restored: Restored, data: Data, mesh: Mesh, n_examples: int, folder: epath.Path
) -> Alignment:
    """The alignment of a run's tasks at its trained parameters.

    A task's gradient is the gradient of its target tokens' loss over its first examples, from the split that
    the run was trained on, with the mixing weights of evaluation.

    Args:
      restored: the run.
      data: its data; the tasks are registered.
      mesh: the devices that hold the parameters.
      n_examples: number of examples of each task; all of them where a task has fewer.
      folder: a local folder with space for temporary files, which hold one gradient of every task.

    Raises:
      UserError: a task is not registered, or lacks the split.
    """
    shared, rest = split(restored.parameters, is_inventory)

    @jax.jit
    def gradient(shared: dict[str, Any], rest: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        def total(shared: dict[str, Any]) -> jax.Array:
            apply = functools.partial(restored.model.apply, {"params": merge(rest, shared)})
            # The loss is a total and not a mean, so that the gradients of a task add up over batches. Cosines
            # do not depend on the scale.
            return TokenLoss().totals(apply, batch)["tokens"]

        return jax.grad(total)(shared)

    sizes = {layer: leaf.size for layer, leaf in _by_layer(jax.device_get(shared)).items()}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        stored = {
            layer: np.memmap(f"{scratch}/{i}", np.float32, "w+", shape=(len(restored.table), size))
            for i, (layer, size) in enumerate(sizes.items())
        }
        for task, name in enumerate(restored.table.names):
            for batch in first_batches(restored, data, mesh, name, n_examples):
                with on_mesh(mesh):
                    found = gradient(shared, rest, to_mesh(batch, mesh))
                for layer, vector in _by_layer(jax.device_get(found)).items():
                    stored[layer][task] += vector
        return alignment(stored)


def _by_layer(tree: dict[str, Any]) -> Gradients:
    layers: dict[str, list[np.ndarray]] = {}
    for path, leaf in flatten(unstack_layers(tree)).items():
        layers.setdefault(layer_of(path), []).append(np.asarray(leaf, np.float32).reshape(-1))
    return {layer: np.concatenate(layers[layer]) for layer in in_order(layers)}
