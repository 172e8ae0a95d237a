"""PHATGOOSE: a gate for every skill, trained after the skill, by which tokens are routed."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.routing.input_router import InputRouter
from poly_jax.routing.router import Parameters, Sizes, Uniform
from poly_jax.routing.softmax import check_enough, check_top_k, products, softmax_over_largest
from poly_jax.routing.standardized import standardized
from poly_jax.weights.parameter_spec import ParameterSpec


@dataclasses.dataclass(frozen=True)
class PHATGOOSERouter(InputRouter):
    """Gates v_k that are trained one task at a time and then compared (arXiv 2402.05859, section 3).

    In training, skill k belongs to task k, and a token of task k has the weight `sigmoid(v_k . x)` for it and
    0 for all others. In evaluation, whatever the task is, `w = softmax(norm(v_k) . norm(x) / sqrt(width))`
    over the largest, where `norm` gives a vector mean 0 and variance 1.

    Attributes:
      top_k: number of skills that a token uses in evaluation; 0 uses all.
    """

    learned: ClassVar[bool] = False
    top_k: int = 2

    def __post_init__(self):
        check_top_k(self, self.top_k)

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number that is requested, which must allow for `top_k`."""
        return check_enough(self, self.top_k, requested)

    def input_parameters(self, sizes: Sizes, width: int) -> dict[str, ParameterSpec]:
        """`gates` [skills, width], which start at 0: every gate is half open."""
        init = jax.nn.initializers.zeros
        return {"gates": ParameterSpec((sizes.n_skills, width), init, ("skills", "lora_in"))}

    def input_weights(
        self,
        parameters: Parameters,
        inputs: Float[Array, "*rows width"],
        task_ids: Int[Array, "*rows"],
        sizes: Sizes,
        uniform: Uniform | None,
    ) -> Float[Array, "*rows skills"]:
        """The gate of the task's own skill while training; the comparison of all gates in evaluation."""
        gates = parameters["gates"]
        if uniform is not None:
            return jax.nn.sigmoid(products(inputs, gates)) * jax.nn.one_hot(task_ids, sizes.n_skills)
        scores = products(standardized(inputs), standardized(gates))
        return softmax_over_largest(scores / jnp.sqrt(inputs.shape[-1]), self.top_k)
