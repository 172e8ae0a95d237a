"""Clusters of tasks by their mixing weights."""

import math

import numpy as np

from poly_jax.analysis.clusters import clusters


def grouped(seed=0):
    """Return weights of twelve tasks in three groups, shuffled, and the group of each task."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(3), 4))
    return rng.random((3, 20))[groups] + 0.01 * rng.random((12, 20)), groups


def test_distinct_groups_are_found_without_their_number_being_given():
    vectors, groups = grouped()
    found = clusters(vectors)
    assert found.count == 3
    assert len(set(zip(found.of_task.tolist(), groups.tolist(), strict=True))) == 3
    assert found.silhouette > 0.9


def test_clusters_are_numbered_in_the_order_of_the_dendrogram():
    found = clusters(grouped()[0])
    along = found.of_task[found.order]
    assert along.tolist() == sorted(along.tolist())
    assert along[0] == 1


def test_tasks_that_do_not_differ_form_one_cluster():
    alike = clusters(np.tile([0.2, 0.8], (5, 1)))
    assert alike.count == 1
    assert math.isnan(alike.silhouette)
    assert clusters(np.full((5, 4), 0.25)).count == 1
    # Each task has its own skill, so all pairs are equally far apart.
    assert clusters(np.eye(5)).count == 1


def test_one_or_two_tasks_do_not_form_clusters():
    assert clusters(np.array([[0.2, 0.8]])).order.tolist() == [0]
    assert clusters(np.array([[0.2, 0.8, 0.1], [0.8, 0.2, 0.3]])).count == 1
