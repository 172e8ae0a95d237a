"""A noun after a number is singular after 1 and plural after all others."""

import pytest

from poly_jax.counted import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1234, "1,234 rows")]
)
def test_a_noun_agrees_with_its_number(number, text):
    assert counted(number, "row") == text
