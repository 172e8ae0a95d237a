"""A T5 so small that it compiles in about a second, whose skills are clearly different from fresh ones."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter


def _parameters(model):
    """Random non-zero parameters in a model's tree, drawn in NumPy in the order of their names."""
    rng = np.random.default_rng(0)
    shapes, _ = parameter_shapes(model)
    leaves = {}
    for name, leaf in sorted(traverse_util.flatten_dict(shapes, sep="/").items()):
        width = {"lora_a": 2.0, "lora_b": 2.0, "scale": 1.0, "logits": 1.0, "embedding": 1.0}
        scale = width.get(name.rsplit("/", 1)[1], 1 / np.sqrt(leaf.shape[0]))
        values = rng.normal(scale=scale, size=leaf.shape)
        leaves[name] = jnp.asarray(np.abs(values) + 0.5 if name.endswith("scale") else values, jnp.float32)
    return traverse_util.unflatten_dict(leaves, sep="/")


@pytest.fixture(scope="session")
def tiny():
    """`config`, `adapters`, `model` (evaluation mode), `parameters` and a `batch` of 5 rows, 3 tasks."""
    config = T5Config(
        vocab_size=40,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=24,
        num_encoder_layers=2,
        num_decoder_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
    )
    # One adapted site in most layers: every further site costs seconds of compilation.
    sites = ("encoder/attention/query", "encoder/mlp/wo", "decoder/self_attention/out", "decoder/.*/key")
    adapters = Adapters(
        LoRA(rank=2, alpha=0.2), LearnedRouter(), n_tasks=3, n_splits=2, n_skills=3, sites=sites
    )
    model = Transformer(config, adapters)
    rng = np.random.default_rng(1)
    inputs = rng.integers(2, 40, (5, 7)).astype(np.int32)
    targets = rng.integers(2, 40, (5, 4)).astype(np.int32)
    lengths = [(7, 4), (5, 2), (6, 4), (3, 1), (7, 3)]
    for row, (inputs_length, targets_length) in enumerate(lengths):
        inputs[row, inputs_length:] = 0
        targets[row, targets_length:] = 0
    batch = {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
        "task_ids": np.array([2, 0, 1, 2, 0], np.int32),
    }
    return SimpleNamespace(
        config=config,
        adapters=adapters,
        model=model,
        parameters=_parameters(model),
        batch={name: jnp.asarray(rows) for name, rows in batch.items()},
        parameters_of=_parameters,
    )


@pytest.fixture(scope="session")
def logits_of():
    """Jitted `(model, parameters, batch, **rngs) -> logits`."""

    def run(model, parameters, batch, **rngs):
        return _logits(model, parameters, batch, rngs)

    return run


@pytest.fixture(scope="session")
def gradients_of():
    """Jitted `(model, parameters, batch, **rngs)` -> gradients of the mean loss, and logits."""

    def run(model, parameters, batch, **rngs):
        return _gradients(model, parameters, batch, rngs)

    return run


def _apply(model, parameters, batch, rngs):
    return model.apply(
        {"params": parameters},
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        batch["task_ids"],
        rngs=rngs,
    )


def _loss(parameters, model, batch, rngs):
    logits = _apply(model, parameters, batch, rngs)
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, batch["decoder_target_tokens"][..., None], axis=-1)[..., 0]
    weights = batch["decoder_loss_weights"]
    return -jnp.sum(picked * weights) / jnp.sum(weights), logits


# Nearly all of the time is spent compiling.
_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)
_logits = _jit(_apply, static_argnums=0)
_gradients = _jit(
    lambda model, parameters, batch, rngs: jax.grad(_loss, has_aux=True)(parameters, model, batch, rngs),
    static_argnums=0,
)


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` for programs that take longer to compile than to run."""
    return _jit
