"""Positions in the data of a run, one for each checkpoint and host, with checksums of their files."""

import hashlib
import json
import re
from collections.abc import Collection

import jax
from etils import epath

from poly_jax.data.position import ADVICE
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.files.text_file import read_bytes
from poly_jax.files.whole_file import write_whole
from poly_jax.training.batches import Batches

FOLDER = "data"
_CHECKSUMS = ".checksums"
_MAX_BYTES = 1 << 36
_STEP = re.compile(r"(\d+)-host\d+(\..*)?")


def save_position(run: epath.Path, step: int, batches: Batches) -> None:
    """Write the position of this host's batches after a step, in the run's folder."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    name = _name(step, jax.process_index())
    batches.save(folder / name)
    digests = {file.name: _digest(file) for file in _files(folder, name)}
    write_whole(folder / f"{name}{_CHECKSUMS}", json.dumps(digests, indent=1) + "\n")


def restore_position(run: epath.Path, step: int, batches: Batches) -> None:
    """Take the batches to their position after a step.

    Where the run had fewer hosts, this host reads the position of host 0, which is the same for any number of
    hosts unless `Data.reading` is "streamed".

    Raises:
      UserError: there is no position, it is damaged, or it belongs to another stream.
    """
    folder = run / FOLDER
    name = _name(step, jax.process_index())
    if not (folder.is_dir() and _files(folder, name)):
        name = _name(step, 0)
    _check(folder / f"{name}{_CHECKSUMS}")
    batches.restore(folder / name)


def check_positions(run: epath.Path, step: int) -> None:
    """Check that a run can go on after a step: compare the positions of all hosts with their checksums.

    Raises:
      UserError: one of them is damaged, or there is none.
    """
    folder = run / FOLDER
    if not (folder.is_dir() and _files(folder, _name(step, 0))):
        raise UserError(f"{folder / _name(step, 0)}.json is missing; {ADVICE}")
    for checksums in sorted(folder.glob(f"{step}-host*{_CHECKSUMS}")):
        _check(checksums)


def _check(checksums: epath.Path) -> None:
    # Runs of earlier versions have no checksums of their positions.
    if not checksums.exists():
        return
    digests = Fields(read_json(checksums, advice=ADVICE), checksums, ADVICE)
    for file in digests:
        if _digest(checksums.parent / file) != digests.take(file, str):
            raise UserError(f"{checksums.parent / file} has changed since it was written; {ADVICE}")


def forget_positions(run: epath.Path, but: Collection[int]) -> None:
    """Delete the positions of all other steps, because each may hold a shuffle buffer. Host 0 does it."""
    if jax.process_index() or not (run / FOLDER).is_dir():
        return
    for path in (run / FOLDER).iterdir():
        match = _STEP.fullmatch(path.name)
        if match and int(match[1]) not in but:
            path.unlink(missing_ok=True)


def _name(step: int, host: int) -> str:
    return f"{step}-host{host}"


def _files(folder: epath.Path, name: str) -> list[epath.Path]:
    """List the files of a position, whose names begin with its name and a dot."""
    return sorted(
        file
        for file in folder.iterdir()
        if (file.name == name or file.name.startswith(f"{name}.")) and not file.name.endswith(_CHECKSUMS)
    )


def _digest(file: epath.Path) -> str:
    return hashlib.sha256(read_bytes(file, _MAX_BYTES, ADVICE)).hexdigest()
