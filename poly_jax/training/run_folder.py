"""A run's folder: its configuration, and the check that it is this run's."""

import dataclasses
import difflib
from typing import Any

import gin
import jax
import orbax.checkpoint as ocp
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.training.checkpoints import FOLDER, Origin, saved_steps

CONFIG = "config.gin"
OPERATIVE = "operative_config.gin"


def claim(folder: epath.Path) -> None:
    """Makes the folder this run's, or finds that it is, so that the run goes on from its checkpoints.

    The run's configuration is what its gin files and bindings say, written to `config.gin`.

    Raises:
      UserError: the folder holds another run, or something else.
    """
    config = gin.config_str(max_line_length=100)
    path = folder / CONFIG
    if path.exists():
        there = path.read_text()
        if there == config:
            return
        if saved_steps(folder):
            raise UserError(
                f"{folder} holds another run ({_difference(there, config)}); choose another --output_dir or"
                " delete it"
            )
        # A start that failed: there is nothing to keep from the corrected one.
        if jax.process_index() == 0:
            path.write_text(config)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds no run of this program; choose another --output_dir")
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(config)


def save_operative_config(folder: epath.Path) -> None:
    """Writes every value that was used, defaults included, to `operative_config.gin`."""
    if jax.process_index() == 0:
        (folder / OPERATIVE).write_text(gin.operative_config_str(max_line_length=100))


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
        claim(place)
        with ocp.CheckpointManager((place / FOLDER).absolute()) as manager:
            manager.save(
                0,
                args=ocp.args.Composite(
                    trained=ocp.args.StandardSave(trained),
                    tasks=ocp.args.JsonSave(list(table.names)),
                    origin=ocp.args.JsonSave(dataclasses.asdict(origin)),
                ),
            )


def _difference(there: str, here: str) -> str:
    lines = difflib.ndiff(there.splitlines(), here.splitlines())
    changed = [line for line in lines if line[:2] in ("- ", "+ ") and line[2:].strip() and line[2] != "#"]
    old = next((line[2:] for line in changed if line[0] == "-"), "nothing")
    new = next((line[2:] for line in changed if line[0] == "+"), "nothing")
    return f"it has {old!r} where this one has {new!r}"
