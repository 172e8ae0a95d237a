"""Measures a training step of each method, here and in PEFT, and the T5's own passes beside them.

    python benchmarks/train_step.py [--model=t5_1_1_small] [--batch_size=8] [--inputs=128] [--targets=32]

All programs train on the same random tokens in float32, with rank 16, 8 skills and AdamW, and without
dropout. A method's programs are measured together: in every round each takes one step, so that what else the
machine does falls on all of them alike. The next method begins when their memory is free again, because
programs that lie beside many others in memory are slower. MHR and a shared LoRA are then compared with one
another, in the same rounds. "T5 alone" is the forward and backward pass through
the frozen T5, which adapters add to; "full" trains all weights. PEFT is left out where it is not installed
(extra `interop`).
"""

import dataclasses
import gc
import importlib.util
import itertools

from measuring import in_turn, model_arguments, report
from peft_programs import pefts
from programs import float32_config, frozen_pass, hugging_face_settings, ours
from settings import METHODS, TASKS, Step, random_batch

from poly_jax.cli.allocation import reuse_memory


def main() -> None:
    """Print the table."""
    reuse_memory()  # As the program does.
    parser = model_arguments(__doc__, rounds=5)
    parser.add_argument("--targets", type=int, default=32, help="tokens of a target")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--scanned", action="store_true", help="also measure scanned layers")
    args = parser.parse_args()

    config = float32_config(args.model)
    batches = itertools.repeat(random_batch(config.vocab_size, args.batch_size, args.inputs, args.targets))
    forms = {"": config}
    if args.scanned:
        forms[", scanned"] = dataclasses.replace(config, scan_layers=True)
    compared = importlib.util.find_spec("peft") is not None
    if not compared:
        print("PEFT is left out, because it is not installed\n")
    rows, figures = [], {}
    for method in args.methods:
        programs: dict[str, Step] = {"T5 alone": frozen_pass(config, batches)}
        for form, its_config in forms.items():
            programs[f"{method}{form}"] = ours(its_config, method, TASKS, batches)
        if compared:
            programs["PEFT"] = pefts(hugging_face_settings(config), method, TASKS, batches)
        first, medians, _ = in_turn(programs, args.rounds)
        del programs
        gc.collect()
        rival, alone = medians.get("PEFT"), medians["T5 alone"]
        for form in forms:
            step = medians[f"{method}{form}"]
            rows.append(
                [
                    f"{method}{form}",
                    f"{step * 1e3:,.0f}",
                    f"{rival * 1e3:,.0f}" if rival else "",
                    f"{rival / step:.2f}" if rival else "",
                    f"{alone * 1e3:,.0f}",
                    f"{step / alone:.2f}",
                    f"{first[f'{method}{form}']:.1f}",
                    f"{first['PEFT']:.1f}" if rival else "",
                ]
            )
        figures[method] = {"first_s": first, "step_s": medians}
    report(
        f"Training step: {args.model}, {args.batch_size} rows of {args.inputs}/{args.targets},"
        f" {args.rounds} rounds",
        [
            "method",
            "step, ms",
            "PEFT's step, ms",
            "examples/s over PEFT's",
            "T5 alone, ms",
            "over T5 alone",
            "first step, s",
            "PEFT's first step, s",
        ],
        rows,
        figures,
        args.json,
    )
    if {"LoRA", "MHR"} <= set(args.methods):
        beside = {method: ours(config, method, TASKS, batches) for method in ("LoRA", "MHR")}
        _, medians, _ = in_turn({"T5 alone": frozen_pass(config, batches), **beside}, args.rounds)
        report(
            f"MHR beside a shared LoRA: {args.model}, {args.rounds} rounds",
            ["program", "step, ms", "over T5 alone", "over LoRA"],
            [
                [
                    name,
                    f"{step * 1e3:,.0f}",
                    f"{step / medians['T5 alone']:.2f}",
                    f"{step / medians['LoRA']:.2f}",
                ]
                for name, step in medians.items()
            ],
            {"step_s": medians},
            args.json,
        )


if __name__ == "__main__":
    main()
