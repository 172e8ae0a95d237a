"""While a run trains, all routers' parameters are one array; checkpoints and evaluations have each apart."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Router
from poly_jax.training.compiled_step import compiled_step
from poly_jax.training.finite_steps import FiniteSteps
from poly_jax.training.ibp_prior import IBPPrior
from poly_jax.training.mesh import Partitioning, replicated
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.packed_routers import packed_routers
from poly_jax.training.start import abstract_state, begin
from poly_jax.weights.parameter_names import is_router
from poly_jax.weights.parameter_spec import ParameterSpec, uniform_init
from poly_jax.weights.tree import flatten, split

MESH = Partitioning().mesh()
# AdamW's first steps are as long for small gradients as for large ones; with the usual rate, a rounding error
# of a gradient near 0 would be seen.
ADAMW = Optimizer(
    learning_rate=0.01,
    router_learning_rate=0.01,
    warmup_fraction=0.0,
    decay="constant",
    weight_decay=0.1,
    clip_norm=0.5,
)


@dataclasses.dataclass(frozen=True)
class Scaled(Router):
    """A router of a user's own with two parameters of different shapes."""

    def parameters(self, sizes):
        shape = (sizes.n_tasks, sizes.n_splits, sizes.n_skills)
        return {
            "logits": ParameterSpec(shape, uniform_init(1.0), ("tasks", "splits", "skills")),
            "scale": ParameterSpec((sizes.n_tasks,), uniform_init(1.0), ("tasks",)),
        }

    def weights(self, parameters, task_ids, sizes, uniform):
        scale = parameters["scale"][task_ids][..., None, None]
        return jax.nn.softmax(parameters["logits"][task_ids] * scale, axis=-1)


class Lamb(Optimizer):
    """An optimizer of a user's own, whose steps depend on the norm of each array."""

    def transformation(self, steps, *_):
        return optax.lamb(1e-3)


def model_with(tiny, router, **settings):
    adapters = dataclasses.replace(tiny.model.adapters, router=router, sites=(".*",), **settings)
    return dataclasses.replace(tiny.model, adapters=adapters, train=True)


@pytest.fixture
def made(tiny, update_of, draw_parameters):
    """A function that makes an update, its first state and its packing; all parameters are trained."""

    def make(router, optimizer=ADAMW, frozen=lambda path: False, **settings):
        model = model_with(tiny, router, **settings)
        update = update_of(optimizer, model)
        kept, trained = split(draw_parameters(model), frozen)
        state = begin(jax.device_put(trained, replicated(MESH)), update, MESH)
        return update, state, kept, packed_routers(update, state, kept)

    return make


def same(state, other):
    jax.tree.map(np.testing.assert_array_equal, state, other)


def copied(tree):
    return jax.tree.map(jnp.copy, tree)


@pytest.mark.parametrize("router", [LearnedRouter(), Scaled()], ids=repr)
def test_a_packed_state_has_each_parameter_and_moment_in_its_place_again(made, router):
    _, state, _, packing = made(router)
    numbers = iter(range(1000))
    state = jax.tree.map(lambda leaf: leaf + jnp.asarray(next(numbers), leaf.dtype), state)
    expected = copied(state)
    packed = packing.pack(state)
    names = len(router.parameters(packing.update.model.adapters.sizes))
    assert sum(is_router(path) for path in flatten(packed.trained)) == names
    found = packing.unpack(packed)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    same(found, expected)


@pytest.mark.parametrize(
    ("router", "prior"),
    [(LearnedRouter(), IBPPrior(weight=0.1)), (Scaled(), None)],
    ids=["learned", "user's"],
)
def test_a_step_of_a_packed_state_is_the_step_of_the_state(made, tiny, key, router, prior):
    update, state, frozen, packing = made(router)
    update = dataclasses.replace(update, prior=prior)
    step = jax.jit(FiniteSteps(update))
    packed_step = FiniteSteps(dataclasses.replace(packing.update, prior=prior))
    packed = packing.pack(copied(state))
    compiled = jax.jit(packed_step)
    for number in (1, 2):
        state, metrics = step(state, frozen, tiny.batch, key, np.int32(number))
        packed, found = compiled(packed, frozen, tiny.batch, key, np.int32(number))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, metrics)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), packing.unpack(packed), state
    )


def test_a_state_that_is_not_packed_has_the_step_that_was_given(made):
    """Some optimizers look at whole arrays; frozen routers have no state; of one alone nothing is saved."""
    for update, state, _, packing in (
        made(LearnedRouter(), Optimizer("adafactor", warmup_fraction=0.0)),
        made(LearnedRouter(), Lamb()),
        made(LearnedRouter(), frozen=is_router),
        made(LearnedRouter(), granularity="coarse"),
        made(SharedRouter()),
    ):
        assert packing.update is update
        same(packing.unpack(packing.pack(state)), state)


def test_the_arrays_that_were_packed_do_not_lie_beside_the_packed_ones(made):
    _, state, _, packing = made(LearnedRouter())
    routers = [leaf for path, leaf in flatten(state.trained).items() if is_router(path)]
    packing.pack(state)
    assert len(routers) > 10
    assert all(leaf.is_deleted() for leaf in routers)


def test_the_shapes_of_a_packed_state_are_those_of_its_arrays(made):
    update, state, frozen, _ = made(LearnedRouter())
    shapes = abstract_state(state.trained, update, MESH)
    packing = packed_routers(update, shapes, frozen)

    def forms(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), tree)

    assert forms(packing.pack(shapes)) == forms(packing.pack(state))


def lowered(tiny, update_of, draw_parameters, router, layers=1):
    """The text of the step's program, with an adapter at every map and all other parameters frozen."""
    config = dataclasses.replace(tiny.model.config, num_encoder_layers=layers, num_decoder_layers=layers)
    model = Transformer(config, Adapters(LoRA(rank=2), router, 4, 3, 2, (".*",)), train=True)
    update = update_of(ADAMW, model)
    trained, frozen = split(draw_parameters(model), lambda path: "skills" in path or is_router(path))
    state = begin(jax.device_put(trained, replicated(MESH)), update, MESH)
    packing = packed_routers(update, state, frozen)
    state = packing.pack(state)
    step = compiled_step(packing.update, "stop", state, frozen)
    program = step.trace(state, frozen, tiny.batch, jax.random.key(0), np.int32(1)).lower()
    return program.as_text(dialect="hlo"), state


def test_the_optimizer_has_the_operations_of_one_array_for_all_routers(tiny, update_of, draw_parameters):
    text, state = lowered(tiny, update_of, draw_parameters, LearnedRouter())
    skills = sum(not is_router(path) for path in flatten(state.trained))
    # AdamW divides by the root of each second moment; the only other root is that of the gradient's norm.
    roots = re.findall(r"= f32\[([\d,]*)\]\S* sqrt\(", text)
    assert len([shape for shape in roots if shape]) == skills + 1 > 20


def test_routers_make_each_layer_of_the_program_a_quarter_longer_at_most(tiny, update_of, draw_parameters):
    def lines(router, layers):
        return len(lowered(tiny, update_of, draw_parameters, router, layers)[0].splitlines())

    routed, shared = (
        lines(router, layers=2) - lines(router, layers=1) for router in (LearnedRouter(), SharedRouter())
    )
    assert shared > 1000
    assert routed <= 1.25 * shared
