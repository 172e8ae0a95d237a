"""A tiny adapted model with a batch, and jitted training steps for it."""

import dataclasses
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
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.update import Update, start
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split


@pytest.fixture(scope="session")
def draw_parameters():
    """A function that draws a model's parameters in NumPy, for which nothing is compiled."""

    def draw(model):
        rng = np.random.default_rng(0)
        shapes, _ = parameter_shapes(model)
        leaves = traverse_util.flatten_dict(shapes, sep="/")
        drawn = {
            name: (rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0])).astype(np.float32)
            for name, leaf in sorted(leaves.items())
        }
        return traverse_util.unflatten_dict(drawn, sep="/")

    return draw


@pytest.fixture(scope="session")
def tiny(draw_parameters):
    """`model` (training mode, nothing random), its `trained` and `frozen` trees, and a `batch` of 8 rows."""
    config = T5Config(
        vocab_size=32,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=24,
        num_encoder_layers=1,
        num_decoder_layers=1,
        mlp_activations=("relu",),
    )
    adapters = Adapters(
        LoRA(rank=2),
        LearnedRouter(sampling=False),
        n_tasks=4,
        n_skills=3,
        n_splits=2,
        sites=("encoder/attention/query", "decoder/mlp/wo"),
    )
    model = Transformer(config, adapters, train=True)
    trained, frozen = split(draw_parameters(model), is_adapter_parameter)
    rng = np.random.default_rng(1)
    targets = rng.integers(2, 32, (8, 5)).astype(np.int32)
    targets[np.arange(5) >= np.array([5, 3, 1, 4, 5, 2, 2, 5])[:, None]] = 0
    batch = {
        "encoder_input_tokens": rng.integers(2, 32, (8, 6)).astype(np.int32),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
        "task_ids": np.array([2, 0, 1, 1, 0, 2, 2, 0], np.int32),
    }
    return SimpleNamespace(model=model, trained=trained, frozen=frozen, batch=batch)


@pytest.fixture(scope="session")
def update_of(tiny):
    """A function that makes an `Update` without warm-up, so that the first step changes parameters."""

    def make(optimizer=None, model=None, **settings):
        optimizer = optimizer or Optimizer(warmup_fraction=0.0, decay="constant")
        return Update(model or tiny.model, TokenLoss(), optimizer.transformation(10), **settings)

    return make


@pytest.fixture(scope="session")
def initial(tiny):
    """A function that makes the state before the first step; a factor scales its trained tree."""

    def make(update, factor=1.0):
        trained = jax.tree.map(lambda leaf: leaf * np.float32(factor), tiny.trained)
        return jax.jit(functools.partial(start, optimizer=update.optimizer))(trained)

    return make


@pytest.fixture(scope="session")
def random_model(tiny):
    """The tiny model with dropout and a sampling router."""
    config = dataclasses.replace(tiny.model.config, dropout_rate=0.1)
    adapters = dataclasses.replace(tiny.model.adapters, router=LearnedRouter(sampling=True))
    return dataclasses.replace(tiny.model, config=config, adapters=adapters)


@pytest.fixture(scope="session")
def flat():
    """A function that returns the leaves of a tree as NumPy arrays, by '/'-joined names."""

    def leaves(tree):
        return {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()}

    return leaves


@pytest.fixture(scope="session")
def key():
    """The random key of the run."""
    return jnp.asarray(jax.random.key(0))
