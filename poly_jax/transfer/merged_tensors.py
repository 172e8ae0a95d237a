"""The operations that merge tensors of several skills, as in PEFT's `peft/utils/merge_utils.py`."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from poly_jax.transfer.merging import MajoritySign

Tensors = Float[Array, "skills *shape"]
Weights = Float[Array | np.ndarray, "skills"]


def weighted_sum(tensors: Tensors, weights: Weights) -> Float[Array, "*shape"]:
    """`sum_k w_k T_k`."""
    return jnp.tensordot(jnp.asarray(weights, tensors.dtype), tensors, axes=1)


def largest(tensors: Tensors, density: float) -> Tensors:
    """Keep the share `density` of the numbers of each tensor that are largest in magnitude, and 0 elsewhere.

    The share is taken of the numbers that are not 0, so zeros with which a smaller rank was padded do not
    count.
    """
    flat = tensors.reshape(len(tensors), -1)
    magnitudes = jnp.abs(flat)
    places = jnp.argsort(jnp.argsort(-magnitudes, axis=1), axis=1)
    there = jnp.sum(flat != 0, axis=1)
    # PEFT rounds in double precision, which is done here where no number is 0.
    whole = math.floor(density * flat.shape[1])
    kept = jnp.where(there == flat.shape[1], whole, jnp.floor(density * there).astype(int))
    return jnp.where(places < kept[:, None], flat, 0).reshape(tensors.shape)


def kept_at_random(tensors: Tensors, uniform: Tensors, density: float) -> Tensors:
    """Keep numbers where `uniform` is below the density, divided by the density, and 0 elsewhere."""
    return jnp.where(uniform < density, tensors, 0) / density


def majority_signs(tensors: Tensors, method: MajoritySign) -> Bool[Array, "skills *shape"]:
    """A mask of the numbers with the majority's sign: that of the sum ("total") or of most ("frequency").

    A sum of 0 counts as positive, and a number that is 0 has no sign.
    """
    signs = jnp.sign(tensors)
    total = jnp.sum(tensors if method == "total" else signs, axis=0)
    return signs == jnp.where(total >= 0, 1, -1)


def disjoint_mean(
    tensors: Tensors, weights: Weights, there: Bool[Array, "skills *shape"]
) -> Float[Array, "*shape"]:
    """The sum of the weighted numbers of the skills that are `there`, over the number of these skills."""
    total = weighted_sum(jnp.where(there, tensors, 0), weights)
    return total / jnp.maximum(jnp.sum(there, axis=0), 1)
