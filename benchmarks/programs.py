"""Training steps of this project, for the benchmarks beside this file."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from settings import RANK, RATE, SKILLS, SPLITS, Batch, Step, tokens_in

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.interop.hugging_face.writer import hugging_face_config
from poly_jax.model.config import T5Config
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.backbone import RANDOM
from poly_jax.training.compiled_step import CompiledStep, compiled_step
from poly_jax.training.memory import return_freed_memory
from poly_jax.training.mesh import Partitioning
from poly_jax.training.optimizer import Elementwise
from poly_jax.training.packed_routers import packed_routers
from poly_jax.training.start import begin, fresh_start
from poly_jax.training.update import TrainState, Update
from poly_jax.weights.tree import merge, split

# The seven kinds of projection that PEFT finds by these names in every layer.
SITES = ("query", "key", "value", "out", "wi_0", "wi_1", "wo")


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


@dataclasses.dataclass
class Training:
    """A run's compiled step, and what its next call takes.

    Attributes:
      program: the compiled step.
      state: the packed state, which each step replaces.
      frozen: the frozen tree.
      key: the key of the run.
    """

    program: CompiledStep
    state: TrainState
    frozen: dict[str, Any]
    key: Any

    def traced(self, batch: Batch) -> jax.stages.Traced:
        """Trace the program of the first step."""
        return self.program.trace(self.state, self.frozen, batch, self.key, np.int32(1))


def begun(config: T5Config, adapters: Adapters | None) -> Training:
    """Begin training, as `poly_jax.training.loop.fit` does."""
    model = Transformer(config, adapters)
    trainable = "all" if adapters is None else "adapters"
    mesh = Partitioning().mesh()
    given = fresh_start(model, RANDOM, trainable, 0, mesh)
    # PEFT's AdamW has no schedule and does not clip either.
    adamw = Elementwise(*optax.with_extra_args_support(optax.adamw(RATE)))
    update = Update(dataclasses.replace(model, train=True), TokenLoss(), adamw)
    state = begin(given.trained, update, mesh)
    packing = packed_routers(update, state, given.frozen)
    state = packing.pack(state)
    program = compiled_step(packing.update, "stop", state, given.frozen)
    return Training(program, state, given.frozen, jax.random.key(0))


def training(
    config: T5Config, adapters: Adapters | None, batches: Iterator[Batch]
) -> tuple[Step, Callable[[], int]]:
    """A step of training on the next batch, and a function: the bytes that its program takes at most."""
    run = begun(config, adapters)
    number = np.int32(0)

    def step() -> float:
        nonlocal number
        batch = next(batches)
        number += 1
        if number == 1:
            # As `poly_jax.training.loop.fit` does.
            run.traced(batch).lower().compile()
            return_freed_memory()
        run.state, metrics = run.program(run.state, run.frozen, batch, run.key, number)
        jax.block_until_ready(metrics)
        return tokens_in(batch)

    def peak() -> int:
        found = run.traced(next(batches)).lower().compile().memory_analysis()
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


def hugging_face_settings(config: T5Config) -> dict[str, Any]:
    """The arguments of transformers' `T5Config` for this shape."""
    return hugging_face_config(config, np.dtype(np.float32))
