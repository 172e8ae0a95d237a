"""The peak figures of a chip of each generation of TPUs.

Sources: https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, "Peak compute per chip", "HBM capacity",
"Inter-chip interconnect bandwidth" and "Data center network bandwidth".
"""

import dataclasses

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Peaks:
    """The limits of one chip. Operations count a multiplication and an addition as two.

    Attributes:
      bfloat16: operations per second in bfloat16.
      hbm_bytes: bytes of memory.
      ici: bytes per second over the links to other chips of the slice, both directions of all links together.
      dcn: bytes per second to other slices over the network of the data centre.
    """

    bfloat16: float
    hbm_bytes: int
    ici: float
    dcn: float


PEAKS = {
    "v4": Peaks(275e12, 32 * _GIB, 300e9, 6.25e9),
    "v5e": Peaks(197e12, 16 * _GIB, 200e9, 3.125e9),
    "v5p": Peaks(459e12, 95 * _GIB, 600e9, 6.25e9),
    "v6e": Peaks(918e12, 32 * _GIB, 400e9, 12.5e9),
    "v7x": Peaks(2307e12, 192 * _GIB, 1200e9, 12.5e9),
}
"""By the name of the generation, as in `poly_jax.launch.slices.GENERATIONS`."""
