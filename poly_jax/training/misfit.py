"""The settings by which a model's adapters differ from those of a checkpoint, for an error about shapes."""

from collections.abc import Mapping

from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.weights.parameter_names import is_private
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.tree import flatten


def differing_settings(model: Transformer, found: Mapping[str, Tensor]) -> str:
    """Name the settings that give the model's skills and routers other sizes than a checkpoint's.

    Args:
      model: the model.
      found: the checkpoint's tensors, by the names of their parameters.

    Returns:
      A clause for each setting, such as "LoRA.rank is 2, and the checkpoint has 4"; "" where none is known.
    """
    if model.adapters is None:
        return ""
    settings = {"splits": "Adapters.n_splits", "lora_rank": f"{type(model.adapters.skill).__name__}.rank"}
    if not model.adapters.router.owns_skills:
        settings["skills"] = "Adapters.n_skills"
    shapes, axes = (flatten(tree) for tree in parameter_shapes(model))
    differing = {}
    for name in sorted(axes.keys() & found.keys()):
        here, there = shapes[name].shape, found[name].shape
        # The rank of a private skill is a setting of its own.
        if not len(axes[name]) == len(here) == len(there) or is_private(name):
            continue
        for axis, ours, theirs in zip(axes[name], here, there, strict=True):
            if axis in settings and ours != theirs:
                differing[settings[axis]] = f"{settings[axis]} is {ours}, and the checkpoint has {theirs}"
    return "; ".join(differing.values())
