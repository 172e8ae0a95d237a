"""Measures the most memory that training takes, each program in a process of its own.

    python benchmarks/memory.py [--model=t5_1_1_small] [--batch_size=8] [--inputs=128] [--targets=32]

The largest resident size counts everything: the libraries, the compilation, the weights, and three steps.
Each program runs a second time with the compiled programs of the first.
"""

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile

from measuring import model_arguments, report
from programs import float32_config, ours, pefts
from train_step import TASKS, random_batch

PROGRAMS = {"LoRA": ours, "MHR": ours, "PEFT LoRA": pefts, "PEFT MHR": pefts}


def _train(name: str, model: str, shape: tuple[int, int, int]) -> None:
    """Take three steps and print the most memory of this process, in MiB."""
    config = float32_config(model)
    batches = itertools.repeat(random_batch(config.vocab_size, *shape))
    step = PROGRAMS[name](config, name.split()[-1], TASKS, batches)
    for _ in range(3):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the table."""
    parser = model_arguments(__doc__)
    parser.add_argument("--targets", type=int, default=32, help="tokens of a target")
    parser.add_argument("--only", choices=PROGRAMS, help="take three steps of this program and print its MiB")
    args = parser.parse_args()
    shape = (args.batch_size, args.inputs, args.targets)
    if args.only:
        _train(args.only, args.model, shape)
        return
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder}
        for name, _ in itertools.product(PROGRAMS, range(2)):
            done = subprocess.run(
                [sys.executable, __file__, f"--only={name}", f"--model={args.model}"]
                + [f"--{flag}={getattr(args, flag)}" for flag in ("batch_size", "inputs", "targets")],
                env=environment,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}\n")
                break
            found.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for name, sizes in found.items():
        rival = found.get(f"PEFT {name}")
        over = (
            [f"{size / other:.2f}" for size, other in zip(sizes, rival, strict=True)] if rival else ["", ""]
        )
        rows.append([name, *(f"{size:,.0f}" for size in sizes), *over])
    report(
        f"Peak memory of training: {args.model}, {args.batch_size} rows of {args.inputs}/{args.targets}",
        ["program", "MiB", "MiB, compiled before", "over PEFT's", "compiled before, over PEFT's"],
        rows,
        {"mib": found},
        args.json,
    )


if __name__ == "__main__":
    main()
