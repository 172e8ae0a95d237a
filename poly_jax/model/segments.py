"""The places of the examples in packed rows."""

from collections.abc import Mapping
from typing import Any, Optional

import flax.struct
from jaxtyping import Array, Bool, Int

from poly_jax.weights.t5_dimensions import reads_encoder_positions


@flax.struct.dataclass
class Segments:
    """The example of its row that each position belongs to: 1, 2, ...; 0 is padding, as in seqio.

    An example has the same number in `inputs` and in `targets`. Its positions are contiguous, so that their
    differences are the same as in the example alone, and relative position biases need nothing else.

    Attributes:
      inputs: the example of every position of the encoder's input.
      targets: the example of every position of the target.
    """

    inputs: Int[Array, "batch inputs"]
    targets: Int[Array, "batch targets"]

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> Optional["Segments"]:
        """The segments of a packed batch; None for a batch with one example per row."""
        if "encoder_segment_ids" not in batch:
            return None
        return cls(batch["encoder_segment_ids"], batch["decoder_segment_ids"])

    def at(self, site: str) -> Int[Array, "batch length"]:
        """The example of every position that the site at this path reads and writes."""
        if reads_encoder_positions(site):
            return self.inputs
        return self.targets

    @property
    def inputs_to_inputs(self) -> Bool[Array, "batch 1 inputs inputs"]:
        """Whether each position of the input (third axis) may attend to each position (last axis)."""
        return _same(self.inputs, self.inputs)

    @property
    def targets_to_targets(self) -> Bool[Array, "batch 1 targets targets"]:
        """Whether two positions of the target (third and last axis) belong to the same example."""
        return _same(self.targets, self.targets)

    @property
    def targets_to_inputs(self) -> Bool[Array, "batch 1 targets inputs"]:
        """Whether each position of the target may attend to each position of the input."""
        return _same(self.targets, self.inputs)


def _same(
    queries: Int[Array, "batch queries"], keys: Int[Array, "batch keys"]
) -> Bool[Array, "batch 1 queries keys"]:
    return ((queries[:, :, None] == keys[:, None, :]) & (queries > 0)[:, :, None])[:, None]
