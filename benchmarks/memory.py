"""Measures the most memory that training takes, each program in a process of its own.

    python benchmarks/memory.py [--model=t5_1_1_small] [--batch_size=8] [--inputs=128] [--targets=32]

The largest resident size counts everything: the libraries, the compilation, the weights, and three steps.
Neither program reads data, so seqio with TensorFlow is left out here, and Hugging Face's datasets there. Each
program runs a second time with the compiled programs of the first.
"""

import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from typing import Any

from measuring import model_arguments, report
from settings import TASKS, random_batch

from poly_jax.cli.platforms import leave_out_tpu

NAMES = ("LoRA", "MHR", "PEFT LoRA", "PEFT MHR")


def _train(name: str, settings: dict[str, Any], shape: tuple[int, int, int]) -> None:
    """Take three steps and print the most memory of this process, in MiB.

    Only what the program needs is imported here: no JAX for PEFT, and no TensorFlow for either.
    """
    method = name.split()[-1]
    batches = itertools.repeat(random_batch(settings["vocab_size"], *shape))
    if name.startswith("PEFT"):
        from peft_programs import pefts

        step = pefts(settings, method, TASKS, batches)
    else:
        from programs import ours

        from poly_jax.cli.allocation import reuse_memory
        from poly_jax.model.config import T5Config

        reuse_memory()  # As the program does.
        step = ours(T5Config(**settings), method, TASKS, batches)
    for _ in range(3):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the table."""
    parser = model_arguments(__doc__)
    parser.add_argument("--targets", type=int, default=32, help="tokens of a target")
    parser.add_argument("--only", choices=NAMES, help="take three steps of this program and print its MiB")
    parser.add_argument("--settings", type=json.loads, help="the settings of the T5, as JSON, for --only")
    args = parser.parse_args()
    shape = (args.batch_size, args.inputs, args.targets)
    if args.only:
        _train(args.only, args.settings, shape)
        return
    leave_out_tpu()  # As the program does; libtpu, which plans need, would take 230 MiB.
    # The settings come from gin, which brings TensorFlow along, so the programs get them as text.
    from programs import float32_config, hugging_face_settings

    config = float32_config(args.model)
    ours, theirs = (json.dumps(each) for each in (dataclasses.asdict(config), hugging_face_settings(config)))
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder}
        for name, _ in itertools.product(NAMES, range(2)):
            done = subprocess.run(
                [sys.executable, __file__, f"--only={name}"]
                + [f"--settings={theirs if name.startswith('PEFT') else ours}"]
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
