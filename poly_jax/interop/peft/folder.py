"""The two files of a PEFT adapter folder: its configuration and its tensors."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.interop.adapter_checkpoint import map_of_module
from poly_jax.weights import t5_names as names
from poly_jax.weights.safetensors_reader import open_tensors
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.torch_reader import open_pickle
from poly_jax.weights.tree import listing

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."

# The parts that torch.compile, DistributedDataParallel and FSDP add to the names of a model's tensors.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module)\.|^module\.")


@dataclasses.dataclass(frozen=True)
class PeftFolder:
    """An adapter that PEFT saved.

    Attributes:
      config: content of `adapter_config.json`.
      config_file: path of `adapter_config.json`, for messages.
      tensors: tensors by PEFT's names, which are not read yet.
      file: path of the tensors' file, for messages.
    """

    config: dict[str, Any]
    config_file: pathlib.Path
    tensors: dict[str, Tensor]
    file: pathlib.Path

    def size(self, key: str) -> int:
        """Return a number of the configuration.

        Raises:
          UserError: the value is not a whole number of 1 or more.
        """
        value = self.config.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(
                f"{self.config_file}: {key} is {value!r}, not a number of 1 or more; take the adapter's own"
                " config"
            )
        return value

    def check_ranks(self, stored: Mapping[str, Tensor], ranks: Mapping[str, tuple[int, int]]) -> None:
        """Check that tensors have the ranks that the configuration says.

        Args:
          stored: the tensors by name.
          ranks: for the name of each tensor, the axis of its rank and the rank that the configuration says.

        Raises:
          UserError: a tensor has another rank.
        """
        others = [
            (name, stored[name].shape[axis], rank)
            for name, (axis, rank) in sorted(ranks.items())
            if name in stored and len(stored[name].shape) > axis and stored[name].shape[axis] != rank
        ]
        if others:
            name, found, rank = others[0]
            more = f", as {len(others) - 1} more" if len(others) > 1 else ""
            raise UserError(
                f"{self.file}: {name} has rank {found}{more}, and {CONFIG} says rank {rank}; take both files"
                " from one adapter"
            )

    def adapter_tensors(self, leaves: Iterable[str], kind: str) -> dict[str, Tensor]:
        """Return the tensors under the names that PEFT uses when it saves an adapter.

        Wrappers around a model in training add parts such as `_orig_mod.` to these names. A tensor that PEFT
        did not save has the name of the adapter in its name, as in `lora_A.default.weight`.

        Args:
          leaves: PEFT's names of tensors beside an adapted map, such as `lora_A.weight`.
          kind: name of the kind of adapter, for messages.

        Raises:
          UserError: a tensor is not one of these on a T5, or there is more than one adapter.
        """
        known: dict[str, Tensor] = {}
        unknown: list[str] = []
        adapters: set[str] = set()
        prefixes: set[str] = set()
        pattern = re.compile("|".join(_with_adapter_name(leaf) for leaf in leaves))
        for name, tensor in self.tensors.items():
            m = re.fullmatch(r"(.*?)((?:encoder|decoder)\.block\..+)", _WRAPPERS.sub("", name))
            place = pattern.search(m[2]) if m else None
            module = m[2][: place.start()] if m and place else ""
            if m is None or place is None or map_of_module(module) is None:
                unknown.append(name)
                continue
            prefixes.add(m[1])
            adapters.update(found for found in place.groups() if found)
            leaf = next(leaf for leaf in leaves if re.fullmatch(_with_adapter_name(leaf), place[0]))
            whole = f"{PREFIX}{module}.{leaf}"
            if whole in known:
                raise UserError(f"{self.file} has {whole} twice, as {name} too; save one adapter alone")
            known[whole] = tensor
        if unknown:
            raise UserError(
                f"{self.file} has {counted(len(unknown), 'tensor')} besides {kind}'s on a T5"
                f" ({listing(unknown)})"
            )
        for several in (adapters, prefixes):
            if len(several) > 1:
                raise UserError(
                    f"{self.file} has tensors of {len(several)} adapters or models"
                    f" ({listing(map(repr, several))}); save one adapter alone"
                )
        return known


def _with_adapter_name(leaf: str) -> str:
    """Return a pattern for `lora_A.weight` that also matches `lora_A.default.weight`, grouping the name."""
    first, dot, rest = leaf.partition(".")
    return rf"\.{first}(?:\.([^.]+))?{re.escape(dot + rest)}$"


def maps_of(tensors: Iterable[str]) -> list[str]:
    """Return T5X's paths of the maps that tensors with PEFT's names adapt, in order."""
    modules = (re.sub(r"\.(?:lora_[AB]|ia3_l|poly_).*", "", name.removeprefix(PREFIX)) for name in tensors)
    return list(dict.fromkeys(str(names.to_t5x(module)) for module in modules))


def tensor_of(path: str, leaf: str) -> str:
    """Return PEFT's name of a tensor beside an adapted map, given T5X's path of the map."""
    return f"{PREFIX}{names.to_hugging_face(path)}.{leaf}"


def open_peft(folder: str | os.PathLike) -> PeftFolder:
    """Open an adapter folder with `adapter_config.json` and `adapter_model.safetensors`.

    Where PyTorch is installed, `adapter_model.bin` is read too.

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
