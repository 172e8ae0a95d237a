"""Many adaptations in one program give what each gives by itself."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.errors import UserError
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer, init_parameters
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.partition import is_adapter, merge, selects, split
from poly_jax.training.update import Update, start
from poly_jax.transfer.few_shot import FewShotBatches
from poly_jax.transfer.stacked import adapt_many
from poly_jax.transfer.variants import VARIANTS

STEPS = 3
SEEDS = (11, 12)
OPTIMIZER = Optimizer(learning_rate=0.02, router_learning_rate=0.2, warmup_fraction=0.0)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


@pytest.fixture(scope="module", params=["mhr", "mhr-z", "mhr-mu"])
def stacked(request, many, new_tasks):
    variant = VARIANTS[request.param]
    stack = adapt_many(
        many.model, many.parameters, variant, new_tasks, SEEDS, steps=STEPS, batch_size=2, optimizer=OPTIMIZER
    )
    return variant, stack


def alone(many, variant, examples, seed):
    """The same adaptation by hand: one task, one state, a Python loop."""
    model = Transformer(many.model.config, variant.adapters(many.model.adapters))
    skills, backbone = split(many.parameters, is_adapter)
    fresh = split(jax.jit(lambda key: init_parameters(model, key)[0])(jax.random.key(seed)), is_adapter)[0]
    trained, kept = split(variant.initial(skills, fresh, many.model.adapters.skill), selects(variant.trainable))
    frozen = merge(backbone, kept)
    update = Update(dataclasses.replace(model, train=True), TokenLoss(), OPTIMIZER.transformation(STEPS))
    state = start(trained, update.optimizer)
    step = jax.jit(update)
    batches = FewShotBatches(examples, batch_size=2, seed=seed)
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, frozen, next(batches), jax.random.key(seed))
        losses.append(float(metrics["loss"]))
    return model, state.trained, frozen, losses


def test_each_equals_its_own_run(stacked, many, new_tasks):
    variant, stack = stacked
    inputs = np.stack([task["encoder_input_tokens"] for task in new_tasks])
    predicted = stack.predict(inputs, Decoding(max_length=4))
    for i, (examples, seed) in enumerate(zip(new_tasks, SEEDS, strict=True)):
        model, trained, frozen, losses = alone(many, variant, examples, seed)
        np.testing.assert_allclose(stack.losses[:, i], losses, atol=1e-4)
        assert set(flat(trained)) == set(flat(stack.trained))
        for path, leaf in flat(trained).items():
            np.testing.assert_allclose(flat(stack.trained)[path][i], leaf, atol=1e-4, err_msg=path)
        decode = jax.jit(lambda p, x, model=model: generate(model, p, x, x[:, 0] * 0, Decoding(max_length=4)))
        np.testing.assert_array_equal(predicted[i], decode(merge(frozen, trained), inputs[i]).tokens)


def test_z_trains_the_row_only_and_mu_one_adapter(stacked):
    variant, stack = stacked
    paths = {path.split("/")[-2] for path in flat(stack.trained)}
    assert paths == {"mhr": {"skills", "router"}, "mhr-z": {"router"}, "mhr-mu": {"skills"}}[variant.name]
    if variant.name == "mhr-mu":
        assert all(leaf.shape[2] == 1 for leaf in flat(stack.trained).values())


def test_a_fresh_adapter_starts_from_no_skill_of_the_source(many, new_tasks):
    still = Optimizer(learning_rate=0.0, router_learning_rate=0.0)
    stack = adapt_many(
        many.model, many.parameters, None, new_tasks, SEEDS, steps=1, batch_size=2, optimizer=still
    )
    # At rate 0 the adapters stay as drawn, with B = 0.
    for path, leaf in flat(stack.trained).items():
        if path.endswith("lora_b"):
            np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


def test_different_numbers_of_examples_cannot_be_stacked(many, new_tasks):
    short = {name: leaf[:3] for name, leaf in new_tasks[1].items()}
    with pytest.raises(UserError, match=r"2 adaptations with \[3, 5\] examples"):
        adapt_many(
            many.model,
            many.parameters,
            VARIANTS["mhr"],
            [new_tasks[0], short],
            SEEDS,
            steps=1,
            batch_size=2,
            optimizer=OPTIMIZER,
        )
