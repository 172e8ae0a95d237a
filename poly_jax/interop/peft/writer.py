"""Writes a run's adapters as PEFT folders: skills and router as Poly, one task's mix as plain LoRA."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.interop.hugging_face.writer import write_json
from poly_jax.interop.peft import lora as peft_lora
from poly_jax.interop.peft import poly as peft_poly
from poly_jax.interop.peft.folder import CONFIG, PREFIX, WEIGHTS
from poly_jax.interop.task_mix import adapted_paths, leaves_below, one_task_lora, task_lora
from poly_jax.interop.task_names import FILE
from poly_jax.model.config import T5Config
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.open_run import OpenRun
from poly_jax.weights import t5_names as names
from poly_jax.weights.parameter_names import router_of, skills_of
from poly_jax.weights.safetensors_writer import write_file
from poly_jax.weights.t5_dimensions import sites
from poly_jax.weights.tensors import of_tree

# The sigmoid of this logit is 0 in float32, compared with the sigmoids of the weights that count.
_OFF = -60.0


def write_peft_poly(output: str, run: OpenRun, adapters: Adapters) -> None:
    """Write all skills and routers as a PEFT Poly folder, and the names of the tasks in `tasks.json`.

    PEFT's update has no alpha, so B is multiplied by it. In PEFT, every map has its own router, whose weights
    are normalised sigmoids of its logits. A shared router is therefore repeated. For other kinds of routers,
    the logits are computed from the weights, which must sum to 1.

    Args:
      output: local folder, new or empty.
      run: the run whose adapters are written.
      adapters: settings of the run's adapters.

    Raises:
      UserError: PEFT's Poly does not compute these skills or routers.
    """
    if isinstance(adapters.skill, MTLLoRA):
        raise UserError(
            "the run's tasks have matrices of MTL-LoRA, which PEFT's Poly does not compute; export one task"
            " with --format=peft_lora"
        )
    skill = _lora(adapters)
    if adapters.private_skill is not None or (skill.merge_after and adapters.inventory_size > 1):
        fault = "private skills of tasks" if adapters.private_skill is not None else "LoRA.merge_after"
        raise UserError(
            f"the run has {fault}, which PEFT's Poly does not compute; export one task with"
            " --format=peft_lora"
        )
    a, b, logits = peft_poly.LEAVES
    tensors = {}
    for path in adapted_paths(run):
        skills = leaves_below(run.skills, skills_of(path))
        module = f"{PREFIX}{names.to_hugging_face(path)}"
        tensors[f"{module}.{a}"] = np.asarray(skills["lora_a"])
        tensors[f"{module}.{b}"] = np.asarray(skills["lora_b"]) * np.float32(skill.alpha)
        tensors[f"{module}.{logits}"] = _poly_logits(run, adapters, path).reshape(len(run.table), -1)
    config = {
        "peft_type": "POLY",
        "poly_type": "poly",
        "r": skill.rank,
        "n_tasks": len(run.table),
        "n_skills": adapters.inventory_size,
        "n_splits": adapters.n_splits,
        "init_weights": True,
    }
    folder = _write(output, tensors, config, run)
    (folder / FILE).write_text(json.dumps({"tasks": list(run.table.names)}, indent=1) + "\n")


def write_peft_lora(output: str, run: OpenRun, adapters: Adapters, task: int) -> None:
    """Write one task's mix of skills exactly as a plain LoRA folder.

    Skills whose outputs are averaged, or that are added to a private skill of the task, become one LoRA whose
    rank is the sum of their ranks.

    Args:
      output: local folder, new or empty.
      run: the run whose adapters are written.
      adapters: settings of the run's adapters.
      task: id of the task.

    Raises:
      UserError: the skills are not LoRA.
    """
    skill = _lora(adapters)
    a, b = peft_lora.LEAVES
    tensors = {}
    rank, scale = skill.rank, skill.alpha / skill.rank
    for path, (left, right) in task_lora(run, adapters, task).items():
        module = f"{PREFIX}{names.to_hugging_face(path)}"
        tensors[f"{module}.{a}"] = left.T
        tensors[f"{module}.{b}"] = right.T
        rank = left.shape[1]
    alpha = skill.alpha if rank == skill.rank else scale * rank
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    _write(output, tensors, config, run)


def _lora(adapters: Adapters) -> LoRA:
    for skill in (adapters.skill, adapters.private_skill):
        if skill is not None and one_task_lora(skill) is None:
            raise UserError(
                f"the run's skills are {type(skill).__name__}, and this format holds LoRA; export a "
                "task merged into the backbone, with --format=hugging_face or t5x"
            )
    lora = one_task_lora(adapters.skill)
    assert lora is not None
    return lora


def _write(output: str, tensors: dict[str, np.ndarray], config: dict[str, Any], run: OpenRun) -> pathlib.Path:
    backbone = pathlib.Path(run.origin.backbone or "")
    common = {
        "task_type": "SEQ_2_SEQ_LM",
        "inference_mode": True,
        "modules_to_save": None,
        "base_model_name_or_path": str(backbone) if (backbone / "config.json").exists() else None,
        "target_modules": _targets(adapted_paths(run), run.config),
    }
    with new_folder(output) as place:
        folder = pathlib.Path(place)
        write_json(folder / CONFIG, common | config)
        # The mapping is flat, because a name may have dots and slashes.
        write_file(folder / WEIGHTS, of_tree(tensors), {"format": "pt"})
    return folder


def _targets(paths: Iterable[str], config: T5Config) -> list[str]:
    """Return PEFT's `target_modules`: last names such as `q`, where every map of that name is adapted."""
    modules = {path: str(names.to_hugging_face(path)) for path in paths}
    adapted: dict[str, set[str]] = {}
    for path, module in modules.items():
        adapted.setdefault(module.rsplit(".", 1)[1], set()).add(names.site(path))
    everywhere = {short: {site for site in sites(config) if _last(site) == short} for short in adapted}
    if adapted == everywhere:
        return sorted(adapted)
    return sorted(modules.values())


def _last(site: str) -> str:
    return str(names.to_hugging_face(names.map_in_layer(site, 0))).rsplit(".", 1)[1]


def _poly_logits(run: OpenRun, adapters: Adapters, path: str) -> np.ndarray:
    """Return logits [tasks, splits, skills] whose sigmoids, normalised over skills, are the weights."""
    router, size = adapters.router, adapters.inventory_size
    parameters = leaves_below(run.skills, router_of(path, adapters.granularity))
    if isinstance(router, LearnedRouter) and router == LearnedRouter(
        sampling=router.sampling, temperature=router.temperature, logit_dropout=router.logit_dropout
    ):
        return np.asarray(parameters["logits"]) / np.float32(router.temperature)
    tasks = jnp.arange(len(run.table))
    weights = np.asarray(router.weights(parameters, tasks, adapters.sizes, None))
    weights = np.broadcast_to(weights, (len(run.table), adapters.n_splits, size))
    totals = weights.sum(-1)
    if (weights < 0).any() or not (np.isclose(totals, 1, atol=1e-5) | (totals == 0)).all():
        raise UserError(
            f"the run's {type(router).__name__} gives weights that do not sum to 1, which PEFT's Poly "
            "does not compute; export one task with --format=peft_lora"
        )
    # The sigmoids are half of the weights, so no sigmoid has to reach 1.
    share = weights / 2
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(share) - np.log1p(-share), _OFF).astype(np.float32)
