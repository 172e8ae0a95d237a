"""Many adaptations in one program have the same results as each by itself."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest
from etils import epath
from flax import traverse_util

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.choice_loss import ChoiceLoss
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.mesh import Partitioning, replicated
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.restore import Restored
from poly_jax.training.saved_step import Origin
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.update import TrainState, Update, start
from poly_jax.transfer.few_shot import FewShotBatches
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.stacked import adapt_many
from poly_jax.transfer.start import start_from
from poly_jax.transfer.variants import VARIANTS
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import merge, split

STEPS = 3
SEEDS = (11, 12)
OPTIMIZER = Optimizer(learning_rate=0.02, router_learning_rate=0.2, warmup_fraction=0.0)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def source_of(many, variant):
    """Return the run that a variant adapts: the multi-task run, or one with private adapters for 3 tasks."""
    adapters = many.model.adapters
    if variant.name.startswith("soup"):
        adapters = dataclasses.replace(adapters, router=PrivateRouter(), n_tasks=3)
    model = Transformer(many.model.config, adapters)
    parameters = many.parameters
    if adapters is not many.model.adapters:
        parameters, _ = split(parameters, lambda path: "router" not in path.split("/"))
    names = tuple("abcd"[: adapters.n_tasks])
    return Restored(model, parameters, TaskTable(names), epath.Path("run"), Origin("weights", "hash"))


@pytest.fixture(
    scope="module",
    params=["mhr", "mhr-z", "mhr-mu", "random", "full", "soup-selected", "lorahub"],
)
def stacked(request, many, new_tasks):
    variant = VARIANTS[request.param]
    source = source_of(many, variant)
    stack = adapt_many(
        source.model,
        source.parameters,
        variant,
        new_tasks,
        SEEDS,
        steps=STEPS,
        batch_size=2,
        optimizer=OPTIMIZER,
    )
    return variant, source, stack


@pytest.fixture(scope="module")
def new_tasks(examples_of):
    """Examples of two tasks, one with more examples than the other."""
    return [examples_of(1, 5), examples_of(2, 3)]


def saved(source, folder):
    """Save the adapters of a run to disk, where an adaptation that keeps its skills reads them."""
    adapters, _ = split(source.parameters, is_adapter_parameter)
    state = TrainState(jax.numpy.int32(1), adapters, {"steps": jax.numpy.int32(1)})
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(state, source.table, source.origin)
    return dataclasses.replace(source, step=step_folder(folder))


def alone(source, variant, examples, seed):
    """Run one adaptation by itself, started as in `adapt`: one state and a Python loop."""
    begun = start_from(
        source,
        variant,
        TaskTable(("new",)),
        seed,
        Partitioning().mesh(),
        experiment=None,
        loss=TokenLoss(),
        batch_size=2,
        examples=examples,
    )
    model = dataclasses.replace(begun.model, train=True)
    update = Update(model, TokenLoss(), OPTIMIZER.transformation(STEPS))
    state = start(begun.trained, update.optimizer)
    step = jax.jit(update)
    batches = FewShotBatches(examples, batch_size=2, seed=seed)
    losses = []
    for _ in range(STEPS if variant.trains else 0):
        state, metrics = step(state, begun.frozen, next(batches), jax.random.key(seed))
        losses.append(float(metrics["loss"]))
    return state.trained, losses


@pytest.mark.slow
def test_each_stacked_adaptation_equals_a_separate_one(stacked, new_tasks, tmp_path):
    variant, source, stack = stacked
    if variant.name == "mhr-z":
        source = saved(source, tmp_path)
    for i, (examples, seed) in enumerate(zip(new_tasks, SEEDS, strict=True)):
        trained, losses = alone(source, variant, examples, seed)
        np.testing.assert_allclose(stack.losses[:, i], losses, atol=1e-4)
        assert set(flat(trained)) == set(flat(stack.trained))
        for path, leaf in flat(trained).items():
            np.testing.assert_allclose(flat(stack.trained)[path][i], leaf, atol=1e-4, err_msg=path)


def test_each_task_is_predicted_with_its_own_adapters(many, new_tasks):
    stack = adapt_many(
        many.model,
        many.parameters,
        VARIANTS["mhr-mu"],
        new_tasks,
        SEEDS,
        steps=STEPS,
        batch_size=2,
        optimizer=OPTIMIZER,
    )
    inputs = np.stack([task["encoder_input_tokens"][:3] for task in new_tasks])
    decoding = Decoding(max_length=4)
    predicted = stack.predict(inputs, decoding)
    decode = jax.jit(lambda p, x: generate(stack.model, p, x, x[:, 0] * 0, decoding).tokens)
    for i in range(2):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], stack.trained)
        np.testing.assert_array_equal(predicted[i], decode(merge(stack.frozen, own), inputs[i]))


def test_a_router_that_looks_at_inputs_predicts_stacked_as_it_does_alone(many, new_tasks):
    adapters = dataclasses.replace(many.model.adapters, router=PrivateRouter(), n_tasks=3, n_splits=1)
    model, rng = Transformer(many.model.config, adapters), np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), parameter_shapes(model)[0]
    )
    arrow, decoding = VARIANTS["arrow"], Decoding(max_length=4)
    stack = adapt_many(model, drawn, arrow, new_tasks, SEEDS, steps=STEPS, batch_size=2, optimizer=OPTIMIZER)
    inputs = np.stack([task["encoder_input_tokens"][:3] for task in new_tasks])
    predicted = stack.predict(inputs, decoding)
    new = new_adapters(arrow, adapters)
    started = initial_parameters(arrow, split(drawn, is_adapter_parameter)[0], {}, adapters.skill)
    routed = Transformer(many.model.config, new)
    decode = jax.jit(lambda p, x: generate(routed, p, x, x[:, 0] * 0, decoding).tokens)
    backbone, _ = split(drawn, lambda path: not is_adapter_parameter(path))
    for tokens, rows in zip(predicted, inputs, strict=True):
        np.testing.assert_array_equal(tokens, decode(merge(backbone, started), rows))
    # The skills matter, so that equal tokens say something.
    bare = jax.jit(lambda p, x: generate(Transformer(many.model.config), p, x, x[:, 0] * 0, decoding).tokens)
    assert (predicted[0] != bare(backbone, inputs[0])).any()


def test_trained_parameters_are_stacked_and_frozen_parameters_are_shared(stacked):
    variant, source, stack = stacked
    paths = {path.split("/")[-2] for path in flat(stack.trained)}
    expected = {"mhr": {"skills", "router"}, "random": {"skills", "router"}, "mhr-z": {"router"}}
    if variant.name == "full":
        backbone, _ = split(source.parameters, lambda path: not is_adapter_parameter(path))
        assert set(flat(stack.trained)) == set(flat(backbone))
        assert not stack.frozen
        return
    assert paths == expected.get(variant.name, {"skills"})
    if paths == {"skills"}:
        assert all(leaf.shape[2] == 1 for leaf in flat(stack.trained).values())
    kept = {path for path in flat(stack.frozen) if is_adapter_parameter(path)}
    assert bool(kept) == (variant.name == "mhr-z")


def test_a_fresh_adapter_does_not_start_from_the_skills_of_the_source(many, new_tasks):
    still = Optimizer(learning_rate=0.0, router_learning_rate=0.0)
    stack = adapt_many(
        many.model,
        many.parameters,
        VARIANTS["private"],
        new_tasks,
        SEEDS,
        steps=1,
        batch_size=2,
        optimizer=still,
    )
    # With learning rate 0 the adapters keep their initial values, in which B = 0.
    for path, leaf in flat(stack.trained).items():
        if path.endswith("lora_b"):
            np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


def test_tasks_with_different_numbers_of_choices_can_be_stacked(many, new_tasks):
    def with_choices(arrays, count):
        rng = np.random.default_rng(count)
        choices = rng.integers(2, 32, (len(arrays["task_ids"]), count, 3)).astype(np.int32)
        return {**arrays, "choices": choices, "labels": np.zeros(len(choices), np.int32)}

    tasks = [with_choices(new_tasks[0], 2), with_choices(new_tasks[1], 4)]
    settings = {"steps": 2, "batch_size": 2, "optimizer": OPTIMIZER, "loss": ChoiceLoss()}
    mu = VARIANTS["mhr-mu"]
    together = adapt_many(many.model, many.parameters, mu, tasks, SEEDS, **settings)
    for i in range(2):
        own = adapt_many(many.model, many.parameters, mu, tasks[i : i + 1], SEEDS[i : i + 1], **settings)
        np.testing.assert_allclose(together.losses[:, i], own.losses[:, 0], atol=1e-4)


def test_a_variant_that_trains_nothing_takes_and_reports_no_step(many, new_tasks):
    told = []
    settings = {"steps": 3, "batch_size": 2, "optimizer": OPTIMIZER, "advance": lambda: told.append(1)}
    stack = adapt_many(many.model, many.parameters, VARIANTS["zero-shot"], new_tasks, SEEDS, **settings)
    assert stack.losses.shape == (0, 2)
    assert not told


def test_every_adaptation_needs_a_seed(many, new_tasks):
    with pytest.raises(UserError, match="2 adaptations with 1 seeds"):
        adapt_many(
            many.model,
            many.parameters,
            VARIANTS["mhr"],
            new_tasks,
            SEEDS[:1],
            steps=1,
            batch_size=2,
            optimizer=OPTIMIZER,
        )


def test_a_step_is_traced_once_for_parameters_on_a_mesh(many, new_tasks, monkeypatch):
    traced = []
    call = Update.__call__

    def counted(self, *args):
        traced.append(1)
        return call(self, *args)

    monkeypatch.setattr(Update, "__call__", counted)
    on_devices = jax.device_put(many.parameters, replicated(Partitioning().mesh()))
    adapt_many(
        many.model,
        on_devices,
        VARIANTS["mhr-z"],
        new_tasks,
        SEEDS,
        steps=3,
        batch_size=2,
        optimizer=OPTIMIZER,
    )
    assert len(traced) == 1


def test_stacked_adaptations_may_have_their_own_schedules_and_numbers_of_steps(many, new_tasks):
    own = [
        (4, dataclasses.replace(OPTIMIZER, learning_rate=0.02, router_learning_rate=0.2)),
        (2, dataclasses.replace(OPTIMIZER, learning_rate=0.005, warmup_fraction=0.5, decay="cosine")),
    ]
    mhr = VARIANTS["mhr"]
    steps, optimizers = zip(*own, strict=True)
    together = adapt_many(
        many.model,
        many.parameters,
        mhr,
        new_tasks,
        SEEDS,
        steps=steps,
        batch_size=2,
        optimizer=optimizers,
    )
    for i, (count, optimizer) in enumerate(own):
        one = slice(i, i + 1)
        each = adapt_many(
            many.model,
            many.parameters,
            mhr,
            new_tasks[one],
            SEEDS[one],
            steps=count,
            batch_size=2,
            optimizer=optimizer,
        )
        np.testing.assert_allclose(together.losses[:count, i], each.losses[:, 0], atol=1e-4)
        assert np.isnan(together.losses[count:, i]).all()
        for path, leaf in flat(each.trained).items():
            np.testing.assert_allclose(flat(together.trained)[path][i], leaf[0], atol=1e-4, err_msg=path)


def test_stacked_optimizers_have_one_rule(many, new_tasks):
    settings = {"batch_size": 2}
    mhr = VARIANTS["mhr"]
    optimizers = [OPTIMIZER, dataclasses.replace(OPTIMIZER, clip_norm=0.0)]
    with pytest.raises(UserError, match="differ in more than learning rates, warm-up and decay"):
        adapt_many(
            many.model, many.parameters, mhr, new_tasks, SEEDS, steps=1, optimizer=optimizers, **settings
        )
    with pytest.raises(UserError, match="2 adaptations with 1 optimizers"):
        adapt_many(
            many.model, many.parameters, mhr, new_tasks, SEEDS, steps=1, optimizer=[OPTIMIZER], **settings
        )
    with pytest.raises(UserError, match="2 adaptations with 3 numbers of steps"):
        adapt_many(
            many.model,
            many.parameters,
            mhr,
            new_tasks,
            SEEDS,
            steps=(1, 2, 3),
            optimizer=OPTIMIZER,
            **settings,
        )
