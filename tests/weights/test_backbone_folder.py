"""A folder of shards is equivalent to the file that it was split from."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.weights import backbone_folder
from poly_jax.weights.backbone import open_backbone, read_backbone
from poly_jax.weights.tensors import of_tree
from poly_jax.weights.tree import flatten, unflatten

ARRAYS = {f"encoder/layers_{i}/mlp/wo/kernel": np.full((3, 4), i, np.float32) for i in range(5)}
METADATA = {"vocab_size": 5, "mlp_activations": ["relu"]}


@pytest.fixture(params=[100, 10**9], ids=["shards", "whole"])
def folder(request, tmp_path):
    backbone_folder.write(tmp_path / "b", of_tree(unflatten(ARRAYS)), METADATA, shard_bytes=request.param)
    return tmp_path / "b"


def test_arrays_and_metadata_are_read_back(folder):
    tensors, metadata = backbone_folder.open_folder(folder)
    assert metadata == METADATA
    assert {name: tensor.load().tolist() for name, tensor in tensors.items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }


def test_a_folder_of_shards_is_read_as_a_backbone(folder):
    assert backbone_folder.is_folder(folder)
    assert open_backbone(folder).kind == "poly_jax"
    assert flatten(read_backbone(folder)).keys() == ARRAYS.keys()


def test_a_truncated_file_is_reported_by_name(folder):
    file = sorted(folder.glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{file.name} cannot be read as safetensors"):
        backbone_folder.open_folder(folder)
