"""A site: one frozen linear map and, where it is selected, the skills that adapt it."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Mixed
from poly_jax.model.config import T5Config
from poly_jax.model.route import Route, passes_router
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.weights.parameter_names import PRIVATE, SKILLS
from poly_jax.weights.parameter_spec import Initializer, ParameterSpec


class Skills(nn.Module):
    """The adapters of one site: the inventory of skills, and each task's own skill where there is one."""

    adapters: Adapters
    d_in: int
    d_out: int

    @nn.compact
    def __call__(self, route: Route) -> dict[str, Mixed]:
        """For every row the mix of the inventory, and as `private` the skill of its task."""
        cfg = self.adapters
        assert route.weights is not None
        parameters = _parameters(
            cfg.skill.parameters(cfg.n_splits, cfg.inventory_size, self.d_in, self.d_out),
            cfg.router.owns_skills,
        )
        mixed = {"inventory": cfg.skill.mix(parameters, route.weights)}
        if cfg.private_skill is not None:
            mixed["private"] = PrivateSkills(cfg, self.d_in, self.d_out, name=PRIVATE)(route.task_ids)
        return mixed


class PrivateSkills(nn.Module):
    """A skill for every task at one site, which only that task uses, beside the inventory."""

    adapters: Adapters
    d_in: int
    d_out: int

    @nn.compact
    def __call__(self, task_ids: Int[Array, "batch"]) -> Mixed:
        """The skill of every row's task."""
        cfg = self.adapters
        assert cfg.private_skill is not None
        parameters = _parameters(cfg.private_skill.parameters(1, cfg.n_tasks, self.d_in, self.d_out), True)
        weights = PrivateRouter().weights({}, task_ids, 1, cfg.n_tasks, None)
        return cfg.private_skill.mix(parameters, weights)


def _parameters(specs: Mapping[str, ParameterSpec], of_tasks: bool) -> dict[str, Float[Array, "..."]]:
    """The parameters; the axis of skills that are one task's each is spread as tasks are."""

    def axes(spec: ParameterSpec) -> tuple[str, ...]:
        return tuple("tasks" if of_tasks and axis == "skills" else axis for axis in spec.axes)

    return {
        name: partitioning.param_with_axes(name, spec.init, spec.shape, axes=axes(spec))
        for name, spec in specs.items()
    }


class Projection(nn.Module):
    """`y = x W`, adapted where its site is selected.

    Attributes:
      config: shape of the model.
      adapters: the run's adapters, or None.
      site: path of this site, as `poly_jax.weights.t5_dimensions.sites` lists it.
      features: output width.
      kernel_init: initialiser of W.
      kernel_axes: logical names of W's axes.
      train: whether routers may sample and skills drop their inputs.
      decode: keep the mixed adapters in the collection `prefill`, so that later calls with the same rows do
        not mix again.
    """

    config: T5Config
    adapters: Adapters | None
    site: str
    features: int
    kernel_init: Initializer
    kernel_axes: tuple[str, str]
    train: bool = False
    decode: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length d_in"], route: Route | None
    ) -> Float[Array, "batch length d_out"]:
        """The site's output for every row's task."""
        d_in = x.shape[-1]
        kernel = partitioning.param_with_axes(
            "kernel", self.kernel_init, (d_in, self.features), jnp.float32, axes=self.kernel_axes
        )
        y = x @ kernel.astype(x.dtype)
        if self.adapters is None or route is None or not self.adapters.adapts(self.site):
            return y
        mixed = self._mixed(self.adapters, d_in, x.dtype, route)
        uniform = self._uniform if self.train else None
        y = self.adapters.skill.apply(mixed["inventory"], x, y, uniform)
        if self.adapters.private_skill is not None:
            y = self.adapters.private_skill.apply(mixed["private"], x, y, uniform)
        return y

    def _uniform(self, shape: tuple[int, ...]) -> Float[Array, "..."]:
        return jax.random.uniform(self.make_rng("dropout"), shape)

    def _mixed(self, adapters: Adapters, d_in: int, dtype: jnp.dtype, route: Route) -> dict[str, Mixed]:
        if self.decode and self.has_variable("prefill", "mixed"):
            return self.get_variable("prefill", "mixed")
        routed = passes_router(adapters, self.config, "fine", self.site, route, self.train)
        # Whatever the granularity, a router sits on the way to every adapted site.
        assert routed is not None
        mixed = Skills(adapters, d_in, self.features, name=SKILLS)(routed)
        if self.decode:
            skills = {"inventory": adapters.skill}
            if adapters.private_skill is not None:
                skills["private"] = adapters.private_skill
            mixed = {name: skills[name].kept(leaves, dtype) for name, leaves in mixed.items()}
            self.put_variable("prefill", "mixed", mixed)
        return mixed
