"""Training starts from a stock checkpoint and fresh adapters, and keeps the backbone bit for bit."""

import jax
import numpy as np
import pytest

REASON = "t5x is not installed (docs/t5x.md says how)"
pytest.importorskip("t5x.models", reason=REASON, exc_type=ImportError)

from t5x import partitioning, trainer, utils  # noqa: E402

from poly_jax.data.vocabularies import byte  # noqa: E402
from poly_jax.errors import UserError  # noqa: E402
from poly_jax.interop.t5x.model import RoutedModel  # noqa: E402
from poly_jax.interop.t5x.optimizer import TrainedOnly  # noqa: E402
from poly_jax.interop.t5x.partitioning import logical_axis_rules  # noqa: E402
from poly_jax.interop.t5x.restore import backbone_only  # noqa: E402
from poly_jax.training.optimizer import Optimizer  # noqa: E402
from poly_jax.weights.parameter_names import is_adapter_parameter  # noqa: E402
from poly_jax.weights.t5x_writer import write_t5x  # noqa: E402
from poly_jax.weights.tensors import of_tree  # noqa: E402
from poly_jax.weights.tree import flatten, split  # noqa: E402

STEPS = 2


@pytest.fixture(scope="module")
def stock(parameters, tmp_path_factory):
    """A checkpoint of the backbone alone, whose step is not 0."""
    _, backbone = split(parameters, is_adapter_parameter)
    return write_t5x(str(tmp_path_factory.mktemp("stock")), 1000, of_tree(backbone))


@pytest.fixture(scope="module")
def trained(stock, module, batch, tmp_path_factory):
    """The state that t5x restores, and the state after two steps."""
    rules = logical_axis_rules()
    partitioner = partitioning.PjitPartitioner(num_partitions=1, logical_axis_rules=rules)
    optimizer = TrainedOnly(Optimizer(warmup_fraction=0.0).transformation(STEPS), "adapters")
    model = RoutedModel(module, byte(), byte(), optimizer)
    initializer = utils.TrainStateInitializer(
        optimizer, model.get_initial_variables, {n: a.shape for n, a in batch.items()}, partitioner
    )
    config = utils.RestoreCheckpointConfig(
        str(stock),
        mode="specific",
        dtype="float32",
        fallback_to_scratch=True,
        state_transformation_fns=(backbone_only,),
    )
    folder = str(tmp_path_factory.mktemp("run"))
    start, _ = utils.create_checkpoint_manager_and_restore(
        initializer,
        partitioner,
        config,
        str(stock),
        jax.random.PRNGKey(0),
        model_dir=folder,
        use_orbax=True,
    )
    before = jax.device_get(start)
    runner = trainer.Trainer(
        model=model,
        train_state=start,
        partitioner=partitioner,
        eval_names=[],
        summary_dir=folder,
        train_state_axes=initializer.train_state_axes,
        rng=jax.random.PRNGKey(1),
        learning_rate_fn=lambda step: 0.0,
        num_microbatches=None,
    )
    runner.train(iter([batch] * STEPS), STEPS).result()
    after = jax.device_get(runner.train_state)
    runner.close()
    return before, after


def test_a_restored_state_has_the_checkpoints_backbone_and_starts_at_step_0(trained, parameters):
    before, _ = trained
    expected, restored = flatten(parameters), flatten(before.params.unfreeze())
    assert before.step == 0
    assert restored.keys() == expected.keys()
    for name, leaf in restored.items():
        if not is_adapter_parameter(name):
            np.testing.assert_array_equal(leaf, expected[name])


def test_adapters_start_fresh(trained):
    before, _ = trained
    fresh = flatten(before.params.unfreeze())
    assert all(not leaf.any() for name, leaf in fresh.items() if name.endswith("lora_b"))
    assert all(np.abs(leaf).max() <= 1e-3 for name, leaf in fresh.items() if name.endswith("router/logits"))


def test_the_backbone_is_bit_equal_to_the_checkpoint_after_steps(trained, parameters):
    before, after = trained
    expected, fresh, moved = flatten(parameters), *(flatten(s.params.unfreeze()) for s in (before, after))
    assert after.step == STEPS
    for name, leaf in moved.items():
        if is_adapter_parameter(name):
            assert np.any(leaf != fresh[name]), name
        else:
            np.testing.assert_array_equal(leaf, expected[name])


def test_a_checkpoint_of_another_t5_is_refused_rather_than_filled_with_random_weights():
    state = {"target": {"encoder": {"a": 1, "b": 2, "router": {"logits": 3}}}, "state": {"step": 0}}
    stored = {"target": {"encoder": {"a": 1, "c": 2}}, "state": {"step": 7}}
    message = r"lacks 1 parameter \(encoder/b\); has unknown 1 parameter \(encoder/c\)$"
    with pytest.raises(UserError, match=message):
        backbone_only(stored, state)


def test_a_resumed_run_restores_its_whole_checkpoint():
    stored = {"target": {"encoder": {"router": {"logits": 3}}}, "state": {"step": 7}}
    assert backbone_only(stored, {}, is_resuming=True) == stored
