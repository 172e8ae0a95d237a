"""What the path of a parameter says: the place, the module and the layer that it belongs to."""

import pytest

from poly_jax.weights.parameter_names import by_module, layer_number, place_of

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
