"""T5's layer norm."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Float


class RMSNorm(nn.Module):
    """Scales by the root mean square: no mean is subtracted, no bias added (arXiv 1910.07467)."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Normalised in float32, returned in x's dtype."""
        scale = partitioning.param_with_axes("scale", nn.initializers.ones, (x.shape[-1],), axes=("embed",))
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        return (normed * scale).astype(x.dtype)
