"""The files with task names and settings that lie beside the T5X checkpoints of a model with adapters."""

from etils import epath

from poly_jax.configuration.gin_text import bindings
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment

TASKS = "tasks.json"
SETTINGS = "model.gin"

_HEADER = "# The T5, adapters and decoding of the checkpoints beside this file."


def write_description(folder: str, experiment: Experiment, table: TaskTable) -> None:
    """Write `tasks.json`, the names in the order of their ids, and `model.gin`, which describes the model.

    Args:
      folder: local or gs:// folder of the checkpoints.
      experiment: experiment whose model, adapters and decoding are written.
      table: table of the tasks that its routers know.
    """
    place = epath.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    # T5X's checkpoints have separate layers, even where the run stacks them.
    lines = [_HEADER, "", *bindings(experiment.model, skip=("scan_layers", "remat"))]
    if experiment.adapters is not None:
        lines += ["", "Experiment.adapters = @Adapters", *bindings(experiment.adapters, skip=("n_tasks",))]
    lines += ["", *bindings(experiment.decoding)]
    (place / SETTINGS).write_text("\n".join(lines) + "\n")
    table.save(place / TASKS)


def read_described_tasks(checkpoint: str) -> TaskTable:
    """Read the task table of a checkpoint.

    Args:
      checkpoint: folder of the checkpoint, or the folder above it.

    Raises:
      UserError: neither folder has a table.
    """
    found = _beside(checkpoint, TASKS)
    if found is not None:
        return TaskTable.load(found)
    raise UserError(
        f"no {TASKS} in {checkpoint} or above, which gives tasks their ids; it is written by poly_jax's "
        "gin/t5x/train.gin and by `poly-jax export --format=t5x_adapters`"
    )


def settings_file(checkpoint: str) -> str | None:
    """Return the path of a checkpoint's `model.gin`, if it has one."""
    found = _beside(checkpoint, SETTINGS)
    return None if found is None else str(found)


def _beside(checkpoint: str, name: str) -> epath.Path | None:
    """Find the nearest file of this name in a checkpoint's folder or one of the two above it, or None."""
    place = epath.Path(checkpoint).expanduser()
    found = (folder / name for folder in (place, place.parent, place.parent.parent))
    return next((file for file in found if file.exists()), None)
