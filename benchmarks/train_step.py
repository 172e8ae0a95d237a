"""Measures a training step of each method, here and in PEFT, and the T5's own passes beside them.

    python benchmarks/train_step.py [--model=t5_1_1_small] [--batch_size=8] [--inputs=128] [--targets=32]

All programs train on the same random tokens in float32, with rank 16, 8 skills and AdamW, and without
dropout. In every round each program takes one step, so that what else the machine does falls on all of them
alike. "T5 alone" is the forward and backward pass through the frozen T5, which adapters add to; "full" trains
all weights. PEFT is left out where it is not installed (extra `interop`).
"""

import dataclasses
import itertools

from measuring import in_turn, model_arguments, report
from peft_programs import pefts
from programs import float32_config, frozen_pass, hugging_face_settings, ours
from settings import METHODS, TASKS, Step, random_batch


def main() -> None:
    """Print the table."""
    parser = model_arguments(__doc__, rounds=5)
    parser.add_argument("--targets", type=int, default=32, help="tokens of a target")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--scanned", action="store_true", help="also measure scanned layers")
    args = parser.parse_args()

    config = float32_config(args.model)
    batches = itertools.repeat(random_batch(config.vocab_size, args.batch_size, args.inputs, args.targets))
    programs: dict[str, Step] = {"T5 alone": frozen_pass(config, batches)}
    for method in args.methods:
        programs[method] = ours(config, method, TASKS, batches)
        if args.scanned:
            scanned = dataclasses.replace(config, scan_layers=True)
            programs[f"{method}, scanned"] = ours(scanned, method, TASKS, batches)
    try:
        for method in args.methods:
            programs[f"PEFT {method}"] = pefts(hugging_face_settings(config), method, TASKS, batches)
    except ImportError as error:
        print(f"PEFT is left out: {error}\n")
    first, medians, _ = in_turn(programs, args.rounds)
    rows = []
    for name, median in medians.items():
        rival = medians.get(f"PEFT {name.removesuffix(', scanned')}")
        rows.append(
            [
                name,
                f"{median * 1e3:,.0f}",
                f"{first[name]:.1f}",
                f"{rival / median:.2f}" if rival else "",
                f"{median / medians['T5 alone']:.2f}",
            ]
        )
    report(
        f"Training step: {args.model}, {args.batch_size} rows of {args.inputs}/{args.targets},"
        f" {args.rounds} rounds",
        ["program", "step, ms", "first step, s", "examples/s over PEFT's", "over T5 alone"],
        rows,
        {"first_s": first, "step_s": medians},
        args.json,
    )


if __name__ == "__main__":
    main()
