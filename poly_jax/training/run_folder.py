"""The folder of a run: writes its configuration, and checks that the folder belongs to the run."""

import dataclasses
import difflib
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from poly_jax.configuration import CONFIG_FILE as CONFIG
from poly_jax.configuration import Texts
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.files.text_file import read_text
from poly_jax.training.checkpoints import FOLDER, Origin, saved_steps

# A run may be resumed with the check of its backbone turned off.
_WITHOUT_MEANING = ("#", "import ", "from ", "Experiment.check_backbone ")
OPERATIVE = "operative_config.gin"


def claim(folder: epath.Path, texts: Texts) -> None:
    """Start a run in a folder, or check that the folder holds this run, which is then resumed.

    The configuration is written to `config.gin`, and every value that was used to `operative_config.gin`.

    Raises:
      UserError: the folder holds another run or other files.
    """
    path = folder / CONFIG
    if path.exists():
        there = _read(path)
        if _meaning(there) != _meaning(texts.config):
            if saved_steps(folder):
                raise UserError(
                    f"{folder} holds another run ({_difference(there, texts.config)}); choose another"
                    " --output_dir or delete it"
                )
            # The earlier start has no checkpoint, so nothing is lost if the configuration is replaced.
            _write(path, texts.config)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds no run of this program; choose another --output_dir")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, texts.config)
    if texts.operative is not None:
        _write(folder / OPERATIVE, texts.operative())


def write_run(folder: str, trained: dict[str, Any], table: TaskTable, origin: Origin, config: str) -> None:
    """Write a run folder at step 0, for evaluation, prediction and adaptation.

    The folder has no optimizer state, so training cannot be resumed from it.

    Args:
      folder: folder of the run, which must be empty if it exists.
      trained: skills and routers in the layout of the configuration's model.
      table: names of the tasks.
      origin: path and hash of the backbone.
      config: text of its `config.gin`.

    Raises:
      UserError: the folder is in use or cannot be written.
    """
    with new_folder(folder) as place:
        claim(place, Texts(config))
        with ocp.CheckpointManager((place / FOLDER).absolute()) as manager:
            manager.save(
                0,
                args=ocp.args.Composite(
                    trained=ocp.args.StandardSave(trained),
                    tasks=ocp.args.JsonSave(list(table.names)),
                    origin=ocp.args.JsonSave(dataclasses.asdict(origin)),
                ),
            )


def _write(path: epath.Path, text: str) -> None:
    if jax.process_index() == 0:
        path.write_text(text)


def _read(path: epath.Path) -> str:
    return read_text(path, advice="choose another --output_dir")


def _meaning(config: str) -> list[str]:
    """Return the lines of bindings that the run's results depend on, without comments and imports."""
    lines = (line.strip() for line in config.splitlines())
    return [line for line in lines if line and not line.startswith(_WITHOUT_MEANING)]


def _difference(there: str, here: str) -> str:
    lines = difflib.ndiff(there.splitlines(), here.splitlines())
    changed = [line for line in lines if line[:2] in ("- ", "+ ") and line[2:].strip() and line[2] != "#"]
    old = next((line[2:] for line in changed if line[0] == "-"), "nothing")
    new = next((line[2:] for line in changed if line[0] == "+"), "nothing")
    return f"it has {old!r} where this one has {new!r}"
