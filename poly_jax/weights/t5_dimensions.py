"""The dimensions of a T5 that decide which parameters it has and how large they are."""

import dataclasses

from poly_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class T5Dimensions:
    """Dimensions of a T5 encoder-decoder; the field names are T5X's.

    Attributes:
      vocab_size: rows of the embedding.
      emb_dim: width of the residual stream.
      num_heads: attention heads.
      head_dim: width of one head.
      mlp_dim: inner width of the MLP.
      num_encoder_layers: encoder depth.
      num_decoder_layers: decoder depth.
      mlp_activations: one activation per MLP input: ("relu",) is v1.0, ("gelu", "linear") is v1.1.
      logits_via_embedding: whether the output head is the embedding (v1.0) instead of a kernel of its own.
      relative_attention_num_buckets: buckets of relative positions.
      relative_bias_in_layers: whether every layer has its own relative position biases, as in umT5 and in
        T5X's scalable_t5; else the layers of a stack share them.

    Raises:
      UserError: a dimension is below 1, or an activation is not known.
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
    relative_attention_num_buckets: int = 32
    relative_bias_in_layers: bool = False

    def __post_init__(self):
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        if not self.mlp_activations or set(self.mlp_activations) - {"relu", "gelu", "linear"}:
            raise UserError(
                f"T5Config.mlp_activations is {self.mlp_activations!r}; use names out of 'relu', 'gelu',"
                " 'linear'"
            )
        for field in ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim"):
            if getattr(self, field) < 1:
                raise UserError(f"T5Config.{field} is {getattr(self, field)}; it must be at least 1")

    @property
    def mlp_inputs(self) -> tuple[str, ...]:
        """Names of the MLP's input projections: `wi`, or `wi_0`, `wi_1`, ... when gated."""
        if len(self.mlp_activations) == 1:
            return ("wi",)
        return tuple(f"wi_{i}" for i in range(len(self.mlp_activations)))


DIMENSIONS = tuple(field.name for field in dataclasses.fields(T5Dimensions))


def sites(dimensions: T5Dimensions) -> dict[str, tuple[int, int]]:
    """Input and output width of every projection, by site path.

    A site path is `stack/sublayer/projection` without a layer index, such as
    `decoder/encoder_decoder_attention/query`: all layers of a stack are adapted alike.
    """
    heads = dimensions.num_heads * dimensions.head_dim
    attention = {
        "query": (dimensions.emb_dim, heads),
        "key": (dimensions.emb_dim, heads),
        "value": (dimensions.emb_dim, heads),
        "out": (heads, dimensions.emb_dim),
    }
    mlp = {name: (dimensions.emb_dim, dimensions.mlp_dim) for name in dimensions.mlp_inputs}
    mlp["wo"] = (dimensions.mlp_dim, dimensions.emb_dim)
    sublayers = {
        "encoder/attention": attention,
        "encoder/mlp": mlp,
        "decoder/self_attention": attention,
        "decoder/encoder_decoder_attention": attention,
        "decoder/mlp": mlp,
    }
    return {f"{sub}/{name}": shape for sub, maps in sublayers.items() for name, shape in maps.items()}
