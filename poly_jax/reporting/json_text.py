"""JSON that every reader of JSON understands: numbers that are not defined are null."""

import json
import math
from typing import Any


def defined(value: Any) -> Any:
    """The value with None in place of every NaN and infinity, in its lists and dictionaries too.

    Python's `json` would write bare `NaN` and `Infinity`, which are not JSON.
    """
    if isinstance(value, dict):
        return {key: defined(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [defined(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def json_text(value: Any, indent: int | None = None) -> str:
    """The value as JSON, with null for every number that is not defined."""
    return json.dumps(defined(value), indent=indent, allow_nan=False)
