"""Which program wrote into a folder, so that another program does not write beside its files."""

import json
from typing import Literal

from etils import epath

from poly_jax.errors import UserError

Program = Literal["sweep", "reproduce", "demo", "routing"]
"""Programs that leave tables, figures and results in a folder, and no run at its top."""

# A file of this name is in the folder of every run that this project trains, adapts or imports.
_RUN_FILE = "config.gin"
_CHECKPOINTS = "checkpoints"
# What training writes into a run's folder, beside its checkpoints.
_RUN_FILES = (_RUN_FILE, "operative_config.gin", "metrics.jsonl")
_RUN_FOLDERS = (_CHECKPOINTS, "data")
_EVENTS = "events.out.tfevents."
_RESULTS = "results.jsonl"


def check_output_folder(folder: epath.PathLike, program: Program) -> None:
    """Check that a program may write into a folder: nothing there is a run's or another program's.

    A folder that does not exist, is empty, or holds only files that none of the programs writes is free.

    Raises:
      UserError: the folder is a file, or belongs to a run or to another program.
    """
    place = epath.Path(folder)
    if place.exists() and not place.is_dir():
        raise UserError(f"--output_dir={folder} is a file; give a folder")
    if run := _run_around(place):
        raise UserError(
            f"--output_dir={folder} holds a training run; give `poly-jax {program}` another folder, such as"
            f" {run / program}"
        )
    owner = _owner(place)
    if owner not in (None, program):
        raise UserError(
            f"--output_dir={folder} holds the files of `poly-jax {owner}`; give `poly-jax {program}` another"
            " folder"
        )


def check_output_file(path: epath.PathLike) -> None:
    """Check that a file of answers does not take the place of a file that a run needs.

    Raises:
      UserError: the file is one of a run's own, which its training wrote.
    """
    place = epath.Path(path)
    folders = list(place.parents)
    for run, below in zip(folders, ("", *(folder.name for folder in folders)), strict=False):
        own = below in _RUN_FOLDERS
        if not below:
            own = place.name in _RUN_FILES or place.name.startswith(_EVENTS)
        if own and (run / _RUN_FILE).exists():
            raise UserError(
                f"--output={path} is a file of the training run in {run}; give another file, such as"
                f" {run / 'answers.txt'}"
            )


def _run_around(folder: epath.Path) -> epath.Path | None:
    """The run that a folder is: its own folder, that of its checkpoints, or that of one step."""
    runs = [folder]
    if folder.name == _CHECKPOINTS:
        runs.append(folder.parent)
    if folder.parent.name == _CHECKPOINTS:
        runs.append(folder.parent.parent)
    return next((run for run in runs if (run / _RUN_FILE).exists()), None)


def _owner(folder: epath.Path) -> Program | None:
    if (folder / _RESULTS).exists():
        return _owner_of_results(folder / _RESULTS)
    # What each program leaves at its end.
    if (folder / "results.json").exists():
        return "demo"
    if (folder / "routing.json").exists():
        return "routing"
    return None


def _owner_of_results(path: epath.Path) -> Program | None:
    """The program whose results a file has; None where it has none, or where its first line is damaged."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        key = json.loads(line)["key"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    # A reproduction's keys say the stage of the study; a sweep's the digest of an adaptation's settings.
    return "reproduce" if "stage" in key else "sweep" if "setup" in key else None
