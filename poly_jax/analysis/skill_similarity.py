"""The similarity of the skills of an inventory, and clusters of similar skills."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans

from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.skill import Skill
from poly_jax.analysis.agreement import cosines
from poly_jax.errors import UserError
from poly_jax.weights.parameter_names import axis as axis_of
from poly_jax.weights.parameter_names import by_module, is_inventory

_COMPONENTS = 64
_STARTS = 10


def skill_similarity(skill: Skill, arrays: Mapping[str, np.ndarray]) -> Float[np.ndarray, "skills skills"]:
    """Cosines between the changes that the skills of an inventory make, over all sites together.

    LoRA changes a kernel by A B. These updates are compared and not the factors: skills that are drawn apart
    describe the same update by different factors. No update is built, because the inner product of two is
    that of A[s]^T A[t] and B[s] B[t]^T. (IA)^3 changes an output by v - 1.

    More than 64 skills are compared by the projections of their updates on the first 64 singular vectors.

    Args:
      skill: the kind of the skills.
      arrays: parameters `[splits, skills, ...]` by '/'-joined name, with layers apart.

    Returns:
      The cosines; 0 beside a skill that changes nothing.

    Raises:
      UserError: the skills are of another kind, or not finite.
    """
    if not isinstance(skill, LoRA | IA3):
        raise UserError(f"the skills are {type(skill).__name__}; only LoRA and IA3 skills are compared")
    by_skill = {
        path: np.moveaxis(array, axis, 0).astype(np.float64)
        for path, array in arrays.items()
        if is_inventory(path) and (axis := axis_of(path, "skills")) is not None
    }
    products = np.sum([_products(leaves) for leaves in by_module(by_skill).values()], axis=0)
    if not np.isfinite(products).all():
        raise UserError("the skills have numbers that are not finite; give an earlier checkpoint")
    if len(products) > _COMPONENTS:
        values, vectors = np.linalg.eigh(products)
        kept = vectors[:, -_COMPONENTS:] * np.sqrt(np.maximum(values[-_COMPONENTS:], 0))
        # What rounding leaves of a skill that changes nothing has no direction.
        kept[np.diag(products) == 0] = 0
        products = kept @ kept.T
    return cosines(products)


def _products(leaves: Mapping[str, np.ndarray]) -> Float[np.ndarray, "skills skills"]:
    """Inner products of the changes at one site, from arrays [skills, splits, ...]."""
    if "ia3" in leaves:
        change = leaves["ia3"].reshape(len(leaves["ia3"]), -1) - 1
        return change @ change.T
    a, b = leaves["lora_a"], leaves["lora_b"]
    n_skills, rank = len(a), a.shape[-1]
    # Rows are all pairs of a skill and a place of its inner dimension.
    left = np.moveaxis(a, -1, 1).reshape(n_skills * rank, -1)
    right = np.moveaxis(b, -2, 1).reshape(n_skills * rank, -1)
    pairs = (left @ left.T) * (right @ right.T)
    return pairs.reshape(n_skills, rank, n_skills, rank).sum(axis=(1, 3))


def similar_skills(
    similarity: Float[np.ndarray, "skills skills"], count: int, seed: int = 0
) -> Int[np.ndarray, "skills"]:
    """Cluster skills by k-means on their similarities to all skills (MBC, arXiv 2405.11157).

    Args:
      similarity: cosines of the skills.
      count: number of clusters.
      seed: seed of the ten starts of k-means.

    Returns:
      The cluster of each skill; clusters are numbered from 0 in the order of their first skills.

    Raises:
      UserError: there are fewer skills that differ than clusters.
    """
    distinct = len(np.unique(similarity.round(6), axis=0))
    if count > distinct:
        raise UserError(
            f"there are {len(similarity)} skills, {distinct} of them different, which do not make {count}"
            f" clusters; ask for at most {distinct}"
        )
    labels = KMeans(count, n_init=_STARTS, random_state=seed).fit(similarity).labels_
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([numbers[label] for label in labels.tolist()])
