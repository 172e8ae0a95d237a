"""Measures how fast outputs are decoded: for rows of many tasks, for one merged adapter, and in PEFT.

    python benchmarks/decoding.py [--model=t5_1_1_small] [--batch_size=8] [--inputs=128] [--length=32]

Every row has a task of its own, or in "one task" all have the same, as when tasks are evaluated one after
another. "merged" is a T5 without adapters, which is what one task's adapter becomes when it is merged into
the weights: it serves one task only. PEFT's Poly cannot search with beams, so its merged form stands there.
Weights are random, and no output ends early.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from measuring import in_turn, model_arguments, report_speeds
from peft_programs import hugging_face_t5, left_out_without_peft, peft_model
from programs import adapters, float32_config, hugging_face_settings
from settings import TASKS

from poly_jax.cli.allocation import reuse_memory
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer

BEAMS, NO_TOKEN = 4, -1


def _ours(
    config: T5Config, method: str, tasks: np.ndarray | np.int32, tokens: np.ndarray, length: int, beams: int
) -> Callable[[], float]:
    model = Transformer(config, adapters(method, TASKS))
    parameters = init_parameters(model, jax.random.key(0))[0]

    @jax.jit
    def decode(parameters: Any, tokens: Any, tasks: Any) -> Any:
        given = None if method == "full" else tasks
        return generate(model, parameters, tokens, given, Decoding(length, beams), eos_id=NO_TOKEN)

    def run() -> float:
        jax.block_until_ready(decode(parameters, tokens, tasks))
        return len(tokens) * length

    return run


def _pefts(config: T5Config, method: str, tokens: np.ndarray, length: int, beams: int) -> Callable[[], float]:
    import torch

    settings = hugging_face_settings(config)
    model = hugging_face_t5(settings) if method == "full" else peft_model(settings, method, TASKS)
    model = model.eval()
    given: dict[str, Any] = {"input_ids": torch.tensor(tokens).long()}
    if method == "MHR":
        given["task_ids"] = torch.arange(len(tokens)) % TASKS

    def run() -> float:
        with torch.no_grad():
            model.generate(
                **given, num_beams=beams, do_sample=False, min_new_tokens=length, max_new_tokens=length
            )
        return len(tokens) * length

    return run


def main() -> None:
    """Print the tables."""
    reuse_memory()  # As the program does.
    parser = model_arguments(__doc__, rounds=3)
    parser.add_argument("--length", type=int, default=32, help="tokens of an output")
    args = parser.parse_args()
    config = float32_config(args.model)
    tokens = np.random.default_rng(0).integers(2, config.vocab_size, (args.batch_size, args.inputs))
    tokens = tokens.astype(np.int32)
    tasks, one = np.arange(len(tokens), dtype=np.int32) % TASKS, np.int32(0)
    for beams, rival in ((1, "MHR"), (BEAMS, "full")):
        theirs = "PEFT MHR" if rival == "MHR" else "PEFT merged"
        programs = {
            "MHR": _ours(config, "MHR", tasks, tokens, args.length, beams),
            "MHR, one task": _ours(config, "MHR", one, tokens, args.length, beams),
            "merged": _ours(config, "full", one, tokens, args.length, beams),
        }
        with left_out_without_peft():
            programs[theirs] = _pefts(config, rival, tokens, args.length, beams)
        first, _, speeds = in_turn(programs, args.rounds)
        report_speeds(
            f"Decoding, {'greedy' if beams == 1 else f'{beams} beams'}: {args.model}, {args.batch_size} rows"
            f" of {args.inputs}/{args.length}, {args.rounds} rounds",
            "tokens/s",
            speeds,
            first,
            args.json,
        )


if __name__ == "__main__":
    main()
