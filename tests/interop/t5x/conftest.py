"""A tiny routed model for t5x's interface, and a mixture of three tasks of the embedded benchmark."""

import jax
import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter

N_TASKS = 3


@pytest.fixture(scope="session")
def module() -> Transformer:
    config = T5Config(
        vocab_size=259,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=24,
        num_encoder_layers=1,
        num_decoder_layers=1,
        mlp_activations=("relu",),
    )
    adapters = Adapters(
        skill=LoRA(rank=2),
        router=LearnedRouter(),
        n_tasks=N_TASKS,
        n_skills=3,
        n_splits=2,
        sites=("encoder/attention/query", "decoder/mlp/wo"),
    )
    return Transformer(config, adapters)


@pytest.fixture(scope="session")
def parameters(module) -> dict:
    """Random parameters with which the outputs of any two tasks differ clearly."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: init_parameters(module, key)[0], jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="session")
def batch() -> dict[str, np.ndarray]:
    """A padded batch of six rows of three tasks."""
    rng = np.random.default_rng(1)
    inputs, targets = rng.integers(2, 259, (6, 7)), rng.integers(2, 259, (6, 5))
    inputs[1, 4:], targets[2, 3:] = 0, 0
    return {
        "encoder_input_tokens": inputs.astype(np.int32),
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))).astype(np.int32),
        "decoder_target_tokens": targets.astype(np.int32),
        "decoder_loss_weights": (targets > 0).astype(np.int32),
        "task_ids": np.array([0, 2, 1, 1, 0, 2], np.int32),
    }


@pytest.fixture(scope="session")
def mixture() -> str:
    """A registered mixture whose tasks are not in alphabetical order."""
    from poly_jax.data.quiet import seqio
    from poly_jax.tasks.skillbench import compositions, tasks

    names = sorted(tasks.registered_name(task.name) for task in compositions.benchmark().train)[:N_TASKS]
    seqio.MixtureRegistry.add("t5x_plugin_trio", [names[2], names[0], names[1]], default_rate=1.0)
    return "t5x_plugin_trio"
