"""Task arithmetic, TIES, DARE and pruning, against the papers' steps written out number by number."""

import math

import jax
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.transfer.combined_skills import merge_skills
from poly_jax.transfer.merging import DareLinear, DareTies, MagnitudePrune, TaskArithmetic, Ties
from poly_jax.weights.tree import flatten, unflatten

SKILLS, RANK = 3, 2
PLACE = "encoder/layers_0/attention/query/skills"
WEIGHTS = (2.0, -0.5, 1.0)


@pytest.fixture
def skills():
    """The factors of three skills at one map, without zeros and without equal magnitudes."""
    rng = np.random.default_rng(0)
    return unflatten(
        {
            f"{PLACE}/lora_a": rng.normal(size=(1, SKILLS, 6, RANK)).astype(np.float32),
            f"{PLACE}/lora_b": rng.normal(size=(1, SKILLS, RANK, 5)).astype(np.float32),
        }
    )


def merged(skills, merging, seed=0):
    made = jax.jit(lambda tree: merge_skills(tree, merging, jax.random.key(seed)))(skills)
    return {name.rpartition("/")[2]: np.asarray(leaf) for name, leaf in flatten(made).items()}


def tensors(skills):
    """For A and for B, the factor of every skill as a flat list, and the weights of PEFT's sum."""
    leaves = flatten(skills)
    for name in ("lora_a", "lora_b"):
        array = leaves[f"{PLACE}/{name}"][0].astype(np.float64)
        signs = [-1 if w < 0 and name == "lora_a" else 1 for w in WEIGHTS]
        yield (
            name,
            array.reshape(SKILLS, -1),
            [s * math.sqrt(abs(w)) for s, w in zip(signs, WEIGHTS, strict=True)],
        )


def trimmed(flat, density):
    kept = np.zeros_like(flat)
    for row, own in zip(kept, flat, strict=True):
        for place in sorted(range(len(own)), key=lambda i: -abs(own[i]))[: int(density * len(own))]:
            row[place] = own[place]
    return kept


def elected(flat, weights, method):
    """The mean over the skills that agree with the elected sign, number by number."""
    out = []
    for column in flat.T:
        votes = sum(column) if method == "total" else sum(np.sign(column))
        sign = 1 if votes >= 0 else -1
        agreeing = [w * x for w, x in zip(weights, column, strict=True) if np.sign(x) == sign]
        out.append(sum(agreeing) / max(len(agreeing), 1))
    return np.array(out)


def test_task_arithmetic_is_the_weighted_sum_of_the_factors(skills):
    found = merged(skills, TaskArithmetic(weights=WEIGHTS))
    for name, flat, weights in tensors(skills):
        np.testing.assert_allclose(found[name].ravel(), np.array(weights) @ flat, rtol=1e-5, atol=1e-6)
        assert found[name].shape[:2] == (1, 1)


def test_the_usual_weights_of_task_arithmetic_add_up_to_1(skills):
    found = merged(skills, TaskArithmetic())
    for name, flat, _ in tensors(skills):
        expected = flat.sum(0) / math.sqrt(SKILLS)
        np.testing.assert_allclose(found[name].ravel(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("density", [0.29, 0.5, 1.0])
def test_pruning_keeps_the_largest_numbers(skills, density):
    found = merged(skills, MagnitudePrune(weights=WEIGHTS, density=density))
    for name, flat, weights in tensors(skills):
        expected = np.array(weights) @ trimmed(flat, density)
        np.testing.assert_allclose(found[name].ravel(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["total", "frequency"])
def test_ties_trims_elects_signs_and_averages(skills, method):
    found = merged(skills, Ties(weights=WEIGHTS, density=0.6, majority_sign=method))
    for name, flat, weights in tensors(skills):
        expected = elected(trimmed(flat, 0.6), weights, method)
        np.testing.assert_allclose(found[name].ravel(), expected, rtol=1e-5, atol=1e-6)


def drawn(name, seed, density, shape):
    """The numbers that are kept, by the same draws."""
    import zlib

    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{PLACE}/{name}".encode()))
    return np.asarray(jax.random.uniform(key, shape)) < density


@pytest.mark.parametrize("merging", [DareLinear(WEIGHTS, 0.6), DareTies(WEIGHTS, 0.6)])
def test_dare_drops_at_random_and_rescales(skills, merging):
    found = merged(skills, merging, seed=3)
    for name, flat, weights in tensors(skills):
        # `draws` has the layout of the factors with the skills in front.
        shape = (SKILLS, 1, 6, RANK) if name == "lora_a" else (SKILLS, 1, RANK, 5)
        kept = flat * drawn(name, 3, 0.6, shape).reshape(SKILLS, -1) / 0.6
        linear = isinstance(merging, DareLinear)
        expected = np.array(weights) @ kept if linear else elected(kept, weights, "total")
        np.testing.assert_allclose(found[name].ravel(), expected, rtol=1e-5, atol=1e-6)


def test_dare_depends_on_the_seed_and_keeps_the_expected_share(skills):
    one, same, other = (merged(skills, DareLinear(density=0.5), seed)["lora_a"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    many = unflatten({f"{PLACE}/lora_a": np.ones((1, 2, 200, 50), np.float32)})
    kept = merged(many, DareLinear(weights=1.0, density=0.3))["lora_a"]
    assert kept.mean() == pytest.approx(2.0, abs=0.1)
    assert set(np.unique(kept.round(4))) == {0.0, np.float32(3.3333), np.float32(6.6667)}


def test_scanned_layers_are_merged_as_separate_layers_are(skills):
    rng = np.random.default_rng(1)
    apart = {
        f"encoder/layers_{n}/mlp/wo/skills/lora_b": rng.normal(size=(2, SKILLS, RANK, 4)).astype(np.float32)
        for n in range(2)
    }
    stacked = {"encoder/layers/mlp/wo/skills/lora_b": np.stack(list(apart.values()))}
    for merging in (Ties(), DareTies(density=0.5)):
        made = [
            flatten(merge_skills(unflatten(each), merging, jax.random.key(0))) for each in (apart, stacked)
        ]
        whole = made[1]["encoder/layers/mlp/wo/skills/lora_b"]
        for layer, leaf in zip(whole, made[0].values(), strict=True):
            np.testing.assert_array_equal(layer, leaf)


def test_the_zeros_of_a_padded_rank_do_not_count_as_kept(skills):
    leaves = flatten(skills)
    wider = unflatten(
        {
            f"{PLACE}/lora_a": np.pad(leaves[f"{PLACE}/lora_a"], ((0, 0), (0, 0), (0, 0), (0, 1))),
            f"{PLACE}/lora_b": np.pad(leaves[f"{PLACE}/lora_b"], ((0, 0), (0, 0), (0, 1), (0, 0))),
        }
    )
    small, padded = merged(skills, Ties(density=0.5)), merged(wider, Ties(density=0.5))
    np.testing.assert_allclose(padded["lora_a"][..., :RANK], small["lora_a"], rtol=1e-6)
    np.testing.assert_allclose(padded["lora_b"][..., :RANK, :], small["lora_b"], rtol=1e-6)
    assert not padded["lora_a"][..., RANK:].any()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Ties(density=0.0), "Ties.density is 0.0; it must be above 0 and at most 1"),
        (lambda: DareTies(density=1.5), "DareTies.density is 1.5"),
        (lambda: Ties(majority_sign="sum"), "Ties.majority_sign is 'sum'; use one of total, frequency"),
        (lambda: Ties(weights=(1.0, 2.0)).skill_weights(3), r"has 2 weights for 3 skills"),
    ],
)
def test_impossible_settings_are_refused(wrong, told):
    with pytest.raises(UserError, match=told):
        wrong()
