"""The values that a run's routers and skills had before its first step, recomputed as in training."""

import dataclasses
import re

import jax
import numpy as np
from etils import epath

from poly_jax import configuration
from poly_jax.errors import UserError
from poly_jax.model.transformer import Transformer
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.mesh import Partitioning
from poly_jax.training.open_run import open_run
from poly_jax.training.restore import place_adapters
from poly_jax.training.run_folder import OPERATIVE
from poly_jax.transfer.adapted_from import AdaptedFrom
from poly_jax.transfer.settings import configured
from poly_jax.transfer.start import initial_adapters
from poly_jax.transfer.variants import find
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.parameter_names import selects
from poly_jax.weights.tree import flatten, split


@dataclasses.dataclass(frozen=True)
class InitialValues:
    """The initial values that are known.

    Attributes:
      arrays: initial values by '/'-joined name, with layers apart; values that are not known are left out.
      note: a sentence about the values that are left out, or an empty string.
    """

    arrays: dict[str, np.ndarray]
    note: str = ""


def initial_values(step: epath.Path, model: Transformer, adapted: AdaptedFrom | None) -> InitialValues:
    """The initial values of the parameters that a run trained.

    A trained run draws all of them from the `train.seed` of its `operative_config.gin`. An adapted run takes
    them from the run that it was adapted from.

    Args:
      step: folder of a checkpoint.
      model: the run's model.
      adapted: the start of an adapted run; None for a trained run.
    """
    if adapted is not None:
        return _begun(step, model, adapted)
    seed = re.search(r"^train\.seed = (\d+)$", _operative(step), re.MULTILINE)
    if seed is None:
        return InitialValues({}, "The run does not record its seed, so its initial values are not known.")
    return InitialValues(drawn_adapters(model, int(seed[1])))


def _begun(step: epath.Path, model: Transformer, adapted: AdaptedFrom) -> InitialValues:
    own = configuration.load([], recorded=configuration.run_config(step))
    variant, mesh = configured(find(adapted.variant), own), Partitioning().mesh()
    if not variant.trains:
        return InitialValues({}, "This run trained nothing: its values are the initial ones.")
    unknown = f"The initial values come from {adapted.step}, which this run was adapted from, and"
    if not epath.Path(adapted.step).is_dir():
        return InitialValues({}, f"{unknown} that folder is gone.")
    try:
        loaded = configuration.load([configuration.run_config(adapted.step)])
        source = place_adapters(open_run(adapted.step, loaded.experiment()), mesh)
        begun = initial_adapters(
            source, variant, model, adapted.seed, mesh, adapted.combination, adapted.init_router_from
        )
    except UserError as error:
        return InitialValues({}, f"{unknown} that checkpoint cannot be read: {error}.")
    trained, kept = split(begun, selects(variant.trainable))
    note = "The skills belong to another run and were not trained here." if kept else ""
    return InitialValues(flatten(unstack_layers(jax.device_get(trained))), note)


def drawn_adapters(model: Transformer, seed: int) -> dict[str, np.ndarray]:
    """Fresh routers and skills of a model as `poly-jax train` draws them, with layers apart."""
    fresh = fresh_parameters(model, seed, Partitioning().mesh())
    return flatten(unstack_layers(jax.device_get(fresh)))


def _operative(step: epath.Path) -> str:
    path = step.parent.parent / OPERATIVE
    return path.read_text() if path.exists() else ""
