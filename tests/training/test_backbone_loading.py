"""A frozen backbone is loaded onto the mesh parameter by parameter, in the model's layout, with its hash."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.transformer import Transformer
from poly_jax.training.backbone import load_backbone
from poly_jax.training.mesh import Partitioning
from poly_jax.weights import single_file
from poly_jax.weights.backbone import Backbone, open_backbone
from poly_jax.weights.content_hash import content_hash
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.tree import flatten, unflatten

CONFIG = T5Config(
    vocab_size=12,
    emb_dim=4,
    num_heads=2,
    head_dim=3,
    mlp_dim=5,
    num_encoder_layers=11,
    num_decoder_layers=2,
)


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {n: rng.normal(size=s).astype(np.float32) for n, s in t5_parameter_shapes(CONFIG).items()}
    path = tmp_path / "b.safetensors"
    single_file.save(path, unflatten(arrays), dataclasses.asdict(CONFIG))
    return str(path), arrays


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_parameter_equals_the_stored_one(stored, scan_layers, dtype):
    path, arrays = stored
    model = Transformer(dataclasses.replace(CONFIG, scan_layers=scan_layers, dtype=dtype))
    tree, digest = load_backbone(path, model, Partitioning().mesh())
    assert ("layers" in tree["encoder"]) == scan_layers
    got = flatten(unstack_layers(tree))
    assert got.keys() == arrays.keys()
    for name, array in arrays.items():
        assert got[name].dtype == dtype
        np.testing.assert_array_equal(got[name], array.astype(jnp.dtype(dtype)), err_msg=name)
    assert digest == content_hash(open_backbone(path).tensors)


def test_a_parameter_is_placed_on_the_mesh_before_more_are_read(stored, monkeypatch):
    path, arrays = stored
    events = []

    def load(name):
        events.append("read")
        return arrays[name]

    tensors = {
        name: Tensor(array.shape, array.dtype, functools.partial(load, name))
        for name, array in arrays.items()
    }
    backbone = Backbone(path, "poly_jax", tensors, dataclasses.asdict(CONFIG))
    monkeypatch.setattr("poly_jax.training.backbone.open_backbone", lambda _: backbone)

    def place(array, sharding):
        events.append("place")
        return jax.device_put(array, sharding)

    monkeypatch.setattr("poly_jax.training.backbone.put", place)
    load_backbone(path, Transformer(CONFIG), Partitioning().mesh())
    waiting = np.cumsum([1 if event == "read" else -1 for event in events])
    assert len(events) == 2 * len(arrays)
    # One parameter that is being placed, and one that is read ahead.
    assert waiting.max() <= 2


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_backbone_of_another_model_is_refused_before_it_is_read(stored, scan_layers, monkeypatch):
    path, _ = stored
    monkeypatch.setattr(Backbone, "read_each", None)
    other = dataclasses.replace(CONFIG, num_encoder_layers=12, mlp_dim=6, scan_layers=scan_layers)
    with pytest.raises(
        UserError, match=r"missing \(encoder/layers_11/.*wo/kernel is \[5, 4\] and .*\[6, 4\]"
    ):
        load_backbone(path, Transformer(other), Partitioning().mesh())
