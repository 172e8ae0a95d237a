"""Measures how long Arrow's prototypes of a large inventory take.

    python benchmarks/arrow_prototypes.py [--model=t5_1_1_xl] [--skills=256] [--rank=16]

Computes the prototypes of LoRA skills with random factors, map by map, for every projection of the model: 432
maps for T5-XL, whose widths are 2048 and 5120. Drawing the factors does not count, compilation does.
"""

import time

import jax
import numpy as np
from measuring import arguments, report
from programs import float32_config

from poly_jax.cli.allocation import reuse_memory
from poly_jax.routing.arrow import prototypes
from poly_jax.weights.t5_dimensions import sites


def main() -> None:
    """Print the table."""
    reuse_memory()  # As the program does.
    parser = arguments(__doc__)
    parser.add_argument("--model", default="t5_1_1_xl", help="file of gin/models")
    parser.add_argument("--skills", type=int, default=256)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    config = float32_config(args.model)
    depths = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    program = jax.jit(prototypes)
    found: dict[str, list[float]] = {}
    for site, (d_in, d_out) in sites(config).items():
        rng = np.random.default_rng(0)
        a = jax.device_put(rng.standard_normal((args.skills, d_in, args.rank), np.float32))
        b = jax.device_put(rng.standard_normal((args.skills, args.rank, d_out), np.float32))
        for _ in range(depths[site.split("/")[0]]):
            began = time.perf_counter()
            jax.block_until_ready(program(a, b))
            found.setdefault(f"{d_in} to {d_out}", []).append(time.perf_counter() - began)
    total = sum(sum(seconds) for seconds in found.values())
    maps = sum(len(seconds) for seconds in found.values())
    rows = [
        [widths, f"{len(seconds)}", f"{sum(seconds):.1f}", f"{1e3 * float(np.median(seconds)):.0f}"]
        for widths, seconds in found.items()
    ]
    report(
        f"Arrow's prototypes: {args.model}, {args.skills} skills of rank {args.rank}",
        ["widths", "maps", "s", "median of a map, ms"],
        [*rows, ["all", f"{maps}", f"{total:.1f}", ""]],
        {"seconds": total, "maps": maps},
        args.json,
    )


if __name__ == "__main__":
    main()
