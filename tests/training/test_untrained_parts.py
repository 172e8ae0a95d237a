"""Frozen parameters have no gradient and no optimizer state, and are not written to checkpoints."""

import dataclasses

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from etils import epath
from flax import traverse_util

from poly_jax.adapters.ia3 import IA3
from poly_jax.data.task_table import TaskTable
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.table import TableRouter
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.saved_step import Origin
from poly_jax.training.update import Update, start
from poly_jax.weights.parameter_names import selects
from poly_jax.weights.tree import split

QUERY, WO = "encoder/layers_0/attention/query", "decoder/layers_0/mlp/wo"
SKILLS = {f"{site}/skills/{leaf}" for site in (QUERY, WO) for leaf in ("lora_a", "lora_b")}
ROUTERS = {f"{site}/router/logits" for site in (QUERY, WO)}
TABLE = TableRouter(rows=((1, 0, 1), (0, 1, 1), (1, 1, 1), (1, 0, 0)))
CASES = {
    "average": ({"router": AverageRouter()}, "adapters", SKILLS),
    "random": ({"router": RandomRouter()}, "adapters", SKILLS),
    "table": ({"router": TABLE}, "adapters", SKILLS),
    "shared": ({"router": SharedRouter()}, "adapters", SKILLS),
    "private": ({"router": PrivateRouter()}, "adapters", SKILLS),
    "mhr-z": ({}, "router", ROUTERS),
    "skills": ({}, "skills", SKILLS),
    "c-poly": (
        {"private_skill": IA3()},
        "adapters",
        SKILLS | ROUTERS | {f"{site}/skills/private/ia3" for site in (QUERY, WO)},
    ),
}


def names(tree):
    """Return the path of dictionary keys of every leaf."""
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(tree))
    return ["/".join(key.key for key in path if hasattr(key, "key")) for path in paths]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request, tiny):
    settings, trainable, expected = request.param
    model = dataclasses.replace(tiny.model, adapters=dataclasses.replace(tiny.model.adapters, **settings))
    rng = np.random.default_rng(0)
    leaves = traverse_util.flatten_dict(parameter_shapes(model)[0])
    parameters = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves.items()}
    trained, frozen = split(traverse_util.unflatten_dict(parameters), selects(trainable))
    return model, trained, frozen, expected


def test_only_trained_parameters_have_gradients_and_moments(case, tiny, key):
    model, trained, frozen, expected = case
    seen = []

    def record(updates, state, params=None):
        seen.append(names(updates))
        return updates, state

    recorder = optax.GradientTransformation(lambda params: optax.EmptyState(), record)
    optimizer = optax.chain(recorder, Optimizer(warmup_fraction=0.0).transformation(10))
    state = start(trained, optimizer)
    new, _ = jax.eval_shape(Update(model, TokenLoss(), optimizer), state, frozen, tiny.batch, key)
    assert [set(found) for found in seen] == [expected]
    assert set(names(new.trained)) == expected
    moments = [name for name in names(new.optimizer) if "/" in name]
    assert {name.removeprefix("router/").removeprefix("other/") for name in moments} == expected
    # AdamW has two moments for each parameter, and counters.
    assert len(moments) == 2 * len(expected)


def test_checkpoints_hold_only_the_trained_parameters_and_their_moments(case, tmp_path):
    _, trained, _, expected = case
    optimizer = Optimizer().transformation(10)
    state = start(jax.tree.map(jax.numpy.asarray, trained), optimizer)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, TaskTable(("a", "b", "c", "d")), Origin())
    checkpoints.close()
    step = epath.Path(tmp_path) / "checkpoints" / "0"
    with ocp.StandardCheckpointer() as reader:
        stored = {
            item: reader.metadata((step / item).absolute()).item_metadata.tree
            for item in ("trained", "optimizer")
        }
    assert set(names(stored["trained"])) == expected
    size = sum(leaf.size for leaf in jax.tree.leaves(trained))
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(stored["trained"])) == size
    counters = sum(leaf.shape == () for leaf in jax.tree.leaves(stored["optimizer"]))
    elements = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(stored["optimizer"]))
    assert elements - counters == 2 * size
    # The folder of the step holds nothing else.
    assert {child.name for child in step.iterdir() if child.is_dir()} == {
        "trained",
        "optimizer",
        "tasks",
        "origin",
        "checksums",
    }
