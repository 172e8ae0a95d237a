"""The file that says where in its data a run is."""

import json
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json

ADVICE = "copy the run's folder again, or start a new run in another --output_dir"


def write_position(filename: str | os.PathLike[str], settings: Mapping[str, Any], **place: Any) -> None:
    """Write a position.

    Args:
      filename: the path that the files of the position begin with; may be remote (gs://).
      settings: settings that must be the same where the position is read.
      **place: the position, as JSON has it.
    """
    _file(filename).write_text(json.dumps({"stream": dict(settings), **place}, indent=1) + "\n")


def read_position(
    filename: str | os.PathLike[str], settings: Mapping[str, Any], reading: str, mark: str
) -> Fields:
    """Read a position that was written with the same settings.

    Args:
      filename: the path that was written to.
      settings: this run's settings.
      reading: way in which this run reads its data, as `Data.reading` names it.
      mark: a field that positions of this way of reading have, and others do not.

    Raises:
      UserError: nothing was saved there, it is damaged, or it was saved with other settings.
    """
    path, name = _file(filename), os.fspath(filename)
    if not path.exists():
        raise UserError(f"no position of a data stream is saved at {name!r}; {ADVICE}")
    position = Fields(read_json(path, advice=ADVICE), path, ADVICE)
    saved = position.take("stream", dict)
    if mark not in position:
        other = "streamed" if reading == "indexed" else "indexed"
        raise UserError(
            f"the data stream saved at {name!r} was read with Data.reading = {other!r}, and this run has "
            f"{reading!r}; resume with {other!r}, which the run's config.gin must then have too"
        )
    for setting, ours in settings.items():
        if saved.get(setting) != ours:
            raise UserError(
                f"the data stream saved at {name!r} has {setting} {saved.get(setting)!r}, and this run has "
                f"{ours!r}; resume with the same, or start a new run"
            )
    return position


def _file(filename: str | os.PathLike[str]) -> epath.Path:
    return epath.Path(os.fspath(filename) + ".json")
