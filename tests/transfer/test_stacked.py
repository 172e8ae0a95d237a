"""Many adaptations in one program have the same results as each by itself."""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest
from etils import epath
from flax import traverse_util

from poly_jax.adapters.lora import LoRA
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
from poly_jax.transfer.adaptation import Adaptation
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
    stack = stack_of(
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


def saved(source, folder):
    """Save the adapters of a run to disk, where an adaptation that keeps its skills reads them."""
    adapters, _ = split(source.parameters, is_adapter_parameter)
    state = TrainState(jax.numpy.int32(1), adapters, {"steps": jax.numpy.int32(1)})
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(state, source.table, source.origin)
    return dataclasses.replace(source, step=step_folder(folder))


def alone(source, variant, examples, seed, optimizer=OPTIMIZER):
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
    update = Update(model, TokenLoss(), optimizer.transformation(STEPS))
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
    stack = stack_of(
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
    stack = stack_of(model, drawn, arrow, new_tasks, SEEDS, steps=STEPS, batch_size=2, optimizer=OPTIMIZER)
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
    stack = stack_of(
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
    together = stack_of(many.model, many.parameters, mu, tasks, SEEDS, **settings)
    for i in range(2):
        own = stack_of(many.model, many.parameters, mu, tasks[i : i + 1], SEEDS[i : i + 1], **settings)
        np.testing.assert_allclose(together.losses[:, i], own.losses[:, 0], atol=1e-4)


def test_a_variant_that_trains_nothing_takes_and_reports_no_step(many, new_tasks):
    told = []
    settings = {"steps": 3, "batch_size": 2, "optimizer": OPTIMIZER, "advance": lambda: told.append(1)}
    stack = stack_of(many.model, many.parameters, VARIANTS["zero-shot"], new_tasks, SEEDS, **settings)
    assert stack.losses.shape == (0, 2)
    assert not told


def test_nothing_cannot_be_stacked(many):
    with pytest.raises(UserError, match="there is no adaptation to stack"):
        adapt_many([], backbone_of(many.parameters), batch_size=2)


def test_a_step_is_traced_once_for_parameters_on_a_mesh(many, new_tasks, monkeypatch):
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
    steps, optimizers = map(list, zip(*own, strict=True))
    together = stack_of(
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
        own_stack = stack_of(
            many.model,
            many.parameters,
            mhr,
            new_tasks[one],
            SEEDS[one],
            steps=count,
            batch_size=2,
            optimizer=optimizer,
        )
        np.testing.assert_allclose(together.losses[:count, i], own_stack.losses[:, 0], atol=1e-4)
        assert np.isnan(together.losses[count:, i]).all()
        for path, leaf in flat(own_stack.trained).items():
            np.testing.assert_allclose(flat(together.trained)[path][i], leaf[0], atol=1e-4, err_msg=path)


# Weight decay and clipping would show a parameter that only another adaptation trains.
DECAYING = dataclasses.replace(OPTIMIZER, weight_decay=0.1, clip_norm=0.05)


@pytest.fixture(scope="module")
def of_rank(many, parameters_of):
    """A function that makes a source on the backbone of `many` with skills of another rank and scale."""
    return functools.partial(_of_rank, many, parameters_of)


def _of_rank(many, parameters_of, rank, alpha, seed):
    adapters = dataclasses.replace(many.model.adapters, skill=LoRA(rank=rank, alpha=alpha))
    model = Transformer(many.model.config, adapters)
    skills, _ = split(parameters_of(model, seed), is_adapter_parameter)
    return Restored(
        model,
        merge(backbone_of(many.parameters), skills),
        TaskTable(tuple("abcd")),
        epath.Path("run"),
        Origin("weights", "hash"),
    )


def decoded(model, parameters, inputs):
    decoding = Decoding(max_length=4)
    return jax.jit(lambda p, x: generate(model, p, x, x[:, 0] * 0, decoding).tokens)(parameters, inputs)


def check_alone(stack, i, source, variant, examples, seed, optimizer=OPTIMIZER):
    """Check that an adaptation in a stack equals the one that is made by itself; return its trained tree."""
    trained, losses = alone(source, variant, examples, seed, optimizer)
    np.testing.assert_allclose(stack.losses[: len(losses), i], losses, atol=1e-4)
    for path, leaf in flat(trained).items():
        stacked = np.asarray(flat(stack.trained)[path][i])
        # The columns of wider skills are beyond its own rank.
        own = tuple(slice(0, size) for size in leaf.shape)
        np.testing.assert_allclose(stacked[own], leaf, atol=1e-4, err_msg=path)
        assert np.count_nonzero(stacked) == np.count_nonzero(stacked[own]), path
    return trained


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mhr", "private"])
def test_skills_of_several_ranks_and_scales_are_adapted_in_one_program(many, new_tasks, of_rank, name):
    sources, variant = [of_rank(1, 3.0, seed=5), of_rank(4, 2.0, seed=6)], VARIANTS[name]
    adaptations = [
        Adaptation(source.model, source.parameters, variant, examples, seed, STEPS, DECAYING)
        for source, examples, seed in zip(sources, new_tasks, SEEDS, strict=True)
    ]
    stack = adapt_many(adaptations, backbone_of(many.parameters), batch_size=2)
    assert stack.model.adapters.skill.rank == 4
    inputs = np.stack([examples["encoder_input_tokens"][:3] for examples in new_tasks])
    predicted = stack.predict(inputs, Decoding(max_length=4))
    for i, source in enumerate(sources):
        trained = check_alone(stack, i, source, variant, new_tasks[i], SEEDS[i], DECAYING)
        assert adaptations[i].trained_size == sum(leaf.size for leaf in flat(trained).values())
        whole = merge(backbone_of(many.parameters), trained)
        expected = decoded(adaptations[i].model, whole, inputs[i])
        np.testing.assert_array_equal(predicted[i], expected)
        one = merge(stack.frozen, stack.one(i))
        np.testing.assert_array_equal(decoded(stack.model, one, inputs[i]), expected)


@pytest.mark.slow
def test_variants_that_train_different_parameters_are_made_by_one_program(many, new_tasks, monkeypatch):
    traced = []
    call = Update.__call__
    monkeypatch.setattr(Update, "__call__", lambda self, *args: traced.append(1) or call(self, *args))
    names, tasks, seeds = ("mhr", "mhr-z", "random"), [*new_tasks, new_tasks[1]], (11, 12, 13)
    source = source_of(many, VARIANTS["mhr"])
    stack = adapt_many(
        [
            Adaptation(many.model, many.parameters, VARIANTS[name], examples, seed, STEPS, DECAYING)
            for name, examples, seed in zip(names, tasks, seeds, strict=True)
        ],
        backbone_of(many.parameters),
        batch_size=2,
    )
    assert len(traced) == 1
    monkeypatch.undo()
    given = [
        Restored(source.model, source.parameters, source.table, epath.Path("run"), source.origin)
        for _ in names
    ]
    for i, name in enumerate(names):
        if name != "mhr-z":
            check_alone(stack, i, given[i], VARIANTS[name], tasks[i], seeds[i], DECAYING)
    for path, leaf in flat(stack.trained).items():
        kept = np.asarray(leaf[1])
        if "skills" in path.split("/"):
            np.testing.assert_array_equal(kept, flat(many.parameters)[path], err_msg=path)


@pytest.mark.slow
def test_a_router_trained_beside_skills_equals_one_that_is_trained_alone(many, new_tasks, tmp_path):
    source = saved(source_of(many, VARIANTS["mhr-z"]), tmp_path)
    both = [
        Adaptation(many.model, many.parameters, VARIANTS[name], new_tasks[0], 11, STEPS, DECAYING)
        for name in ("mhr", "mhr-z")
    ]
    stack = adapt_many(both, backbone_of(many.parameters), batch_size=2)
    check_alone(stack, 1, source, VARIANTS["mhr-z"], new_tasks[0], 11, DECAYING)


def test_the_next_stack_of_equal_adaptations_is_not_traced_again(many, new_tasks, monkeypatch):
    traced = []
    call = Update.__call__
    monkeypatch.setattr(Update, "__call__", lambda self, *args: traced.append(1) or call(self, *args))
    rule = dataclasses.replace(OPTIMIZER, b1=0.85)  # No other test has this program.
    for seeds in ((11, 12), (13, 14)):
        stack_of(
            many.model,
            many.parameters,
            VARIANTS["mhr"],
            new_tasks,
            seeds,
            steps=2,
            optimizer=rule,
            batch_size=2,
        )
    assert len(traced) == 1


def test_what_is_no_argument_of_the_program_must_be_equal(many, new_tasks, of_rank):
    def made(*differing, variant="mhr", optimizer=OPTIMIZER):
        first = Adaptation(many.model, many.parameters, VARIANTS[variant], new_tasks[0], 1, 1, optimizer)
        others = [dataclasses.replace(first, **changed) for changed in differing]
        return adapt_many([first, *others], backbone_of(many.parameters), batch_size=2)

    with pytest.raises(UserError, match="differ in more than learning rates, warm-up and decay cannot be"):
        made({"optimizer": dataclasses.replace(OPTIMIZER, clip_norm=0.0)})
    with pytest.raises(UserError, match="differ in more than the rank of their LoRA skills cannot be"):
        made({"variant": VARIANTS["mhr-mu"]})
    with pytest.raises(UserError, match="variants that train and variants that do not cannot be stacked"):
        made({"variant": VARIANTS["zero-shot"]}, variant="mhr-mu")
    wide = of_rank(4, 2.0, seed=6)
    other = {"source": wide.model, "parameters": wide.parameters}
    with pytest.raises(UserError, match="train routers alone share the skills of one run"):
        made(other, variant="mhr-z")
    # Adafactor's steps depend on the mean over a whole factor, which columns of zeros would change.
    with pytest.raises(UserError, match="differ in more than the rank of their LoRA skills cannot be"):
        made(other, optimizer=dataclasses.replace(OPTIMIZER, algorithm="adafactor"))
