"""Arrow: routes every token to the skills whose updates change it most, without any training."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
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

_ITERATIONS = 128
_HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class ArrowRouter(InputRouter):
    """`w = softmax(|x . v_k| / temperature)` over the largest, with a prototype v_k of every skill.

    The prototype is the direction of inputs that the skill's update A B stretches most: its first singular
    vector on the side of the inputs (arXiv 2405.11157, section 4.2). The scores are the same as in PEFT's
    `tuners/lora/arrow.py`: absolute products with inputs that are not normalised. Its subtraction of general
    knowledge is not part of this router.

    Attributes:
      top_k: number of skills that a token uses; 0 uses all.
      temperature: temperature of the softmax.
    """

    learned: ClassVar[bool] = False
    top_k: int = 3
    temperature: float = 1.0

    def __post_init__(self):
        check_top_k(self, self.top_k)
        check_temperature(self, self.temperature)

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number that is requested, which must allow for `top_k`."""
        return check_enough(self, self.top_k, requested)

    def input_parameters(self, sizes: Sizes, width: int) -> dict[str, ParameterSpec]:
        """`prototypes` [skills, width], of length 1."""
        init = jax.nn.initializers.zeros
        return {"prototypes": ParameterSpec((sizes.n_skills, width), init, ("skills", "lora_in"))}

    def from_skills(self, skills: Mapping[str, Float[Array, "..."]]) -> dict[str, Float[Array, "..."]]:
        """The prototypes of LoRA skills of one split, `lora_a` [*layers, 1, skills, d_in, rank]."""
        a, b = (jnp.squeeze(jnp.asarray(skills[name]), -4) for name in ("lora_a", "lora_b"))
        return {"prototypes": prototypes(a, b)}

    def input_weights(
        self,
        parameters: Parameters,
        inputs: Float[Array, "*rows width"],
        task_ids: Int[Array, "*rows"],
        sizes: Sizes,
        uniform: Uniform | None,
    ) -> Float[Array, "*rows skills"]:
        """The softmax of the absolute products of every token with the prototypes."""
        scores = products(inputs, jax.lax.stop_gradient(parameters["prototypes"]))
        return softmax_over_largest(jnp.abs(scores), self.top_k, self.temperature)


def prototypes(
    a: Float[Array, "*skills d_in rank"], b: Float[Array, "*skills rank d_out"]
) -> Float[Array, "*skills d_in"]:
    """The unit vectors v for which `v A B` is longest, up to their signs; 0 for an update of 0.

    v is the first eigenvector of `(A B) (A B)^T`, so `v = A u` with u the first eigenvector of the small
    matrix `(B B^T) (A^T A)`, which power iteration finds. No array is larger than the factors.
    """
    inner = _scaled(jnp.einsum("...ro,...so->...rs", b, b, precision=_HIGHEST))
    outer = _scaled(jnp.einsum("...ir,...is->...rs", a, a, precision=_HIGHEST))
    both = _scaled(jnp.matmul(inner, outer, precision=_HIGHEST))
    start = jax.random.normal(jax.random.key(0), a.shape[-1:], jnp.float32)

    def iterate(_: int, u: Float[Array, "*skills rank"]) -> Float[Array, "*skills rank"]:
        # A sum of products: batched products of tiny matrices are much slower on CPUs.
        return _unit((both * u[..., None, :]).sum(-1))

    u = jax.lax.fori_loop(0, _ITERATIONS, iterate, jnp.broadcast_to(start, (*a.shape[:-2], *start.shape)))
    return _unit(jnp.einsum("...ir,...r->...i", a, u, precision=_HIGHEST))


def _scaled(matrices: Float[Array, "*skills rank rank"]) -> Float[Array, "*skills rank rank"]:
    """Matrices whose largest element is 1, so that no product underflows; zeros where all are 0."""
    largest = jnp.abs(matrices).max((-2, -1), keepdims=True)
    return matrices / jnp.where(largest > 0, largest, 1)


def _unit(vectors: Float[Array, "*skills size"]) -> Float[Array, "*skills size"]:
    """Vectors of length 1, or of zeros."""
    largest = jnp.abs(vectors).max(-1, keepdims=True)
    vectors = vectors / jnp.where(largest > 0, largest, 1)
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 0.5)
