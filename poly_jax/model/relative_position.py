"""T5's relative position bias."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen import partitioning
from jaxtyping import Array, Float, Int

from poly_jax.model.config import T5Config


def distance_buckets(num_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of every distance 0..max_distance in one direction (arXiv 1910.10683, as in Mesh TensorFlow).

    The first half of the buckets holds one distance each, the rest grow logarithmically up to max_distance.
    A table, since a logarithm computed on the device may fall on the other side of a bucket's edge.
    """
    exact = num_buckets // 2
    n = np.arange(max_distance + 1)
    ratio = np.log(np.maximum(n, 1).astype(np.float32) / exact + np.finfo(np.float32).eps)
    grown = exact + (ratio / np.log(max_distance / exact) * (num_buckets - exact)).astype(np.int32)
    return np.where(n < exact, n, np.minimum(grown, num_buckets - 1)).astype(np.int32)


class RelativePositionBias(nn.Module):
    """One learned bias per head and bucket of relative position, of a stack's layers or of one of them.

    Attributes:
      config: shape of the model.
      bidirectional: half of the buckets for keys after the query (encoder); else those share bucket 0.
    """

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(
        self, query_positions: Int[Array, "queries"], key_positions: Int[Array, "keys"]
    ) -> Float[Array, "1 heads queries keys"]:
        """Bias to add to the attention logits."""
        cfg = self.config
        table = partitioning.param_with_axes(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (cfg.num_heads, cfg.relative_attention_num_buckets),
            axes=("heads", "relpos_buckets"),
        )
        ahead = key_positions[None, :] - query_positions[:, None]
        buckets = cfg.relative_attention_num_buckets // (2 if self.bidirectional else 1)
        lookup = jnp.asarray(distance_buckets(buckets, cfg.relative_attention_max_distance))
        back = jnp.abs(ahead) if self.bidirectional else jnp.maximum(-ahead, 0)
        bucket = lookup[jnp.minimum(back, cfg.relative_attention_max_distance)]
        if self.bidirectional:
            bucket = bucket + jnp.where(ahead > 0, buckets, 0)
        return jnp.take(table, bucket, axis=1).astype(cfg.activation_dtype)[None]
