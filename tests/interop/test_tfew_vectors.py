"""T-Few's published (IA)^3 vectors for T0-3B, each at its site in a model of T5 XL's shape."""

import numpy as np
import pytest
from flax import traverse_util

from poly_jax import configuration
from poly_jax.interop.adapters import holds_adapters, open_adapter_file, read_adapters
from poly_jax.interop.mttl.reader import mttl_adapters
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tensors import Tensor

# Sub-layers of a block: Hugging Face's names and the project's.
PLACES = {
    ("encoder", "0.SelfAttention"): "attention",
    ("encoder", "1.DenseReluDense"): "mlp",
    ("decoder", "0.SelfAttention"): "self_attention",
    ("decoder", "1.EncDecAttention"): "encoder_decoder_attention",
    ("decoder", "2.DenseReluDense"): "mlp",
}
MAPS = {"k": "key", "v": "value", "wi_1": "wi_1"}


@pytest.fixture(scope="module")
def file(shared_data):
    return shared_data / "t0_3b_ia3_tfew.npz"


@pytest.fixture(scope="module")
def xl():
    return configuration.load(["models/t5_1_1_xl.gin"]).make(T5Config)


def place(name):
    """Translate `encoder.block.3.layer.0.SelfAttention.k.multi_lora_b` to the project's names."""
    stack, _, number, _, layer, kind, module, _ = name.split(".")
    return f"{stack}/layers_{number}/{PLACES[stack, f'{layer}.{kind}']}/{MAPS[module]}/skills/ia3"


def test_every_array_is_used_once_and_fills_the_model(file, xl):
    assert holds_adapters(str(file))
    read = read_adapters(str(file), xl)
    adapters = read.adapters(file)
    assert (read.n_tasks, read.n_skills, read.n_splits) == (1, 1, 1)
    assert set(read.sites) == {
        *(f"encoder/attention/{name}" for name in ("key", "value")),
        *(f"decoder/self_attention/{name}" for name in ("key", "value")),
        *(f"decoder/encoder_decoder_attention/{name}" for name in ("key", "value")),
        "encoder/mlp/wi_1",
        "decoder/mlp/wi_1",
    }
    tree = traverse_util.flatten_dict(read.tree, sep="/")
    # Only the shapes of the model are made, not its three billion parameters.
    shapes = traverse_util.flatten_dict(parameter_shapes(Transformer(xl, adapters))[0], sep="/")
    wanted = {path: leaf.shape for path, leaf in shapes.items() if is_adapter_parameter(path)}
    assert {path: leaf.shape for path, leaf in tree.items()} == wanted
    with np.load(file, allow_pickle=False) as stored:
        assert len(stored.files) == len(tree) == 192
        for name in stored.files:
            np.testing.assert_array_equal(tree.pop(place(name)).reshape(-1), stored[name].reshape(-1))
    assert not tree
    assert sum(int(np.prod(shape)) for shape in wanted.values()) == 540_672


def test_every_array_is_read_once(file, xl):
    opened = open_adapter_file(file)
    reads = dict.fromkeys(opened, 0)

    def counting(name, tensor):
        def load():
            reads[name] += 1
            return tensor.load()

        return Tensor(tensor.shape, tensor.dtype, load)

    mttl_adapters({name: counting(name, tensor) for name, tensor in opened.items()}, xl, file)
    assert set(reads.values()) == {1}
