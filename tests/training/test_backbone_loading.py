"""A frozen backbone is loaded onto the mesh parameter by parameter, in the model's layout, with its hash."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.interop.import_backbone import import_backbone
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


@pytest.mark.parametrize("scan_layers", [False, True])
def test_kernels_become_integers_while_they_are_loaded(stored, scan_layers):
    path, arrays = stored
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers, dtype="bfloat16", quantization="int8")
    tree, digest = load_backbone(path, Transformer(config), Partitioning().mesh())
    got = flatten(unstack_layers(tree))
    assert digest == content_hash(open_backbone(path).tensors)
    for name, array in arrays.items():
        if not name.endswith("/kernel") or name == "decoder/logits_dense/kernel":
            np.testing.assert_array_equal(got[name], array.astype(jnp.bfloat16), err_msg=name)
            continue
        scale = got[name.replace("/kernel", "/kernel_scale")]
        assert (got[name].dtype, scale.dtype) == (jnp.int8, jnp.float32)
        np.testing.assert_allclose(scale, np.abs(array).max(0) / 127, rtol=1e-6)
        np.testing.assert_array_equal(got[name], np.round(array / np.asarray(scale)))


def test_random_weights_are_integers_as_well(monkeypatch):
    floats, _ = load_backbone("random", Transformer(CONFIG), Partitioning().mesh())
    config = dataclasses.replace(CONFIG, quantization="int8")
    integers, digest = load_backbone("random", Transformer(config), Partitioning().mesh())
    name = "encoder/layers_0/attention/query"
    kernel, scale = (np.asarray(flatten(integers)[f"{name}/{leaf}"]) for leaf in ("kernel", "kernel_scale"))
    expected = np.asarray(flatten(floats)[f"{name}/kernel"])
    assert kernel.dtype == np.int8
    np.testing.assert_allclose(kernel * scale, expected, atol=np.abs(expected).max() / 254 * 1.001)
    assert digest == "random"


def test_a_file_of_integers_loads_as_integers_and_as_floats(stored, tmp_path):
    path, _ = stored
    compact = tmp_path / "compact.safetensors"
    gin_file = import_backbone(path, str(compact), "int8")
    assert "T5Config.quantization = 'int8'" in gin_file.read_text()
    integers = dataclasses.replace(CONFIG, quantization="int8")
    mesh = Partitioning().mesh()
    expected = flatten(load_backbone(path, Transformer(integers), mesh)[0])
    found = flatten(load_backbone(str(compact), Transformer(integers), mesh)[0])
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        if leaf.dtype == jnp.int8:
            np.testing.assert_array_equal(found[name], leaf, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], leaf, rtol=1e-6, err_msg=name)
    floats = flatten(load_backbone(str(compact), Transformer(CONFIG), mesh)[0])
    name = "decoder/layers_1/mlp/wo/kernel"
    np.testing.assert_allclose(
        floats[name], np.asarray(found[name], np.float32) * found[f"{name}_scale"], rtol=1e-6
    )


def test_integers_in_place_of_floats_are_refused(stored, tmp_path):
    tensors, metadata = single_file.open_file(stored[0])
    name, broken = "encoder/layers_0/mlp/wo/kernel", tmp_path / "broken.safetensors"
    kernel = tensors[name]
    tensors[name] = Tensor(kernel.shape, np.dtype(np.int32), lambda: kernel.load().astype(np.int32))
    single_file.write(broken, tensors, metadata)
    with pytest.raises(UserError, match=f"broken.safetensors: {name} holds int32, not floats"):
        load_backbone(str(broken), Transformer(CONFIG), Partitioning().mesh())


def test_integers_without_their_scales_are_refused(stored, tmp_path):
    path, _ = stored
    compact, broken = tmp_path / "compact.safetensors", tmp_path / "broken.safetensors"
    import_backbone(path, str(compact), "int8")
    tensors, metadata = single_file.open_file(compact)
    del tensors["encoder/layers_0/mlp/wo/kernel_scale"]
    single_file.write(broken, tensors, metadata)
    with pytest.raises(UserError, match="holds integers without their scales"):
        load_backbone(str(broken), Transformer(CONFIG), Partitioning().mesh())
