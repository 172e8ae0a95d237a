"""A run's folder with adapters that no training here has made: imported ones, or a Python session's."""

import dataclasses
from typing import Any

import orbax.checkpoint as ocp

from poly_jax.data.task_table import TaskTable
from poly_jax.interop.new_output import new_folder
from poly_jax.training import run_folder
from poly_jax.training.checkpoints import FOLDER, Origin


def write_run(folder: str, trained: dict[str, Any], table: TaskTable, origin: Origin) -> None:
    """Writes a run folder that can be evaluated, adapted from and asked for predictions, at step 0.

    Its configuration is gin's at the time. It has no optimizer's state: training cannot go on from it.

    Args:
      folder: of the run; it does not exist, or is empty.
      trained: skills and routers in the layout of the configuration's model.
      table: names of the tasks.
      origin: the backbone.

    Raises:
      UserError: the folder is in use or cannot be written.
    """
    with new_folder(folder) as place:
        run_folder.claim(place)
        with ocp.CheckpointManager((place / FOLDER).absolute()) as manager:
            manager.save(
                0,
                args=ocp.args.Composite(
                    trained=ocp.args.StandardSave(trained),
                    tasks=ocp.args.JsonSave(list(table.names)),
                    origin=ocp.args.JsonSave(dataclasses.asdict(origin)),
                ),
            )
