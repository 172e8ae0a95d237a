"""A tiny multi-task model whose skills change the output, and examples of new tasks."""

import contextlib
import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.data.task_table import TaskTable
from poly_jax.model.config import T5Config
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.mesh import Partitioning
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.update import TrainState, Update, start
from poly_jax.transfer.few_shot import FewShotBatches
from poly_jax.transfer.start import start_from
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split


def draw_parameters(model, seed=0):
    rng = np.random.default_rng(seed)
    leaves = traverse_util.flatten_dict(parameter_shapes(model)[0], sep="/")
    drawn = {
        name: (rng.normal(size=leaf.shape) / np.sqrt(max(leaf.shape[0], 4))).astype(np.float32)
        for name, leaf in sorted(leaves.items())
    }
    return traverse_util.unflatten_dict(drawn, sep="/")


def examples(seed, count=5):
    rng = np.random.default_rng(seed)
    targets = rng.integers(2, 32, (count, 4)).astype(np.int32)
    return {
        "encoder_input_tokens": rng.integers(2, 32, (count, 6)).astype(np.int32),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
        "task_ids": np.zeros(count, np.int32),
    }


@pytest.fixture(scope="session")
def many():
    """`model`, with four tasks, three skills and two heads, and its `parameters`."""
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
    sites = ("encoder/attention/query", "decoder/mlp/wo")
    adapters = Adapters(LoRA(rank=2), LearnedRouter(), n_tasks=4, n_skills=3, n_splits=2, sites=sites)
    model = Transformer(config, adapters)
    return SimpleNamespace(model=model, parameters=draw_parameters(model))


@pytest.fixture(scope="session")
def new_tasks():
    """Examples of two new tasks."""
    return [examples(1), examples(2)]


@pytest.fixture(scope="session")
def examples_of():
    """A function that makes a number of examples of a new task from a seed."""
    return examples


@pytest.fixture(scope="session")
def parameters_of():
    """A function that draws all parameters of a model from a seed."""
    return draw_parameters


@pytest.fixture(scope="session")
def uneven_tasks():
    """Examples of two tasks, one with more examples than the other."""
    return [examples(1, 5), examples(2, 3)]


@pytest.fixture(scope="session")
def saved():
    """A function that saves a run's adapters, where an adaptation that keeps its skills reads them."""

    def save(source, folder):
        adapters, _ = split(source.parameters, is_adapter_parameter)
        state = TrainState(jax.numpy.int32(1), adapters, {"steps": jax.numpy.int32(1)})
        with contextlib.closing(Checkpoints(folder)) as checkpoints:
            checkpoints.save(state, source.table, source.origin)
        return dataclasses.replace(source, step=step_folder(folder))

    return save


@pytest.fixture(scope="session")
def alone():
    """A function that runs one adaptation by itself, started as in `adapt`: one state and a Python loop."""

    def adapt(source, variant, examples, seed, optimizer, steps):
        begun = start_from(
            source,
            variant,
            TaskTable(("new",)),
            seed,
            Partitioning().mesh(),
            experiment=None,
            loss=TokenLoss(),
            batch_size=2,
            examples=examples,
        )
        model = dataclasses.replace(begun.model, train=True)
        update = Update(model, TokenLoss(), optimizer.transformation(steps))
        state = start(begun.trained, update.optimizer)
        step = jax.jit(update)
        batches = FewShotBatches(examples, batch_size=2, seed=seed)
        losses = []
        for _ in range(steps if variant.trains else 0):
            state, metrics = step(state, begun.frozen, next(batches), jax.random.key(seed))
            losses.append(float(metrics["loss"]))
        return state.trained, losses

    return adapt
