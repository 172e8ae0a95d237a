"""Optimizers and schedules against the formulas of their papers."""

import functools

import jax
import numpy as np
import optax
import pytest

from poly_jax.errors import UserError
from poly_jax.training.optimizer import Optimizer, like_parameters
from poly_jax.weights.layer_trees import stack_layers, unstack_layers

STEPS = 50
STEADY = {"warmup_fraction": 0.0, "decay": "constant", "learning_rate": 1e-3, "router_learning_rate": 0.1}


def tree(skill, router):
    """Make a tree with one skill and one router at the paths that a model has."""
    site = {"skills": {"lora_a": np.asarray(skill, np.float32)}}
    site["router"] = {"logits": np.asarray(router, np.float32)}
    return {"encoder": {"layers_0": {"attention": {"query": site}}}}


def parts(tree):
    site = tree["encoder"]["layers_0"]["attention"]["query"]
    return np.asarray(site["skills"]["lora_a"]), np.asarray(site["router"]["logits"])


@functools.cache
def compiled(optimizer):
    transformation = optimizer.transformation(STEPS)

    @jax.jit
    def steps(parameters, gradients):
        """One step per gradient."""
        state = transformation.init(parameters)
        for gradient in gradients:
            updates, state = transformation.update(gradient, state, parameters)
            parameters = optax.apply_updates(parameters, updates)
        return parameters

    return steps


def moved(optimizer, parameters, *gradients):
    """Return the change of the skill and of the router."""
    after = compiled(optimizer)(parameters, gradients)
    return tuple(new - old for new, old in zip(parts(after), parts(parameters), strict=True))


@pytest.mark.parametrize("warmup_fraction", [0.0, 0.06, 0.2])
@pytest.mark.parametrize("decay", ["linear", "cosine", "constant", "rsqrt"])
def test_the_learning_rate_rises_from_zero_to_its_peak_and_decays_as_the_name_says(decay, warmup_fraction):
    peak = 0.3
    rate = Optimizer(decay=decay, warmup_fraction=warmup_fraction).schedule(peak, STEPS)
    warmup = round(warmup_fraction * STEPS)
    steps = np.arange(STEPS + 1)
    after = steps - warmup
    done = after / (STEPS - warmup)
    first = max(warmup, 1)
    decays = {
        "linear": 1 - done,
        "cosine": (1 + np.cos(np.pi * done)) / 2,
        "constant": np.ones(STEPS + 1),
        "rsqrt": np.sqrt(first / np.maximum(first + after, 1)),
    }
    expected = peak * np.where(after < 0, steps / first, decays[decay])
    got = np.array([rate(step) for step in steps])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    assert got[0] == (0 if warmup else pytest.approx(peak))
    assert got[warmup] == pytest.approx(peak)
    if decay in ("linear", "cosine"):
        np.testing.assert_allclose(got[-1], 0, atol=1e-7)


@pytest.mark.parametrize("algorithm", ["adamw", "adafactor"])
def test_skills_and_routers_have_separate_learning_rates(algorithm):
    optimizer = Optimizer(algorithm=algorithm, **STEADY)
    gradients = tree([0.3, -0.2, 0.1], [[0.5, -0.1]])
    skill, router = moved(optimizer, tree(np.ones(3), np.ones((1, 2))), gradients)
    # The first step of either algorithm is the sign of the gradient times the learning rate.
    np.testing.assert_allclose(skill, -1e-3 * np.sign([0.3, -0.2, 0.1]), rtol=1e-3)
    np.testing.assert_allclose(router, -0.1 * np.sign([[0.5, -0.1]]), rtol=1e-3)


def test_with_warm_up_the_first_step_changes_nothing():
    optimizer = Optimizer(warmup_fraction=0.1)
    skill, router = moved(optimizer, tree(np.ones(2), np.ones((1, 2))), tree([1.0, -1.0], [[1.0, -1.0]]))
    assert not skill.any()
    assert not router.any()


@pytest.mark.parametrize("algorithm", ["adamw", "adafactor"])
def test_weight_decay_shrinks_skills_at_their_learning_rate_and_never_routers(algorithm):
    optimizer = Optimizer(algorithm=algorithm, weight_decay=0.5, **STEADY)
    skill, router = moved(optimizer, tree([2.0, -4.0], [[3.0, -3.0]]), tree([0.0, 0.0], np.zeros((1, 2))))
    np.testing.assert_allclose(skill, -1e-3 * 0.5 * np.array([2.0, -4.0]), rtol=1e-3)
    assert not router.any()


def test_parameter_scaling_applies_only_to_skills():
    optimizer = Optimizer(algorithm="adafactor", parameter_scaling=True, **STEADY)
    skill, router = moved(
        optimizer, tree([3.0, -3.0, 3.0], [[1e-3, -1e-3]]), tree([0.1, 0.2, 0.3], [[0.1, -0.2]])
    )
    # Skills change by the learning rate times their root mean square, 3; a router by its learning rate alone.
    np.testing.assert_allclose(skill, -3e-3 * np.ones(3), rtol=1e-3)
    np.testing.assert_allclose(router, [[-0.1, 0.1]], rtol=1e-3)


def test_without_parameter_scaling_adafactors_second_step_equals_the_papers():
    first, second = np.array([0.4, -0.2]), np.array([0.1, 0.3])
    skill, _ = moved(
        Optimizer(algorithm="adafactor", clip_norm=0.0, **STEADY),
        tree(np.ones(2), np.zeros((1, 1))),
        tree(first, np.zeros((1, 1))),
        tree(second, np.zeros((1, 1))),
    )
    # arXiv 1804.04235, algorithm 4 without factors: the decay rate at step t is 1 - t^-0.8.
    v, total = np.zeros(2), np.zeros(2)
    for t, gradient in enumerate((first, second), start=1):
        beta = 1 - t**-0.8
        v = beta * v + (1 - beta) * (gradient**2 + 1e-30)
        step = gradient / np.sqrt(v)
        total -= 1e-3 * step / max(1, np.sqrt(np.mean(step**2)))
    np.testing.assert_allclose(skill, total, rtol=1e-3)


def test_adamw_equals_the_papers_over_two_steps():
    first, second = np.array([0.4, -0.2]), np.array([0.1, 0.3])
    skill, _ = moved(
        Optimizer(clip_norm=0.0, weight_decay=0.1, b1=0.8, b2=0.95, **STEADY),
        tree(np.ones(2), np.zeros((1, 1))),
        tree(first, np.zeros((1, 1))),
        tree(second, np.zeros((1, 1))),
    )
    m, v, x = np.zeros(2), np.zeros(2), np.ones(2)
    for t, gradient in enumerate((first, second), start=1):
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        m_hat, v_hat = m / (1 - 0.8**t), v / (1 - 0.95**t)
        x = x - 1e-3 * (m_hat / (np.sqrt(v_hat) + 1e-8) + 0.1 * x)
    np.testing.assert_allclose(skill, x - 1, rtol=2e-3)


# Adafactor factors the two largest axes of an array if both have at least 128 entries. In the stack of 130
# layers the layer axis would be one of them, which no layer alone has.
_DEPTHS = {"encoder": 130, "decoder": 2}
_SHAPES = {"encoder": {"lora_a": (3, 140)}, "decoder": {"lora_a": (128, 129), "lora_b": (2, 3)}}


def _random_layers(rng):
    def layer(stack):
        # Layers differ in size, so that the root mean square over all layers differs from that of each layer.
        size = 10 ** rng.uniform(-2, 2)
        made = {name: rng.normal(0, size, shape) for name, shape in _SHAPES[stack].items()}
        return {"skills": {n: x.astype(np.float32) for n, x in made.items()}} | {
            "router": {"logits": rng.normal(0, size, (4, 3)).astype(np.float32)}
        }

    return {
        stack: {f"layers_{i}": layer(stack) for i in range(depth)} for stack, depth in _DEPTHS.items()
    } | {"router": {"logits": rng.normal(size=(4, 3)).astype(np.float32)}}


@pytest.mark.parametrize("scaling", [False, True])
def test_adafactor_updates_stacked_layers_like_separate_layers(scaling):
    settings = STEADY | {"learning_rate": 1e-2, "weight_decay": 0.1, "parameter_scaling": scaling}
    transformation = Optimizer(algorithm="adafactor", **settings).transformation(STEPS)
    rng = np.random.default_rng(0)
    parameters, *gradients = (_random_layers(rng) for _ in range(4))

    def after(parameters, gradients):
        state = transformation.init(parameters)
        for gradient in gradients:
            updates, state = transformation.update(gradient, state, parameters)
            parameters = optax.apply_updates(parameters, updates)
        return parameters

    apart = after(parameters, gradients)
    stacked = unstack_layers(after(stack_layers(parameters), [stack_layers(g) for g in gradients]))
    assert jax.tree.structure(stacked) == jax.tree.structure(apart)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, stacked, apart)
    # Several adaptations at once add another axis before the layer axis.
    pairs = jax.tree.map(
        lambda x: np.stack([x, x[::-1]]), [stack_layers(t) for t in (parameters, *gradients)]
    )
    first = jax.tree.map(lambda x: x[0], jax.vmap(after)(pairs[0], pairs[1:]))
    jax.tree.map(close, unstack_layers(first), apart)


def test_adafactors_moments_of_stacked_layers_are_matched_to_their_parameters():
    parameters = {"encoder": {"layers": {"router": {"logits": np.zeros((2, 4, 3), np.float32)}}}}
    state = Optimizer(algorithm="adafactor").transformation(STEPS).init(parameters)
    places = like_parameters(state, parameters, jax.tree.map(lambda _: "place", parameters), None)
    assert jax.tree.leaves(places) == ["place"]


@pytest.mark.parametrize("clip_norm", [2e-8, 0.0])
def test_gradients_are_clipped_by_the_norm_of_skills_and_routers_together(clip_norm):
    # With gradients near AdamW's epsilon, 1e-8, the first step depends on their size: g / (|g| + epsilon).
    skill, router = [3e-8, 0.0], [[0.0, 4e-8]]
    factor = clip_norm / 5e-8 if clip_norm else 1.0
    got = moved(
        Optimizer(clip_norm=clip_norm, **STEADY), tree(np.zeros(2), np.zeros((1, 2))), tree(skill, router)
    )
    for moves, gradient, rate in zip(got, (skill, router), (1e-3, 0.1), strict=True):
        clipped = factor * np.array(gradient)
        np.testing.assert_allclose(moves, -rate * clipped / (np.abs(clipped) + 1e-8), rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"algorithm": "sgd"}, "algorithm is 'sgd'; use one of adamw, adafactor"),
        ({"decay": "step"}, "decay is 'step'; use one of linear, cosine, constant, rsqrt"),
        ({"warmup_fraction": 1.5}, r"warmup_fraction is 1\.5; it must be in \[0, 1\]"),
        ({"learning_rate": -1.0}, r"learning_rate is -1\.0; it must be 0 or more"),
        ({"router_learning_rate": float("inf")}, "router_learning_rate is inf; it must be 0 or more"),
        ({"clip_norm": -1.0}, r"clip_norm is -1\.0; it must be 0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay is nan; it must be 0 or more"),
        ({"b1": 1.0}, r"b1 is 1\.0; it must be in \[0, 1\)"),
        ({"b2": -0.5}, r"b2 is -0\.5; it must be in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, named):
    with pytest.raises(UserError, match=named):
        Optimizer(**settings)
