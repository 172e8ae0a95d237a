"""A compiled step computes the weights of all routers together, with the numbers of each on its own."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.model.joint_routing import joint_routers, joint_tables, joint_weights
from poly_jax.model.loss import TokenLoss
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Router
from poly_jax.training.compiled_step import compiled_step
from poly_jax.training.finite_steps import FiniteSteps
from poly_jax.training.mesh import Partitioning
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.start import begin
from poly_jax.training.update import start
from poly_jax.weights.parameter_spec import ParameterSpec, uniform_init
from poly_jax.weights.tree import flatten


@dataclasses.dataclass(frozen=True)
class Draws(Router):
    """A router of a user's own, whose weights are the numbers that it draws, one shape after another."""

    def parameters(self, sizes):
        return {"bias": ParameterSpec((sizes.n_skills,), uniform_init(1.0), ("skills",))}

    def weights(self, parameters, task_ids, sizes, uniform):
        shape = (*task_ids.shape, sizes.n_splits, sizes.n_skills)
        first = uniform((7,))
        return jnp.concatenate([uniform(shape[:-1])[..., None], uniform(shape)[..., 1:]], -1) + 0 * first[0]


def with_router(model, router):
    adapters = dataclasses.replace(model.adapters, router=router, sites=(".*",))
    return dataclasses.replace(model, adapters=adapters, train=True)


def made(tiny, update_of, draw_parameters, router):
    """The update of a model with a router at every site, and the model's parameters."""
    model = with_router(tiny.model, router)
    return update_of(model=model), jax.device_put(draw_parameters(model))


def together(model, parameters, task_ids, key):
    routers = joint_routers(model.adapters, model.config, parameters)
    tables = joint_tables(model.adapters, routers, parameters)
    return joint_weights(model.adapters, routers, tables, task_ids, key)


def sown(model, variables, batch, key):
    tokens = batch["encoder_input_tokens"]
    rngs = {"routing": key, "dropout": key}
    _, found = model.apply(variables, tokens, tokens, batch["task_ids"], rngs=rngs, mutable=["intermediates"])
    return found["intermediates"]


ROUTERS = [
    LearnedRouter(),
    LearnedRouter(logit_dropout=0.5),
    LearnedRouter(scores="straight_through"),
    LearnedRouter(scores="softmax", top_k=2),
    LearnedRouter(scores="l2", sampling=False, logit_dropout=0.5),
    Draws(),
]


@pytest.mark.parametrize("router", ROUTERS, ids=repr)
def test_the_weights_are_those_of_each_router_with_its_own_key(tiny, key, router, draw_parameters):
    """Runs of earlier versions go on with the same numbers."""
    model = with_router(tiny.model, router)
    parameters = jax.device_put(draw_parameters(model))
    joint = together(model, parameters, tiny.batch["task_ids"], key)
    own = flatten(sown(model, {"params": parameters}, tiny.batch, key))
    assert len(own) > 10
    given = flatten(sown(model, {"params": parameters, "joint_routing": joint}, tiny.batch, key))
    assert given.keys() == own.keys() == flatten(joint).keys()
    for path, (weights,) in own.items():
        np.testing.assert_allclose(given[path][0], weights, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("router", ROUTERS[:-1], ids=repr)
def test_a_step_has_the_gradients_of_routers_on_their_own(tiny, update_of, key, router, draw_parameters):
    update, parameters = made(tiny, update_of, draw_parameters, router)
    _, routing = jax.random.split(jax.random.fold_in(key, 0))

    def loss(parameters):
        def apply(*args, **kwargs):
            rngs = {"routing": routing, "dropout": routing}
            return update.model.apply({"params": parameters}, *args, **kwargs, rngs=rngs)

        return TokenLoss().totals(apply, tiny.batch)["tokens"] / TokenLoss().divisors(tiny.batch)["tokens"]

    expected, slopes = jax.jit(jax.value_and_grad(loss))(parameters)
    state = start(parameters, update.optimizer)
    gradients, metrics = jax.jit(update.gradients)(state, {}, tiny.batch, key)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)
    largest = max(float(jnp.abs(slope).max()) for slope in jax.tree.leaves(slopes))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest), gradients, slopes
    )


def test_no_two_rows_routers_or_purposes_share_a_draw(tiny, draw_parameters):
    model = with_router(tiny.model, Draws())
    parameters = jax.device_put(draw_parameters(model))
    weights = flatten(together(model, parameters, np.zeros((4, 2), np.int32), jax.random.key(1)))
    assert {leaf.shape for leaf in weights.values()} == {(4, 2, 2, 3)}
    numbers = np.concatenate([np.ravel(leaf) for leaf in weights.values()])
    # 23 bits of each number are random, so that a few hundred of them are almost surely different.
    assert len(np.unique(numbers)) > 0.99 * len(numbers)
    assert 0 <= numbers.min() < 0.02
    assert 0.98 < numbers.max() < 1


@pytest.mark.parametrize("settings", [{"scan_layers": True}, {"remat": "full"}], ids=["scan", "remat"])
def test_routers_under_a_scan_or_with_rematerialisation_compute_their_own_weights(
    tiny, key, settings, draw_parameters
):
    config = dataclasses.replace(tiny.model.config, **settings)
    model = with_router(dataclasses.replace(tiny.model, config=config), LearnedRouter())
    parameters = jax.device_put(draw_parameters(model))
    assert joint_routers(model.adapters, config, parameters) == ()


@pytest.fixture(scope="module")
def lowered(tiny, update_of, key, draw_parameters):
    """The step of a model with a sampling router at every site, and the number of routers."""
    update, parameters = made(tiny, update_of, draw_parameters, LearnedRouter())
    step = compiled_step(update, "stop", begin(parameters, update, Partitioning().mesh()), {})
    state = begin(parameters, update, Partitioning().mesh())
    return step.trace(state, {}, tiny.batch, key, np.int32(1)).lower(), len(step.places)


@pytest.mark.parametrize("operation", ["log_plus_one", "exponential", "gather", "shift_right_logical"])
def test_a_step_has_as_many_operations_of_routers_as_one_router(
    lowered, tiny, update_of, key, operation, draw_parameters
):
    """XLA takes milliseconds for each operation; 144 routers of their own took a fifth of a step's."""
    program, routers = lowered
    assert routers > 10
    update, parameters = made(tiny, update_of, draw_parameters, LearnedRouter())
    adapters = dataclasses.replace(update.model.adapters, granularity="coarse")
    one = dataclasses.replace(update, model=dataclasses.replace(update.model, adapters=adapters))
    parameters = jax.device_put(draw_parameters(one.model))
    state = begin(parameters, one, Partitioning().mesh())
    step = compiled_step(one, "stop", state, {})
    assert len(step.places) == 1
    of_one = step.trace(state, {}, tiny.batch, key, np.int32(1)).lower()
    counts = [len(re.findall(rf"\b{operation}\b", text.as_text())) for text in (program, of_one)]
    assert counts[0] == counts[1] > 0


def test_equal_kernels_cut_out_the_weights_and_the_gradients_of_each_router(lowered):
    """XLA compiles equal kernels once; kernels with places of their own took ten times as long."""
    program, routers = lowered
    compiled = program.compile().as_text()
    computations = re.findall(r"^(%\S+) \(.*?\{\n(.*?)^\}", compiled, re.S | re.M)
    cutting = [body for name, body in computations if "fused" in name and " dynamic-slice(" in body]
    bodies = [re.sub(r"%\S+|metadata={.*?}|backend_config=.*", "", body) for body in cutting]
    assert len(bodies) >= 2 * routers
    assert len(set(bodies)) < 6


@pytest.mark.parametrize("microbatches", [1, 2])
def test_the_compiled_program_takes_the_step_of_the_update(
    tiny, update_of, key, microbatches, draw_parameters
):
    update, parameters = made(tiny, update_of, draw_parameters, LearnedRouter(logit_dropout=0.2))
    update = dataclasses.replace(update, microbatches=microbatches)
    state = begin(parameters, update, Partitioning().mesh())
    expected, metrics = jax.jit(FiniteSteps(update))(state, {}, tiny.batch, key, np.int32(1))
    step = compiled_step(update, "stop", state, {})
    found, same = step(state, {}, tiny.batch, key, np.int32(1))
    np.testing.assert_allclose(same["loss"], metrics["loss"], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


def test_the_program_of_shapes_has_the_arguments_of_the_program_of_arrays(
    tiny, update_of, key, draw_parameters
):
    """`plan` traces the step without arrays."""
    update, parameters = made(tiny, update_of, draw_parameters, LearnedRouter())
    state = begin(parameters, update, Partitioning().mesh())
    step = compiled_step(update, "stop", state, {})
    described = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    traced = [
        step.trace(each, {}, tiny.batch, key, np.int32(1)).lower().as_text() for each in (state, described)
    ]
    signatures = [re.search(r"func.func public @main\((.*?)\) ->", text).group(1) for text in traced]
    shapes = [re.findall(r"tensor<(.*?)>", signature) for signature in signatures]
    assert shapes[0] == shapes[1]
    assert shapes[0].count("i32") > len(step.places) > 10


def test_the_next_run_of_an_equal_step_takes_its_program_from_the_one_before(tiny, update_of, initial):
    def step(**settings):
        update = update_of(**settings)
        return compiled_step(update, "stop", initial(update), tiny.frozen).step

    first = step()
    assert step() is first
    assert step(optimizer=Optimizer(learning_rate=0.5)) is not first
    assert step(microbatches=2) is not first


def test_a_step_whose_loss_can_change_is_compiled_for_each_run(tiny, update_of, initial):
    class Loss(TokenLoss):
        """Not a frozen dataclass of its own, and equal to itself after a change."""

        __dataclass_params__ = SimpleNamespace(frozen=False)

    update = dataclasses.replace(update_of(), loss=Loss())
    state = initial(update)
    first, second = (compiled_step(update, "stop", state, tiny.frozen).step for _ in range(2))
    assert first is not second
