"""Clusters of tasks that have similar mixing weights."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster import hierarchy
from sklearn.metrics import silhouette_score

from poly_jax.analysis.agreement import linkage, similarity, told_apart

_MOST = 20


@dataclasses.dataclass(frozen=True)
class Clusters:
    """A cut through the tree of tasks.

    Attributes:
      tree: average linkage over 1 - similarity, as SciPy writes it; empty for a single task.
      order: tasks in the order of the tree's leaves.
      of_task: cluster of each task, numbered from 1 in that order.
      silhouette: mean silhouette of the cut, which is the best of all cuts into 2 to 20 clusters; NaN where
        there is one cluster, because the tasks do not differ or are fewer than three.
    """

    tree: Float[np.ndarray, "merges 4"]
    order: Int[np.ndarray, "tasks"]
    of_task: Int[np.ndarray, "tasks"]
    silhouette: float

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.of_task.max())


def clusters(vectors: Float[np.ndarray, "tasks features"]) -> Clusters:
    """Cluster the tasks by their mixing weights."""
    n_tasks = len(vectors)
    if n_tasks == 1:
        return Clusters(np.zeros((0, 4)), np.zeros(1, int), np.ones(1, int), float("nan"))
    tree = linkage(vectors)
    order = hierarchy.leaves_list(tree)
    apart = np.clip(1 - similarity(vectors), 0, None)
    np.fill_diagonal(apart, 0)
    best, labels = float("nan"), np.ones(n_tasks, int)
    # If all pairs are equally far apart, all cuts are equally good.
    if n_tasks > 2 and told_apart(apart):
        for count in range(2, min(n_tasks - 1, _MOST) + 1):
            cut = hierarchy.fcluster(tree, count, "maxclust")
            if not 2 <= len(np.unique(cut)) < n_tasks:
                continue
            score = float(silhouette_score(apart, cut, metric="precomputed"))
            if not score <= best:
                best, labels = score, cut
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels[order]), start=1)}
    return Clusters(tree, order, np.array([numbers[label] for label in labels]), best)
