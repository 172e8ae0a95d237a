"""The shape of a T5."""

import dataclasses

import gin
import jax.numpy as jnp

from poly_jax.errors import UserError

_REMAT = ("none", "minimal", "full")


@gin.configurable
@dataclasses.dataclass(frozen=True)
class T5Config:
    """Dimensions and numerics of a T5 encoder-decoder; the field names are T5X's.

    Attributes:
      vocab_size: rows of the embedding.
      emb_dim: width of the residual stream.
      num_heads: attention heads.
      head_dim: width of one head.
      mlp_dim: inner width of the MLP.
      num_encoder_layers: encoder depth.
      num_decoder_layers: decoder depth.
      mlp_activations: one activation per MLP input: ("relu",) is v1.0, ("gelu", "linear") is v1.1.
      logits_via_embedding: tie the output head to the embedding (v1.0) instead of a kernel of its own.
      dropout_rate: dropout of every block.
      relative_attention_num_buckets: buckets of relative positions.
      relative_attention_max_distance: distance from which on all positions share a bucket.
      relative_bias_in_layers: every layer has relative position biases of its own, as in umT5 and in T5X's
        scalable_t5; else those of a stack share them.
      dtype: dtype of activations; parameters keep the dtype they were stored in.
      scan_layers: compile one layer and scan it; parameters then carry a leading layer axis.
      remat: rematerialisation: "none"; "minimal" keeps the outputs of matrix products with parameters; "full"
        keeps nothing inside a layer.
    """

    vocab_size: int = 32128
    emb_dim: int = 512
    num_heads: int = 6
    head_dim: int = 64
    mlp_dim: int = 1024
    num_encoder_layers: int = 8
    num_decoder_layers: int = 8
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    logits_via_embedding: bool = False
    dropout_rate: float = 0.0
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    relative_bias_in_layers: bool = False
    dtype: str = "float32"
    scan_layers: bool = False
    remat: str = "none"

    def __post_init__(self):
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"T5Config.dtype is {self.dtype!r}; use 'float32' or 'bfloat16'")
        if self.remat not in _REMAT:
            raise UserError(f"T5Config.remat is {self.remat!r}; use one of {', '.join(_REMAT)}")
        if not self.mlp_activations or set(self.mlp_activations) - {"relu", "gelu", "linear"}:
            raise UserError(
                f"T5Config.mlp_activations is {self.mlp_activations!r}; use names out of 'relu', 'gelu',"
                " 'linear'"
            )
        for field in ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim"):
            if getattr(self, field) < 1:
                raise UserError(f"T5Config.{field} is {getattr(self, field)}; it must be at least 1")
        # In the decoder half of the buckets are for one distance each.
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 2:
            raise UserError(
                f"T5Config.relative_attention_max_distance is {self.relative_attention_max_distance}; it must"
                f" be above half of the {self.relative_attention_num_buckets} buckets"
            )

    @property
    def activation_dtype(self) -> jnp.dtype:
        """The dtype of activations."""
        return jnp.dtype(self.dtype)

    @property
    def mlp_inputs(self) -> tuple[str, ...]:
        """Names of the MLP's input projections: `wi`, or `wi_0`, `wi_1`, ... when gated."""
        if len(self.mlp_activations) == 1:
            return ("wi",)
        return tuple(f"wi_{i}" for i in range(len(self.mlp_activations)))
