"""Reads adapters from a checkpoint of any supported kind."""

import dataclasses
import pathlib

import numpy as np

from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import AdapterCheckpoint
from poly_jax.interop.finite import finite
from poly_jax.interop.mttl.reader import mttl_adapters
from poly_jax.interop.peft.folder import CONFIG, open_peft
from poly_jax.interop.peft.ia3 import ia3_adapters
from poly_jax.interop.peft.lora import lora_adapters
from poly_jax.interop.peft.poly import poly_adapters
from poly_jax.model.config import T5Config
from poly_jax.weights.parameter_names import Granularity
from poly_jax.weights.safetensors_reader import open_tensors, text_metadata
from poly_jax.weights.tensors import Tensor, Tensors, of_tree
from poly_jax.weights.torch_reader import SUFFIXES, open_pickle


def holds_adapters(path: str) -> bool:
    """Whether `read_adapters` reads this path, which otherwise is a backbone."""
    place = pathlib.Path(path).expanduser()
    if place.is_dir():
        return (place / CONFIG).exists()
    if place.suffix == ".safetensors" and place.exists():
        return text_metadata(place).get("format") != "poly_jax"
    return place.suffix in (".npz", *SUFFIXES)


def read_adapters(
    path: str, config: T5Config, backbone: Tensors | None = None, granularity: Granularity | None = None
) -> AdapterCheckpoint:
    """Read the adapters at a path.

    Args:
      path: path of a PEFT folder with LoRA, (IA)^3 or Poly; or of a file with tensors of the reference
        implementation or T-Few, as safetensors, npz or, where PyTorch is installed, a PyTorch file.
      config: configuration of the model that they adapt.
      backbone: parameters of that model by T5X's names, one per layer. They are read only where the adapters
        are relative to them (PiSSA, OLoRA).
      granularity: the maps that share a router, where the file leaves it open; None if the user chose none.

    Raises:
      UserError: there is nothing readable at the path, the kind of adapter is not supported, the adapter does
        not fit the model, or a tensor is not finite.
    """
    place = pathlib.Path(path).expanduser()
    if not place.is_dir():
        return mttl_adapters(finite(open_adapter_file(place), path), config, path, granularity)
    folder = open_peft(place)
    folder = dataclasses.replace(folder, tensors=finite(folder.tensors, folder.file))
    match folder.config.get("peft_type"):
        case "POLY":
            return poly_adapters(folder, config)
        case "LORA":
            return lora_adapters(folder, config, backbone or {})
        case "IA3":
            return ia3_adapters(folder, config)
        case kind:
            raise UserError(f"{folder.config_file}: peft_type is {kind!r}; only LORA, IA3 and POLY are read")


def open_adapter_file(file: pathlib.Path) -> dict[str, Tensor]:
    """Open the tensors of a file of the reference implementation or of T-Few, without checking them.

    Raises:
      UserError: the file is missing or broken.
    """
    if file.suffix == ".npz":
        try:
            with np.load(file, allow_pickle=False) as stored:
                return of_tree(dict(stored))
        except FileNotFoundError:
            raise UserError(f"{file} is missing; copy it there") from None
        # zipfile, zlib and numpy's parser raise many errors; numpy refuses pickles with ValueError.
        except Exception as e:
            raise UserError(f"{file} cannot be read as npz ({e}); copy it again") from e
    return open_pickle(file) if file.suffix in SUFFIXES else open_tensors(file)
