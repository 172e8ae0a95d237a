"""Reads the skills of one adapter folder, file or run, for an inventory that several of them make."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.skill import Skill
from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.interop.adapters import holds_adapters, read_adapters
from poly_jax.interop.finite import finite
from poly_jax.interop.peft.folder import CONFIG, WEIGHTS
from poly_jax.interop.task_mix import adapted_paths, mixed, task_lora
from poly_jax.model.config import T5Config
from poly_jax.training.open_run import OpenRun, open_run
from poly_jax.training.saved_step import read_origin
from poly_jax.training.saved_steps import step_folder
from poly_jax.weights.parameter_names import Granularity, is_inventory, skills_of
from poly_jax.weights.tensors import Tensors, of_tree
from poly_jax.weights.tree import flatten

Arrays = dict[str, np.ndarray]

_SOURCES = "give PEFT folders, files of the reference implementation, or runs"


@dataclasses.dataclass(frozen=True)
class SkillSource:
    """The skills that one path holds.

    Attributes:
      path: the path, for messages.
      names: a name for each skill, in the order of the skills' axis.
      skill: kind of the skills.
      n_splits: number of splits (MHR heads).
      leaves: arrays `[splits, skills, ...]` by '/'-joined name, such as
        `encoder/layers_0/attention/query/skills/lora_a`, in every layer of each adapted site.
    """

    path: str
    names: tuple[str, ...]
    skill: LoRA | IA3
    n_splits: int
    leaves: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class StatedBase:
    """The T5 that a source says it adapts; None for what it does not say.

    Attributes:
      name: path of the T5, or its id on the Hugging Face hub.
      digest: content hash of its weights.
    """

    name: str | None = None
    digest: str | None = None


def is_run(path: str) -> bool:
    """Whether a path is the folder of a run, or of a step in one."""
    place = pathlib.Path(path).expanduser()
    return (place / configuration.CONFIG_FILE).is_file() or (place / "origin").is_dir()


def stated_base(path: str) -> StatedBase:
    """Return what the files at a path say about the T5 that they adapt.

    Raises:
      UserError: the files cannot be read.
    """
    if is_run(path):
        origin = read_origin(step_folder(path))
        return StatedBase(origin.backbone, origin.backbone_hash)
    config = pathlib.Path(path).expanduser() / CONFIG
    named = read_json(config).get("base_model_name_or_path") if config.exists() else None
    return StatedBase(named if isinstance(named, str) and named else None)


def read_source(
    path: str,
    name: str,
    config: T5Config,
    backbone: Tensors,
    alpha: float | None = None,
    granularity: Granularity | None = None,
) -> SkillSource:
    """Read the skills at a path, without its routers.

    A run with one task, and an adapter folder with one adapter, are one skill. A run whose tasks have a skill
    each gives these skills, under the names of the tasks. Any other inventory gives its skills, numbered, and
    so does a run whose router looks at inputs.

    Args:
      path: path of a run, or for `read_adapters`.
      name: name of the skill, or of the skills before their numbers.
      config: configuration of the T5.
      backbone: parameters of that T5 by T5X's names, one per layer.
      alpha: LoRA's alpha where the files do not state it; None for its default.
      granularity: the maps that share a router, where the files leave it open and have routers.

    Raises:
      UserError: there are no skills at the path that an inventory can hold.
    """
    if is_run(path):
        return _of_run(path, name)
    folder = pathlib.Path(path).expanduser()
    if not folder.exists():
        raise UserError(f"{path} does not exist; {_SOURCES}")
    if any(folder.glob(f"{pathlib.Path(WEIGHTS).stem}.*")) and not (folder / CONFIG).exists():
        raise UserError(f"{path} has weights and no {CONFIG}; copy the one that was saved with them")
    if not holds_adapters(path):
        raise UserError(f"{path} holds no adapters; {_SOURCES}")
    read = read_adapters(path, config, backbone, granularity)
    skill = read.skill
    if isinstance(skill, LoRA) and alpha is not None and not pathlib.Path(path).expanduser().is_dir():
        skill = dataclasses.replace(skill, alpha=alpha)
    leaves = {place: leaf for place, leaf in flatten(read.tree).items() if is_inventory(place)}
    return SkillSource(path, _numbered(name, read.n_skills), skill, read.n_splits, leaves)


def _of_run(path: str, name: str) -> SkillSource:
    experiment = configuration.load([], recorded=configuration.run_config(path)).experiment()
    if experiment.adapters is None:
        raise UserError(f"{path} is a run without adapters; give runs, or folders, that have some")
    run = open_run(path, experiment)
    adapters = run.adapters
    assert adapters is not None
    skill = _readable(adapters.skill, path)
    if adapters.private_skill is not None:
        _readable(adapters.private_skill, path)
    # A task that is routed by its input uses no mix of skills that is one skill.
    if len(run.table) == 1 and not adapters.router.reads_inputs:
        return _of_task(path, name, run, adapters, skill)
    if adapters.private_skill is not None:
        raise UserError(
            f"{path} has a private skill for each task beside its inventory; export the tasks that you need"
            f" (poly-jax export --run={path} --task=TASK --format=peft_lora --output=DIR)"
        )
    names = run.table.names if adapters.router.owns_skills else _numbered(name, adapters.inventory_size)
    leaves = {place: leaf for place, leaf in _finite(run, path).items() if is_inventory(place)}
    return SkillSource(path, tuple(names), skill, adapters.n_splits, leaves)


def _readable(skill: Skill, path: str) -> LoRA | IA3:
    if not isinstance(skill, LoRA | IA3):
        raise UserError(f"{path} has skills of the kind {type(skill).__name__}; only LoRA and IA3 are read")
    return skill


def _of_task(path: str, name: str, run: OpenRun, adapters: Adapters, skill: LoRA | IA3) -> SkillSource:
    """Return the adapter of a run's only task as one skill."""
    _finite(run, path)
    leaves: Arrays = {}
    if isinstance(skill, LoRA) and isinstance(adapters.private_skill, LoRA | None):
        rank, scale = skill.rank, skill.alpha / skill.rank
        for place, (a, b) in task_lora(run, adapters, 0).items():
            leaves[f"{skills_of(place)}/lora_a"] = a[None, None]
            leaves[f"{skills_of(place)}/lora_b"] = b[None, None]
            rank = a.shape[1]
        joint = LoRA(rank, rank * scale, skill.dropout)
        return SkillSource(path, (name,), joint, 1, leaves)
    if adapters.private_skill is not None:
        raise UserError(
            f"{path} has an (IA)^3 vector beside another adapter of its task, which one skill does not hold"
        )
    for place in adapted_paths(run):
        leaves[f"{skills_of(place)}/ia3"] = mixed(run, adapters, place, 0)["ia3"][None, None]
    return SkillSource(path, (name,), skill, 1, leaves)


def _finite(run: OpenRun, path: str) -> Arrays:
    checked = finite(of_tree(run.skills), path)
    return {name: tensor.load() for name, tensor in checked.items()}


def _numbered(name: str, count: int) -> tuple[str, ...]:
    """Return one name for each skill; sorting the names keeps the order of the skills."""
    width = len(str(count - 1))
    return (name,) if count == 1 else tuple(f"{name}_{number:0{width}}" for number in range(count))


def usual_name(path: str) -> str:
    """Return the name of a source where the user gives none: the last part of its path, without a suffix."""
    place = pathlib.Path(os.path.abspath(os.path.expanduser(path)))
    return re.sub(r"\.(safetensors|npz|bin|pt|pth|ckpt)$", "", place.name)
