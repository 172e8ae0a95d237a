"""Each skill does what its one-line description says, and a set is applied in the inventory's order."""

import itertools

import pytest

from poly_jax.tasks.skillbench import skills
from poly_jax.tasks.skillbench.skills import LETTERS, Inventory


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("drop", "abcdefghij", "bcdfghj"),
        ("drop", "gah", "gh"),
        ("reverse", "gahb", "bhag"),
        ("rotate", "gahb", "ahbg"),
        ("double", "gahb", "gahbb"),
        ("shift", "ajbi", "bacj"),
        ("mirror", "ajbe", "jaif"),
        ("upper", "gahb", "GAHB"),
        ("length", "gahb", "4gahb"),
    ],
)
def test_a_skill_transforms_a_string_into_the_result_written_by_hand(name, text, expected):
    assert getattr(skills, name)(text) == expected
    assert LETTERS.apply([LETTERS.skill_names.index(name)], text) == expected


def test_skills_are_applied_in_the_order_of_the_inventory_however_they_are_given():
    # drop ghjb, reverse bjhg, rotate jhgb, double jhgbb, shift aihcc, mirror jbchh, upper, length
    assert LETTERS.apply(range(8), "gahejb") == "5JBCHH"
    # Drop before length: the length counts the remaining letters. Rotate before double: the former first
    # letter is doubled.
    assert LETTERS.apply((0, 7), "gahb") == LETTERS.apply((7, 0), "gahb") == "3ghb"
    assert LETTERS.apply((2, 3), "gahb") == LETTERS.apply((3, 2), "gahb") == "ahbgg"
    # Shift before mirror: a -> b -> i, and not a -> j -> a.
    assert LETTERS.apply((5, 4), "a") == "i"


def test_the_empty_set_copies_the_string():
    assert LETTERS.apply((), "gahb") == "gahb"


def test_every_skill_changes_every_accepted_string():
    accepted = [
        text for text in map("".join, itertools.permutations(LETTERS.letters, 4)) if LETTERS.accepts(text)
    ]
    assert len(accepted) == 3 * 35 * 24  # One of a, e, i; three of the seven other letters; in any order.
    for text in accepted:
        assert all(LETTERS.apply((skill,), text) != text for skill in range(8))


def test_no_two_compositions_are_the_same_function():
    probes = ["jcagbde", "hbfai", "gahb", "fdej"]
    sets = [chosen for size in range(4) for chosen in itertools.combinations(range(8), size)]
    outputs = {chosen: tuple(LETTERS.apply(chosen, text) for text in probes) for chosen in sets}
    assert len(set(outputs.values())) == len(sets) == 93


def test_three_skills_never_make_more_than_the_longest_target():
    text = "agbcdfh"  # An input of the greatest length.
    assert len(text) == LETTERS.longest
    lengths = [len(LETTERS.apply(chosen, text)) for chosen in itertools.combinations(range(8), 3)]
    assert max(lengths) == LETTERS.longest_target


def test_an_inventory_needs_one_digit_per_skill():
    with pytest.raises(ValueError, match="11 skills; it needs 1 to 10"):
        Inventory("many", (skills.upper,) * 11, "ab", 1, 2, 2, bool)
