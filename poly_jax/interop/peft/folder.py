"""The two files of a PEFT adapter folder: its configuration and its tensors."""

import dataclasses
import os
import pathlib
from typing import Any

from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.weights.safetensors_reader import open_tensors
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.torch_reader import open_pickle

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclasses.dataclass(frozen=True)
class PeftFolder:
    """An adapter that PEFT saved.

    Attributes:
      config: content of `adapter_config.json`.
      config_file: its path, for messages.
      tensors: by PEFT's names, not yet read.
      file: where they are, for messages.
    """

    config: dict[str, Any]
    config_file: pathlib.Path
    tensors: dict[str, Tensor]
    file: pathlib.Path

    def size(self, key: str) -> int:
        """A number of the configuration.

        Raises:
          UserError: it is none.
        """
        value = self.config.get(key)
        if not isinstance(value, int):
            raise UserError(
                f"{self.config_file}: {key} is {value!r}, not a number; take the adapter's own config"
            )
        return value

    def refuse(self, **supported: Any) -> None:
        """Raises a UserError where an option is set to another than the only value that is supported.

        None and empty values are alike.
        """
        for key, value in supported.items():
            found = self.config.get(key, value)
            if (found or None) != (value or None):
                raise UserError(
                    f"{self.config_file}: {key} is {found!r}, which is not supported; only {value!r} is"
                )


def open_peft(folder: str | os.PathLike) -> PeftFolder:
    """An adapter folder with `adapter_config.json` and `adapter_model.safetensors`.

    `adapter_model.bin` is read likewise, where PyTorch is installed.

    Raises:
      UserError: a file is missing or broken.
    """
    place = pathlib.Path(folder).expanduser()
    config = read_json(place / CONFIG)
    file = place / WEIGHTS
    pickled = place / "adapter_model.bin"
    if not file.exists() and pickled.exists():
        return PeftFolder(config, place / CONFIG, open_pickle(pickled), pickled)
    return PeftFolder(config, place / CONFIG, open_tensors(file), file)
