"""Parameters and batches on a device mesh. Run as a program, this does one training step on eight devices."""

import contextlib
import json
import tempfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from poly_jax.errors import UserError
from poly_jax.training import mesh
from poly_jax.training.mesh import Partitioning, check_batch_size, shardings


@pytest.fixture(scope="module")
def one():
    return Partitioning().mesh()


def test_the_default_mesh_uses_all_devices_for_data(one):
    assert dict(one.shape) == {"data": jax.device_count(), "fsdp": 1, "model": 1}


@pytest.mark.parametrize("shape", [{"fsdp": 3}, {"model": 7}, {"fsdp": 0}, {"model": -1}])
def test_mesh_shapes_that_do_not_divide_the_devices_are_refused(shape):
    with pytest.raises(UserError, match=r"Partitioning\.fsdp .* does not divide 1 device"):
        Partitioning(**shape).mesh()


def _torus(kind, side, number=0):
    """The TPUs of a slice of side x side, of which a host has all."""
    return [
        SimpleNamespace(
            platform="tpu",
            device_kind=kind,
            id=number * side**2 + side * y + x,
            process_index=number,
            coords=(x, y, 0),
            core_on_chip=0,
            num_cores=1,
            slice_index=number,
        )
        for y in range(side)
        for x in range(side)
    ]


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v5 lite", "TPU v6 lite", "TPU7x"])
@pytest.mark.parametrize(("fsdp", "model"), [(2, 1), (2, 2), (1, 8), (8, 2), (4, 4), (16, 1)])
def test_a_mesh_may_divide_an_axis_of_the_torus(monkeypatch, kind, fsdp, model):
    # jax.make_mesh refuses, for example, 4 x 2 x 2 on a torus of 4 x 4.
    torus = _torus(kind, 4)
    monkeypatch.setattr(mesh, "Mesh", lambda devices, axes, axis_types: devices)
    arranged = Partitioning(fsdp, model).mesh(torus)
    assert arranged.shape == (16 // (fsdp * model), fsdp, model)
    assert sorted(device.id for device in arranged.flat) == list(range(16))


@pytest.mark.parametrize(("fsdp", "model"), [(4, 1), (1, 4), (2, 2), (2, 1), (1, 1)])
def test_only_the_data_axis_crosses_the_network_between_slices(monkeypatch, fsdp, model):
    monkeypatch.setattr(mesh, "Mesh", lambda devices, axes, axis_types: devices)
    devices = [device for number in range(3) for device in _torus("TPU v5 lite", 2, number)]
    arranged = Partitioning(fsdp, model).mesh(devices)
    assert arranged.shape == (12 // (fsdp * model), fsdp, model)
    # The devices that differ along the other axes only are of one slice, and the slices follow each other.
    slices = [{device.slice_index for device in copy.flat} for copy in arranged]
    assert slices == [{number} for number in range(3) for _ in range(4 // (fsdp * model))]
    with pytest.raises(UserError, match="does not divide the 4 devices of each slice"):
        Partitioning(fsdp=8).mesh(devices)


class _Mesh:
    """The only attribute of a mesh that `check_batch_size` reads."""

    shape = {"data": 2, "fsdp": 4, "model": 8}  # noqa: RUF012


def test_batch_sizes_that_cannot_be_sharded_are_refused():
    check_batch_size(16, _Mesh)
    with pytest.raises(UserError, match="batch size 12 is not a multiple of the 8 devices"):
        check_batch_size(12, _Mesh)


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        # An axis that not all mesh axes divide may still be divided by some of them.
        ((8, 1, 3), ("tasks", "splits", "skills"), (("model", "fsdp"), None, None)),
        ((6, 4, 3), ("tasks", "splits", "skills"), (("fsdp",), ("model",), None)),
        (
            (1, 6, 16, 3),
            ("splits", "tasks", "lora_in", "lora_rank"),
            (None, ("fsdp",), ("model", "data"), None),
        ),
        # T0's number of tasks, 313, is prime.
        ((313, 64, 8), ("tasks", "splits", "skills"), (None, ("model", "fsdp", "data"), None)),
        ((15, 32), ("embed", "mlp"), (None, ("model",))),
        ((3, 16, 32), ("layers", "embed", "mlp"), (None, ("fsdp",), ("model",))),
    ],
)
def test_an_axis_is_sharded_over_its_mesh_axes_that_divide_it(shape, axes, expected):
    mesh = AbstractMesh((2, 2, 4), ("data", "fsdp", "model"))
    leaf = jax.ShapeDtypeStruct(shape, np.float32)
    assert shardings({"w": leaf}, {"w": PartitionSpec(*axes)}, mesh)["w"].spec == PartitionSpec(*expected)


@pytest.mark.slow
def test_a_step_on_a_mesh_of_eight_devices_equals_a_step_on_one_device(on_eight_devices):
    found = on_eight_devices(__file__, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    np.testing.assert_allclose(found["loss"], found["loss_alone"], rtol=1e-5)
    assert found["moved"] > 0.05
    assert found["difference"] < 1e-5
    # Kernels [embed, joined_kv] are sharded along both axes; the router's logits over all three, along splits
    # and tasks.
    assert found["kernel"] == [[16, 32], [8, 16]]
    assert found["router"] == [[4, 2, 3], [1, 1, 3]]
    # A step does not change the sharding, and the optimizer's moments are sharded like their parameters.
    assert found["router_after"] == found["router_moment"] == found["router"]
    # A restored state is on the mesh too, and training continues bit for bit the same.
    assert found["resumed_difference"] == 0.0
    # An axis that the mesh does not divide is replicated.
    assert found["undivided"] == [[15, 32], [15, 16]]


def main():
    """Print as JSON how a step on a (2, 2, 2) mesh differs from one without a mesh."""
    from poly_jax.adapters.config import Adapters
    from poly_jax.adapters.lora import LoRA
    from poly_jax.data.task_table import TaskTable
    from poly_jax.model.config import T5Config
    from poly_jax.model.loss import TokenLoss
    from poly_jax.model.parameters import parameter_shapes
    from poly_jax.model.transformer import Transformer
    from poly_jax.routing.learned import LearnedRouter
    from poly_jax.training.checkpoints import Checkpoints
    from poly_jax.training.mesh import on_mesh, to_mesh
    from poly_jax.training.optimizer import Optimizer
    from poly_jax.training.saved_step import Origin
    from poly_jax.training.start import begin
    from poly_jax.training.update import Update, start
    from poly_jax.weights.parameter_names import is_adapter_parameter
    from poly_jax.weights.tree import split

    config = T5Config(
        vocab_size=32,
        emb_dim=16,
        num_heads=4,
        head_dim=8,
        mlp_dim=24,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
    sites = ("encoder/attention/query", "decoder/mlp/wo")
    router = LearnedRouter(sampling=False)
    adapters = Adapters(LoRA(rank=2), router, n_tasks=4, n_skills=3, n_splits=2, sites=sites)
    model = Transformer(config, adapters, train=True)
    rng = np.random.default_rng(0)
    shapes, axes = parameter_shapes(model)
    parameters = jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0])).astype(np.float32), shapes
    )
    tokens = rng.integers(2, 32, (2, 8, 6)).astype(np.int32)
    batch = {
        "encoder_input_tokens": tokens[0],
        "decoder_input_tokens": tokens[1],
        "decoder_target_tokens": tokens[0],
        "decoder_loss_weights": np.ones((8, 6), np.int32),
        "task_ids": np.arange(8, dtype=np.int32) % 4,
    }
    optimizer = Optimizer(warmup_fraction=0.0, decay="constant").transformation(10)
    update = Update(model, TokenLoss(), optimizer)
    key = jax.random.key(0)
    trained, frozen = split(parameters, is_adapter_parameter)
    alone, alone_metrics = jax.jit(update)(start(trained, optimizer), frozen, batch, key)

    mesh = Partitioning(fsdp=2, model=2).mesh()
    placed, placed_frozen = split(
        jax.device_put(parameters, shardings(shapes, axes, mesh)), is_adapter_parameter
    )
    before = begin(placed, update, mesh)
    with on_mesh(mesh):
        step = jax.jit(update)
        state, metrics = step(before, placed_frozen, to_mesh(batch, mesh), key)
        table = TaskTable(("a", "b", "c", "d"))
        with tempfile.TemporaryDirectory() as run:
            with contextlib.closing(Checkpoints(run)) as checkpoints:
                checkpoints.save(state, table, Origin())
            with contextlib.closing(Checkpoints(run)) as checkpoints:
                restored = checkpoints.restore(before, table)
        after, _ = step(state, placed_frozen, to_mesh(batch, mesh), key)
        # As in `fit`, the new state keeps the sharding of the old one.
        stays = jax.jit(update, out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, restored), None))
        resumed, _ = stays(restored, placed_frozen, to_mesh(batch, mesh), key)

    def largest(difference_of, *trees):
        leaves = jax.tree.map(lambda *leaves: float(np.abs(difference_of(*leaves)).max()), *trees)
        return max(jax.tree.leaves(leaves))

    def shape(leaf):
        return [list(leaf.shape), list(leaf.sharding.shard_shape(leaf.shape))]

    def router_of(tree):
        return tree["encoder"]["layers_0"]["attention"]["query"]["router"]["logits"]

    moments = [leaf for leaf in jax.tree.leaves(before.optimizer) if leaf.shape == router_of(trained).shape]
    odd = jax.ShapeDtypeStruct((15, 32), np.float32)
    place = shardings({"w": odd}, {"w": PartitionSpec("embed", "mlp")}, mesh)["w"]

    def numpy_difference(a, b):
        return np.asarray(a) - np.asarray(b)

    print(
        json.dumps(
            {
                "loss": float(metrics["loss"]),
                "loss_alone": float(alone_metrics["loss"]),
                "moved": largest(numpy_difference, state.trained, trained),
                "difference": largest(numpy_difference, state.trained, alone.trained),
                "resumed_difference": largest(numpy_difference, resumed.trained, after.trained),
                "kernel": shape(placed_frozen["encoder"]["layers_0"]["attention"]["query"]["kernel"]),
                "router": shape(router_of(placed)),
                "router_after": shape(router_of(state.trained)),
                "router_moment": shape(moments[0]),
                "undivided": [list(odd.shape), list(place.shard_shape(odd.shape))],
            }
        )
    )


if __name__ == "__main__":
    main()


@pytest.mark.parametrize(
    ("devices", "fsdp", "model", "fitted"),
    [
        (1, 1, 2, (1, 1)),  # trained on two devices, used on one
        (1, 16, 4, (1, 1)),
        (4, 16, 1, (4, 1)),
        (4, 1, 8, (1, 4)),
        (8, 2, 2, (2, 2)),  # a mesh that the devices can form stays as it is
        (8, 4, 4, (2, 4)),
        (6, 4, 4, (1, 2)),
        (4, 3, 1, (1, 1)),
    ],
)
def test_a_mesh_is_fitted_to_other_devices_by_the_largest_divisors(monkeypatch, devices, fsdp, model, fitted):
    simulated = [SimpleNamespace(platform="cpu")] * devices
    monkeypatch.setattr(jax, "devices", lambda: simulated)
    assert Partitioning(fsdp, model).fitted() == Partitioning(*fitted)


def test_a_mesh_is_fitted_to_the_devices_of_a_slice(monkeypatch):
    slices = [SimpleNamespace(platform="tpu", slice_index=index) for index in (0, 0, 1, 1)]
    monkeypatch.setattr(jax, "devices", lambda: slices)
    assert Partitioning(fsdp=4).fitted() == Partitioning(fsdp=2)
