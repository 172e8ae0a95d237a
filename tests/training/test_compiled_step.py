"""A compiled step draws the numbers of all routers with one generator, outside its program."""

import dataclasses
import functools
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.routing_noise import draw_places, drawing_routers, routing_noise
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.compiled_step import compiled_step
from poly_jax.training.finite_steps import FiniteSteps
from poly_jax.training.mesh import Partitioning
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.start import begin
from poly_jax.weights.tree import flatten, unflatten


def generators(function, *arguments):
    """The number of times that a program draws random bits."""
    return len(re.findall(r"random_bits\[", str(jax.make_jaxpr(function)(*arguments))))


def with_router(model, **settings):
    adapters = dataclasses.replace(model.adapters, router=LearnedRouter(**settings), sites=(".*",))
    return dataclasses.replace(model, adapters=adapters, train=True)


def noise_of(model, parameters, rows, key):
    routers = drawing_routers(model.adapters, model.config, parameters)
    return routing_noise(model.adapters, routers, rows, key)


@pytest.fixture(scope="module")
def parameters(tiny, draw_parameters):
    """Parameters of a model with a router at every site, the same for all settings of the router."""
    return jax.device_put(draw_parameters(with_router(tiny.model)))


@pytest.fixture(scope="module")
def update_with(tiny, update_of):
    """A function that makes the update of a model with a router at every site, from the router's settings."""
    return lambda **settings: update_of(model=with_router(tiny.model, **settings))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"logit_dropout": 0.5}, 1),
        ({"sampling": False}, 0),
        ({"scores": "softmax"}, 0),
        ({"sampling": False, "logit_dropout": 0.5}, 1),
    ],
)
def test_one_generator_serves_all_routers_of_a_step(tiny, update_with, parameters, key, settings, count):
    update = update_with(**settings)
    state = begin(parameters, update, Partitioning().mesh())
    assert len([path for path in flatten(parameters) if path.endswith("router/logits")]) > 10
    assert generators(update, state, {}, tiny.batch, key) == count
    routers = update.drawing_routers(parameters)
    draw = functools.partial(update.noise, routers, draw_places(update.model.adapters, routers))
    assert generators(draw, tiny.batch["task_ids"], state.step, key) == count
    noise = draw(tiny.batch["task_ids"], state.step, key)
    assert generators(update, state, {}, tiny.batch, key, noise) == 0


def test_each_draw_is_cut_out_by_the_same_kernel(tiny, update_with, parameters, key):
    """XLA compiles equal kernels once; kernels of their own took ten times as long for 144 routers."""
    update = update_with()
    routers = update.drawing_routers(parameters)
    places = draw_places(update.model.adapters, routers)
    draw = jax.jit(update.noise, static_argnums=0)
    compiled = draw.lower(routers, places, tiny.batch["task_ids"], np.int32(0), key).compile().as_text()
    bodies = [
        re.sub(r"%\S+|metadata={.*?}", "", compiled.partition(f"\n{name} (")[2].partition("\n}")[0])
        for name in re.findall(r" fusion\(%places.*?calls=(%[\w.]+)", compiled)
    ]
    assert len(bodies) == len(routers) > 10
    assert len({body.partition("{\n")[2] for body in bodies}) == 1


@pytest.mark.parametrize("settings", [{"scan_layers": True}, {"remat": "full"}], ids=["scan", "remat"])
def test_layers_under_a_scan_or_with_rematerialisation_draw_for_themselves(tiny, settings):
    config = dataclasses.replace(tiny.model.config, **settings)
    model = with_router(dataclasses.replace(tiny.model, config=config))
    parameters, _ = parameter_shapes(model)
    assert drawing_routers(model.adapters, config, parameters) == ()


def test_no_two_rows_routers_or_purposes_share_a_draw(tiny):
    model = with_router(tiny.model, logit_dropout=0.5)
    parameters, _ = parameter_shapes(model)
    draws = flatten(noise_of(model, parameters, (4, 2), jax.random.key(1)))
    assert {path.rpartition("/")[2] for path in draws} == {"uniform", "uniform_2"}
    assert {leaf.shape for leaf in draws.values()} == {(4, 2, 2, 3)}
    numbers = np.concatenate([np.ravel(leaf) for leaf in draws.values()])
    # 23 bits of each number are random, so that a few hundred of them are almost surely different.
    assert len(np.unique(numbers)) > 0.99 * len(numbers)
    assert 0 <= numbers.min() < 0.02
    assert 0.98 < numbers.max() < 1


@pytest.mark.parametrize("settings", [{}, {"logit_dropout": 0.5}, {"logit_dropout": 0.5, "sampling": False}])
def test_the_draws_are_those_of_each_routers_own_key(tiny, parameters, key, settings):
    """Runs of earlier versions go on with the same numbers."""
    model = with_router(tiny.model, **settings)
    tokens, tasks = tiny.batch["encoder_input_tokens"], tiny.batch["task_ids"]
    noise = noise_of(model, parameters, tasks.shape, key)
    rngs = {"routing": key, "dropout": key}

    def weights(variables):
        _, sown = model.apply(variables, tokens, tokens, tasks, rngs=rngs, mutable=["intermediates"])
        return sown["intermediates"]

    own = weights({"params": parameters})
    ahead = weights({"params": parameters, "noise": noise})
    jax.tree.map(np.testing.assert_array_equal, ahead, own)


def test_a_draw_that_was_not_made_ahead_has_a_key_of_its_own(tiny, parameters, key):
    model = with_router(tiny.model, logit_dropout=0.5)
    tokens, tasks = tiny.batch["encoder_input_tokens"], tiny.batch["task_ids"]
    whole = flatten(noise_of(model, parameters, tasks.shape, key))
    first = unflatten({path: draws for path, draws in whole.items() if path.endswith("/uniform")})
    rngs = {"routing": key, "dropout": key}
    found = [
        model.apply({"params": parameters, "noise": noise}, tokens, tokens, tasks, rngs=rngs)
        for noise in (unflatten(whole), first)
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_both_programs_together_take_the_step_of_the_update(tiny, update_with, parameters, key, microbatches):
    update = dataclasses.replace(update_with(logit_dropout=0.2), microbatches=microbatches)
    state = begin(parameters, update, Partitioning().mesh())
    expected, metrics = jax.jit(FiniteSteps(update))(state, {}, tiny.batch, key, np.int32(1))
    step = compiled_step(update, "stop", state, {})
    found, same = step(state, {}, tiny.batch, key, np.int32(1))
    assert same["loss"] == metrics["loss"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


def test_the_program_of_shapes_has_the_arguments_of_the_program_of_arrays(tiny, update_with, parameters, key):
    """`plan` traces the step without arrays."""
    update = update_with()
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
    assert "8x2x3xf32" in shapes[0]


def test_the_next_run_of_an_equal_step_takes_its_programs_from_the_one_before(tiny, update_of, initial):
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
