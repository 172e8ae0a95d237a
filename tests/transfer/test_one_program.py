"""What may differ among adaptations in one program, and what may not."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from etils import epath

from poly_jax.adapters.lora import LoRA
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.transformer import Transformer
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.restore import Restored
from poly_jax.training.saved_step import Origin
from poly_jax.training.update import Update
from poly_jax.transfer.adaptation import Adaptation
from poly_jax.transfer.stacked import adapt_many
from poly_jax.transfer.variants import VARIANTS
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten, merge, split

STEPS = 3
SEEDS = (11, 12)
OPTIMIZER = Optimizer(learning_rate=0.02, router_learning_rate=0.2, warmup_fraction=0.0)
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
    return run_of(model, merge(backbone_of(many.parameters), skills))


def run_of(model, parameters):
    return Restored(model, parameters, TaskTable(tuple("abcd")), epath.Path("run"), Origin("weights", "hash"))


def backbone_of(parameters):
    return split(parameters, is_adapter_parameter)[1]


def decoded(model, parameters, inputs):
    decoding = Decoding(max_length=4)
    return jax.jit(lambda p, x: generate(model, p, x, x[:, 0] * 0, decoding).tokens)(parameters, inputs)


@pytest.fixture(scope="module")
def check_alone(alone):
    """A function that checks that one of a stack equals the adaptation by itself, and returns its tree."""
    return functools.partial(_check_alone, alone)


def _check_alone(alone, stack, i, source, variant, examples, seed):
    trained, losses = alone(source, variant, examples, seed, DECAYING, STEPS)
    np.testing.assert_allclose(stack.losses[: len(losses), i], losses, atol=1e-4)
    for path, leaf in flatten(trained).items():
        stacked = np.asarray(flatten(stack.trained)[path][i])
        # The columns of wider skills are beyond its own rank.
        own = tuple(slice(0, size) for size in leaf.shape)
        np.testing.assert_allclose(stacked[own], leaf, atol=1e-4, err_msg=path)
        assert np.count_nonzero(stacked) == np.count_nonzero(stacked[own]), path
    return trained


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mhr", "private"])
def test_skills_of_several_ranks_and_scales_are_adapted_in_one_program(
    many, uneven_tasks, of_rank, check_alone, name
):
    sources, variant = [of_rank(1, 3.0, seed=5), of_rank(4, 2.0, seed=6)], VARIANTS[name]
    adaptations = [
        Adaptation(source.model, source.parameters, variant, examples, seed, STEPS, DECAYING)
        for source, examples, seed in zip(sources, uneven_tasks, SEEDS, strict=True)
    ]
    stack = adapt_many(adaptations, backbone_of(many.parameters), batch_size=2)
    assert stack.model.adapters.skill.rank == 4
    inputs = np.stack([examples["encoder_input_tokens"][:3] for examples in uneven_tasks])
    predicted = stack.predict(inputs, Decoding(max_length=4))
    for i, source in enumerate(sources):
        trained = check_alone(stack, i, source, variant, uneven_tasks[i], SEEDS[i])
        assert adaptations[i].trained_size == sum(leaf.size for leaf in flatten(trained).values())
        whole = merge(backbone_of(many.parameters), trained)
        expected = decoded(adaptations[i].model, whole, inputs[i])
        np.testing.assert_array_equal(predicted[i], expected)
        one = merge(stack.frozen, stack.one(i))
        np.testing.assert_array_equal(decoded(stack.model, one, inputs[i]), expected)


@pytest.mark.slow
def test_variants_that_train_different_parameters_are_made_by_one_program(
    many, uneven_tasks, check_alone, monkeypatch
):
    traced = []
    call = Update.__call__
    monkeypatch.setattr(Update, "__call__", lambda self, *args: traced.append(1) or call(self, *args))
    names, tasks, seeds = ("mhr", "mhr-z", "random"), [*uneven_tasks, uneven_tasks[1]], (11, 12, 13)
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
    source = run_of(many.model, many.parameters)
    for i, name in enumerate(names):
        if name != "mhr-z":
            check_alone(stack, i, source, VARIANTS[name], tasks[i], seeds[i])
    for path, leaf in flatten(stack.trained).items():
        kept = np.asarray(leaf[1])
        if "skills" in path.split("/"):
            np.testing.assert_array_equal(kept, flatten(many.parameters)[path], err_msg=path)


@pytest.mark.slow
def test_a_router_trained_beside_skills_equals_one_that_is_trained_alone(
    many, uneven_tasks, saved, check_alone, tmp_path
):
    source = saved(run_of(many.model, many.parameters), tmp_path)
    both = [
        Adaptation(many.model, many.parameters, VARIANTS[name], uneven_tasks[0], 11, STEPS, DECAYING)
        for name in ("mhr", "mhr-z")
    ]
    stack = adapt_many(both, backbone_of(many.parameters), batch_size=2)
    check_alone(stack, 1, source, VARIANTS["mhr-z"], uneven_tasks[0], 11)


def test_what_is_no_argument_of_the_program_must_be_equal(many, uneven_tasks, of_rank):
    def made(*differing, variant="mhr", optimizer=OPTIMIZER):
        first = Adaptation(many.model, many.parameters, VARIANTS[variant], uneven_tasks[0], 1, 1, optimizer)
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
