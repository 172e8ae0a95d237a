"""Reads a JSON object from a file and says what is wrong with it."""

import json
import pathlib
from typing import Any

from poly_jax.errors import UserError


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: the file is missing or holds something else; broken JSON is named with its position.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(
            f"{path} cannot be read ({e.strerror}); it belongs to the folder, copy it there"
        ) from e
    except ValueError as e:
        raise UserError(f"{path} is not valid JSON ({e}); copy it again") from e
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}, not an object; copy it again")
    return content
