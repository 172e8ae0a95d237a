"""The findings about a run's router, computed from its weights, and their form in JSON."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.analysis import drift as drifts
from poly_jax.analysis.agreement import Agreement, agreement, measure, similarity, told_apart
from poly_jax.analysis.clusters import Clusters, clusters
from poly_jax.analysis.gradient_alignment import Alignment
from poly_jax.analysis.initial_values import InitialValues
from poly_jax.analysis.load import Load
from poly_jax.analysis.router_plot import representative
from poly_jax.analysis.statistics import Statistics, effective_skills, mean, shares, statistics, usage
from poly_jax.analysis.weights import Weights, allocations, mixing_weights, task_vectors
from poly_jax.weights.parameter_names import in_order, layer_of
from poly_jax.weights.tree import unflatten

_STRONGEST = 3
_DECIMALS = 5


@dataclasses.dataclass(frozen=True)
class Reference:
    """A given grouping of the tasks, and the router's agreement with it.

    Attributes:
      groups: names of the groups.
      matrix: 1 where a task is in a group.
      agreement: the agreement; None where all tasks, or all pairs of tasks, are equally similar.
    """

    groups: list[str]
    matrix: Int[np.ndarray, "tasks groups"]
    agreement: Agreement | None


@dataclasses.dataclass(frozen=True)
class Findings:
    """The findings about a router.

    Attributes:
      adapters: the run's adapters.
      names: names of the tasks, in the order of their ids.
      weights: mixing weights of every router.
      places: measures of every router, by its place.
      layers: means of the measures by layer.
      overall: mean of the measures over all routers.
      measure: the measure of `similarity`, "correlation" or "cosine".
      similarity: similarity of the mixing weights of every two tasks, over all routers.
      clusters: clusters of the tasks.
      shown: place of the router that is shown in full, which is the most similar to all routers together.
      drift: drift by kind of parameter and layer.
      drift_of_kind: drift by kind of parameter.
      drift_of_task: RMS change of each task's own parameters, by kind.
      drift_of_skill: RMS change of each skill, by kind.
      drift_note: a sentence about the initial values that are not known, or an empty string.
      reference: the given grouping of the tasks; None if none was given.
      alignment: alignment of the tasks' gradients; None if it was not asked for.
      skill_names: names of the skills, in their order; empty where they have none.
      load: the measured mixes of a router that looks at inputs, which `weights` are then; None for others.
    """

    adapters: Adapters
    names: tuple[str, ...]
    weights: Weights
    places: dict[str, Statistics]
    layers: dict[str, Statistics]
    overall: Statistics
    measure: str
    similarity: Float[np.ndarray, "tasks tasks"]
    clusters: Clusters
    shown: str
    drift: dict[tuple[str, str], drifts.Drift]
    drift_of_kind: dict[str, drifts.Drift]
    drift_of_task: dict[str, Float[np.ndarray, "tasks"]]
    drift_of_skill: dict[str, Float[np.ndarray, "skills"]]
    drift_note: str
    reference: Reference | None = None
    alignment: Alignment | None = None
    skill_names: tuple[str, ...] = ()
    load: Load | None = None

    def skill_name(self, skill: int) -> str:
        """The name of a skill, or its number after an s where it has no name."""
        return self.skill_names[skill] if self.skill_names else f"s{skill}"

    def used_most(self, skill: int) -> tuple[float, str, float]:
        """The mean share of a skill over routers and heads, and the router with its largest share."""
        means = {place: float(part[:, skill].mean()) for place, part in self.usage.items()}
        place = max(means, key=lambda place: means[place])
        return sum(means.values()) / len(means), place, means[place]

    @property
    def usage(self) -> dict[str, Float[np.ndarray, "splits skills"]]:
        """Mean share of every skill over tasks, by place."""
        return {place: usage(table) for place, table in self.weights.items()}

    def effective_skills(self) -> dict[str, Float[np.ndarray, "tasks"]]:
        """The number of skills that each task uses in a layer, as the mean over routers and heads."""
        found: dict[str, list[np.ndarray]] = {}
        for place, table in self.weights.items():
            found.setdefault(layer_of(place), []).append(effective_skills(table).mean(1))
        return {layer: np.mean(parts, axis=0) for layer, parts in found.items()}

    def nearest(self, task: int) -> int | None:
        """The most similar other task; None where there is no other task."""
        others = [other for other in range(len(self.names)) if other != task]
        return max(others, key=lambda other: self.similarity[task, other], default=None)

    def groups_of(self, task: int) -> list[str]:
        """The given groups that a task is in; an empty list where no groups were given."""
        if self.reference is None:
            return []
        pairs = zip(self.reference.groups, self.reference.matrix[task], strict=True)
        return [group for group, there in pairs if there]

    def strongest(self, task: int) -> list[tuple[int, int, float]]:
        """The heads and skills with the largest shares at the shown router, with the shares."""
        part = shares(self.weights[self.shown][task])
        largest = np.argsort(-part, axis=None, kind="stable")[:_STRONGEST]
        places = zip(*np.unravel_index(largest, part.shape), strict=True)
        return [(int(head), int(skill), float(part[head, skill])) for head, skill in places]


def findings_of(
    adapters: Adapters,
    names: tuple[str, ...],
    trained: Mapping[str, np.ndarray],
    initial: InitialValues,
    grouping: tuple[list[str], Int[np.ndarray, "tasks groups"]] | None = None,
    skill_names: tuple[str, ...] = (),
    load: Load | None = None,
) -> Findings:
    """Analyse the routers and skills of a run.

    Args:
      adapters: the run's adapters.
      names: names of its tasks, in the order of their ids.
      trained: trained values of routers and skills by '/'-joined name, with layers apart.
      initial: the initial values that are known.
      grouping: groups of the tasks to compare with; see `poly_jax.analysis.reference`.
      skill_names: names of the skills; empty where they have none.
      load: the measured mixes of a router that looks at inputs; None for other routers.
    """
    parameters = unflatten(trained)
    weights = mixing_weights(adapters, parameters) if load is None else load.weights
    z = allocations(adapters, parameters)
    places = {
        place: statistics(table, z[place] if z is not None else None) for place, table in weights.items()
    }
    layers = {
        layer: mean(one for place, one in places.items() if layer_of(place) == layer)
        for layer in in_order({layer_of(place) for place in weights})
    }
    router_axes = {name: spec.axes for name, spec in adapters.router.parameters(adapters.sizes).items()}
    vectors = task_vectors(weights)
    alike = similarity(vectors)
    return Findings(
        adapters,
        names,
        weights,
        places,
        layers,
        mean(places.values()),
        measure(vectors),
        alike,
        clusters(vectors),
        representative(weights),
        drifts.by_layer(initial.arrays, trained),
        drifts.by_kind(initial.arrays, trained),
        drifts.by_task(initial.arrays, trained, router_axes),
        drifts.by_skill(initial.arrays, trained, adapters.inventory_size),
        initial.note,
        None if grouping is None else _compared(vectors, alike, *grouping),
        skill_names=skill_names,
        load=load,
    )


def _compared(
    vectors: Float[np.ndarray, "tasks features"],
    alike: Float[np.ndarray, "tasks tasks"],
    groups: list[str],
    matrix: Int[np.ndarray, "tasks groups"],
) -> Reference:
    return Reference(groups, matrix, agreement(vectors, matrix) if told_apart(alike) else None)


def plain(found: Findings) -> dict[str, Any]:
    """The findings as JSON values; undefined numbers are None, and the others have five decimals."""
    adapters = found.adapters
    return _plain(
        {
            "router": type(adapters.router).__name__,
            "granularity": adapters.granularity,
            "n_splits": adapters.n_splits,
            "n_skills": adapters.inventory_size,
            "skill_names": found.skill_names,
            "overall": found.overall,
            "layers": found.layers,
            "places": found.places,
            "usage": found.usage,
            "shown_place": found.shown,
            "shown_weights": found.weights[found.shown],
            "tasks": [_task(found, task) for task in range(len(found.names))],
            "effective_skills": found.effective_skills(),
            "similarity": {"measure": found.measure, "matrix": found.similarity},
            "clusters": {
                "count": found.clusters.count,
                "silhouette": found.clusters.silhouette,
                "dendrogram": found.clusters.tree,
                "order": found.clusters.order,
            },
            "drift": {
                "note": found.drift_note,
                "overall": {kind: _drift(one) for kind, one in found.drift_of_kind.items()},
                "layers": [
                    {"kind": kind, "layer": layer} | _drift(one) for (kind, layer), one in found.drift.items()
                ],
                "tasks": found.drift_of_task,
                "skills": found.drift_of_skill,
            },
            "reference": found.reference
            and {"groups": found.reference.groups, "agreement": found.reference.agreement},
            "load": found.load
            and {"n_examples": found.load.n_examples, "effective_skills": found.load.effective_skills},
            "gradients": found.alignment
            and {
                "mean_cosine": found.alignment.mean,
                "conflicting_pairs": found.alignment.conflicting,
                "layers": found.alignment.of_layer,
                "cosines": found.alignment.cosines,
            },
        }
    )


def _task(found: Findings, task: int) -> dict[str, Any]:
    nearest = found.nearest(task)
    row: dict[str, Any] = {
        "name": found.names[task],
        "cluster": found.clusters.of_task[task],
        "nearest": None if nearest is None else found.names[nearest],
        "similarity": None if nearest is None else found.similarity[task, nearest],
        "strongest": [
            {"head": head, "skill": skill, "share": share} for head, skill, share in found.strongest(task)
        ],
    }
    if found.reference is not None:
        row["groups"] = found.groups_of(task)
    return row


def _drift(one: drifts.Drift) -> dict[str, float]:
    return {"rms": one.rms, "relative": one.relative, "cosine": one.cosine}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(child) for child in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, _DECIMALS) if math.isfinite(value) else None
    return value
