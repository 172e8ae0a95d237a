"""The tensors of a Hugging Face folder, in one file or in shards."""

import pathlib

from poly_jax.errors import UserError
from poly_jax.interop.safetensors_reader import open_tensors
from poly_jax.interop.shards import open_shards
from poly_jax.interop.tensors import Tensor
from poly_jax.interop.torch_reader import open_pickle

# Safetensors first: where both are there they hold the same, and these need no PyTorch.
_FILES = {"model.safetensors": open_tensors, "pytorch_model.bin": open_pickle}


def open_weights(folder: pathlib.Path) -> dict[str, Tensor]:
    """Every tensor by Hugging Face's name; nothing is read yet.

    Raises:
      UserError: no weights, or a shard or tensor that the index names is not there, or pickled ones without
        PyTorch to read them.
    """
    for name, open_file in _FILES.items():
        if (folder / name).exists():
            return open_file(folder / name)
        if (index := folder / f"{name}.index.json").exists():
            return open_shards(index, open_file)
    names = [name for file in _FILES for name in (file, f"{file}.index.json")]
    raise UserError(f"{folder} has neither {' nor '.join(names)}; copy the model's weights there")
