"""The dimensions of a T5 that decide which parameters it has and how large they are."""

import dataclasses
from typing import Any

from poly_jax.errors import UserError
from poly_jax.files.json_fields import is_kind, shown

_ACTIVATIONS = ("relu", "gelu", "linear")
# The smallest and the largest value of a field. No T5 comes near the largest ones. A model beyond them would
# be traced for hours, layer by layer, or have a table of all distances that fills the memory.
_SIZE = (1, 2**31 - 1)
_RANGES = {
    "vocab_size": _SIZE,
    "emb_dim": _SIZE,
    "num_heads": _SIZE,
    "head_dim": _SIZE,
    "mlp_dim": _SIZE,
    "num_encoder_layers": (0, 1000),
    "num_decoder_layers": (0, 1000),
    "relative_attention_num_buckets": (4, 1_000_000),
    "relative_attention_max_distance": (1, 10_000_000),
}
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@dataclasses.dataclass(frozen=True)
class T5Dimensions:
    """Dimensions of a T5 encoder-decoder; the field names are T5X's. Subclasses' fields are checked as well.

    Attributes:
      vocab_size: number of rows of the embedding.
      emb_dim: width of the residual stream.
      num_heads: number of attention heads.
      head_dim: width of one head.
      mlp_dim: inner width of the MLP.
      num_encoder_layers: encoder depth.
      num_decoder_layers: decoder depth.
      mlp_activations: one activation per MLP input: ("relu",) is v1.0, ("gelu", "linear") is v1.1.
      logits_via_embedding: whether the output head is the embedding (v1.0) instead of a separate kernel.
      relative_attention_num_buckets: number of buckets of relative positions.
      relative_bias_in_layers: whether every layer has its own relative position biases, as in umT5 and in
        T5X's scalable_t5; otherwise the layers of a stack share them.

    Raises:
      UserError: a field has a value of another type or out of range, or an activation is not known.
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
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))

    @property
    def mlp_inputs(self) -> tuple[str, ...]:
        """Names of the MLP's input projections: `wi`, or `wi_0`, `wi_1`, ... when gated."""
        if len(self.mlp_activations) == 1:
            return ("wi",)
        return tuple(f"wi_{i}" for i in range(len(self.mlp_activations)))


def _check(field: dataclasses.Field, value: Any) -> None:
    """Raise a UserError where a field has an invalid value, from a file or from a user."""
    if field.name == "mlp_activations":
        names = list(value) if isinstance(value, list | tuple) else []
        if not names or not all(name in _ACTIVATIONS for name in names):
            raise UserError(
                f"T5Config.mlp_activations is {value!r}; use a tuple of names out of"
                f" {', '.join(_ACTIVATIONS)}"
            )
        return
    kind: Any = field.type
    if kind in _KINDS and not is_kind(value, kind):
        raise UserError(f"T5Config.{field.name} is {shown(value)}; it must be {_KINDS[kind]}")
    least, most = _RANGES.get(field.name, (None, None))
    if least is not None and value < least:
        raise UserError(f"T5Config.{field.name} is {value}; it must be at least {least}")
    if most is not None and value > most:
        raise UserError(f"T5Config.{field.name} is {shown(value)}; it must be at most {most}")


DIMENSIONS = tuple(field.name for field in dataclasses.fields(T5Dimensions))


# The sites that read the encoder's output from inside the decoder.
_READ_ENCODED = ("decoder/encoder_decoder_attention/key", "decoder/encoder_decoder_attention/value")


def sites(dimensions: T5Dimensions) -> dict[str, tuple[int, int]]:
    """Return the input and output width of every projection, by site path.

    A site path is `stack/sublayer/projection` without a layer index, such as
    `decoder/encoder_decoder_attention/query`, because all layers of a stack are adapted alike.
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


def reads_encoder_positions(site: str) -> bool:
    """Whether a site reads the positions of the encoder, as sites of the decoder that read its output do."""
    return site.startswith("encoder/") or site in _READ_ENCODED
