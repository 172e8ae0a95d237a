"""The agreement of a router's similarities between tasks with a known grouping of the tasks."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster import hierarchy
from scipy.spatial import distance
from sklearn.metrics import adjusted_rand_score

_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Two measures of agreement, and the p-value of the first.

    Attributes:
      correlation: Pearson correlation, over pairs of tasks, of the similarity of their mixing weights with
        the number of skills that they share.
      permutation_p: share of random relabellings of the tasks whose correlation is at least as high.
      adjusted_rand: adjusted Rand index of average-linkage clusters; both trees are cut into the same number
        of clusters.
    """

    correlation: float
    permutation_p: float
    adjusted_rand: float


def measure(vectors: Float[np.ndarray, "tasks features"]) -> str:
    """The measure that `similarity` uses: "correlation", or "cosine" where a task's weights are all equal."""
    return "cosine" if np.any(np.ptp(vectors, axis=1) == 0) else "correlation"


def similarity(vectors: Float[np.ndarray, "tasks features"]) -> Float[np.ndarray, "tasks tasks"]:
    """Pearson correlation of the mixing weights of every pair of tasks.

    Weights that are all equal have no correlation. If any task has such weights, cosines are used for all
    pairs.
    """
    if measure(vectors) == "correlation":
        return np.atleast_2d(np.corrcoef(vectors))
    return cosines(vectors.astype(np.float64) @ vectors.T)


def of_pairs(matrix: Float[np.ndarray, "tasks tasks"]) -> Float[np.ndarray, "pairs"]:
    """The values of a symmetric matrix for all pairs of different tasks, each pair once."""
    return matrix[np.triu_indices(len(matrix), k=1)]


def told_apart(alike: Float[np.ndarray, "tasks tasks"]) -> bool:
    """Whether some pairs of tasks are more similar than others, by more than the rounding of float32."""
    return bool(np.ptp(of_pairs(alike)) > _ROUNDING)


def cosines(products: Float[np.ndarray, "vectors vectors"]) -> Float[np.ndarray, "vectors vectors"]:
    """Cosines of vectors from their inner products; 0 for a pair with a zero vector."""
    norms = np.sqrt(np.diag(products))
    scale = np.outer(norms, norms)
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


def linkage(vectors: Float[np.ndarray, "tasks features"]) -> Float[np.ndarray, "merges 4"]:
    """Average-linkage tree over 1 - similarity."""
    dissimilar = np.clip(1 - similarity(vectors), 0, None)
    np.fill_diagonal(dissimilar, 0)
    return hierarchy.average(distance.squareform(dissimilar, checks=False))


def agreement(
    vectors: Float[np.ndarray, "tasks features"],
    skills: Int[np.ndarray, "tasks true_skills"],
    n_clusters: int | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Compare a router with the true skills of its tasks.

    Args:
      vectors: mixing weights of each task.
      skills: 1 where a task needs a skill, else 0.
      n_clusters: number of clusters that both trees are cut into; None for the number of true skills.
      permutations: number of random relabellings for the p-value.
      seed: seed of the relabellings.
    """
    learned = of_pairs(similarity(vectors))
    shared = (skills @ skills.T).astype(float)
    correlation = float(np.corrcoef(learned, of_pairs(shared))[0, 1])
    rng = np.random.default_rng(seed)
    chance = [
        np.corrcoef(learned, of_pairs(shared[np.ix_(order, order)]))[0, 1]
        for order in (rng.permutation(len(skills)) for _ in range(permutations))
    ]
    cut = n_clusters or skills.shape[1]
    ours = hierarchy.fcluster(linkage(vectors), cut, "maxclust")
    true = hierarchy.fcluster(hierarchy.average(distance.pdist(skills, "jaccard")), cut, "maxclust")
    return Agreement(
        correlation,
        (1 + int(np.sum(np.asarray(chance) >= correlation))) / (1 + permutations),
        float(adjusted_rand_score(true, ours)),
    )
