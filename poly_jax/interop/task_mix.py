"""Mixes a run's skills into one task's adapters, and merges them into the backbone."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.adapters.skill import Mixed, Skill, TaskSkill
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.training.open_run import OpenRun
from poly_jax.weights.parameter_names import adapted_map, is_skill, leaf, module, router_of, skills_of
from poly_jax.weights.tensors import Tensor

Arrays = dict[str, np.ndarray]


def task_id(table: TaskTable, task: str | None) -> int:
    """Return the id of a named task, or of the only task.

    Raises:
      UserError: there is no such task, or there are several tasks and none is named.
    """
    if task is None and len(table) > 1:
        raise UserError(
            f"the run has {len(table)} tasks; say whose adapters are meant with --task, such as"
            f" --task={table.names[0]}"
        )
    return 0 if task is None else table.id(task)


def adapted_paths(run: OpenRun) -> list[str]:
    """Return T5X's paths of the adapted maps, such as `encoder/layers_0/attention/query`, in order."""
    return sorted({adapted_map(name) for name in run.skills if is_skill(name)})


def task_weights(run: OpenRun, adapters: Adapters, path: str, task: int) -> jax.Array:
    """Return the weights [splits, skills] of a task at an adapted map, in evaluation."""
    place = router_of(path, adapters.granularity)
    return adapters.router.weights(leaves_below(run.skills, place), jnp.asarray(task), adapters.sizes, None)


def mixed(run: OpenRun, adapters: Adapters, path: str, task: int) -> Arrays:
    """Return the adapter of a task at an adapted map, as `Skill.mix` gives it."""
    weights = task_weights(run, adapters, path, task)
    with jax.default_matmul_precision("highest"):
        adapter = adapters.skill.mix(leaves_below(run.skills, skills_of(path)), weights)
        if isinstance(adapters.skill, TaskSkill):
            own = leaves_below(run.skills, skills_of(path, private=True))
            adapter = adapters.skill.with_task(adapter, own, jax.nn.one_hot(task, adapters.n_tasks))
    return {name: np.asarray(array) for name, array in adapter.items()}


def private(run: OpenRun, adapters: Adapters, path: str, task: int) -> Arrays | None:
    """Return the private skill of a task at an adapted map, as `Skill.mix` gives it; None if it has none."""
    if adapters.private_skill is None:
        return None
    own = leaves_below(run.skills, skills_of(path, private=True))
    adapter = adapters.private_skill.mix(own, jax.nn.one_hot(task, adapters.n_tasks)[None])
    return {name: np.asarray(array) for name, array in adapter.items()}


def one_task_lora(skill: Skill | None) -> LoRA | None:
    """Return the LoRA that equals one task's mix of such skills; None where no LoRA equals it."""
    if isinstance(skill, MTLLoRA):
        return skill.of_one_task
    return skill if isinstance(skill, LoRA) else None


def task_lora(run: OpenRun, adapters: Adapters, task: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return a task's adapter as one LoRA at every adapted map: `a` [d_in, rank] and `b` [rank, d_out].

    The update has the same scale as the run's skills. Skills whose outputs are averaged, or that are added
    to a private skill of the task, become one LoRA whose rank is the sum of their ranks.

    Args:
      run: the run.
      adapters: settings of its adapters, whose skills are LoRA or MTLLoRA.
      task: id of the task.
    """
    skill = one_task_lora(adapters.skill)
    assert skill is not None
    found = {}
    for path in adapted_paths(run):
        adapter, own = mixed(run, adapters, path, task), private(run, adapters, path, task)
        factors = [(adapter["lora_a"], adapter["lora_b"])]
        if own is not None:
            kind = adapters.private_skill
            assert isinstance(kind, LoRA)
            ratio = np.float32(kind.alpha / kind.rank / (skill.alpha / skill.rank))
            factors.append((own["lora_a"], own["lora_b"] * ratio))
        # A sum of updates is one update whose rank is the sum of their ranks.
        a, b = zip(*factors, strict=True)
        found[path] = (np.concatenate(a, axis=1), np.concatenate(b, axis=0))
    return found


def merged(run: OpenRun, adapters: Adapters, task: int) -> dict[str, Tensor]:
    """Return the backbone with a task's adapters merged into its kernels, computed when a kernel is read."""
    tensors = dict(run.backbone)
    for path in adapted_paths(run):
        kernel = tensors[f"{path}/kernel"]
        parts = [(adapters.skill, mixed(run, adapters, path, task))]
        own = private(run, adapters, path, task)
        if adapters.private_skill is not None and own is not None:
            parts.append((adapters.private_skill, own))
        tensors[f"{path}/kernel"] = Tensor(
            kernel.shape, kernel.dtype, functools.partial(_merge, kernel, parts)
        )
    return tensors


def _merge(kernel: Tensor, parts: Sequence[tuple[Skill, Arrays]]) -> np.ndarray:
    merged = jnp.asarray(kernel.load())
    with jax.default_matmul_precision("highest"):
        for skill, adapter in parts:
            merged = _merge_one(skill, jax.tree.map(jnp.asarray, adapter), merged)
    return np.asarray(merged)


@functools.partial(jax.jit, static_argnums=0)
def _merge_one(skill: Skill, adapter: Mixed, kernel: jax.Array) -> jax.Array:
    return skill.merge(adapter, kernel)


def leaves_below(arrays: Mapping[str, np.ndarray], place: str) -> dict[str, jax.Array]:
    """Return the arrays directly below a place, by the last part of their name, as modules expect them."""
    return {leaf(name): jnp.asarray(array) for name, array in arrays.items() if module(name) == place}
