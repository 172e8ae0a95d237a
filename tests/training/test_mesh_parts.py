"""The axes of a mesh are cut into parts where tables of tasks need them."""

import math
import random
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.host_share import HostShare, host_share
from poly_jax.training.mesh import Partitioning, axis_sizes, check_batch_size, row_devices
from poly_jax.training.mesh_parts import cut_axes, with_parts
from poly_jax.weights.sharding import TASK_AXIS_RULES, mesh_axes, parts_of

TABLE = ("tasks", "splits", "skills")


def divided_by(shape, cut):
    """The number of devices over which a table is divided on a mesh whose axes are cut so."""
    sizes = {
        f"{axis}_{n + 1}" if n else axis: part for axis, parts in cut.items() for n, part in enumerate(parts)
    }
    spec = mesh_axes(shape, TABLE, TASK_AXIS_RULES, sizes)
    axes = [axis for place in spec if place for axis in ((place,) if isinstance(place, str) else place)]
    assert len(set(axes)) == len(axes)
    return math.prod(sizes[axis] for axis in axes)


@pytest.mark.parametrize(
    ("sizes", "lengths", "parts"),
    [
        ({"data": 1, "fsdp": 256, "model": 1}, (64, 8), {"data": (1,), "fsdp": (64, 4), "model": (1,)}),
        ({"data": 1, "fsdp": 256, "model": 1}, (1, 8), {"data": (1,), "fsdp": (8, 32), "model": (1,)}),
        ({"data": 4, "fsdp": 32, "model": 8}, (64, 8), {"data": (2, 2), "fsdp": (8, 4), "model": (8,)}),
        ({"data": 1, "fsdp": 192, "model": 1}, (64, 8), {"data": (1,), "fsdp": (64, 3), "model": (1,)}),
        # Axes that divide the splits, and axes that divide nothing, stay whole.
        ({"data": 1, "fsdp": 16, "model": 4}, (64, 8), {"data": (1,), "fsdp": (16,), "model": (4,)}),
        ({"data": 8, "fsdp": 1, "model": 1}, (1, 3), {"data": (8,), "fsdp": (1,), "model": (1,)}),
    ],
)
def test_an_axis_is_cut_into_what_divides_splits_then_skills_and_a_rest(sizes, lengths, parts):
    assert cut_axes(sizes, lengths) == parts


def test_a_table_of_a_prime_number_of_tasks_is_divided_as_far_as_splits_and_skills_allow():
    draw = random.Random(0)
    for _ in range(200):
        sizes = {axis: 2 ** draw.randrange(7) for axis in ("data", "fsdp", "model")}
        splits, skills = 2 ** draw.randrange(7), 2 ** draw.randrange(4)
        cut = cut_axes(sizes, (splits, skills))
        assert {axis: math.prod(parts) for axis, parts in cut.items()} == sizes
        assert divided_by((10007, splits, skills), cut) == min(math.prod(sizes.values()), splits * skills)


def test_a_number_of_tasks_that_all_parts_divide_divides_the_table_over_the_whole_mesh():
    cut = cut_axes({"data": 2, "fsdp": 64, "model": 1}, (1, 8))
    assert divided_by((512, 1, 8), cut) == 128


@pytest.fixture(scope="module")
def cut_mesh():
    """Eight devices that exist only by name, of two processes, as data 1 x fsdp 8 x model 1."""
    devices = np.array([SimpleNamespace(id=n, process_index=n // 4, platform="cpu") for n in range(8)])
    whole = SimpleNamespace(
        shape={"data": 1, "fsdp": 8, "model": 1},
        devices=devices.reshape(1, 8, 1),
        axis_names=("data", "fsdp", "model"),
        axis_types=(AxisType.Auto,) * 3,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "poly_jax.training.mesh_parts.Mesh",
            lambda devices, names, axis_types: SimpleNamespace(
                devices=devices, axis_names=names, shape=dict(zip(names, devices.shape, strict=True))
            ),
        )
        return with_parts(whole, (4, 1))


def test_the_parts_of_a_mesh_are_the_same_devices_in_the_same_order(cut_mesh):
    assert cut_mesh.shape == {"data": 1, "fsdp": 4, "fsdp_2": 2, "model": 1}
    assert [device.id for device in cut_mesh.devices.flat] == list(range(8))
    assert parts_of("fsdp", cut_mesh.shape) == ("fsdp", "fsdp_2")
    assert axis_sizes(cut_mesh) == {"data": 1, "fsdp": 8, "model": 1}


def test_batches_and_hosts_see_the_whole_axes(cut_mesh, monkeypatch):
    assert row_devices(cut_mesh) == 8
    check_batch_size(16, cut_mesh)
    for process in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert host_share(cut_mesh) == HostShare(process, 2)


def test_a_mesh_without_adapters_or_with_one_device_stays_whole():
    config, adapters = T5Config(), Adapters(LoRA(), LearnedRouter(), 5, 8, 1)
    names = ("data", "fsdp", "model")
    assert Partitioning().mesh_for(config, None).axis_names == names
    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), names, axis_types=(AxisType.Auto,) * 3)
    assert with_parts(one, (adapters.n_splits, adapters.n_skills)) is one
