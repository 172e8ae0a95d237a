"""(IA)^3 skills: learned vectors that rescale a projection's output."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.adapters.skill import Mixed
from poly_jax.routing.router import Uniform
from poly_jax.weights.parameter_spec import ParameterSpec


@dataclasses.dataclass(frozen=True)
class IA3:
    """`y = (x W0) * v` with v mixed per split (T-Few, arXiv 2205.05638, section 3.3). v starts at 1.

    Averaging the outputs of skills would give the same, since they are linear in v.

    Attributes:
      neutral: value of every parameter of a skill that changes nothing.
    """

    neutral: ClassVar[float] = 1.0

    def parameters(self, n_splits: int, n_skills: int, d_in: int, d_out: int) -> dict[str, ParameterSpec]:
        """`ia3` [splits, skills, d_out/splits]."""
        shape = (n_splits, n_skills, d_out // n_splits)
        return {"ia3": ParameterSpec(shape, jax.nn.initializers.ones, ("splits", "skills", "lora_out"))}

    def mix(self, parameters: Mixed, weights: Float[Array, "*rows splits skills"]) -> Mixed:
        """`ia3` [*rows, d_out]."""
        v = jnp.einsum("...hk,hko->...ho", weights, parameters["ia3"])
        return {"ia3": v.reshape(*weights.shape[:-2], -1)}

    def apply(
        self,
        mixed: Mixed,
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
        uniform: Uniform | None = None,
        segments: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """Rescale the frozen output by the float32 vector, as PEFT does, and round to the output's dtype."""
        v = mixed["ia3"]
        if v.ndim == 2:
            v = v[:, None]
        elif v.ndim == 3:
            assert segments is not None
            v = jnp.take_along_axis(v, jnp.maximum(segments - 1, 0)[..., None], axis=1)
        return (outputs.astype(jnp.float32) * v).astype(outputs.dtype)

    def cheaper_by_token(self, n_splits: int, mixes: int) -> bool:
        """Never: to take a mixed vector costs less than to mix one for each position."""
        return False

    def side_by_side(self, parameters: Mixed) -> Mixed:
        """`ia3` [skills, d_out]."""
        v = parameters["ia3"]
        return {"ia3": v.transpose(1, 0, 2).reshape(v.shape[1], -1)}

    def apply_by_token(
        self,
        stacked: Mixed,
        weights: Float[Array, "batch length splits skills"],
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
        uniform: Uniform | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """Rescale the frozen output of each position by its own mix of vectors, in float32 (MoV)."""
        _, _, splits, skills = weights.shape
        v = jnp.einsum("blhk,kho->blho", weights, stacked["ia3"].reshape(skills, splits, -1))
        return (outputs.astype(jnp.float32) * v.reshape(outputs.shape)).astype(outputs.dtype)

    def kept(self, mixed: Mixed, dtype: jnp.dtype) -> Mixed:
        """The whole mix, in float32."""
        return mixed

    def merge(self, mixed: Mixed, kernel: Float[Array, "d_in d_out"]) -> Float[Array, "d_in d_out"]:
        """`W0 diag(v)`."""
        return (kernel.astype(jnp.float32) * mixed["ia3"]).astype(kernel.dtype)

    def averaged(self, n_skills: int) -> "IA3":
        """(IA)^3: an average of vectors is a vector."""
        return self

    def average(self, parameters: Mixed) -> Mixed:
        """The mean vector."""
        return {"ia3": jnp.mean(parameters["ia3"], -2, keepdims=True)}
