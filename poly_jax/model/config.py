"""The configuration of a T5: its dimensions and its numerics."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp

from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields
from poly_jax.weights.quantized import Quantization
from poly_jax.weights.t5_dimensions import T5Dimensions

Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "minimal", "offload", "full"]

# Fields that say how a run computes; a checkpoint says what the model is.
NUMERICS = ("dtype", "scan_layers", "remat", "quantization")


@dataclasses.dataclass(frozen=True)
class T5Config(T5Dimensions):
    """Dimensions (see `T5Dimensions`) and numerics of a T5 encoder-decoder; the field names are T5X's.

    Attributes:
      dropout_rate: probability of dropping an activation while training.
      relative_attention_max_distance: distance beyond which all positions share a bucket.
      eos_id: token id that ends a target.
      decoder_start_id: token id that the decoder reads first. Padding is 0, as seqio pads.
      dtype: dtype of activations; parameters keep the dtype they were stored in.
      scan_layers: whether one layer is compiled and scanned; parameters then have a leading layer axis.
      remat: rematerialisation. "none" keeps everything, "minimal" the outputs of matrix products with
        parameters, "offload" those of products with frozen kernels in the host's memory, "full" nothing
        inside a layer.
      quantization: form of the frozen kernels of all sites: "none" in `dtype`, "int8" or "int4" as
        integers with a scale for each output feature, which takes a half or a quarter of the memory of
        bfloat16. Such kernels cannot be trained.

    Raises:
      UserError: a value is not possible.
    """

    dropout_rate: float = 0.0
    relative_attention_max_distance: int = 128
    eos_id: int = 1
    decoder_start_id: int = 0
    dtype: Dtype = "float32"
    scan_layers: bool = False
    remat: Remat = "none"
    quantization: Quantization = "none"

    def __post_init__(self):
        super().__post_init__()
        check_literal_fields(self)
        for field, lowest in (("eos_id", 1), ("decoder_start_id", 0)):
            if not lowest <= getattr(self, field) < self.vocab_size:
                raise UserError(
                    f"T5Config.{field} is {getattr(self, field)}; give a token id from {lowest} to"
                    f" {self.vocab_size - 1}, as the embedding has {self.vocab_size} rows and 0 is padding"
                )
        if not 0 <= self.dropout_rate < 1:
            raise UserError(f"T5Config.dropout_rate is {self.dropout_rate}; it must be in [0, 1)")
        # In the decoder, the first half of the buckets hold one distance each.
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 2:
            raise UserError(
                f"T5Config.relative_attention_max_distance is {self.relative_attention_max_distance}; it must"
                f" be above half of the {self.relative_attention_num_buckets} buckets"
            )

    @classmethod
    def of_checkpoint(cls, fields: Mapping[str, Any], source: object) -> "T5Config":
        """Make the configuration of a checkpoint's T5. Fields about how a run computes keep their defaults.

        Args:
          fields: values of fields, as `Backbone.stated_fields` gives them.
          source: origin of the fields, for messages.

        Raises:
          UserError: a field is not known, or its value is not possible.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise UserError(f"{source} states {unknown[0]!r}, which T5Config does not have")
        return cls(**{name: value for name, value in fields.items() if name not in NUMERICS})

    @property
    def activation_dtype(self) -> jnp.dtype:
        """The dtype of activations."""
        return jnp.dtype(self.dtype)
