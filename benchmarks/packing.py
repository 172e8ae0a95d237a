"""Measures how full packed rows are, how fast they are packed, and what packing gains in a training step.

    python benchmarks/packing.py --folder=NATURAL_INSTRUCTIONS --vocabulary=sentencepiece.model [--rank=16]

The folder holds the files of Super-NaturalInstructions as published. A T5 of random weights, by default of
the shape of T5 v1.1 small, trains MHR on its training tasks with 1024 input and 128 target tokens. In every
round each program takes one step: rows of one example, packed rows, and PEFT's Poly on the same examples,
padded to the longest of its batch, where PEFT is installed (extra `interop`).
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from measuring import arguments, in_turn, report, report_speeds
from peft_programs import left_out_without_peft, pefts
from programs import hugging_face_settings, ours

from poly_jax import configuration
from poly_jax.cli.allocation import reuse_memory
from poly_jax.data.batches import train_batches
from poly_jax.data.example_sequences import unpadded
from poly_jax.data.packing import Example, Waiting, pack_rows
from poly_jax.data.task_table import TaskTable

ROOM = (1024, 128)
MOST = 16
POOL = 1024


def fill(packing: Any, examples: Sequence[Example]) -> tuple[float, float, float]:
    """Fill of inputs and of targets, and examples packed in a second on one core."""
    waiting, ahead, rows = Waiting(examples[:POOL]), iter(examples[POOL:]), []
    began = time.perf_counter()
    while len(waiting) == POOL:
        rows.append(waiting.take_row(ROOM, MOST, packing))
        waiting.add(itertools.islice(ahead, len(rows[-1])))
    batch = pack_rows(rows, ROOM, MOST)
    speed = (len(examples) - len(waiting)) / (time.perf_counter() - began)
    return *((batch[name] > 0).mean() for name in ("encoder_segment_ids", "decoder_segment_ids")), speed


def main() -> None:
    """Print the table."""
    reuse_memory()  # As the program does.
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--folder", required=True, help="folder of Super-NaturalInstructions")
    parser.add_argument("--vocabulary", required=True, help="T5's sentencepiece.model")
    parser.add_argument("--model", default="t5_1_1_small", help="file of gin/models")
    parser.add_argument("--batch_size", type=int, default=8, help="rows in a step")
    parser.add_argument("--rank", type=int, default=1, help="rank of the skills (default: 1, as published)")
    args = parser.parse_args()

    loaded = configuration.load(
        ["recipes/sni/pretrain_tiny.gin", f"models/{args.model}.gin"],
        [f"SNI='{args.folder}'", f"VOCABULARY='{args.vocabulary}'"],
    )
    loaded.experiment().data.register_tasks()
    config = dataclasses.replace(loaded.experiment().model, dropout_rate=0.0)
    mixture = loaded.experiment().data.mixture
    table = TaskTable.of(mixture)
    lengths = dict(zip(("inputs", "targets"), ROOM, strict=True))

    def read(batch_size: int, **options: Any) -> Any:
        return train_batches(
            mixture, table, sequence_length=lengths, batch_size=batch_size, seed=0, **options
        )

    examples = list(
        itertools.chain.from_iterable(unpadded(batch) for batch in itertools.islice(read(256), 64))
    )
    real = np.mean([len(example.inputs) for example in examples]) / ROOM[0]
    fills = {packing: fill(packing, examples) for packing in ("first-fit", "best-fit")}
    report(
        f"Packing: {len(table)} tasks, {len(examples)} examples; rows of one are {real:.1%} input tokens",
        ["packing", "input tokens", "target tokens", "examples/s on one core"],
        [
            [packing, f"{inputs:.1%}", f"{targets:.1%}", f"{speed:,.0f}"]
            for packing, (inputs, targets, speed) in fills.items()
        ],
        {packing: list(measured) for packing, measured in fills.items()},
        args.json,
    )

    programs = {
        "packed": ours(
            config,
            "MHR",
            len(table),
            read(args.batch_size, packing="best-fit", max_segments=MOST),
            args.rank,
        ),
        "unpacked": ours(config, "MHR", len(table), read(args.batch_size), args.rank),
    }
    with left_out_without_peft():
        settings = hugging_face_settings(config)
        programs["PEFT"] = pefts(settings, "MHR", len(table), read(args.batch_size), args.rank)
    first, _, speeds = in_turn(programs, args.rounds)
    report_speeds(
        f"Packed training: {args.model}, MHR of rank {args.rank}, {args.batch_size} rows of"
        f" {ROOM[0]}/{ROOM[1]}, {args.rounds} rounds",
        "tokens/s without padding",
        speeds,
        first,
        args.json,
    )


if __name__ == "__main__":
    main()
