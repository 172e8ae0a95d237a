"""Measures what the program of a training step takes to compile, for each method.

    python benchmarks/compilation.py [--model=t5_1_1_small] [--methods LoRA MHR] [--rounds=3]

In every round each method's step is traced, lowered and compiled anew, without the cache of compiled
programs. The tables have medians, and the ratio to the first method. Lines are those of the program before
optimisation; fusions are the kernels that XLA writes, of which it compiles equal ones once.
"""

import gc
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from measuring import model_arguments, report
from programs import Training, adapters, begun, float32_config
from settings import METHODS, TASKS, Batch, random_batch


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of some work, its seconds, and its processor seconds."""
    began, worked = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - began, time.process_time() - worked


def compiled(run: Training, batch: Batch) -> dict[str, float]:
    """Compile a run's step; the figures of the table."""
    jax.clear_caches()
    gc.collect()
    lowered, _, tracing = measured(lambda: run.traced(batch).lower())
    program, seconds, processors = measured(lowered.compile)
    return {
        "tracing": tracing,
        "seconds": seconds,
        "processors": processors,
        "lines": len(lowered.as_text(dialect="hlo").splitlines()),
        "fusions": len(re.findall(r" fusion\(", program.as_text())),
    }


def main() -> None:
    """Print the table."""
    parser = model_arguments(__doc__, rounds=3)
    parser.add_argument("--targets", type=int, default=32, help="tokens of a target")
    parser.add_argument("--methods", nargs="+", default=("LoRA", "Poly", "MHR"), choices=METHODS)
    args = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)

    config = float32_config(args.model)
    batch = random_batch(config.vocab_size, args.batch_size, args.inputs, args.targets)
    runs = {method: begun(config, adapters(method, TASKS)) for method in args.methods}
    rounds: dict[str, list[dict[str, float]]] = {method: [] for method in runs}
    for _ in range(args.rounds):
        for method, run in runs.items():
            rounds[method].append(compiled(run, batch))
    medians = {
        method: {name: statistics.median(each[name] for each in found) for name in found[0]}
        for method, found in rounds.items()
    }
    first = medians[args.methods[0]]
    report(
        f"Compiling a training step: {args.model}, {args.rounds} rounds",
        [
            "method",
            "lines",
            f"over {args.methods[0]}'s",
            "fusions",
            "compiling, s",
            f"over {args.methods[0]}'s",
            "compiling, CPU s",
            f"over {args.methods[0]}'s",
            "tracing and lowering, CPU s",
        ],
        [
            [
                method,
                f"{found['lines']:,.0f}",
                f"{found['lines'] / first['lines']:.2f}",
                f"{found['fusions']:,.0f}",
                f"{found['seconds']:.1f}",
                f"{found['seconds'] / first['seconds']:.2f}",
                f"{found['processors']:.1f}",
                f"{found['processors'] / first['processors']:.2f}",
                f"{found['tracing']:.1f}",
            ]
            for method, found in medians.items()
        ],
        medians,
        args.json,
    )


if __name__ == "__main__":
    main()
