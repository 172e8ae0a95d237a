"""One inventory of skills out of several sources, each skill of which computes what its source computes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.skill import Skill
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import adapted_sites
from poly_jax.interop.skill_source import Arrays, SkillSource
from poly_jax.weights import t5_names
from poly_jax.weights.parameter_names import adapted_map, leaf, skills_of
from poly_jax.weights.t5_dimensions import T5Dimensions, sites
from poly_jax.weights.tree import check_tree


class Inventory(NamedTuple):
    """Skills of one kind at the same sites.

    Attributes:
      names: names of the skills, sorted, which is the order of the skills' axis.
      skill: kind of the skills.
      n_splits: number of splits (MHR heads).
      sites: the adapted sites; see `poly_jax.weights.t5_dimensions`.
      leaves: arrays `[splits, skills, ...]` by '/'-joined name, one per layer.
      changes: for each source, what was done to it, in words.
    """

    names: tuple[str, ...]
    skill: LoRA | IA3
    n_splits: int
    sites: tuple[str, ...]
    leaves: Arrays
    changes: list[str]


def join(sources: Sequence[SkillSource], dimensions: T5Dimensions, n_splits: int | None = None) -> Inventory:
    """Join the skills of several sources; the order of the sources does not matter.

    LoRA skills get the largest rank, and smaller factors are filled up with zeros. Where the scales alpha /
    rank differ, the joint scale is 1, and both A and B are multiplied by the root of their own scale, as in
    PEFT's weighted sums of adapters. A site that a source does not adapt gets factors of 0 (LoRA) or 1
    ((IA)^3) for its skills. Skills of one split (MHR head) are cut into as many splits as are wanted, which
    changes nothing while all splits of a skill have the same weight.

    Args:
      sources: the sources.
      dimensions: dimensions of the T5 that all of them adapt.
      n_splits: number of splits; None for the sources' own.

    Raises:
      UserError: the sources are of different kinds, have different splits, or do not fit the T5; or two
        skills have one name.
    """
    check_names(sources)
    n_splits = _n_splits(sources, n_splits)
    skill = _kind(sources)
    for source in sources:
        _check_shapes(source, dimensions)
    widths = sites(dimensions)
    paths = sorted({adapted_map(name) for source in sources for name in source.leaves})
    names = tuple(sorted(name for source in sources for name in source.names))
    adapted = adapted_sites(paths)
    _check_splits(n_splits, [widths[site] for site in adapted])
    leaves: Arrays = {}
    for path in paths:
        d_in, d_out = widths[t5_names.site(path)]
        for name, spec in skill.parameters(n_splits, len(names), d_in, d_out).items():
            leaves[f"{skills_of(path)}/{name}"] = np.full(spec.shape, skill.neutral, np.float32)
    for source in sources:
        places = [names.index(name) for name in source.names]
        for name, array in source.leaves.items():
            axes = skill.parameters(1, 1, 1, 1)[leaf(name)].axes
            part = _in_splits(_scaled(leaf(name), array, source.skill, skill), n_splits, axes)
            # Only LoRA's rank can be smaller than in the inventory.
            target = leaves[name]
            inside = np.ix_(range(n_splits), places, *map(range, part.shape[2:]))
            target[inside] = part
    changes = [_change(source, skill, n_splits, adapted) for source in sources]
    return Inventory(names, skill, n_splits, adapted, leaves, changes)


def check_names(sources: Sequence[SkillSource]) -> None:
    """Raise a UserError where two skills have the same name."""
    owner: dict[str, str] = {}
    for source in sources:
        for name in source.names:
            if name in owner:
                raise UserError(
                    f"{owner[name]} and {source.path} both have a skill {name!r}; name the skills with"
                    " --tasks=FILE, one name a line in the order of the sources"
                )
            owner[name] = source.path


def _n_splits(sources: Sequence[SkillSource], wanted: int | None) -> int:
    """Return the number of splits: the sources' own where any has several, or else the one that is wanted."""
    several = next((source for source in sources if source.n_splits > 1), None)
    if several is None:
        return wanted or 1
    for source in sources:
        if source.n_splits not in (1, several.n_splits):
            raise UserError(
                f"{several.path} has skills of {several.n_splits} splits (MHR heads), and {source.path} of"
                f" {source.n_splits}; import them into separate runs"
            )
    if wanted not in (None, 1, several.n_splits):
        raise UserError(
            f"Adapters.n_splits is {wanted}, and {several.path} has skills of {several.n_splits} splits;"
            " leave it unbound"
        )
    return several.n_splits


def _kind(sources: Sequence[SkillSource]) -> LoRA | IA3:
    """Return the kind of skill of the inventory."""
    first = sources[0]
    for source in sources:
        if type(source.skill) is not type(first.skill):
            raise UserError(
                f"{first.path} has skills of the kind {type(first.skill).__name__}, and {source.path} of the"
                f" kind {type(source.skill).__name__}; an inventory has one kind: import them into separate"
                " runs"
            )
    if not isinstance(first.skill, LoRA):
        return first.skill
    skills = [source.skill for source in sources if isinstance(source.skill, LoRA)]
    rank = max(skill.rank for skill in skills)
    scales, dropouts = ({_scale(s) for s in skills}, {s.dropout for s in skills})
    scale = scales.pop() if len(scales) == 1 else 1.0
    return LoRA(rank, rank * (scale or 1.0), dropouts.pop() if len(dropouts) == 1 else 0.0)


def _scale(skill: LoRA) -> float:
    return skill.alpha / skill.rank


def _check_shapes(source: SkillSource, dimensions: T5Dimensions) -> None:
    """Check that a source's skills fit the T5, so that the message can name the source."""
    widths, expected = sites(dimensions), {}
    for path in sorted({adapted_map(name) for name in source.leaves}):
        site = t5_names.site(path)
        if site not in widths:
            raise UserError(f"{source.path} adapts {path}, which the T5 does not have")
        for name, spec in source.skill.parameters(source.n_splits, len(source.names), *widths[site]).items():
            expected[f"{skills_of(path)}/{name}"] = spec.shape
    check_tree(expected, source.leaves, source.path)


def _check_splits(n_splits: int, widths: Sequence[tuple[int, int]]) -> None:
    common = math.gcd(*(width for pair in widths for width in pair))
    if common % n_splits:
        raise UserError(
            f"Adapters.n_splits is {n_splits}, which does not divide the adapted widths; use a divisor of"
            f" {common}"
        )


def _scaled(name: str, array: np.ndarray, own: Skill, joint: Skill) -> np.ndarray:
    """Return LoRA's factor, in float32, so that the joint scale gives the same update as its own scale."""
    array = array.astype(np.float32)
    if not (isinstance(own, LoRA) and isinstance(joint, LoRA)) or _scale(own) == _scale(joint):
        return array
    ratio = _scale(own) / _scale(joint)
    root = math.sqrt(abs(ratio))
    return array * np.float32(-root if ratio < 0 and name == "lora_a" else root)


def _in_splits(array: np.ndarray, n_splits: int, axes: Sequence[str | None]) -> np.ndarray:
    """Cut the width of skills `[1, skills, ...]` into splits `[n_splits, skills, ...]`."""
    if len(array) == n_splits:
        return array
    width = next(place for place, name in enumerate(axes) if name in ("lora_in", "lora_out"))
    shape = (*array.shape[1:width], n_splits, -1, *array.shape[width + 1 :])
    return np.moveaxis(array[0].reshape(shape), width - 1, 0)


def _change(source: SkillSource, skill: Skill, n_splits: int, adapted: Sequence[str]) -> str:
    """Describe a source's skills, and how they are held in the inventory."""
    kind = "(IA)^3"
    if isinstance(source.skill, LoRA) and isinstance(skill, LoRA):
        kind = f"LoRA of rank {source.skill.rank}"
        if source.skill.rank != skill.rank:
            kind += f", padded to {skill.rank}"
        if _scale(source.skill) != _scale(skill):
            kind += f", scale {_scale(source.skill):g} multiplied in"
    if source.n_splits != n_splits:
        kind += f", in {n_splits} splits"
    own = set(adapted_sites(adapted_map(name) for name in source.leaves))
    if missing := [site for site in adapted if site not in own]:
        kind += f"; changes nothing at {', '.join(missing[:3])}{' ...' if missing[3:] else ''}"
    return kind
