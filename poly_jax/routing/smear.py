"""SMEAR: one mix of skills for every example, chosen by the mean of its hidden states."""

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Float, Int

from poly_jax.routing.input_router import InputRouter
from poly_jax.routing.router import Parameters, Sizes, Uniform
from poly_jax.routing.softmax import products
from poly_jax.routing.standardized import standardized
from poly_jax.weights.parameter_spec import ParameterSpec


@dataclasses.dataclass(frozen=True)
class SMEARRouter(InputRouter):
    """`w = softmax(W norm(mean x))`, where the mean is over an example's positions (arXiv 2306.03745).

    Skills are merged by their factors, as for a task's mix. In the encoder, x is the site's input. In the
    decoder it is the encoded input, as in the authors' code, so the mix of an example does not depend on what
    has been decoded. Padding does not count.
    """

    pools: ClassVar[bool] = True

    def input_parameters(self, sizes: Sizes, width: int) -> dict[str, ParameterSpec]:
        """`kernel` [skills, width], drawn from N(0, 0.01^2) so that the first weights are almost equal."""
        init = jax.nn.initializers.normal(0.01)
        return {"kernel": ParameterSpec((sizes.n_skills, width), init, ("skills", "lora_in"))}

    def input_weights(
        self,
        parameters: Parameters,
        inputs: Float[Array, "*rows width"],
        task_ids: Int[Array, "*rows"],
        sizes: Sizes,
        uniform: Uniform | None,
    ) -> Float[Array, "*rows skills"]:
        """The softmax of one product with every mean."""
        return jax.nn.softmax(products(standardized(inputs), parameters["kernel"]), axis=-1)
