"""The initial values of each variant, the parameters that it trains, and the runs that it refuses."""

import dataclasses
import re

import numpy as np
import pytest
from flax import traverse_util

from poly_jax import cli, configuration
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.combined_skills import average_skills
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.settings import configured
from poly_jax.transfer.variants import VARIANTS, find, usual
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def test_mu_starts_as_one_adapter_that_is_the_mean_of_the_skills(many):
    adapters, _ = split(many.parameters, is_adapter_parameter)
    variant = VARIANTS["mhr-mu"]
    assert new_adapters(variant, many.model.adapters).inventory_size == 1
    start = flat(initial_parameters(variant, adapters, {}, many.model.adapters.skill))
    assert start
    assert not any("router" in path for path in start)
    for path, leaf in start.items():
        np.testing.assert_allclose(leaf, flat(adapters)[path].mean(axis=1, keepdims=True), rtol=1e-6)


def test_averaging_scanned_skills_keeps_the_layer_axis():
    leaves = {
        "lora_a": np.arange(24.0).reshape(2, 1, 3, 4, 1),
        "lora_b": np.arange(12.0).reshape(2, 1, 3, 1, 2),
    }
    means = flat(average_skills({"encoder": {"layers": {"mlp": {"wo": {"skills": leaves}}}}}, LoRA()))
    for name, leaf in leaves.items():
        mean = means[f"encoder/layers/mlp/wo/skills/{name}"]
        np.testing.assert_allclose(mean, leaf.mean(axis=2, keepdims=True))


@pytest.mark.parametrize("name", ["mhr", "mhr-z"])
def test_mhr_keeps_the_skills_and_starts_with_a_fresh_row(many, name):
    adapters, _ = split(many.parameters, is_adapter_parameter)
    fresh = {"encoder": {"attention": {"query": {"router": {"logits": np.full((1, 2, 3), 7.0)}}}}}
    start = flat(initial_parameters(VARIANTS[name], adapters, fresh, many.model.adapters.skill))
    assert {path for path in start if "router" in path} == {"encoder/attention/query/router/logits"}
    for path, leaf in flat(adapters).items():
        if "skills" in path:
            np.testing.assert_array_equal(start[path], leaf)


@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        ("mhr", "adapters"),
        ("poly-z", "router"),
        ("poly-mu", "skills"),
        ("shared", "skills"),
        ("soup", "skills"),
        ("private", "skills"),
        ("random", "adapters"),
        ("full", "all"),
    ],
)
def test_each_variant_trains_its_parameters(name, trainable):
    assert find(name).trainable == trainable


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mhr-y", r"did you mean 'mhr-z' or 'mhr'\?"),
        ("sgd", "use one of mhr, poly, mhr-z, poly-z, mhr-mu, poly-mu, shared"),
    ],
)
def test_an_unknown_variant_is_named_with_close_names_or_with_all(name, advice):
    with pytest.raises(UserError, match=f"variant '{name}' is not known; {advice}"):
        find(name)


@pytest.mark.parametrize(("n_splits", "shown"), [(2, "mhr"), (1, "poly")])
@pytest.mark.parametrize("suffix", ["", "-z", "-mu"])
def test_a_variant_can_be_found_by_both_names_and_shows_the_one_that_fits_the_run(
    many, n_splits, shown, suffix
):
    adapters = dataclasses.replace(many.model.adapters, n_splits=n_splits)
    by_either_name = {find(family + suffix, adapters) for family in ("mhr", "poly")}
    (variant,) = by_either_name
    assert variant.name == shown + suffix
    same = [dataclasses.replace(find(family + suffix), name="") for family in ("mhr", "poly")]
    assert same[0] == same[1]
    for family in ("mhr", "poly"):
        # Without a run, as in results files and AdaptedFrom, the given name is kept.
        assert find(family + suffix).name == family + suffix
        assert new_adapters(VARIANTS[family + suffix], adapters) == new_adapters(variant, adapters)


def test_shared_is_refused_for_an_inventory_and_mhr_for_one_adapter(many):
    with pytest.raises(UserError, match=r"has 3 skills; use 'mhr', 'mhr-z' or 'mhr-mu'"):
        new_adapters(VARIANTS["shared"], many.model.adapters)
    one = dataclasses.replace(many.model.adapters, router=SharedRouter())
    with pytest.raises(UserError, match="use 'shared'"):
        new_adapters(VARIANTS["mhr"], one)


def test_a_fresh_start_uses_nothing_of_the_run(many):
    adapters, _ = split(many.parameters, is_adapter_parameter)
    fresh = {"encoder": {"attention": {"query": {"router": {"logits": np.full((1, 2, 3), 7.0)}}}}}
    for name in ("random", "private"):
        assert flat(initial_parameters(VARIANTS[name], adapters, fresh, many.model.adapters.skill)) == flat(
            fresh
        )
    assert new_adapters(VARIANTS["random"], many.model.adapters).inventory_size == 3
    assert new_adapters(VARIANTS["private"], many.model.adapters).inventory_size == 1


def test_full_has_no_adapters_and_fits_every_run(many):
    assert new_adapters(VARIANTS["full"], many.model.adapters) is None
    assert new_adapters(VARIANTS["full"], None) is None
    with pytest.raises(UserError, match="has none; use 'full'"):
        new_adapters(VARIANTS["private"], None)


def test_a_soup_is_the_mean_of_the_chosen_tasks_adapters(many):
    private = dataclasses.replace(many.model.adapters, router=PrivateRouter(), n_tasks=3)
    adapters, _ = split(many.parameters, is_adapter_parameter)
    for name, chosen in (("soup", None), ("soup-selected", [2, 0])):
        combination = Combination.average(np.array(chosen)) if chosen else None
        start = flat(initial_parameters(VARIANTS[name], adapters, {}, private.skill, combination))
        for path, leaf in start.items():
            mean = flat(adapters)[path][:, chosen or slice(None)].mean(axis=1, keepdims=True)
            np.testing.assert_allclose(leaf, mean, rtol=1e-5)
        assert new_adapters(VARIANTS[name], private).inventory_size == 1


def test_given_rows_replace_fresh_rows(many):
    fresh = {"router": {"logits": np.zeros((1, 2, 3))}}
    rows = {"router": {"logits": np.ones((1, 2, 3))}}
    start = initial_parameters(VARIANTS["mhr-z"], {}, fresh, many.model.adapters.skill, None, rows)
    np.testing.assert_array_equal(start["router"]["logits"], np.ones((1, 2, 3)))


def test_a_run_that_a_variant_does_not_fit_is_refused_with_the_variants_that_do(many):
    ours = many.model.adapters
    private = dataclasses.replace(ours, router=PrivateRouter())
    average = dataclasses.replace(ours, router=AverageRouter())
    vectors = dataclasses.replace(private, skill=IA3())
    refused = [
        ("soup", ours, r"averages adapters that were trained apart.* use 'mhr-mu'"),
        ("mhr-mu", private, r"needs skills that tasks share.* use 'soup', 'soup-selected' or 'lorahub'"),
        ("shared", private, r"has 4 skills; use 'soup'"),
        ("random", average, r"AverageRouter has none; use 'private'"),
        ("mhr-z", average, r"AverageRouter has nothing to train; use 'mhr' or 'mhr-mu'"),
        ("lorahub", vectors, r"sums LoRA's factors"),
        ("lorahub", dataclasses.replace(ours, skill=LoRA(merge_after=True)), r"sums LoRA's factors"),
    ]
    for name, adapters, message in refused:
        with pytest.raises(UserError, match=message):
            new_adapters(VARIANTS[name], adapters)


@pytest.mark.parametrize("name", ["mhr", "mhr-z"])
def test_a_new_task_learns_a_row_over_the_skills_that_tasks_own(many, name):
    private = dataclasses.replace(many.model.adapters, router=PrivateRouter(), n_tasks=5, n_skills=2)
    made = new_adapters(VARIANTS[name], private, n_tasks=2)
    assert (made.router, made.inventory_size, made.n_tasks) == (LearnedRouter(), 5, 2)
    bound = configuration.load([], ["LearnedRouter.sampling = False"])
    assert new_adapters(configured(VARIANTS[name], bound), private).router == LearnedRouter(sampling=False)
    # Where the run has rows of its own, its own router says what they are.
    assert new_adapters(configured(VARIANTS[name], bound), many.model.adapters).router == LearnedRouter()


def test_the_usual_variant_depends_on_the_routers_of_the_run(many):
    ours = many.model.adapters
    assert usual(ours) == "mhr"
    assert usual(dataclasses.replace(ours, n_splits=1)) == "poly"
    assert usual(dataclasses.replace(ours, router=SharedRouter())) == "shared"
    assert usual(dataclasses.replace(ours, router=PrivateRouter())) == "soup"
    assert usual(None) == "full"


def test_the_help_of_adapt_names_every_variant(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "9999")
    with pytest.raises(SystemExit):
        cli.main(["adapt", "--help"])
    shown = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert set(VARIANTS) <= shown
