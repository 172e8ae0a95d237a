"""The program that wrote into a folder, so that no other program writes beside its files."""

import itertools
import json
import os
from typing import Literal

from etils import epath

from poly_jax.errors import UserError

Program = Literal["sweep", "reproduce", "demo", "routing", "eval", "prepare"]
"""Programs that leave tables, figures and results in a folder, and no run at its top."""

# A file of this name is in the folder of every run that this project trains, adapts or imports.
_RUN_FILE = "config.gin"
_CHECKPOINTS = "checkpoints"
# What training writes into a run's folder, beside its checkpoints.
_RUN_FILES = (_RUN_FILE, "operative_config.gin", "metrics.jsonl", "time_spent.json")
_RUN_FOLDERS = (_CHECKPOINTS, "data")
_EVENTS = "events.out.tfevents."
RESULTS = "results.jsonl"
"""The file in which a sweep and a reproduction have their results."""


def check_output_folder(folder: epath.PathLike, program: Program) -> None:
    """Check that a program may write into a folder: nothing there is a run's or another program's.

    A folder that does not exist, is empty, or holds only files that none of the programs writes is free.

    Raises:
      UserError: the folder is a file, cannot be written, or belongs to a run or to another program.
    """
    place = epath.Path(folder)
    if place.exists() and not place.is_dir():
        raise UserError(f"--output_dir={folder} is a file; give a folder")
    check_writable(place)
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


def check_writable(folder: epath.Path) -> None:
    """Check before hours of work that a folder can be made or written. Remote folders pass.

    Raises:
      UserError: neither is allowed.
    """
    if "://" in os.fspath(folder):
        return
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(
            f"--output_dir={folder} cannot be written, because {there} does not allow it; give another folder"
        )


def check_output_file(path: epath.PathLike) -> None:
    """Check that new output does not go among the files that a run needs, which its training wrote.

    Args:
      path: a file, or a folder that is to be made.

    Raises:
      UserError: the path is one of a run's own, or in one of its own folders.
    """
    place = epath.Path(path)
    if run := _run_with(place):
        raise UserError(f"--output={path} is among the files of the training run in {run}; give another path")


def _run_around(folder: epath.Path) -> epath.Path | None:
    """The run that a folder is, or that owns the folder; None for any other folder."""
    return folder if (folder / _RUN_FILE).exists() else _run_with(folder)


def _run_with(path: epath.Path) -> epath.Path | None:
    """The run that owns a path as one of its files or folders; None for any other path."""
    folders = [path, *path.parents]
    for below, run in itertools.pairwise(folders):
        own = below.name in _RUN_FOLDERS
        if below == path:
            own = own or path.name in _RUN_FILES or path.name.startswith(_EVENTS)
        if own and (run / _RUN_FILE).exists():
            return run
    return None


def _owner(folder: epath.Path) -> Program | None:
    if (folder / RESULTS).exists():
        return _owner_of_results(folder / RESULTS)
    # What each program leaves at its end.
    if (folder / "results.json").exists():
        return "demo"
    if (folder / "routing.json").exists():
        return "routing"
    if (folder / "metrics.json").exists():
        return "eval"
    if (folder / "prepare.json").exists():
        return "prepare"
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
