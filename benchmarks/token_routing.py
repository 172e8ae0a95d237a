"""Measures what routers that look at inputs cost in a training step, beside a LoRA of rank K r.

    python benchmarks/token_routing.py [--model=t5_1_1_small] [--segments=4] [--skills=8] [--rank=16]

K skills of rank r, all projections, AdamW, float32, random tokens without padding. A LoRA of rank K r does
the same two products as the skills side by side, which is how tokens are routed. "By task" are the weights of
a table of tasks, which are the same along an example. They mix the factors of skills, or their outputs: those
either with a weighted copy of B for each example, or side by side, as if each token had weights of its own.
The largest size is that of the compiled program: its arguments, its results and what it keeps between.
"""

import dataclasses
import itertools

import numpy as np
from measuring import in_turn, model_arguments, report
from programs import SITES, float32_config, training
from settings import TASKS, Batch, random_batch

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.cli.allocation import reuse_memory
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.token_router import TokenRouter


@dataclasses.dataclass(frozen=True)
class _ByToken(LoRA):
    """LoRA skills whose outputs are averaged, side by side or mixed first as told."""

    merge_after: bool = True
    side_by_side_always: bool = True

    def cheaper_by_token(self, n_splits: int, mixes: int) -> bool:
        return self.side_by_side_always


def cases(skills: int, rank: int) -> dict[str, Adapters]:
    """The adapters of every row of the table."""
    sites = tuple(f".*/{site}" for site in SITES)

    by_task = LearnedRouter(sampling=False)

    def adapters(skill, router):
        return Adapters(skill, router, TASKS, skills, 1, sites)

    skill, wide = LoRA(rank=rank), LoRA(rank=skills * rank)
    return {
        f"LoRA of rank {skills * rank}": adapters(wide, SharedRouter()),
        "MoLoRA": adapters(skill, TokenRouter()),
        "MoLoRA, top 2": adapters(skill, TokenRouter(top_k=2)),
        "PHATGOOSE's gates": adapters(skill, PHATGOOSERouter()),
        "SMEAR": adapters(skill, SMEARRouter()),
        "MoV": adapters(IA3(), TokenRouter()),
        "by task, factors": adapters(skill, by_task),
        "by task, outputs mixed first": adapters(_ByToken(rank, side_by_side_always=False), by_task),
        "by task, outputs side by side": adapters(_ByToken(rank), by_task),
    }


def packed(batch: Batch, segments: int) -> Batch:
    """The same tokens as several examples to a row, each with a task of its own."""
    if segments == 1:
        return batch
    together = dict(batch)
    for side, name in (("encoder", "encoder_input_tokens"), ("decoder", "decoder_target_tokens")):
        rows, length = batch[name].shape
        numbers = np.arange(length) * segments // length + 1
        together[f"{side}_segment_ids"] = np.broadcast_to(numbers, (rows, length)).astype(np.int32)
    ids = batch["task_ids"][:, None] * segments + np.arange(segments)
    return {**together, "task_ids": (ids % TASKS).astype(np.int32)}


def main() -> None:
    """Print the table."""
    reuse_memory()  # As the program does.
    parser = model_arguments(__doc__, rounds=3)
    parser.add_argument("--targets", type=int, default=32, help="tokens of a target")
    parser.add_argument("--segments", type=int, default=1, help="examples in a row")
    parser.add_argument("--skills", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--scanned", action="store_true", help="scan the layers, which compiles sooner")
    parser.add_argument("--only", nargs="+", type=int, help="numbers of the programs, from 0")
    args = parser.parse_args()
    config = dataclasses.replace(float32_config(args.model), scan_layers=args.scanned)
    batch = random_batch(config.vocab_size, args.batch_size, args.inputs, args.targets)
    batches = itertools.repeat(packed(batch, args.segments))
    named = list(cases(args.skills, args.rank).items())
    chosen = [named[number] for number in args.only] if args.only else named
    steps, sizes = {}, {}
    for name, adapters in chosen:
        steps[name], peak = training(config, adapters, batches)
        sizes[name] = peak() / 2**20
    _, medians, _ = in_turn(steps, args.rounds)
    first = next(iter(steps))
    report(
        f"Routing by input: {args.model}, {args.skills} skills of rank {args.rank}, {args.batch_size} rows of"
        f" {args.inputs}/{args.targets}, {args.segments} example(s) to a row, {args.rounds} rounds",
        ["program", "step, ms", f"over {first}", "largest size, MiB", f"over {first}"],
        [
            [
                name,
                f"{1e3 * medians[name]:,.0f}",
                f"{medians[name] / medians[first]:.2f}",
                f"{sizes[name]:,.0f}",
                f"{sizes[name] / sizes[first]:.2f}",
            ]
            for name in steps
        ],
        {"step_s": medians, "mib": sizes},
        args.json,
    )


if __name__ == "__main__":
    main()
