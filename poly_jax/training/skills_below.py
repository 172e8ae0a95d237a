"""The skills of another run that a checkpoint builds on without a copy of them (MHR-z)."""

import dataclasses

from etils import epath

from poly_jax.errors import UserError
from poly_jax.training.checkpoints import Origin, open_trained
from poly_jax.weights.content_hash import content_hash
from poly_jax.weights.parameter_names import is_skill
from poly_jax.weights.tensors import Tensors


def on_skills_of(origin: Origin, step: epath.Path) -> Origin:
    """The origin of what builds on a step's skills."""
    return dataclasses.replace(
        origin, adapters=str(step.absolute()), adapters_hash=content_hash(_skills(step.absolute()))
    )


def skills_below(origin: Origin, step: epath.Path) -> epath.Path | None:
    """The step folder with the skills that a checkpoint builds on; None where it has its own.

    Args:
      origin: that of the checkpoint.
      step: the checkpoint, for messages.

    Raises:
      UserError: the folder is gone, or holds other skills by now.
    """
    if origin.adapters is None:
        return None
    below = epath.Path(origin.adapters)
    if not (below / "trained").is_dir():
        raise UserError(
            f"{step} trains a router for the skills of {below}, which is gone; adapt the run anew"
        )
    if origin.adapters_hash is not None and content_hash(_skills(below)) != origin.adapters_hash:
        raise UserError(
            f"{step} trains a router for the skills of {below}, which are others by now; adapt the run anew"
        )
    return below


def _skills(step: epath.Path) -> Tensors:
    return {name: tensor for name, tensor in open_trained(step).items() if is_skill(name)}
