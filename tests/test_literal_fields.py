"""A field whose annotation is a Literal is checked; the message names class, field and values."""

import dataclasses
from typing import Literal

import pytest

from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields


@dataclasses.dataclass(frozen=True)
class Base:
    taste: Literal["sweet", "sour"] = "sweet"


@dataclasses.dataclass(frozen=True)
class Drink(Base):
    size: int = 1
    served: Literal["hot", "cold"] = "hot"


def test_possible_values_pass():
    check_literal_fields(Drink("sour", 7, "cold"))


@pytest.mark.parametrize(
    ("drink", "told"),
    [
        (Drink(served="warm"), "Drink.served is 'warm'; use one of hot, cold"),
        (Drink(taste="salty"), "Drink.taste is 'salty'; use one of sweet, sour"),
    ],
)
def test_another_value_is_reported_also_in_a_field_of_the_base(drink, told):
    with pytest.raises(UserError, match=f"^{told}$"):
        check_literal_fields(drink)


def test_a_class_may_begin_the_message_in_its_own_way():
    with pytest.raises(UserError, match=r"^the tea is served 'warm'; use one of hot, cold$"):
        check_literal_fields(Drink(served="warm"), lambda field: f"the tea is {field}")
