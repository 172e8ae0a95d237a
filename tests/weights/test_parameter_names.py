"""What the path of a parameter says: its place, module, layer and axes."""

import pytest

from poly_jax.weights.parameter_names import axis, by_module, layer_number, place_of

QUERY = "encoder/layers_3/attention/query"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (f"{QUERY}/skills/lora_a", QUERY),
        (f"{QUERY}/skills/private/lora_a", QUERY),
        (f"{QUERY}/input_router/kernel", QUERY),
        (f"{QUERY}/router/logits", QUERY),
        ("encoder/layers_3/mlp/router/logits", "encoder/layers_3/mlp"),
        ("router/logits", "model"),
    ],
)
def test_a_skill_lies_at_the_map_that_it_adapts_and_a_router_where_the_granularity_puts_it(path, place):
    assert place_of(path) == place


def test_parameters_are_grouped_by_the_module_that_owns_them():
    leaves = {f"{QUERY}/skills/lora_a": 1, f"{QUERY}/skills/lora_b": 2, f"{QUERY}/skills/private/lora_a": 3}
    assert by_module(leaves) == {
        f"{QUERY}/skills": {"lora_a": 1, "lora_b": 2},
        f"{QUERY}/skills/private": {"lora_a": 3},
    }


@pytest.mark.parametrize(
    ("path", "number"),
    [("layers_12", 12), (f"{QUERY}/kernel", 3), ("layers", None), ("my_layers_3", None), ("layers_3b", None)],
)
def test_a_path_has_the_number_of_its_layer(path, number):
    assert layer_number(path) == number


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        (f"{QUERY}/skills/lora_a", {"tasks": None, "splits": 0, "skills": 1}),
        (f"{QUERY}/skills/private/lora_a", {"tasks": 1, "splits": 0, "skills": None}),
        (f"{QUERY}/router/logits", {"tasks": 0, "splits": 1, "skills": 2}),
        (f"{QUERY}/input_router/kernel", {"tasks": None, "splits": None, "skills": 0}),
        ("encoder/layers/attention/query/skills/lora_a", {"tasks": None, "splits": 1, "skills": 2}),
        ("encoder/layers/router/logits", {"tasks": 1, "splits": 2, "skills": 3}),
        (f"{QUERY}/kernel", {"tasks": None, "splits": None, "skills": None}),
    ],
)
def test_the_axes_of_an_array_in_a_file_follow_from_its_path(path, axes):
    assert {name: axis(path, name) for name in axes} == axes


def test_logical_axis_names_tell_more_than_the_path():
    # The gate of docs/new_router.md.
    assert axis("router/gate", "tasks", ("tasks",)) == 0
    assert axis("router/gate", "skills", ("tasks",)) is None
    assert axis("encoder/layers/router/gate", "tasks", ("layers", "tasks")) == 1
