"""The values that a run's routers and skills had before its first step, drawn again from its seed."""

import dataclasses
import re

import jax
import numpy as np
from etils import epath

from poly_jax.interop.tree import flatten
from poly_jax.model.layer_trees import unstack_layers
from poly_jax.model.transformer import Transformer
from poly_jax.training.checkpoints import Origin
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.mesh import Partitioning
from poly_jax.training.partition import is_router
from poly_jax.training.run_folder import OPERATIVE


@dataclasses.dataclass(frozen=True)
class InitialValues:
    """What is known of them.

    Attributes:
      arrays: by '/'-joined name, with layers apart; those that are not known are not there.
      note: a sentence on those that are left out, or an empty one.
    """

    arrays: dict[str, np.ndarray]
    note: str = ""


def initial_values(step: epath.Path, model: Transformer, origin: Origin) -> InitialValues:
    """The initial values of a run, as far as its `operative_config.gin` tells them.

    A trained run's are all drawn from `train.seed`. An adapted run draws its routers' rows, if it does not
    take them from old tasks; its skills begin as another run's.

    Args:
      step: folder of a checkpoint.
      model: of the run.
      origin: what the checkpoint builds on.
    """
    config = _operative(step)
    if (seed := re.search(r"^train\.seed = (\d+)$", config, re.MULTILINE)) is not None:
        return InitialValues(drawn_adapters(model, int(seed[1])))
    if not re.search(r"^adapt\.", config, re.MULTILINE):
        return InitialValues({}, "The run does not tell its seed, so that its initial values are not known.")
    seed = re.search(r"^adapt\.seed = (\d+)$", config, re.MULTILINE)
    fresh = re.search(r"^adapt\.init_router_from = \(\)$", config, re.MULTILINE)
    skills = (
        "The skills are those of another run and were not trained here."
        if origin.adapters is not None
        else "The skills began as another run's, which this run does not name."
    )
    if seed is None or fresh is None:
        return InitialValues({}, f"{skills} The routers' first rows are not known either.")
    drawn = drawn_adapters(model, int(seed[1]))
    return InitialValues({path: leaf for path, leaf in drawn.items() if is_router(path)}, skills)


def drawn_adapters(model: Transformer, seed: int) -> dict[str, np.ndarray]:
    """Fresh routers and skills of a model as `poly-jax train` draws them, with layers apart."""
    fresh = fresh_parameters(model, seed, Partitioning().mesh())
    return flatten(unstack_layers(jax.device_get(fresh)))


def _operative(step: epath.Path) -> str:
    path = step.parent.parent / OPERATIVE
    return path.read_text() if path.exists() else ""
