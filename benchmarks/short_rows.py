"""Measures few-shot training on examples that are shorter than the rows of the configuration.

    python benchmarks/short_rows.py [--model=t5_1_1_small] [--inputs=256] [--targets=128]

A step of MHR on 8 examples of 20 to 60 input and 1 to 8 target tokens, as T0's held-out tasks have them: in
rows as long as configured, in rows that were cut to what the examples need, as `poly-jax adapt` does, and in
PEFT, which pads to the longest example of its batch.
"""

import itertools

import numpy as np
from measuring import in_turn, model_arguments, report_speeds
from peft_programs import left_out_without_peft, pefts
from programs import float32_config, hugging_face_settings, ours
from settings import TASKS, Batch, Step, random_batch

from poly_jax.cli.allocation import reuse_memory
from poly_jax.data.trimmed import trimmed_examples, widths

INPUTS, TARGETS = (20, 60), (1, 8)


def _short(batch: Batch) -> Batch:
    """The batch with padding beyond the length of each example."""
    rng = np.random.default_rng(1)
    rows, columns = batch["encoder_input_tokens"].shape
    used = np.arange(columns) < rng.integers(INPUTS[0], INPUTS[1] + 1, (rows, 1))
    answered = np.arange(batch["decoder_target_tokens"].shape[1]) < rng.integers(
        TARGETS[0], TARGETS[1] + 1, (rows, 1)
    )
    kept = {name: batch[name] * answered for name in batch if name.startswith("decoder")}
    return {**batch, **kept, "encoder_input_tokens": batch["encoder_input_tokens"] * used}


def main() -> None:
    """Print the table."""
    reuse_memory()  # As the program does.
    parser = model_arguments(__doc__, rounds=5)
    parser.set_defaults(inputs=256)
    parser.add_argument("--targets", type=int, default=128, help="tokens of a target")
    args = parser.parse_args()
    config = float32_config(args.model)
    whole = _short(random_batch(config.vocab_size, args.batch_size, args.inputs, args.targets))
    cut = trimmed_examples(whole)
    named = {"/".join(map(str, widths(batch))): batch for batch in (cut, whole)}
    programs: dict[str, Step] = {
        f"rows of {name}": ours(config, "MHR", TASKS, itertools.repeat(batch))
        for name, batch in named.items()
    }
    with left_out_without_peft():
        programs["PEFT"] = pefts(hugging_face_settings(config), "MHR", TASKS, itertools.repeat(whole))
    first, _, speeds = in_turn(programs, args.rounds)
    report_speeds(
        f"Short examples: {args.model}, MHR, {args.batch_size} examples, {args.rounds} rounds",
        "tokens/s without padding",
        speeds,
        first,
        args.json,
    )


if __name__ == "__main__":
    main()
