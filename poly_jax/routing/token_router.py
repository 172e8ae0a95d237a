"""MoLoRA and MoV: a trained router that picks skills for every token by the token's hidden state."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from poly_jax.routing.input_router import InputRouter
from poly_jax.routing.router import Parameters, Sizes, Uniform
from poly_jax.routing.softmax import (
    check_enough,
    check_temperature,
    check_top_k,
    products,
    softmax_over_largest,
)
from poly_jax.weights.parameter_spec import ParameterSpec


@dataclasses.dataclass(frozen=True)
class TokenRouter(InputRouter):
    """`w = softmax(W x)` for the input x of every token (arXiv 2309.05444, eq. 3).

    Over LoRA skills this is MoLoRA, over (IA)^3 skills it is MoV. All skills are in use, as in the paper,
    unless `top_k` is set.

    Attributes:
      top_k: number of skills that a token uses; 0 uses all.
      temperature: temperature of the softmax.
    """

    top_k: int = 0
    temperature: float = 1.0

    def __post_init__(self):
        check_top_k(self, self.top_k)
        check_temperature(self, self.temperature)

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number that is requested, which must allow for `top_k`."""
        return check_enough(self, self.top_k, requested)

    def input_parameters(self, sizes: Sizes, width: int) -> dict[str, ParameterSpec]:
        """`kernel` [skills, width], drawn from N(0, 0.02^2) so that the first weights are almost equal."""
        init = jax.nn.initializers.normal(0.02)
        return {"kernel": ParameterSpec((sizes.n_skills, width), init, ("skills", "lora_in"))}

    def input_weights(
        self,
        parameters: Parameters,
        inputs: Float[Array, "*rows width"],
        task_ids: Int[Array, "*rows"],
        sizes: Sizes,
        uniform: Uniform | None,
    ) -> Float[Array, "*rows skills"]:
        """The softmax of one product with every token."""
        return softmax_over_largest(products(inputs, parameters["kernel"]), self.top_k, self.temperature)
