"""Training steps of this project and of PEFT on the same batches, for the benchmarks beside this file."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.interop.hugging_face.writer import hugging_face_config
from poly_jax.model.config import T5Config
from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer, init_parameters
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.update import Update, start
from poly_jax.weights.parameter_names import selects
from poly_jax.weights.tree import merge, split

METHODS = ("full", "LoRA", "Poly", "MHR", "IA3")
SKILLS, SPLITS, RANK = 8, 8, 16
# The seven kinds of projection that PEFT finds by these names in every layer.
SITES = ("query", "key", "value", "out", "wi_0", "wi_1", "wo")
PEFT_SITES = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
RATE = 1e-3

Batch = dict[str, np.ndarray]
Step = Callable[[], float]
"""Takes a training step and returns the number of tokens in it that are not padding."""


def tokens_in(batch: Batch) -> float:
    """Number of tokens that are not padding."""
    return float((batch["encoder_input_tokens"] > 0).sum() + (batch["decoder_target_tokens"] > 0).sum())


def float32_config(model: str) -> T5Config:
    """The T5 of a file of gin/models, in float32 and without dropout."""
    loaded = configuration.load([f"models/{model}.gin"])
    return loaded.make("T5Config", dropout_rate=0.0, dtype="float32")


def adapters(method: str, n_tasks: int, rank: int = RANK) -> Adapters | None:
    """The adapters of a method at every projection: MHR, Poly, a shared LoRA or (IA)^3; "full" has none."""
    if method == "full":
        return None
    sites = tuple(f".*/{site}" for site in SITES)
    skill = IA3() if method == "IA3" else LoRA(rank=rank)
    router = LearnedRouter() if method in ("MHR", "Poly") else SharedRouter()
    splits = SPLITS if method == "MHR" else 1
    return Adapters(skill, router, n_tasks, SKILLS, splits, sites)


def ours(config: T5Config, method: str, n_tasks: int, batches: Iterator[Batch], rank: int = RANK) -> Step:
    """A step of this project's training on the next batch."""
    return training(config, adapters(method, n_tasks, rank), batches)[0]


def training(
    config: T5Config, adapters: Adapters | None, batches: Iterator[Batch]
) -> tuple[Step, Callable[[], int]]:
    """A step of training on the next batch, and a function: the bytes that its program takes at most."""
    model = Transformer(config, adapters, train=True)
    selected = selects("all" if adapters is None else "adapters")
    trained, frozen = split(init_parameters(model, jax.random.key(0))[0], selected)
    optimizer = optax.adamw(RATE)
    state, key = start(trained, optimizer), jax.random.key(0)
    update = jax.jit(Update(model, TokenLoss(), optimizer), donate_argnums=0)

    def step() -> float:
        nonlocal state
        batch = next(batches)
        state, metrics = update(state, frozen, batch, key)
        jax.block_until_ready(metrics)
        return tokens_in(batch)

    def peak() -> int:
        found = update.lower(state, frozen, next(batches), key).compile().memory_analysis()
        given = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return given + found.temp_size_in_bytes

    return step, peak


def frozen_pass(config: T5Config, batches: Iterator[Batch]) -> Step:
    """The forward and backward pass of the T5 alone: what adapters are paid on top of.

    The gradients are those of the layer norms' scales, so that the backward pass goes down to the first layer
    of each stack, as it does for adapters, and has no gradient of a kernel.
    """
    model = Transformer(config)
    scales, others = split(
        init_parameters(model, jax.random.key(0))[0], lambda name: name.endswith("layer_norm/scale")
    )

    def loss(scales: Any, others: Any, batch: Batch) -> Any:
        variables = {"params": merge(others, scales)}
        return TokenLoss().totals(functools.partial(model.apply, variables), batch)["tokens"]

    gradient = jax.jit(jax.grad(loss))

    def step() -> float:
        batch = next(batches)
        jax.block_until_ready(gradient(scales, others, batch))
        return tokens_in(batch)

    return step


def hugging_face_t5(config: T5Config) -> Any:
    """A T5 of transformers of this shape, with random weights.

    Raises:
      ImportError: transformers is not installed (extra `interop`).
    """
    import transformers

    settings = hugging_face_config(config, np.dtype(np.float32))
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**settings))


def peft_model(config: T5Config, method: str, n_tasks: int, rank: int = RANK) -> Any:
    """PEFT's model of a method; for "full" the T5 itself.

    Raises:
      ImportError: PEFT or transformers is not installed (extra `interop`).
    """
    import peft

    t5 = hugging_face_t5(config)
    if method == "full":
        return t5
    common: dict[str, Any] = {"task_type": "SEQ_2_SEQ_LM", "target_modules": list(PEFT_SITES)}
    if method == "IA3":
        adapter: Any = peft.IA3Config(**common, feedforward_modules=[])
    elif method == "LoRA":
        adapter = peft.LoraConfig(**common, r=rank)
    else:
        splits = SPLITS if method == "MHR" else 1
        adapter = peft.PolyConfig(**common, r=rank, n_tasks=n_tasks, n_skills=SKILLS, n_splits=splits)
    return peft.get_peft_model(t5, adapter)


def pefts(config: T5Config, method: str, n_tasks: int, batches: Iterator[Batch], rank: int = RANK) -> Step:
    """A step of PEFT's training on the next batch, padded to its longest example.

    Raises:
      ImportError: PEFT or transformers is not installed (extra `interop`).
    """
    import torch

    model = peft_model(config, method, n_tasks, rank).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, RATE)

    def step() -> float:
        batch = next(batches)
        tokens = torch.tensor(_without_padding(batch["encoder_input_tokens"])).long()
        labels = torch.tensor(_without_padding(batch["decoder_target_tokens"])).long()
        tasks = {"task_ids": torch.tensor(batch["task_ids"]).long()} if method in ("MHR", "Poly") else {}
        out = model(
            input_ids=tokens,
            attention_mask=(tokens > 0).long(),
            labels=labels.masked_fill(labels == 0, -100),
            **tasks,
        )
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        return tokens_in(batch)

    return step


def _without_padding(tokens: np.ndarray) -> np.ndarray:
    """The columns up to the last one in which any row has a token."""
    return tokens[:, : (tokens > 0).any(axis=0).nonzero()[0].max() + 1]
