"""Reads the vectors of a PEFT (IA)^3 folder."""

import re

from poly_jax.adapters.ia3 import IA3
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import AdapterCheckpoint, adapted_sites, map_of_module
from poly_jax.interop.peft.folder import PREFIX, PeftFolder
from poly_jax.model.config import T5Config
from poly_jax.routing.fixed import SharedRouter
from poly_jax.weights.parameter_names import adapted_map, skills_of
from poly_jax.weights.tree import listing, unflatten


def ia3_adapters(folder: PeftFolder, config: T5Config) -> AdapterCheckpoint:
    """The vectors of a folder of PEFT's (IA)^3 as an inventory of one skill that all tasks share.

    A vector [d_out, 1] rescales its map's output, as here. One of a "feedforward" map, [1, d_in], rescales
    its input: where the map is the MLP's `wo`, that is the output of the MLP's last input map, whose
    activation is linear when the MLP is gated and must let a factor through when it is ReLU.

    Args:
      folder: the adapter.
      config: the model that it adapts.

    Raises:
      UserError: an option is set that this project's (IA)^3 lacks, or a tensor is unknown or rescales what
        cannot be rescaled here.
    """
    folder.refuse(modules_to_save=None)
    leaves = {}
    unknown = []
    for tensor, stored in folder.tensors.items():
        m = re.fullmatch(rf"{re.escape(PREFIX)}(.+?)\.ia3_l", tensor)
        path = map_of_module(m[1]) if m else None
        if path is None or 1 not in stored.shape or len(stored.shape) != 2:
            unknown.append(tensor)
            continue
        vector = stored.load().reshape(-1)
        if stored.shape[0] == 1:
            path = _before(path, config, tensor, folder)
            if config.mlp_activations == ("relu",) and (vector < 0).any():
                raise UserError(
                    f"{folder.file}: {tensor} has negative factors, which do not pass through the ReLU of a "
                    "T5 v1.0; merge the adapter with PEFT and import the model"
                )
        if f"{skills_of(path)}/ia3" in leaves:
            raise UserError(f"{folder.file}: {tensor} rescales what another vector rescales already")
        leaves[f"{skills_of(path)}/ia3"] = vector[None, None]
    if unknown:
        raise UserError(
            f"{folder.file} has {len(unknown)} tensors that are not (IA)^3's on a T5 ({listing(unknown)})"
        )
    paths = [adapted_map(name) for name in leaves]
    sites = adapted_sites(paths, folder.file)
    return AdapterCheckpoint(unflatten(leaves), IA3(), SharedRouter(), 1, 1, 1, sites)


def _before(path: str, config: T5Config, tensor: str, folder: PeftFolder) -> str:
    """The map whose output is the input of the one at `path`."""
    mlp, module = path.rsplit("/", 1)
    if module != "wo":
        raise UserError(
            f"{folder.file}: {tensor} rescales the input of {module}; only that of wo can be rescaled"
        )
    return f"{mlp}/{config.mlp_inputs[-1]}"
