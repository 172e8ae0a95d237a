"""Prints the table of docs/scaling.md: what the chips send each other in a training step.

    python benchmarks/sent.py [--models XL] [--methods MHR] [--slices v5e:4x4] > sent.md

T5-XL and T5-XXL with MHR, one shared LoRA of the same rank, and full fine-tuning; the parameters are sharded
over all chips (fsdp), 8 rows of 256/64 tokens for each device, recomputing all activations. It needs libtpu
(extra `plan`) and 1 to 4 minutes of two cores for each row.
"""

import json

from plans import arguments, planned

from poly_jax.planning.collectives import KINDS
from poly_jax.planning.peaks import PEAKS
from poly_jax.reporting.table import markdown_table

METHODS = {
    "MHR": (),
    "LoRA": ("--gin_file=routers/shared.gin",),
    "full": ("--gin.Experiment.adapters=None", "--gin.train.trainable='all'"),
}
SENT_ON = ("v4:2x2x2", "v5e:4x4", "v6e:4x4")
_MS = 1e3


def row(model: str, method: str, name: str, plan: dict) -> list[str]:
    """The table's row of a plan; a step that does not fit sends nothing."""
    chip = plan["bytes_per_chip"]
    hbm = f"{chip['peak'] / 2**30:.1f} of {plan['hbm_bytes'] / 2**30:.0f} GiB"
    products = f"{plan['seconds_at_peak'] * _MS:.0f} ms"
    if plan["collectives"] is None:
        return [model, method, name, *["-" for _ in KINDS], "-", "-", products, f"{hbm}: does not fit"]
    by_kind = dict.fromkeys(KINDS, 0)
    for each in plan["collectives"]:
        by_kind[each["kind"]] += each["bytes"]
    together = sum(by_kind.values())
    # All links of a chip together send half of the vendor's figure, which counts both directions.
    seconds = together / (PEAKS[name.split(":")[0]].ici / 2)
    kinds = [f"{sent / 1e6:,.0f}" for sent in by_kind.values()]
    return [model, method, name, *kinds, f"{together / 1e9:.2f}", f"{seconds * _MS:.0f} ms", products, hbm]


def main() -> None:
    """Print each row as soon as it is known."""
    parser = arguments(__doc__, list(SENT_ON))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    columns = ["model", "method", "slice", *(f"{kind}, MB" for kind in KINDS)]
    columns += ["together, GB", "sending", "products", "peak a chip"]
    lines = 0
    for model in args.models:
        for name in args.slices:
            for method in args.methods:
                plan = json.loads(planned(model, name, "json", *METHODS[method]))
                table = markdown_table(columns, [row(model, method, name, plan)])
                print(*table.splitlines()[2 if lines else 0 :], sep="\n", flush=True)
                lines += 1


if __name__ == "__main__":
    main()
