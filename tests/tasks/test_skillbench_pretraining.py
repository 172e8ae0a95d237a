"""The pretraining stream names skills by digits, and has meaningless letters and no benchmark composition."""

import collections

import pytest

from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.examples import tokenise
from poly_jax.tasks.skillbench.pretraining import pretraining_examples, pretraining_sets
from poly_jax.tasks.skillbench.skills import LETTERS

BENCHMARK = benchmark()


@pytest.fixture(scope="module")
def stream():
    return pretraining_examples(BENCHMARK, 8000, (0, 1, 0))


def shown(source):
    return tuple(sorted(int(mark) for mark in source[:3] if mark.isdigit()))


def test_no_benchmark_composition_is_ever_shown(stream):
    tasks = {task.skills for task in BENCHMARK.train + BENCHMARK.heldout}
    seen = {shown(source) for source, _ in stream}
    assert not seen & tasks
    assert seen == {(), *((skill,) for skill in range(8)), *BENCHMARK.left_over}


def test_a_target_follows_the_digits_in_the_order_of_the_inventory(stream):
    for source, target in stream:
        assert target == LETTERS.apply(shown(source), source[4:])


def test_copies_are_drawn_eight_times_and_single_skills_three_times_as_often_as_a_composition(stream):
    weights = collections.Counter(pretraining_sets(BENCHMARK))
    assert weights[()] == 8
    assert {weights[(skill,)] for skill in range(8)} == {3}
    assert {weights[chosen] for chosen in BENCHMARK.left_over} == {1}
    sizes = collections.Counter(len(shown(source)) for source, _ in stream)
    expected = {0: 8 / 76, 1: 24 / 76}
    for size, share in expected.items():
        assert abs(sizes[size] - share * 8000) < 5 * (8000 * share * (1 - share)) ** 0.5


def test_digits_occur_in_any_order_and_any_slot(stream):
    chosen = BENCHMARK.left_over[0]
    assert len(chosen) == 2
    placements = {
        "".join(mark if mark.isdigit() else "." for mark in source[:3])
        for source, _ in stream
        if shown(source) == chosen
    }
    one, two = map(str, chosen)
    forward = {f"{one}{two}.", f"{one}.{two}", f".{one}{two}"}
    assert placements == forward | {f"{two}{one}.", f"{two}.{one}", f".{two}{one}"}


def test_slots_without_a_digit_hold_placeholders_or_letters_of_names(stream):
    copies = [source[:3] for source, _ in stream if not shown(source)]
    blank = sum(head == "___" for head in copies)
    assert abs(blank - len(copies) / 2) < 5 * (len(copies) / 4) ** 0.5
    for source, _ in stream:
        rest = {mark for mark in source[:3] if not mark.isdigit()}
        assert rest <= {"_"} or rest <= set("klmnpqrstvwxz")


def test_prompts_have_the_length_of_a_named_prompt_and_fit_the_same_arrays(stream):
    assert {len(source.split(" ")[0].encode()) for source, _ in stream} == {3}
    assert all(source.count(" ") == 1 for source, _ in stream)
    assert tokenise(stream)["encoder_input_tokens"].shape == (8000, 12)


def test_letters_of_names_occur_only_in_strings_to_copy(stream):
    copied = "".join(source[4:] for source, _ in stream if not shown(source))
    changed = "".join(source[4:] for source, _ in stream if shown(source))
    assert set(copied) == set("abcdefghij" + "klmnpqrstvwxz")
    assert set(changed) == set("abcdefghij")


def test_the_stream_is_fixed_by_its_seed(stream):
    assert pretraining_examples(BENCHMARK, 8000, (0, 1, 0)) == stream
    assert pretraining_examples(BENCHMARK, 8, (0, 1, 1)) != stream[:8]
    assert stream[:2] == [("130 afjgc", "cgjff"), ("237 badih", "6adihbb")]
