"""t5x's trainer updates the same parameters as poly_jax's own, by the same amounts."""

import jax
import numpy as np
import optax
import pytest

REASON = "t5x is not installed (docs/t5x.md says how)"
pytest.importorskip("t5x.models", reason=REASON, exc_type=ImportError)

from flax import core  # noqa: E402
from jax.sharding import PartitionSpec  # noqa: E402

from poly_jax.configurables import import_configurables  # noqa: E402
from poly_jax.interop.t5x.optimizer import TrainedOnly, learning_rate  # noqa: E402
from poly_jax.model.parameters import parameter_shapes  # noqa: E402
from poly_jax.training.optimizer import Optimizer  # noqa: E402
from poly_jax.weights.parameter_names import is_adapter_parameter  # noqa: E402
from poly_jax.weights.tree import flatten, split  # noqa: E402

STEPS = 3
OPTIMIZERS = [Optimizer(weight_decay=0.1), Optimizer(algorithm="adafactor")]


@pytest.fixture(scope="module")
def gradients(parameters):
    rng = np.random.default_rng(2)
    return [
        jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), parameters)
        for _ in range(STEPS)
    ]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda settings: settings.algorithm)
def test_adapters_are_updated_as_in_poly_jaxs_training_and_the_backbone_stays(
    parameters, gradients, settings
):
    transformation = settings.transformation(STEPS)
    trained, _ = split(parameters, is_adapter_parameter)
    state = transformation.init(trained)
    theirs = TrainedOnly(settings.transformation(STEPS), "adapters").create(core.freeze(parameters))
    update = jax.jit(transformation.update)
    step = jax.jit(lambda optimizer, gradient: optimizer.apply_gradient(gradient, learning_rate=None))
    for gradient in gradients:
        updates, state = update(split(gradient, is_adapter_parameter)[0], state, trained)
        trained = optax.apply_updates(trained, updates)
        theirs = step(theirs, core.freeze(gradient))
    after, before, expected = flatten(theirs.target.unfreeze()), flatten(parameters), flatten(trained)
    assert theirs.state.step == STEPS
    for name, leaf in after.items():
        if is_adapter_parameter(name):
            np.testing.assert_allclose(leaf, expected[name], rtol=1e-5, atol=1e-6)
            assert np.any(leaf != before[name])
        else:
            np.testing.assert_array_equal(leaf, before[name])


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda settings: settings.algorithm)
def test_the_optimizer_keeps_no_moments_for_the_backbone(parameters, settings):
    optimizer = TrainedOnly(settings.transformation(STEPS), "adapters").create(core.freeze(parameters))
    state = flatten(optimizer.state_dict()["state"])
    moments = {name for name in state if "/mu/" in name or "/nu/" in name or "/v/" in name}
    assert moments
    assert all(is_adapter_parameter(name) for name in moments)


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda settings: settings.algorithm)
def test_a_state_is_restored_from_its_dictionary(parameters, gradients, settings):
    optimizer = TrainedOnly(settings.transformation(STEPS), "adapters").create(core.freeze(parameters))
    moved = optimizer.apply_gradient(core.freeze(gradients[0]), learning_rate=None)
    restored = optimizer.restore_state(moved.state_dict())
    jax.tree.map(np.testing.assert_array_equal, restored.state, moved.state)


def test_moments_are_partitioned_as_their_parameters_are(module, parameters):
    _, axes = parameter_shapes(module)
    optimizer = TrainedOnly(Optimizer().transformation(STEPS), "adapters")
    logical = optimizer.derive_logical_axes(optimizer.create(core.freeze(parameters)), core.freeze(axes))
    flat = flatten(logical.state_dict()["state"])
    name = next(name for name in flat if name.endswith("mu/encoder/layers_0/attention/query/router/logits"))
    assert flat[name] == PartitionSpec("tasks", "splits", "skills")
    assert all(spec is None for name, spec in flat.items() if name.endswith("count"))


def test_the_reported_learning_rate_is_that_of_the_skills():
    # As the module does that t5x's gin files import.
    import_configurables(programs=False)
    assert float(learning_rate(100)(50)) == pytest.approx(float(Optimizer().schedule(1e-3, 100)(50)))
