"""The folder of a run: writes its configuration, and checks that the folder belongs to the run."""

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from typing import Any

import filelock
import orbax.checkpoint as ocp
from etils import epath

from poly_jax.configuration import CONFIG_FILE as CONFIG
from poly_jax.configuration import Texts, sealed
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.files.text_file import read_text
from poly_jax.files.whole_file import write_whole
from poly_jax.reporting.output_folder import check_writable
from poly_jax.training.hosts import on_first_host
from poly_jax.training.saved_step import Origin, items
from poly_jax.training.saved_steps import FOLDER, saved_steps

_WITHOUT_MEANING = ("#", "import ", "from ")
_MAY_CHANGE = re.compile(
    r"((train|adapt)\.(steps|save_every|report_every|keep_checkpoints|keep_best|non_finite)"
    r"|Experiment\.check_backbone|Partitioning\.\w+|(\w+/)?(train|adapt|evaluate|infer)\.partitioning) ="
)
"""Bindings that may differ when a run is resumed: its length, its reports and its devices."""
OPERATIVE = "operative_config.gin"
_LOCK = ".lock"
# `is_locked` holds the lock for a moment.
_PATIENCE = 0.5


@contextlib.contextmanager
def claimed(folder: epath.Path, texts: Texts) -> Iterator[None]:
    """Hold a run's folder while the block works on it; `claim` it first.

    Raises:
      UserError: the folder holds another run or other files, or another program is working on the run.
    """
    with contextlib.ExitStack() as held:

        def take() -> None:
            check_folder(folder, texts)
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder))
            claim(folder, texts)

        on_first_host(take)
        yield


def claim(folder: epath.Path, texts: Texts) -> None:
    """Start a run in a folder, or check that the folder holds this run, which is then resumed.

    The configuration is written to `config.gin`, and every value that was used to `operative_config.gin`.

    Raises:
      UserError: the folder holds another run or other files.
    """
    check_folder(folder, texts)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CONFIG
    # Without a checkpoint, nothing is lost if the configuration of an earlier start is replaced.
    if not path.exists() or _meaning(_read(path)) != _meaning(texts.config) or _changed(path, texts):
        write_whole(path, sealed(texts.config))
    if texts.operative is not None:
        write_whole(folder / OPERATIVE, texts.operative())


def check_free(folder: epath.Path, texts: Texts, names: Collection[str] | None = None) -> None:
    """Check before anything is read that `claimed` would hold a folder.

    Args:
      folder: folder of the run.
      texts: as for `check_folder`.
      names: as for `check_folder`.

    Raises:
      UserError: the folder holds another run or other files, it cannot be written, or another program is
        working on the run.
    """
    check_folder(folder, texts, names)
    check_writable(folder)
    if is_locked(folder):
        raise _in_use(folder)


def check_folder(folder: epath.Path, texts: Texts, names: Collection[str] | None = None) -> None:
    """Check that a run may start or be resumed in a folder.

    Args:
      folder: folder of the run.
      texts: the configuration of the run.
      names: the bindings that are known already and are compared, such as "Data.mixture"; None for all.

    Raises:
      UserError: the folder holds another run or other files.
    """
    path = folder / CONFIG
    if path.exists():
        there, here = (_named(_meaning(text), names) for text in (_read(path), texts.config))
        if there != here and saved_steps(folder):
            raise UserError(
                f"{folder} holds another run ({_difference(there, here)}); choose another"
                " --output_dir or delete it"
            )
    elif folder.exists() and (not folder.is_dir() or any(file.name != _LOCK for file in folder.iterdir())):
        raise UserError(f"{folder} exists and holds no run of this program; choose another --output_dir")


@contextlib.contextmanager
def locked(folder: epath.Path) -> Iterator[None]:
    """Hold the lock of a local folder, which the operating system releases when the process ends.

    Raises:
      UserError: another program holds it.
    """
    if "://" in os.fspath(folder):
        yield
        return
    lock = filelock.FileLock(os.fspath(folder / _LOCK), timeout=_PATIENCE)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise _in_use(folder) from None
    try:
        yield
    finally:
        lock.release()


def _in_use(folder: epath.Path) -> UserError:
    return UserError(
        f"another program is working in {folder}; wait until it ends, or choose another --output_dir"
    )


def is_locked(folder: epath.Path) -> bool | None:
    """Whether a program is working on a run now; None where this cannot be told."""
    if "://" in os.fspath(folder):
        return None
    if not (folder / _LOCK).exists():
        return False
    try:
        with filelock.FileLock(os.fspath(folder / _LOCK), timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return None


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
                args=items(trained, table, origin),
            )


def _read(path: epath.Path) -> str:
    return read_text(path, advice="choose another --output_dir")


def _meaning(config: str) -> list[str]:
    """Return the statements that the run's results depend on, without comments and imports."""
    return [line for line in _statements(config) if not _MAY_CHANGE.match(line)]


def _changed(path: epath.Path, texts: Texts) -> bool:
    return _statements(_read(path)) != _statements(texts.config)


def _statements(config: str) -> list[str]:
    """Return the statements of a gin file, each in one line, without comments and imports."""
    joined = re.sub(r"\\\n\s*", "", config)
    lines = (" ".join(line.split()) for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith(_WITHOUT_MEANING)]


def _named(statements: list[str], names: Collection[str] | None) -> list[str]:
    """Return the statements that bind one of the names; all where no names are given."""
    return [line for line in statements if names is None or line.partition(" =")[0] in names]


def _difference(there: list[str], here: list[str]) -> str:
    ours, theirs = ({line.partition(" =")[0]: line for line in lines} for lines in (here, there))
    name = next((name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)), "")
    old, new = theirs.get(name), ours.get(name)
    if old is None and new is None:
        return "it has its bindings in another order"
    if old is None:
        return f"it lacks {new!r}"
    if new is None:
        return f"it has {old!r}, which this one lacks"
    return f"it has {old!r} where this one has {new!r}"
