"""The frozen weights that a checkpoint refers to without a copy: another run's skills (MHR-z), a backbone."""

import dataclasses

from etils import epath

from poly_jax.errors import UserError
from poly_jax.training.saved_step import Origin, open_trained, read_origin
from poly_jax.training.saved_steps import FOLDER, saved_steps
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.content_hash import content_hash, same_contents
from poly_jax.weights.parameter_names import is_skill
from poly_jax.weights.tensors import Tensors


def on_skills_of(origin: Origin, step: epath.Path) -> Origin:
    """Return the origin of a checkpoint that builds on the skills of a step.

    Args:
      origin: origin of the checkpoint without these skills.
      step: folder of the checkpoint with the skills.
    """
    return dataclasses.replace(
        origin, adapters=str(step.absolute()), adapters_hash=content_hash(_skills(step.absolute()))
    )


def skills_below(origin: Origin, step: epath.Path) -> epath.Path | None:
    """Find the step folder with the skills that a checkpoint builds on; None if it has its own skills.

    Args:
      origin: origin of the checkpoint.
      step: folder of the checkpoint, for messages.

    Raises:
      UserError: the folder with the skills is gone, or the skills there have changed.
    """
    if origin.adapters is None:
        return None
    below = epath.Path(origin.adapters)
    if not (below / "trained").is_dir():
        raise UserError(
            f"{step} trains a router for the skills of {below}, which is gone; copy it back, or adapt the run"
            " again"
        )
    recorded = origin.adapters_hash
    if recorded is not None and not _has_skills(below, recorded):
        raise UserError(
            f"{step} trains a router for the skills of {below}, and the skills there have changed since;"
            " adapt the run again"
        )
    return below


def check_resumed(run: epath.Path, origin: Origin) -> None:
    """Check that a resumed run builds on the same backbone and skills as its newest readable checkpoint.

    Args:
      run: the run's folder, which may have no checkpoint yet.
      origin: origin of the run now, with the content hashes of the weights that were just loaded.

    Raises:
      UserError: the contents of the backbone, or of the skills below, have changed.
    """
    for number in sorted(saved_steps(run), reverse=True):
        step = run / FOLDER / str(number)
        try:
            saved = read_origin(step)
        except UserError:
            continue  # The checkpoint is damaged, so that the run goes on from an earlier one.
        break
    else:
        return
    if not same_contents(
        saved.backbone_hash, origin.backbone_hash, lambda: open_backbone(str(origin.backbone)).tensors
    ):
        raise UserError(
            f"{origin.backbone} is not the backbone that {step} was trained on (their contents differ); put"
            " the right one there, choose another --output_dir, or bind Experiment.check_backbone to False"
        )
    if not same_contents(
        saved.adapters_hash, origin.adapters_hash, lambda: _skills(epath.Path(str(origin.adapters)))
    ):
        raise UserError(
            f"the skills in {origin.adapters} have changed since {step} was trained on them; choose another"
            " --output_dir"
        )


def _has_skills(step: epath.Path, recorded: str) -> bool:
    return same_contents(recorded, content_hash(_skills(step)), lambda: _skills(step))


def _skills(step: epath.Path) -> Tensors:
    return {name: tensor for name, tensor in open_trained(step).items() if is_skill(name)}
