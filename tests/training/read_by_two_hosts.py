"""A program of two processes: each loads a backbone, and prints what it read and whether it is right.

With "failures" in place of the form of the layers, the second process has no backbone at first, and then one
that it cannot read, and each prints its errors.
"""

import dataclasses
import json
import sys

import jax
import numpy as np

coordinator, number, path, layers, quantization = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(coordinator, 2, int(number))

from poly_jax.errors import UserError  # noqa: E402  JAX must know of its processes first
from poly_jax.model.config import T5Config  # noqa: E402
from poly_jax.model.transformer import Transformer  # noqa: E402
from poly_jax.training.backbone import load_backbone  # noqa: E402
from poly_jax.training.mesh import Partitioning  # noqa: E402
from poly_jax.weights.backbone import open_backbone  # noqa: E402
from poly_jax.weights.layer_trees import stack_layers  # noqa: E402
from poly_jax.weights.tensors import Tensor  # noqa: E402
from poly_jax.weights.tree import flatten, unflatten  # noqa: E402

read = {"whole": 0, "parts": 0, "hashed": []}


def counted(name: str, tensor: Tensor) -> Tensor:
    def load() -> np.ndarray:
        read["whole"] += tensor.nbytes
        read["hashed"].append(name)
        return tensor.load()

    def load_part(index) -> np.ndarray:
        part = tensor.part(index)
        read["parts"] += part.nbytes
        return part

    return Tensor(tensor.shape, tensor.dtype, load, load_part)


opened = open_backbone(path)
arrays = {name: tensor.load() for name, tensor in opened.tensors.items()}
counting = dataclasses.replace(opened, tensors={n: counted(n, t) for n, t in opened.tensors.items()})


def fail(*_):
    raise OSError("Input/output error")


unreadable = dataclasses.replace(
    opened, tensors={n: Tensor(t.shape, t.dtype, fail, fail) for n, t in opened.tensors.items()}
)
config = dataclasses.replace(
    T5Config(**opened.stated_fields()), scan_layers=layers == "scan", quantization=quantization
)

if layers == "failures":
    errors = []
    for place, failing in ((f"{path}-of-host-1", False), (path, True)):
        if number == "1" and failing:
            sys.modules["poly_jax.training.backbone"].open_backbone = lambda _: unreadable
        try:
            load_backbone(place if number == "1" else path, Transformer(config), Partitioning(fsdp=2).mesh())
        except UserError as error:
            errors.append(str(error))
    print(json.dumps({"errors": errors}))
    sys.exit()
sys.modules["poly_jax.training.backbone"].open_backbone = lambda _: counting
tree, digest = load_backbone(path, Transformer(config), Partitioning(fsdp=2).mesh())
expected = flatten(stack_layers(unflatten(arrays)) if config.scan_layers else unflatten(arrays))
wrong = []
for name, array in flatten(tree).items():
    scale = flatten(tree).get(name + "_scale")
    if name.endswith("_scale"):
        continue
    for shard in array.addressable_shards:
        got, want = np.asarray(shard.data, np.float32), expected[name][shard.index]
        if scale is None:
            right = np.array_equal(got, want)
        else:
            # The scale of a column is its largest weight over 127, of the whole column.
            grid = np.abs(expected[name]).max(-2, keepdims=True) / 127
            right = np.array_equal(got, np.round(expected[name] / grid)[shard.index])
        wrong += [] if right else [name]
print(json.dumps({**read, "digest": digest, "wrong": wrong, "bytes": sum(a.nbytes for a in arrays.values())}))
