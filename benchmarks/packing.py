"""Measures how full packed rows are, how fast they are packed, and what packing gains in a training step.

    python benchmarks/packing.py --folder=NATURAL_INSTRUCTIONS --vocabulary=sentencepiece.model

The folder holds the files of Super-NaturalInstructions as published. A T5 of random weights, by default of
the shape of T5 v1.1 small, trains MHR on its training tasks with 1024 input and 128 target tokens. In every
round each program takes one step: rows of one example, packed rows, and PEFT's Poly on the same examples,
padded to the longest of its batch, where PEFT is installed (extra `interop`). Prints a Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.data.batches import train_batches
from poly_jax.data.packed_stream import PackedStream, unpadded
from poly_jax.data.packing import Example, next_row, pack_rows
from poly_jax.data.task_table import TaskTable
from poly_jax.model.config import T5Config
from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer, init_parameters
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.update import Update, start
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split

ROOM = (1024, 128)
MOST = 16
SKILLS, SPLITS, RANK = 8, 8, 16
SITES = ("query", "key", "value", "out", "wi_0", "wi_1", "wo")
POOL = 1024

Step = Callable[[], float]
"""Takes a training step and returns the number of tokens in it that are not padding."""


def tokens_in(batch: dict[str, np.ndarray]) -> float:
    """Number of tokens that are not padding."""
    return float((batch["encoder_input_tokens"] > 0).sum() + (batch["decoder_target_tokens"] > 0).sum())


def fill(packing: Any, waiting: list[Example], ahead: Iterator[Example]) -> tuple[float, float, float]:
    """Fill of inputs and of targets, and examples packed in a second on one core."""
    rows, packed = [], 0
    began = time.perf_counter()
    while True:
        inputs = np.asarray([len(inputs) for inputs, _, _ in waiting])
        targets = np.asarray([len(targets) for _, targets, _ in waiting])
        chosen = next_row(inputs, targets, ROOM, MOST, packing)
        rows.append([waiting[place] for place in chosen])
        packed += len(chosen)
        for place in sorted(chosen, reverse=True):
            del waiting[place]
        new = [example for example, _ in zip(ahead, chosen, strict=False)]
        if len(new) < len(chosen):
            break
        waiting += new
    batch = pack_rows(rows, ROOM, MOST)
    speed = packed / (time.perf_counter() - began)
    return *((batch[name] > 0).mean() for name in ("encoder_segment_ids", "decoder_segment_ids")), speed


def ours(model: Transformer, batches: Iterator[dict[str, np.ndarray]]) -> Step:
    """A step of this project's training on the next batch."""
    trained, frozen = split(init_parameters(model, jax.random.key(0))[0], is_adapter_parameter)
    optimizer = optax.adamw(1e-3)
    state = start(trained, optimizer)
    update = jax.jit(Update(model, TokenLoss(), optimizer), donate_argnums=0)

    def step() -> float:
        nonlocal state
        batch = next(batches)
        state, metrics = update(state, frozen, batch, jax.random.key(0))
        jax.block_until_ready(metrics)
        return tokens_in(batch)

    return step


def pefts(config: T5Config, n_tasks: int, batches: Iterator[dict[str, np.ndarray]]) -> Step:
    """A step of PEFT's Poly on the next batch, padded to its longest example."""
    import peft
    import torch
    import transformers

    t5 = transformers.T5Config(
        vocab_size=config.vocab_size,
        d_model=config.emb_dim,
        d_kv=config.head_dim,
        d_ff=config.mlp_dim,
        num_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    adapter = peft.PolyConfig(
        task_type="SEQ_2_SEQ_LM",
        r=RANK,
        n_tasks=n_tasks,
        n_skills=SKILLS,
        n_splits=SPLITS,
        target_modules=["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
    )
    model = peft.get_peft_model(transformers.T5ForConditionalGeneration(t5), adapter).train()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], 1e-3
    )

    def step() -> float:
        batch = next(batches)
        tokens, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
        tokens = torch.tensor(tokens[:, : (tokens > 0).any(0).nonzero()[0].max() + 1]).long()
        labels = torch.tensor(targets[:, : (targets > 0).any(0).nonzero()[0].max() + 1]).long()
        out = model(
            input_ids=tokens,
            attention_mask=(tokens > 0).long(),
            labels=labels.masked_fill(labels == 0, -100),
            task_ids=torch.tensor(batch["task_ids"]).long(),
        )
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        return tokens_in(batch)

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, help="folder of Super-NaturalInstructions")
    parser.add_argument("--vocabulary", required=True, help="T5's sentencepiece.model")
    parser.add_argument("--model", default="t5_1_1_small", help="file of gin/models")
    parser.add_argument("--batch_size", type=int, default=8, help="rows in a step")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    loaded = configuration.load(
        ["recipes/sni/mhr_tiny.gin", f"models/{args.model}.gin"],
        [f"SNI='{args.folder}'", f"VOCABULARY='{args.vocabulary}'"],
    )
    loaded.experiment().data.register_tasks()
    config = loaded.make("T5Config", dropout_rate=0.0)
    mixture = loaded.experiment().data.mixture
    table = TaskTable.of(mixture)
    lengths = dict(zip(("inputs", "targets"), ROOM, strict=True))

    def read(batch_size: int) -> Any:
        return train_batches(mixture, table, sequence_length=lengths, batch_size=batch_size, seed=0)

    examples = []
    for batch in read(256):
        examples += unpadded(batch)
        if len(examples) >= 16 * POOL:
            break
    real = np.mean([len(inputs) for inputs, _, _ in examples]) / ROOM[0]
    print(f"{len(table)} tasks, {len(examples)} examples; rows of one example are {real:.1%} input tokens\n")
    print("| packing | input tokens | target tokens | examples/s on one core |\n|---|---|---|---|")
    for packing in ("first-fit", "best-fit"):
        inputs, targets, speed = fill(packing, examples[:POOL], iter(examples[POOL:]))
        print(f"| {packing} | {inputs:.1%} | {targets:.1%} | {speed:,.0f} |")

    sites = tuple(f".*/{site}" for site in SITES)
    adapters = Adapters(LoRA(rank=RANK), LearnedRouter(), len(table), SKILLS, SPLITS, sites)
    model = Transformer(config, adapters, train=True)
    packed = PackedStream(read(256), args.batch_size, ROOM, MOST, "best-fit")
    programs = {"unpacked": ours(model, read(args.batch_size)), "packed": ours(model, packed)}
    try:
        programs["PEFT"] = pefts(config, len(table), read(args.batch_size))
    except ImportError as error:
        print(f"\nPEFT is left out: {error}")
    speeds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(args.rounds + 1):
        for name, step in programs.items():
            began = time.perf_counter()
            tokens = step()
            if number:  # The first round compiles.
                speeds[name].append(tokens / (time.perf_counter() - began))
    medians = {name: statistics.median(measured) for name, measured in speeds.items()}
    print(f"\n{args.model}, {args.batch_size} rows of {ROOM[0]}/{ROOM[1]}, {args.rounds} rounds\n")
    print("| program | tokens/s without padding | packed is faster by |\n|---|---|---|")
    for name, speed in medians.items():
        print(f"| {name} | {speed:,.0f} | {medians['packed'] / speed:.2f} |")


if __name__ == "__main__":
    main()
