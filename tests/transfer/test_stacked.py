"""Many adaptations in one program have the same results as each by itself."""

import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.choice_loss import ChoiceLoss
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.training.mesh import Partitioning, replicated
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.restore import Restored
from poly_jax.training.saved_step import Origin
from poly_jax.training.update import Update
from poly_jax.transfer.adaptation import Adaptation
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.stacked import adapt_many
from poly_jax.transfer.variants import VARIANTS
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten, merge, split

STEPS = 3
SEEDS = (11, 12)
OPTIMIZER = Optimizer(learning_rate=0.02, router_learning_rate=0.2, warmup_fraction=0.0)


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
def stacked(request, many, uneven_tasks):
    variant = VARIANTS[request.param]
    source = source_of(many, variant)
    stack = stack_of(
        source.model,
        source.parameters,
        variant,
        uneven_tasks,
        SEEDS,
        steps=STEPS,
        batch_size=2,
        optimizer=OPTIMIZER,
    )
    return variant, source, stack


def stack_of(model, parameters, variant, tasks, seeds, *, steps, optimizer, **settings):
    """Adapt one source to several tasks, with lists where steps and optimizers differ."""
    adaptations = [
        Adaptation(model, parameters, variant, examples, seed, count, rule)
        for examples, seed, count, rule in zip(
            tasks, seeds, each(steps, len(tasks)), each(optimizer, len(tasks)), strict=True
        )
    ]
    return adapt_many(adaptations, backbone_of(parameters), **settings)


def each(value, count):
    return value if isinstance(value, list) else [value] * count


def backbone_of(parameters):
    return split(parameters, is_adapter_parameter)[1]


@pytest.mark.slow
def test_each_stacked_adaptation_equals_a_separate_one(stacked, uneven_tasks, saved, alone, tmp_path):
    variant, source, stack = stacked
    if variant.name == "mhr-z":
        source = saved(source, tmp_path)
    for i, (examples, seed) in enumerate(zip(uneven_tasks, SEEDS, strict=True)):
        trained, losses = alone(source, variant, examples, seed, OPTIMIZER, STEPS)
        np.testing.assert_allclose(stack.losses[:, i], losses, atol=1e-4)
        assert set(flatten(trained)) == set(flatten(stack.trained))
        for path, leaf in flatten(trained).items():
            np.testing.assert_allclose(flatten(stack.trained)[path][i], leaf, atol=1e-4, err_msg=path)


def test_each_task_is_predicted_with_its_own_adapters(many, uneven_tasks):
    stack = stack_of(
        many.model,
        many.parameters,
        VARIANTS["mhr-mu"],
        uneven_tasks,
        SEEDS,
        steps=STEPS,
        batch_size=2,
        optimizer=OPTIMIZER,
    )
    inputs = np.stack([task["encoder_input_tokens"][:3] for task in uneven_tasks])
    decoding = Decoding(max_length=4)
    predicted = stack.predict(inputs, decoding)
    decode = jax.jit(lambda p, x: generate(stack.model, p, x, x[:, 0] * 0, decoding).tokens)
    for i in range(2):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], stack.trained)
        np.testing.assert_array_equal(predicted[i], decode(merge(stack.frozen, own), inputs[i]))


def test_a_router_that_looks_at_inputs_predicts_stacked_as_it_does_alone(many, uneven_tasks):
    adapters = dataclasses.replace(many.model.adapters, router=PrivateRouter(), n_tasks=3, n_splits=1)
    model, rng = Transformer(many.model.config, adapters), np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), parameter_shapes(model)[0]
    )
    arrow, decoding = VARIANTS["arrow"], Decoding(max_length=4)
    stack = stack_of(model, drawn, arrow, uneven_tasks, SEEDS, steps=STEPS, batch_size=2, optimizer=OPTIMIZER)
    inputs = np.stack([task["encoder_input_tokens"][:3] for task in uneven_tasks])
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
    paths = {path.split("/")[-2] for path in flatten(stack.trained)}
    expected = {"mhr": {"skills", "router"}, "random": {"skills", "router"}, "mhr-z": {"router"}}
    if variant.name == "full":
        backbone, _ = split(source.parameters, lambda path: not is_adapter_parameter(path))
        assert set(flatten(stack.trained)) == set(flatten(backbone))
        assert not stack.frozen
        return
    assert paths == expected.get(variant.name, {"skills"})
    if paths == {"skills"}:
        assert all(leaf.shape[2] == 1 for leaf in flatten(stack.trained).values())
    kept = {path for path in flatten(stack.frozen) if is_adapter_parameter(path)}
    assert bool(kept) == (variant.name == "mhr-z")


def test_a_fresh_adapter_does_not_start_from_the_skills_of_the_source(many, uneven_tasks):
    still = Optimizer(learning_rate=0.0, router_learning_rate=0.0)
    stack = stack_of(
        many.model,
        many.parameters,
        VARIANTS["private"],
        uneven_tasks,
        SEEDS,
        steps=1,
        batch_size=2,
        optimizer=still,
    )
    # With learning rate 0 the adapters keep their initial values, in which B = 0.
    for path, leaf in flatten(stack.trained).items():
        if path.endswith("lora_b"):
            np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


def test_tasks_with_different_numbers_of_choices_can_be_stacked(many, uneven_tasks):
    def with_choices(arrays, count):
        rng = np.random.default_rng(count)
        choices = rng.integers(2, 32, (len(arrays["task_ids"]), count, 3)).astype(np.int32)
        return {**arrays, "choices": choices, "labels": np.zeros(len(choices), np.int32)}

    tasks = [with_choices(uneven_tasks[0], 2), with_choices(uneven_tasks[1], 4)]
    settings = {"steps": 2, "batch_size": 2, "optimizer": OPTIMIZER, "loss": ChoiceLoss()}
    mu = VARIANTS["mhr-mu"]
    together = stack_of(many.model, many.parameters, mu, tasks, SEEDS, **settings)
    for i in range(2):
        own = stack_of(many.model, many.parameters, mu, tasks[i : i + 1], SEEDS[i : i + 1], **settings)
        np.testing.assert_allclose(together.losses[:, i], own.losses[:, 0], atol=1e-4)


def test_tasks_with_inputs_and_targets_of_different_lengths_can_be_stacked(many, uneven_tasks):
    short, other = uneven_tasks
    long = {name: np.pad(leaf, ((0, 0), (0, 3))) if leaf.ndim == 2 else leaf for name, leaf in other.items()}
    settings = {"steps": 2, "batch_size": 2, "optimizer": OPTIMIZER}
    given = (many.model, many.parameters, VARIANTS["mhr-mu"])
    wanted = stack_of(*given, [short, other], SEEDS, **settings)
    got = stack_of(*given, [short, long], SEEDS, **settings)
    np.testing.assert_allclose(got.losses, wanted.losses, atol=1e-5)


def test_tasks_with_and_without_numbered_examples_can_be_stacked(many, uneven_tasks):
    first, other = uneven_tasks
    numbered = {**other, "example_ids": np.arange(3), "labels": np.zeros(3, np.int32)}
    settings = {"steps": 1, "batch_size": 2, "optimizer": OPTIMIZER}
    given = (many.model, many.parameters, VARIANTS["mhr-mu"])
    wanted = stack_of(*given, [first, other], SEEDS, **settings)
    for tasks, places in (([first, numbered], [0, 1]), ([numbered, first], [1, 0])):
        got = stack_of(*given, tasks, [SEEDS[place] for place in places], **settings)
        np.testing.assert_allclose(got.losses, wanted.losses[:, places], atol=1e-5)


def test_a_variant_that_trains_nothing_takes_and_reports_no_step(many, uneven_tasks):
    told = []
    settings = {"steps": 3, "batch_size": 2, "optimizer": OPTIMIZER, "advance": lambda: told.append(1)}
    stack = stack_of(many.model, many.parameters, VARIANTS["zero-shot"], uneven_tasks, SEEDS, **settings)
    assert stack.losses.shape == (0, 2)
    assert not told


def test_nothing_cannot_be_stacked(many):
    with pytest.raises(UserError, match="there is no adaptation to stack"):
        adapt_many([], backbone_of(many.parameters), batch_size=2)


def test_a_step_is_traced_once_for_parameters_on_a_mesh(many, uneven_tasks, monkeypatch):
    traced = []
    call = Update.__call__

    def counted(self, *args):
        traced.append(1)
        return call(self, *args)

    monkeypatch.setattr(Update, "__call__", counted)
    on_devices = jax.device_put(many.parameters, replicated(Partitioning().mesh()))
    stack_of(
        many.model,
        on_devices,
        VARIANTS["mhr-z"],
        uneven_tasks,
        SEEDS,
        steps=3,
        batch_size=2,
        optimizer=OPTIMIZER,
    )
    assert len(traced) == 1


def test_stacked_adaptations_may_have_their_own_schedules_and_numbers_of_steps(many, uneven_tasks):
    own = [
        (4, dataclasses.replace(OPTIMIZER, learning_rate=0.02, router_learning_rate=0.2)),
        (2, dataclasses.replace(OPTIMIZER, learning_rate=0.005, warmup_fraction=0.5, decay="cosine")),
    ]
    mhr = VARIANTS["mhr"]
    steps, optimizers = map(list, zip(*own, strict=True))
    together = stack_of(
        many.model,
        many.parameters,
        mhr,
        uneven_tasks,
        SEEDS,
        steps=steps,
        batch_size=2,
        optimizer=optimizers,
    )
    for i, (count, optimizer) in enumerate(own):
        one = slice(i, i + 1)
        own_stack = stack_of(
            many.model,
            many.parameters,
            mhr,
            uneven_tasks[one],
            SEEDS[one],
            steps=count,
            batch_size=2,
            optimizer=optimizer,
        )
        np.testing.assert_allclose(together.losses[:count, i], own_stack.losses[:, 0], atol=1e-4)
        assert np.isnan(together.losses[count:, i]).all()
        for path, leaf in flatten(own_stack.trained).items():
            np.testing.assert_allclose(flatten(together.trained)[path][i], leaf[0], atol=1e-4, err_msg=path)


def test_the_next_stack_of_equal_adaptations_is_not_traced_again(many, uneven_tasks, monkeypatch):
    traced = []
    call = Update.__call__
    monkeypatch.setattr(Update, "__call__", lambda self, *args: traced.append(1) or call(self, *args))
    rule = dataclasses.replace(OPTIMIZER, b1=0.85)  # No other test has this program.
    for seeds in ((11, 12), (13, 14)):
        stack_of(
            many.model,
            many.parameters,
            VARIANTS["mhr"],
            uneven_tasks,
            seeds,
            steps=2,
            optimizer=rule,
            batch_size=2,
        )
    assert len(traced) == 1
