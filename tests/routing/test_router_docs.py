"""The router of docs/new_router.md: its file and its gin lines are enough to build and to train a model.

Run as a program, this compares the router's gradient on eight devices with that of one.
"""

import json
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.analysis.weights import mixing_weights
from poly_jax.model.config import T5Config
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.routing.router import Router, Sizes
from poly_jax.training.mesh import Partitioning, on_mesh, shardings
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.update import Update, start
from poly_jax.weights.parameter_names import is_router, selects
from poly_jax.weights.tree import split


@pytest.fixture
def adapters(tmp_path, monkeypatch, page_block):
    (tmp_path / "my_router.py").write_text(page_block("new_router", "python"))
    (tmp_path / "run.gin").write_text(page_block("new_router", "gin"))
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = configuration.load([str(tmp_path / "run.gin")], ["Adapters.n_skills = 3"])
    yield loaded.make(Adapters, n_tasks=2)
    sys.modules.pop("my_router", None)


def test_the_router_on_the_page_needs_one_file_and_one_binding(adapters):
    assert isinstance(adapters.router, Router)
    assert (adapters.router.bias, adapters.n_splits) == (1.0, 4)
    config = T5Config(
        vocab_size=16,
        emb_dim=8,
        num_heads=1,
        head_dim=8,
        mlp_dim=8,
        num_encoder_layers=1,
        num_decoder_layers=1,
        mlp_activations=("relu",),
        dropout_rate=0.0,
    )
    model = Transformer(config, adapters, train=True)
    parameters = jax.jit(lambda key: init_parameters(model, key)[0])(jax.random.key(0))
    # Initial weights: all logits, and so all weights, are almost equal.
    weights = mixing_weights(adapters, parameters)
    assert "decoder/layers_0/mlp/wo" in weights
    for table in weights.values():
        assert table.shape == (2, 4, 3)
        np.testing.assert_allclose(table.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(table, 1 / 3, atol=1e-3)
    trained, frozen = split(parameters, selects("router"))
    update = Update(model, TokenLoss(), Optimizer(warmup_fraction=0.0, decay="constant").transformation(2))
    tokens = np.array([[3, 4, 5], [6, 7, 8]], np.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": np.ones_like(tokens),
        "task_ids": np.array([0, 1], np.int32),
    }
    state, metrics = jax.jit(update)(start(trained, update.optimizer), frozen, batch, jax.random.key(0))
    assert np.isfinite(metrics["loss"])
    paths = jax.tree_util.tree_leaves_with_path(state.trained)
    names = {"/".join(key.key for key in path) for path, _ in paths}
    assert names
    assert all(is_router(name) for name in names)
    assert {name.rsplit("/", 1)[1] for name in names} == {"logits", "gate"}


@pytest.mark.slow
def test_the_router_on_the_page_has_the_same_gradient_on_a_mesh(tmp_path, page_block, on_eight_devices):
    (tmp_path / "my_router.py").write_text(page_block("new_router", "python"))
    found = on_eight_devices(__file__, str(tmp_path))
    assert found.keys() == {"logits", "gate"}
    assert max(found.values()) < 1e-5


def main(folder):
    """Print as JSON how far each gradient on a mesh of three axes is from that of one device."""
    sys.path.insert(0, folder)
    from my_router import GatedRouter

    router, sizes, rng = (
        GatedRouter(bias=1.0),
        Sizes(n_tasks=8, n_splits=4, n_skills=4),
        np.random.default_rng(0),
    )
    specs = router.parameters(sizes)
    parameters = {name: rng.normal(size=spec.shape).astype(np.float32) for name, spec in specs.items()}
    axes = {name: PartitionSpec(*spec.axes) for name, spec in specs.items()}
    ids, wanted = np.arange(8) * 3 % 8, rng.normal(size=(8, 4, 4)).astype(np.float32)

    def loss(parameters):
        return (router.weights(parameters, ids, sizes, None) * wanted).sum()

    one = jax.grad(loss)(parameters)
    mesh = Partitioning(fsdp=2, model=2).mesh()
    placed = jax.device_put(parameters, shardings(parameters, axes, mesh))
    with on_mesh(mesh):
        many = jax.jit(jax.grad(loss))(placed)
    print(json.dumps({name: float(np.abs(one[name] - many[name]).max()) for name in one}))


if __name__ == "__main__":
    main(sys.argv[1])
