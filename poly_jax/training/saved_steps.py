"""The saved steps in a run's folder: which there are, the newest, the best, and those that are intact."""

import contextlib

from etils import epath

from poly_jax.errors import UserError
from poly_jax.training.retention import Score, best_step
from poly_jax.training.saved_step import damage, read_score

FOLDER = "checkpoints"


def step_folder(run: str | epath.Path) -> epath.Path:
    """Find the checkpoint that a path stands for: a step's folder, or the newest step of a run's folder.

    Raises:
      UserError: there is no checkpoint.
    """
    path = epath.Path(run)
    if (path / "origin").is_dir():
        return path
    steps = saved_steps(path)
    if not steps:
        raise UserError(f"{run} holds no checkpoint; give the --output_dir of a run that has saved one")
    return path / FOLDER / str(max(steps))


def saved_scores(run: str | epath.Path) -> dict[int, Score]:
    """Read the metrics that the checkpoints of a run were saved with, by step; damaged ones are left out."""
    found = {}
    for number in saved_steps(run):
        with contextlib.suppress(UserError):
            score = read_score(epath.Path(run) / FOLDER / str(number))
            if score is not None:
                found[number] = score
    return found


def best_checkpoint(run: str | epath.Path, metric: str) -> tuple[epath.Path, Score] | None:
    """Find the checkpoint of a run that is best by a metric, and its score; None where none has a score."""
    scores = saved_scores(run)
    step = best_step(scores, metric)
    return None if step is None else (epath.Path(run) / FOLDER / str(step), scores[step])


def saved_steps(run: str | epath.Path) -> list[int]:
    """List the steps of the complete checkpoints in a run's folder, in any order."""
    folder = epath.Path(run) / FOLDER
    names = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    return [int(name) for name in names if name.isdecimal()]


def beside(step: epath.Path) -> str:
    """Say which other checkpoint of the same run is intact, as the end of an error; "" where there is none.

    Args:
      step: folder of a damaged checkpoint.
    """
    folder = step.parent
    names = [child.name for child in folder.iterdir()] if folder.name == FOLDER and folder.is_dir() else []
    for number in sorted((int(name) for name in names if name.isdecimal()), reverse=True):
        other = folder / str(number)
        if other != step and damage(other, ["trained"]) is None:
            return f"; {other} is intact"
    return ""
