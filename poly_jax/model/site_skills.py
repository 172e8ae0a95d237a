"""The skills of one site: their parameters, and what each row of a batch gets of them."""

from collections.abc import Mapping

import flax.linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Mixed, Skill, TaskSkill, TokenSkill
from poly_jax.model.route import Route, constrain_weights
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.routing.router import Sizes
from poly_jax.weights.parameter_names import PRIVATE
from poly_jax.weights.parameter_spec import ParameterSpec
from poly_jax.weights.sharding import constrain


class Skills(nn.Module):
    """The adapters of one site: the inventory of skills, and each task's own skill where there is one."""

    adapters: Adapters
    d_in: int
    d_out: int
    kernel_axes: tuple[str, str]

    @nn.compact
    def __call__(self, route: Route, side_by_side: bool) -> dict[str, Mixed]:
        """For every row the mix of the inventory, and as `private` the skill of its task.

        Instead of a mix, all rows may share the skills side by side, which each position weighs on its own.
        """
        cfg, sizes = self.adapters, self.adapters.sizes
        specs = cfg.skill.parameters(sizes.n_splits, sizes.n_skills, self.d_in, self.d_out)
        parameters = _parameters(specs, cfg.router.owns_skills)
        if side_by_side:
            assert isinstance(cfg.skill, TokenSkill)
            stacked = cfg.skill.side_by_side(parameters)
            mixed = {"inventory": _like_kernel(stacked, specs, self.kernel_axes, rows=(None,))}
        else:
            assert route.weights is not None
            inventory = cfg.skill.mix(parameters, constrain_weights(route.weights))
            if isinstance(cfg.skill, TaskSkill):
                inventory = TaskParameters(cfg.skill, cfg.n_tasks, name=PRIVATE)(inventory, route.task_ids)
            mixed = {"inventory": _like_kernel(inventory, specs, self.kernel_axes)}
        if cfg.private_skill is not None:
            private = PrivateSkills(
                cfg.private_skill, cfg.n_tasks, self.d_in, self.d_out, self.kernel_axes, name=PRIVATE
            )
            mixed[PRIVATE] = private(route.task_ids)
        return mixed


class PrivateSkills(nn.Module):
    """A skill for every task at one site, which only that task uses, beside the inventory."""

    skill: Skill
    n_tasks: int
    d_in: int
    d_out: int
    kernel_axes: tuple[str, str]

    @nn.compact
    def __call__(self, task_ids: Int[Array, "*rows"]) -> Mixed:
        """The skill of every row's task."""
        specs = self.skill.parameters(1, self.n_tasks, self.d_in, self.d_out)
        mixed = self.skill.mix(_parameters(specs, True), _chosen(task_ids, self.n_tasks))
        return _like_kernel(mixed, specs, self.kernel_axes)


class TaskParameters(nn.Module):
    """The parameters of every task at one site, for a skill that has some beside its inventory."""

    skill: TaskSkill
    n_tasks: int

    @nn.compact
    def __call__(self, mixed: Mixed, task_ids: Int[Array, "*rows"]) -> Mixed:
        """The mix of every row, changed by the parameters of its task."""
        own = _parameters(self.skill.task_parameters(self.n_tasks), True)
        return self.skill.with_task(mixed, own, _chosen(task_ids, self.n_tasks)[..., 0, :])


def _chosen(task_ids: Int[Array, "*rows"], n_tasks: int) -> Float[Array, "*rows 1 tasks"]:
    """1 at the task of each row, 0 elsewhere."""
    weights = PrivateRouter().weights({}, task_ids, Sizes(n_tasks, 1, n_tasks), None)
    return constrain_weights(weights)


def _parameters(specs: Mapping[str, ParameterSpec], owned: bool) -> dict[str, Float[Array, "..."]]:
    """The parameters. Where each skill belongs to one task, the `skills` axis is sharded like `tasks`.

    Other skills are gathered from the devices that share one copy of the parameters, and each device of the
    `model` axis mixes splits of its own.
    """

    def axes(spec: ParameterSpec) -> tuple[str, ...]:
        return tuple("tasks" if owned and axis == "skills" else axis for axis in spec.axes)

    arrays = {
        name: partitioning.param_with_axes(name, spec.init, spec.shape, axes=axes(spec))
        for name, spec in specs.items()
    }
    if owned:
        return arrays
    return {name: constrain(array, "heads", *[None] * (array.ndim - 1)) for name, array in arrays.items()}


def _like_kernel(
    mixed: Mixed,
    specs: Mapping[str, ParameterSpec],
    kernel_axes: tuple[str, str],
    rows: tuple[str | None, ...] = ("batch", "segments"),
) -> Mixed:
    """Lay mixed adapters out over the mesh as their kernel is, whole where it is gathered.

    A mix is small beside the activations, which would otherwise be gathered in its place.
    """
    kernel = [None if axis == "embed" else axis for axis in kernel_axes]
    places = dict(zip(("lora_in", "lora_out"), kernel, strict=True))

    def laid_out(name: str, array: Float[Array, "..."]) -> Float[Array, "..."]:
        if name not in specs:
            return array
        axes = [places.get(axis) for axis in specs[name].axes[2:]]
        return constrain(array, *rows[: array.ndim - len(axes)], *axes)

    return {name: laid_out(name, array) for name, array in mixed.items()}
