"""Splitting a parameter tree into trained and frozen parameters."""

import pytest

from poly_jax.weights.parameter_names import is_adapter_parameter, is_router, selects
from poly_jax.weights.tree import merge, split

TREE = {
    "token_embedder": {"embedding": 0},
    "router": {"logits": 1},
    "encoder": {
        "router": {"logits": 2},
        "layers_0": {
            "attention": {
                "query": {"kernel": 3, "skills": {"lora_a": 4, "lora_b": 5}, "router": {"logits": 6}}
            }
        },
    },
}


def numbers(tree):
    return sorted(numbers_of(tree))


def numbers_of(tree):
    for child in tree.values():
        yield from numbers_of(child) if isinstance(child, dict) else [child]


@pytest.mark.parametrize(
    ("trainable", "trained"),
    [
        ("adapters", [1, 2, 4, 5, 6]),
        ("skills", [4, 5]),
        ("router", [1, 2, 6]),
        ("all", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_each_choice_trains_its_parameters_and_freezes_the_rest(trainable, trained):
    inside, outside = split(TREE, selects(trainable))
    assert numbers(inside) == trained
    assert numbers(outside) == sorted(set(range(7)) - set(trained))
    assert merge(inside, outside) == TREE


def test_the_later_tree_wins_in_a_merge():
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_parameters_are_classified_by_whole_components_of_their_path():
    assert is_router("encoder/layers_0/mlp/router/logits")
    assert is_adapter_parameter("router/logits")
    assert is_adapter_parameter("encoder/layers_0/mlp/wo/skills/lora_a")
    assert not is_router("encoder/router_norm/scale")
    assert not is_adapter_parameter("encoder/layers_0/mlp/wo/kernel")
