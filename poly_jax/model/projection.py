"""A site: one frozen linear map and, where it is selected, the skills that adapt it."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Mixed, TokenSkill
from poly_jax.model.context import Context, Cursor
from poly_jax.model.fan_out import FanOut
from poly_jax.model.frozen_product import frozen_product
from poly_jax.model.route import Route
from poly_jax.model.site_router import SiteRouter
from poly_jax.model.site_skills import Skills
from poly_jax.weights.parameter_names import INPUT_ROUTER, PRIVATE, SKILLS
from poly_jax.weights.parameter_spec import Initializer


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
        adapters, quantization = self.context.adapters, self.context.config.quantization
        y = frozen_product(x, self.features, self.kernel_init, self.kernel_axes, quantization)
        x = x.x if isinstance(x, FanOut) else x
        if adapters is None or route is None or not adapters.adapts(self.site):
            return y
        skills = {"inventory": adapters.skill}
        if adapters.private_skill is not None:
            skills[PRIVATE] = adapters.private_skill
        kept = cursor is not None and self.has_variable("prefill", "mixed")
        if adapters.routes_tokens or not kept:
            route = self._routed(x, route)
        # Decoding mixes for all its steps once, whatever the form of a mix.
        by_token = adapters.routes_tokens or (cursor is None and _cheaper_by_token(adapters, route))
        if kept:
            # An earlier step mixed for the same rows.
            mixed: dict[str, Mixed] = self.get_variable("prefill", "mixed")
        else:
            mixed = Skills(adapters, x.shape[-1], self.features, self.kernel_axes, name=SKILLS)(
                route, by_token
            )
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
                    weights = at_positions(weights, x.shape[1], packed.get("segments"))
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

    def _uniform(self, shape: tuple[int, ...]) -> Float[Array, "..."]:
        return jax.random.uniform(self.make_rng("dropout"), shape)


def _cheaper_by_token(adapters: Adapters, route: Route) -> bool:
    """Whether the weights of tasks take less work where each position weighs the skills anew."""
    assert route.weights is not None
    if not isinstance(adapters.skill, TokenSkill) or route.weights.ndim == 2:
        return False
    mixes_of_a_row = math.prod(route.task_ids.shape[1:])
    return adapters.skill.cheaper_by_token(adapters.n_splits, mixes_of_a_row)


def at_positions(
    weights: Float[Array, "*rows splits skills"],
    length: int,
    segments: Int[Array, "batch length"] | None,
) -> Float[Array, "batch length splits skills"]:
    """The weights of the example that each position belongs to; those of padding are any example's."""
    if segments is None:
        return jnp.broadcast_to(weights[:, None], (weights.shape[0], length, *weights.shape[1:]))
    return jnp.take_along_axis(weights, jnp.maximum(segments - 1, 0)[..., None, None], axis=1)
