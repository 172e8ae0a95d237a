"""Functions whose backward pass keeps one array of the forward pass.

JAX differentiates their definitions step by step, and XLA then keeps several arrays of the same size: of the
softmax the exponentials, the reciprocal sums of each and the weights (`jax.nn.softmax` of jax 0.10).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@jax.custom_jvp
def softmax(logits: Float[Array, "*rows values"]) -> Float[Array, "*rows values"]:
    """`jax.nn.softmax` over the last axis; the result is kept."""
    return jax.nn.softmax(logits, axis=-1)


@softmax.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weights, (change,) = softmax(*primals), tangents
    return weights, weights * (change - jnp.sum(weights * change, axis=-1, keepdims=True))


@jax.custom_jvp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """GELU by tanh, as in T5 v1.1 (arXiv 1606.08415, section 2); its slope is kept."""
    return jax.nn.gelu(x, approximate=True)


@gelu.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (change,) = primals, tangents
    scale, cubic = np.sqrt(2 / np.pi).astype(x.dtype), np.asarray(0.044715, x.dtype)
    # The same expression as in the function, so that XLA computes it once.
    tanh = jnp.tanh(scale * (x + cubic * x**3))
    slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * scale * (1 + 3 * cubic * x**2)
    return x * (0.5 * (1 + tanh)), slope * change


@jax.custom_vjp
def logsumexp(logits: Float[Array, "*rows values"]) -> Float[Array, "*rows"]:
    """`jax.nn.logsumexp` over the last axis; the logits are kept, and their exponentials computed again."""
    return jax.nn.logsumexp(logits, axis=-1)


def _forward(logits: Float[Array, "*rows values"]) -> tuple[Array, tuple[Array, Array]]:
    total = logsumexp(logits)
    return total, (logits, total)


def _backward(kept: tuple[Array, Array], change: Float[Array, "*rows"]) -> tuple[Array]:
    logits, total = kept
    return (jnp.exp(logits - total[..., None]) * change[..., None],)


logsumexp.defvjp(_forward, _backward)
