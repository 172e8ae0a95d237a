"""`poly-jax cluster`: a table that gives tasks with similar skills one skill to train together."""

import numpy as np
from jaxtyping import Float

from poly_jax.analysis.skill_similarity import similar_skills, skill_similarity
from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.files.whole_file import check_writable, write_whole
from poly_jax.reporting.json_text import json_text
from poly_jax.training.open_run import open_run
from poly_jax.weights.tree import listing


def cluster_tasks(run: str, output: str, experiment: Experiment, clusters: int, seed: int = 0) -> None:
    """Cluster the tasks of a run by the skill of each, and write the clusters as a `TableRouter`'s file.

    Args:
      run: folder of a run with a skill for each task, or of one of its checkpoints.
      output: `.json` file; an earlier one is replaced.
      experiment: the run's experiment.
      clusters: number of clusters, which are the skills of the table.
      seed: seed of k-means.

    Raises:
      UserError: the run has no skill of its own for each task, its skills cannot be clustered, or the file
        cannot be written.
    """
    if not output.endswith(".json"):
        raise UserError(f"--output is {output!r}; give a file that ends in .json")
    check_writable(output)
    if experiment.adapters is None or not experiment.adapters.router.owns_skills:
        raise UserError(
            f"{run} has no private skill for each task, which is what is clustered; give a run with"
            " routers/private.gin, or an imported inventory"
        )
    opened = open_run(run, experiment)
    names = opened.table.names
    similarity = skill_similarity(experiment.adapters.skill, opened.skills)
    if silent := [name for name, own in zip(names, np.diag(similarity), strict=True) if own == 0]:
        raise UserError(
            f"in {run} the skills of {counted(len(silent), 'task')} change nothing ({listing(silent)});"
            " train the run"
            " longer"
        )
    of_task = similar_skills(similarity, clusters, seed)
    rows = {name: np.eye(clusters, dtype=int)[own].tolist() for name, own in zip(names, of_task, strict=True)}
    write_whole(output, json_text(rows) + "\n")
    for cluster in range(clusters):
        print(_line(cluster, names, similarity, of_task == cluster))
    print(f"outputs: {output}")


def _line(
    cluster: int,
    names: tuple[str, ...],
    similarity: Float[np.ndarray, "tasks tasks"],
    inside: np.ndarray,
) -> str:
    members = listing(name for name, member in zip(names, inside, strict=True) if member)
    pairs = similarity[np.ix_(inside, inside)][np.triu_indices(inside.sum(), k=1)]
    others = similarity[np.ix_(inside, ~inside)]
    means = [
        f"{array.mean():.2f} {place}"
        for array, place in ((pairs, "inside"), (others, "to others"))
        if array.size
    ]
    cosine = f", mean cosine {', '.join(means)}" if means else ""
    return f"skill {cluster}: {counted(int(inside.sum()), 'task')}{cosine}: {members}"
