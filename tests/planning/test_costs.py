"""What the method promises to cost, counted on the traced training step of a T5-XL that is never made."""

import dataclasses
import math

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.experiment import Data, Experiment
from poly_jax.model.parameters import parameter_shapes
from poly_jax.planning.abstract_run import (
    AbstractRun,
    table_of,
    train_program,
    trained_and_frozen,
    training_update,
)
from poly_jax.planning.dot_flops import Product, products, total_flops
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Router
from poly_jax.training.mesh import AXES
from poly_jax.training.start import abstract_state

TASKS, SPLITS, SKILLS = 313, 64, 8
SITES = tuple(f".*/{site}" for site in ("query", "key", "value", "out", "wi_0", "wi_1", "wo"))


@pytest.fixture(scope="module")
def xl() -> AbstractRun:
    """Full fine-tuning."""
    config = configuration.load(["models/t5_1_1_xl.gin"]).make("T5Config", scan_layers=True, dtype="bfloat16")
    data = Data("none", inputs_length=256, targets_length=64, batch_size=8)
    return AbstractRun(Experiment(config, data), steps=1000, trainable="all")


def _adapted(run: AbstractRun, router: Router, splits: int) -> AbstractRun:
    adapters = Adapters(LoRA(rank=1), router, 1, SKILLS, splits, SITES)
    experiment = dataclasses.replace(run.experiment, adapters=adapters)
    return dataclasses.replace(run, experiment=experiment, trainable="adapters")


def _rematerialised(run: AbstractRun) -> AbstractRun:
    model = dataclasses.replace(run.experiment.model, remat="full")
    return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, model=model))


def _products(run: AbstractRun, tasks: int = TASKS) -> list[Product]:
    mesh = run.partitioning.mesh(jax.devices()[:1])
    return products(train_program(run, table_of(tasks), mesh)[0].jaxpr)


@pytest.fixture(scope="module")
def mhr(xl) -> list[Product]:
    return _products(_adapted(xl, LearnedRouter(), SPLITS))


def test_routing_over_an_inventory_costs_no_more_operations_than_one_shared_adapter(xl, mhr):
    shared = _products(_adapted(xl, SharedRouter(), 1))
    assert total_flops(mhr) <= 1.005 * total_flops(shared)


@pytest.mark.parametrize(("remat", "most"), [(False, 0.70), (True, 0.77)])
def test_no_operation_is_spent_on_gradients_of_frozen_weights(xl, mhr, remat, most):
    if remat:
        xl = _rematerialised(xl)
        mhr = _products(_adapted(xl, LearnedRouter(), SPLITS))
    assert total_flops(mhr) <= most * total_flops(_products(xl))


def test_a_thousand_times_as_many_tasks_cost_no_operations(xl):
    run = _adapted(xl, LearnedRouter(), SPLITS)
    few, many = (total_flops(_products(run, tasks)) for tasks in (10, 10_000))
    assert many <= 1.005 * few


@pytest.mark.parametrize("tasks", [10, TASKS, 10_000])
def test_of_sixteen_chips_each_holds_a_sixteenth_of_skills_tables_and_moments(xl, tasks):
    run = _adapted(xl, LearnedRouter(), SPLITS)
    mesh = AbstractMesh((1, 16, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    model = run.experiment.transformer(table_of(tasks))
    trained, _ = trained_and_frozen(run, model, parameter_shapes(model), mesh)
    state = abstract_state(trained, training_update(run, model), mesh)
    whole = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))
    for tree, copies in ((state.trained, 1), (state.optimizer, 2)):
        held = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree))
        assert held == pytest.approx(copies * whole / 16, rel=1e-4)


def test_in_bfloat16_only_routers_and_mixing_multiply_float32_numbers(mhr):
    wide = {product.source for product in mhr if "float32" in product.dtypes}
    assert [source for source in wide if "skills" not in source and "router" not in source] == []
