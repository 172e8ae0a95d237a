"""Combining skills into one adapter, and the loss of a combination."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.adapters.lora import LoRA
from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.transfer.choose_combinations import combination_losses, in_batches
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.combined_skills import combine
from poly_jax.transfer.new_adapters import averaged_adapters, initial_parameters
from poly_jax.transfer.variants import VARIANTS
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_a_weighted_sum_is_taken_of_a_and_b_separately():
    a, b = drawn(2, 4, 3, 5), drawn(2, 4, 5, 6)
    skills, weights = np.array([3, 0, 1]), np.array([0.5, -1.5, 0.25])
    tree = {"x": {"skills": {"lora_a": a, "lora_b": b}}}
    made = combine(tree, LoRA(rank=5), Combination.weighted(skills, weights))["x"]["skills"]
    np.testing.assert_allclose(
        made["lora_a"][:, 0], np.einsum("k,hkir->hir", weights, a[:, skills]), rtol=1e-5
    )
    np.testing.assert_allclose(
        made["lora_b"][:, 0], np.einsum("k,hkro->hro", weights, b[:, skills]), rtol=1e-5
    )


def test_the_layers_of_scanned_skills_are_not_mixed():
    a, b = drawn(2, 3, 4, 5, 1), drawn(2, 3, 4, 1, 6)
    tree = {"encoder": {"layers": {"skills": {"lora_a": a, "lora_b": b}}}}
    made = combine(tree, LoRA(), Combination.average(np.array([1, 3])))["encoder"]["layers"]["skills"]
    np.testing.assert_allclose(made["lora_a"], a[:, :, [1, 3]].mean(axis=2, keepdims=True), rtol=1e-6)


def test_an_average_of_chosen_merge_after_skills_averages_their_outputs():
    skill = LoRA(rank=2, merge_after=True)
    a, b, x = drawn(1, 4, 3, 2), drawn(1, 4, 2, 5), drawn(7, 3)
    made = combine({"skills": {"lora_a": a, "lora_b": b}}, skill, Combination.average(np.array([2, 1])))[
        "skills"
    ]
    kind = skill.averaged(2)
    got = (x @ made["lora_a"][0, 0]) @ made["lora_b"][0, 0] * kind.alpha / kind.rank
    expected = sum((x @ a[0, k]) @ b[0, k] for k in (1, 2)) / 2 * skill.alpha / skill.rank
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_batches_are_padded_with_zeros():
    cut = in_batches({"x": np.arange(1, 6)}, batch_size=2, n_batches=4)
    assert cut["x"].tolist() == [[1, 2], [3, 4], [5, 0], [0, 0]]


@pytest.mark.parametrize("loss", [TokenLoss(), TokenLoss(normalize_by="examples")])
def test_the_loss_of_one_skill_equals_the_loss_of_its_task_in_a_private_run(many, new_tasks, loss):
    examples = new_tasks[0]
    adapters = dataclasses.replace(many.model.adapters, router=PrivateRouter(), n_tasks=3)
    adapted, backbone = split(many.parameters, is_adapter_parameter)
    skills, _ = split(adapted, lambda path: "skills" in path.split("/"))
    one = Transformer(many.model.config, dataclasses.replace(averaged_adapters(adapters, 1), n_tasks=1))
    got = combination_losses(
        one,
        loss,
        adapters.skill,
        skills,
        backbone,
        in_batches(examples, batch_size=2, n_batches=4),
        Combination.average(np.arange(3)[:, None]),
    )
    run = Transformer(many.model.config, adapters)
    apply = jax.jit(lambda *batch: run.apply({"params": many.parameters}, *batch))
    for task in range(3):
        batch = {**examples, "task_ids": np.full(5, task, np.int32)}
        total, divisor = loss.totals(apply, batch)["tokens"], loss.divisors(batch)["tokens"]
        np.testing.assert_allclose(got[task], total / divisor, rtol=1e-5)


def test_lorahub_starts_from_the_weighted_sum_of_the_skills(many):
    adapters, _ = split(many.parameters, is_adapter_parameter)
    weights = np.array([0.3, 0.0, -1.0])
    combination = Combination.weighted(np.arange(3), weights)
    start = flat(
        initial_parameters(VARIANTS["lorahub"], adapters, {}, many.model.adapters.skill, combination)
    )
    for path, leaf in start.items():
        expected = 0.3 * flat(adapters)[path][:, :1] - flat(adapters)[path][:, 2:3]
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-6)
