"""The values that a run's routers and skills had before its first step, made again as training made them."""

import dataclasses
import re

import jax
import numpy as np
from etils import epath

from poly_jax import configuration
from poly_jax.errors import UserError
from poly_jax.interop.run_experiment import run_experiment
from poly_jax.model.transformer import Transformer
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.mesh import Partitioning
from poly_jax.training.open_run import open_run
from poly_jax.training.restore import place_adapters
from poly_jax.training.run_folder import OPERATIVE
from poly_jax.transfer.adapted_from import AdaptedFrom
from poly_jax.transfer.start import initial_adapters
from poly_jax.transfer.variants import find
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.parameter_names import selects
from poly_jax.weights.tree import flatten, split


@dataclasses.dataclass(frozen=True)
class InitialValues:
    """What is known of them.

    Attributes:
      arrays: by '/'-joined name, with layers apart; those that are not known are not there.
      note: a sentence on those that are left out, or an empty one.
    """

    arrays: dict[str, np.ndarray]
    note: str = ""


def initial_values(step: epath.Path, model: Transformer, adapted: AdaptedFrom | None) -> InitialValues:
    """The initial values of what a run trained.

    A trained run's are all drawn from the `train.seed` of its `operative_config.gin`. An adapted run's come
    from the run that it was adapted from.

    Args:
      step: folder of a checkpoint.
      model: of the run.
      adapted: how an adapted run began.
    """
    if adapted is not None:
        return _begun(model, adapted)
    seed = re.search(r"^train\.seed = (\d+)$", _operative(step), re.MULTILINE)
    if seed is None:
        return InitialValues({}, "The run does not tell its seed, so that its initial values are not known.")
    return InitialValues(drawn_adapters(model, int(seed[1])))


def _begun(model: Transformer, adapted: AdaptedFrom) -> InitialValues:
    variant, mesh = find(adapted.variant), Partitioning().mesh()
    if not variant.trains:
        return InitialValues({}, "Nothing was trained here: the run is as it began.")
    unknown = f"The initial values are those of {adapted.step}, which this run was adapted from, and"
    if not epath.Path(adapted.step).is_dir():
        return InitialValues({}, f"{unknown} that is gone.")
    try:
        with configuration.instead(configuration.run_config(adapted.step)):
            source = place_adapters(open_run(adapted.step, run_experiment()), mesh)
        begun = initial_adapters(
            source, variant, model, adapted.seed, mesh, adapted.combination, adapted.init_router_from
        )
    except UserError as error:
        return InitialValues({}, f"{unknown} that cannot be read: {error}.")
    trained, kept = split(begun, selects(variant.trainable))
    note = "The skills are those of another run and were not trained here." if kept else ""
    return InitialValues(flatten(unstack_layers(jax.device_get(trained))), note)


def drawn_adapters(model: Transformer, seed: int) -> dict[str, np.ndarray]:
    """Fresh routers and skills of a model as `poly-jax train` draws them, with layers apart."""
    fresh = fresh_parameters(model, seed, Partitioning().mesh())
    return flatten(unstack_layers(jax.device_get(fresh)))


def _operative(step: epath.Path) -> str:
    path = step.parent.parent / OPERATIVE
    return path.read_text() if path.exists() else ""
