"""A site: one frozen linear map and, where it is selected, the skills that adapt it."""

import dataclasses
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import partitioning
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Mixed, Skill, TaskSkill, TokenSkill
from poly_jax.model.context import Context, Cursor
from poly_jax.model.fan_out import FanOut
from poly_jax.model.route import Route, constrain_weights
from poly_jax.model.site_router import SiteRouter
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.routing.router import Sizes
from poly_jax.weights.parameter_names import INPUT_ROUTER, PRIVATE, SKILLS
from poly_jax.weights.parameter_spec import Initializer, ParameterSpec
from poly_jax.weights.quantized import SCALE, integer
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
            mixed["private"] = private(route.task_ids)
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


def _by_token(adapters: Adapters, route: Route) -> bool:
    """Whether each position weighs the skills anew: it has weights of its own, or this takes less work."""
    if adapters.routes_tokens or not isinstance(adapters.skill, TokenSkill):
        return adapters.routes_tokens
    assert route.weights is not None
    mixes_of_a_row = math.prod(route.task_ids.shape[1:])
    return route.weights.ndim > 2 and adapters.skill.cheaper_by_token(adapters.n_splits, mixes_of_a_row)


def _at_positions(
    weights: Float[Array, "*rows splits skills"],
    length: int,
    segments: Int[Array, "batch length"] | None,
) -> Float[Array, "batch length splits skills"]:
    """The weights of the example that each position belongs to; those of padding are any example's."""
    if segments is None:
        return jnp.broadcast_to(weights[:, None], (weights.shape[0], length, *weights.shape[1:]))
    return jnp.take_along_axis(weights, jnp.maximum(segments - 1, 0)[..., None, None], axis=1)


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


PRODUCT = "product"
"""Name of the frozen products for policies of rematerialisation."""


def _product(
    x: Float[Array, "batch length d_in"],
    copies: Float[Array, "parts batch length d_in"] | None,
    kernel: Float[Array, "d_in d_out"],
) -> Float[Array, "batch length d_out"]:
    """`x W`; with copies of x, each is multiplied by the part of W that is on the same devices."""
    if copies is None:
        return x @ kernel

    def product(copies: Array, kernel: Array) -> Array:
        parts = kernel.reshape(copies.shape[-1], copies.shape[0], -1)
        return jnp.einsum("pbld,dpo->blpo", copies, parts).reshape(*copies.shape[1:3], -1)

    # What a scan over layers keeps for the backward pass is the kernel itself, not a reshaped copy of it.
    return jax.checkpoint(product, prevent_cse=False)(copies, kernel)


class Projection(nn.Module):
    """`y = x W`, adapted where its site is selected.

    Attributes:
      context: the model's settings.
      site: path of this site, as `poly_jax.weights.t5_dimensions.sites` lists it.
      features: output width.
      kernel_init: initialiser of W.
      kernel_axes: logical names of W's axes.
    """

    context: Context
    site: str
    features: int
    kernel_init: Initializer
    kernel_axes: tuple[str, str]

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length d_in"] | FanOut,
        route: Route | None,
        cursor: Cursor | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """The site's output for every row's task."""
        x, copies = (x.x, x.copies) if isinstance(x, FanOut) else (x, None)
        adapters, d_in = self.context.adapters, x.shape[-1]
        y = checkpoint_name(self._frozen_product(x, copies), PRODUCT)
        if adapters is None or route is None or not adapters.adapts(self.site):
            return y
        skills = {"inventory": adapters.skill}
        if adapters.private_skill is not None:
            skills["private"] = adapters.private_skill
        kept = cursor is not None and self.has_variable("prefill", "mixed")
        if adapters.routes_tokens or not kept:
            route = self._routed(x, route)
        # Decoding mixes for all its steps once, whatever the form of a mix.
        by_token = adapters.routes_tokens if cursor is not None else _by_token(adapters, route)
        if kept:
            # An earlier step mixed for the same rows.
            mixed: dict[str, Mixed] = self.get_variable("prefill", "mixed")
        else:
            mixed = Skills(adapters, d_in, self.features, self.kernel_axes, name=SKILLS)(route, by_token)
            if cursor is not None:
                mixed = {name: skills[name].kept(leaves, x.dtype) for name, leaves in mixed.items()}
                self.put_variable("prefill", "mixed", mixed)
        # A skill of a user's own need not know packed rows; `train` packs only where it does.
        packed = {} if route.segments is None else {"segments": route.segments.at(self.site)}
        uniform = self._uniform if self.context.train else None
        for name, leaves in mixed.items():
            skill = skills[name]
            if name == "inventory" and by_token:
                assert isinstance(skill, TokenSkill)
                assert route.weights is not None
                weights = route.weights
                if not adapters.routes_tokens:
                    weights = _at_positions(weights, x.shape[1], packed.get("segments"))
                y = skill.apply_by_token(leaves, weights, x, y, uniform)
            else:
                y = skill.apply(leaves, x, y, uniform, **packed)
        return y

    def _routed(self, x: Float[Array, "batch length d_in"], route: Route) -> Route:
        """The route with the weights of the router that is nearest above the skills, or beside them."""
        adapters = self.context.adapters
        assert adapters is not None
        if adapters.router.reads_inputs:
            router = SiteRouter(adapters, self.site, self.context.train, name=INPUT_ROUTER)
            return dataclasses.replace(route, weights=router(x, route))
        # A router sits on the way to every adapted site, whatever the granularity.
        routed = self.context.routed(route, "fine", self.site)
        assert routed is not None
        return routed

    def _frozen_product(
        self, x: Float[Array, "batch length d_in"], copies: Float[Array, "parts batch length d_in"] | None
    ) -> Float[Array, "batch length d_out"]:
        shape, quantization = (x.shape[-1], self.features), self.context.config.quantization
        if quantization == "none":
            kernel = partitioning.param_with_axes(
                "kernel", self.kernel_init, shape, jnp.float32, axes=self.kernel_axes
            )
            return _product(x, copies, kernel.astype(x.dtype))
        # Integers are made from a float model's kernels, never drawn.
        integers = partitioning.param_with_axes(
            "kernel", nn.initializers.zeros, shape, integer(quantization), axes=self.kernel_axes
        )
        scale = partitioning.param_with_axes(
            SCALE, nn.initializers.ones, shape[1:], jnp.float32, axes=self.kernel_axes[1:]
        )

        def product(x: Array, copies: Array | None, integers: Array, scale: Array) -> Array:
            return _product(x, copies, integers.astype(x.dtype)) * scale.astype(x.dtype)

        # Recomputed in the backward pass, because otherwise a float copy of the kernel would be kept for it.
        return jax.checkpoint(product, prevent_cse=False)(x, copies, integers, scale)

    def _uniform(self, shape: tuple[int, ...]) -> Float[Array, "..."]:
        return jax.random.uniform(self.make_rng("dropout"), shape)
