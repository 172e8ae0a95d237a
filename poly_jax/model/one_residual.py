"""Functions whose backward pass keeps one array of the forward pass, or their arguments alone.

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


@jax.custom_vjp
def gated_gelu(gate: Float[Array, "*shape"], linear: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`gelu(gate) * linear` with GELU by tanh, as in T5 v1.1 (arXiv 1606.08415, section 2; 2002.05202).

    Both arguments are kept.
    """
    return jax.nn.gelu(gate, approximate=True) * linear


def _gated_forward(gate: Array, linear: Array) -> tuple[Array, tuple[Array, Array]]:
    return gated_gelu(gate, linear), (gate, linear)


def _gated_backward(kept: tuple[Array, Array], change: Array) -> tuple[Array, Array]:
    gate, linear = kept
    scale, cubic = np.sqrt(8 / np.pi).astype(gate.dtype), np.asarray(0.044715, gate.dtype)
    # (1 + tanh(z / 2)) / 2, in a form that the forward pass does not have: XLA would keep an equal one.
    open_ = jax.nn.sigmoid(scale * (gate + cubic * gate**3))
    slope = open_ + gate * open_ * (1 - open_) * scale * (1 + 3 * cubic * gate**2)
    return change * linear * slope, change * gate * open_


gated_gelu.defvjp(_gated_forward, _gated_backward)


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
