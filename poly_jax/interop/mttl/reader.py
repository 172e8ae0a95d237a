"""Reads the router-and-skills checkpoints of the reference implementation, microsoft/mttl, and T-Few's.

Tensors are named after Hugging Face's modules of the T5, such as
`encoder.block.0.layer.0.SelfAttention.q.lora_a`, with any prefix. The camera-ready code of MHR (revision
c66b20d6), the revision before it (ce4ca51d) and T-Few (arXiv 2205.05638) are understood. Such files hold no
settings: the user binds each one that differs from its default, such as LoRA's alpha or the router's scores.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import (
    AdapterCheckpoint,
    adapted_sites,
    in_every_layer,
    map_of_module,
    refuse_missing_layers,
)
from poly_jax.model.config import T5Config
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Router
from poly_jax.weights import t5_names as names
from poly_jax.weights.parameter_names import Granularity, router_of, skills_of
from poly_jax.weights.t5_dimensions import sites
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.tree import check_tree, listing, unflatten

Kind = Literal["routed LoRA", "LoRA", "routed (IA)^3", "(IA)^3"]
Arrays = dict[str, np.ndarray]

# The kind of skill, by the names of the tensors beside an adapted map and their numbers of axes.
_KINDS: dict[tuple[tuple[str, int], ...], Kind] = {
    (("lora_a", 4), ("lora_b", 4)): "routed LoRA",
    (("lora_a", 2), ("lora_b", 2)): "LoRA",
    (("lora_a", 3),): "routed (IA)^3",
    (("multi_lora_b", 1),): "(IA)^3",
    (("multi_lora_b", 2),): "(IA)^3",
}
_COARSEST_FIRST: tuple[Granularity, ...] = ("coarse", "stack", "block", "layer", "fine")

_NAME = re.compile(
    r".*?((?:encoder|decoder)\.block\..+?)\.(lora_a|lora_b|multi_lora_b|selector\.module_logits)"
)


def mttl_adapters(
    tensors: Mapping[str, Tensor],
    config: T5Config,
    source: object,
    granularity: Granularity | None = None,
) -> AdapterCheckpoint:
    """Read the skills and routers among the tensors of a checkpoint.

    A router that several maps share is stored with one of them or with all. Where the tables fit more than
    one granularity, the user has to choose it.

    Args:
      tensors: tensors by the reference implementation's names.
      config: configuration of the adapted model; its widths show whether a matrix is transposed.
      source: name of the checkpoint, for messages.
      granularity: the maps that share a router; None if the user did not choose.

    Raises:
      UserError: a tensor is unknown or missing, or has another shape than in the model; the maps are adapted
        in different ways; or the file does not determine which maps share a router.
    """
    maps: dict[str, Arrays] = {}
    unknown = []
    for name, tensor in tensors.items():
        m = _NAME.fullmatch(name)
        path = map_of_module(m[1]) if m else None
        if m is None or path is None:
            unknown.append(name)
        else:
            maps.setdefault(path, {})[m[2]] = tensor.load()
    if unknown or not maps:
        raise UserError(
            f"{source} has {counted(len(unknown), 'tensor')} besides the adapters of a T5"
            f" ({listing(unknown)}); keep only lora_a, lora_b, multi_lora_b and selector.module_logits"
        )
    tables = {path: arrays.pop("selector.module_logits", None) for path, arrays in maps.items()}
    kinds = {path: _kind(arrays) for path, arrays in maps.items()}
    if len(set(kinds.values())) != 1 or None in kinds.values():
        found = sorted({f"{path} has {', '.join(maps[path]) or 'nothing'}" for path in kinds})[:2]
        raise UserError(f"{source} adapts its maps in different or unknown ways ({'; '.join(found)})")
    kind = next(iter(kinds.values()))
    assert kind is not None
    refuse_missing_layers(set(in_every_layer(maps, config)) - maps.keys(), source)
    sites = adapted_sites(maps)
    skill, n_splits, n_skills, leaves = _skills(kind, maps, config, source)
    there = {path: table for path, table in tables.items() if table is not None}
    if not there:
        shared = n_skills == 1
        router: Router | None = SharedRouter() if shared else None
        n_tasks = 1 if shared else None
        return AdapterCheckpoint(unflatten(leaves), skill, router, n_tasks, n_skills, n_splits, sites)
    n_tasks = _check_tables(there, n_splits, n_skills, source)
    granularity = _granularity(tables, granularity, source)
    routers = {
        f"{router_of(path, granularity)}/logits": table.reshape(n_tasks, n_splits, n_skills)
        for path, table in there.items()
    }
    return AdapterCheckpoint(
        unflatten(leaves | routers), skill, LearnedRouter(), n_tasks, n_skills, n_splits, sites, granularity
    )


def _kind(arrays: Arrays) -> Kind | None:
    return _KINDS.get(tuple(sorted((name, array.ndim) for name, array in arrays.items())))


def _skills(
    kind: Kind, maps: dict[str, Arrays], config: T5Config, source: object
) -> tuple[LoRA | IA3, int, int, Arrays]:
    """Return the kind of skill, the numbers of splits and skills, and the checked `skills/...` by name."""
    first_path, first = next(iter(maps.items()))
    widths = sites(config)
    n_splits = n_skills = 1
    skill: LoRA | IA3 = IA3()
    if kind == "routed LoRA":
        n_splits, n_skills, _, rank = first["lora_a"].shape
        skill = LoRA(rank=rank)
    elif kind == "LoRA":
        # The older revision keeps A and B as [r, d_in] and [d_out, r], the newer one the other way round.
        d_in = widths[names.site(first_path)][0] if names.site(first_path) in widths else 0
        rank = first["lora_a"].shape[1 if first["lora_a"].shape[0] == d_in else 0]
        if first["lora_a"].shape[0] != d_in:
            maps = {path: {n: array.T for n, array in arrays.items()} for path, arrays in maps.items()}
        maps = {path: {n: array[None, None] for n, array in arrays.items()} for path, arrays in maps.items()}
        skill = LoRA(rank=rank)
    elif kind == "routed (IA)^3":
        n_skills, n_splits, _ = first["lora_a"].shape
        maps = {path: {"ia3": arrays["lora_a"].swapaxes(0, 1)} for path, arrays in maps.items()}
    else:
        maps = {path: {"ia3": arrays["multi_lora_b"].reshape(1, 1, -1)} for path, arrays in maps.items()}
    expected = {}
    for path in maps:
        if names.site(path) not in widths:
            raise UserError(f"{source} adapts {path}, which the model does not have")
        d_in, d_out = widths[names.site(path)]
        for name, spec in skill.parameters(n_splits, n_skills, d_in, d_out).items():
            expected[f"{skills_of(path)}/{name}"] = spec.shape
    leaves = {
        f"{skills_of(path)}/{name}": np.ascontiguousarray(array)
        for path, arrays in maps.items()
        for name, array in arrays.items()
    }
    check_tree(expected, leaves, source)
    return skill, n_splits, n_skills, leaves


def _check_tables(tables: Mapping[str, np.ndarray], n_splits: int, n_skills: int, source: object) -> int:
    """Return the number of tasks, after checking that every table has this number."""
    n_tasks = next(iter(tables.values())).shape[0]
    for path, table in tables.items():
        if table.shape != (n_tasks, n_splits * n_skills):
            raise UserError(
                f"{source}: the router of {path} is {list(table.shape)}, and {n_tasks} tasks of {n_splits} "
                f"splits and {n_skills} skills need {[n_tasks, n_splits * n_skills]}"
            )
    return n_tasks


def _granularity(
    tables: Mapping[str, np.ndarray | None], said: Granularity | None, source: object
) -> Granularity:
    """Find the granularity at which every group of maps has one table."""
    fitting = [granularity for granularity in _COARSEST_FIRST if _fits(tables, granularity)]
    if not fitting:
        lacking = [path for path, table in tables.items() if table is None]
        raise UserError(f"{source} lacks the routers of {len(lacking)} adapted maps ({listing(lacking)})")
    if said is not None:
        if said not in fitting:
            raise UserError(
                f"Adapters.granularity is {said!r}, and the routers in {source} fit {' or '.join(fitting)}"
            )
        return said
    # Granularities with equal groups of adapted maps count once, as coarse and stack without a decoder.
    groups = {frozenset(_groups(tables, granularity).values()) for granularity in fitting}
    if len(groups) > 1:
        raise UserError(
            f"{source} has equal routers, so it does not say which maps share one; add"
            f" --gin.Adapters.granularity=VALUE with one of {', '.join(map(repr, fitting))}"
        )
    return fitting[0]


def _groups(paths: Iterable[str], granularity: Granularity) -> dict[str, frozenset[str]]:
    """Group the maps that share a router, by the router's place."""
    groups: dict[str, set[str]] = {}
    for path in paths:
        groups.setdefault(router_of(path, granularity), set()).add(path)
    return {place: frozenset(group) for place, group in groups.items()}


def _fits(tables: Mapping[str, np.ndarray | None], granularity: Granularity) -> bool:
    """Whether every group of maps has exactly one table."""
    for group in _groups(tables, granularity).values():
        found = [table for path in group if (table := tables[path]) is not None]
        if not found or not all(np.array_equal(found[0], table) for table in found):
            return False
    return True
