"""Examples apply the skills of their task, never leak between splits, and are fixed by the seed."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.tasks.skillbench import strings
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.examples import (
    Sizes,
    examples,
    input_length,
    splits,
    target_length,
    tokenise,
)
from poly_jax.tasks.skillbench.skills import LETTERS

BENCHMARK = benchmark()
ALL_TASKS = BENCHMARK.train + BENCHMARK.heldout + BENCHMARK.tuning
TASK, HELDOUT, TUNING = BENCHMARK.train[0], BENCHMARK.heldout[0], BENCHMARK.tuning[0]


def texts(pairs):
    return [source.split(" ")[1] for source, _ in pairs]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("train", {"train": 64, "validation": 64, "test": 64}),
        ("heldout", {"train": 16, "test": 128}),
        ("tuning", {"train": 16, "test": 48}),
    ],
)
def test_every_task_has_the_splits_of_its_role(role, expected):
    for task in getattr(BENCHMARK, role):
        assert {split: len(examples(task, split)) for split in splits(task)} == expected


def test_no_string_occurs_twice_in_a_task():
    for task in ALL_TASKS:
        drawn = [text for split in splits(task) for text in texts(examples(task, split))]
        assert len(set(drawn)) == len(drawn)


def test_a_target_is_the_input_string_with_the_skills_of_the_task_applied():
    by_hand = {(1, 2, 4): lambda text: text[::-1][1:] + text[::-1][0]}  # reverse, rotate; then shift
    following = dict(zip("abcdefghij", "bcdefghija", strict=True))
    for source, target in examples(TASK, "train"):
        moved = by_hand[TASK.skills](source.split(" ")[1])
        assert target == "".join(following[letter] for letter in moved)


def test_an_input_holds_the_name_of_the_task_and_an_accepted_string():
    for task in ALL_TASKS:
        for source, _ in examples(task, "test"):
            name, text = source.split(" ")
            assert name == task.name
            assert 4 <= len(text) <= 7
            assert len(set(text)) == len(text)
            assert set(text) <= set("abcdefghij")
            assert set(text) & set("aei")
            assert len(set(text) - set("aei")) >= 3


def test_the_forms_differ_only_in_the_three_slots():
    named, nameless, told = (examples(TASK, "test", form=form) for form in ("named", "nameless", "told"))
    assert [(source[3:], target) for source, target in named] == [
        (source[3:], target) for source, target in nameless
    ]
    assert [(source[3:], target) for source, target in named] == [
        (source[3:], target) for source, target in told
    ]
    assert {source[:3] for source, _ in nameless} == {"___"}
    assert {source[:3] for source, _ in told} == {"124"}
    assert {source[:3] for source, _ in examples(BENCHMARK.heldout[2], "test", form="told")} == {"05_"}


def test_examples_are_the_same_every_time_and_on_every_machine():
    assert examples(TASK, "train") == examples(TASK, "train")
    assert examples(TASK, "test")[:2] == [("rlx ifaedbc", "cefbgjd"), ("rlx cadigj", "hjebda")]


def test_another_data_seed_draws_different_strings():
    assert set(texts(examples(HELDOUT, "train", 0))) != set(texts(examples(HELDOUT, "train", 1)))


def test_two_tasks_draw_different_strings():
    assert texts(examples(BENCHMARK.train[1], "test")) != texts(examples(TASK, "test"))


def test_more_training_examples_extend_the_list_and_do_not_change_the_test_split():
    larger = Sizes(train=100, few_shot=32)
    for task in (TASK, HELDOUT):
        few = len(examples(task, "train"))
        assert examples(task, "train", sizes=larger)[:few] == examples(task, "train")
        assert len(examples(task, "train", sizes=larger)) > few
        assert examples(task, "test", sizes=larger) == examples(task, "test")


def test_tuning_tasks_use_the_held_back_examples_of_their_training_task():
    (trained,) = [task for task in BENCHMARK.train if task.skills == TUNING.skills]
    for seed in (0, 3):
        held_back = [(source[3:], target) for source, target in examples(trained, "validation", seed)]
        both = examples(TUNING, "train", seed) + examples(TUNING, "test", seed)
        assert [(source[3:], target) for source, target in both] == held_back


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: examples(HELDOUT, "validation"), "no split 'validation': choose one of train, test"),
        (lambda: examples(TASK, "train", -1), "data_seed=-1: give 0 or more"),
        (lambda: examples(TASK, "train", form="blank"), "form 'blank' is unknown"),
        (lambda: examples(TASK, "train", sizes=Sizes(test=0)), "test=0: give at least 1"),
        (lambda: examples(TUNING, "test", sizes=Sizes(few_shot=64)), "few_shot=64 uses up the 64"),
    ],
)
def test_wrong_requests_are_refused_in_one_clear_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_tokens_are_bytes_plus_three_with_an_end_and_padding():
    batch = tokenise([("kzt ab", "BA"), ("___ abcdefg", "8ABCDEFGG")])
    assert {name: array.dtype for name, array in batch.items()} == dict.fromkeys(batch, np.int32)
    assert batch["encoder_input_tokens"].tolist() == [
        [110, 125, 119, 35, 100, 101, 1, 0, 0, 0, 0, 0],
        [98, 98, 98, 35, 100, 101, 102, 103, 104, 105, 106, 1],
    ]
    assert batch["decoder_target_tokens"].tolist() == [
        [69, 68, 1, 0, 0, 0, 0, 0, 0, 0],
        [59, 68, 69, 70, 71, 72, 73, 74, 74, 1],
    ]
    assert batch["decoder_input_tokens"][:, 0].tolist() == [0, 0]
    assert (batch["decoder_input_tokens"][:, 1:] == batch["decoder_target_tokens"][:, :-1]).all()
    assert batch["decoder_loss_weights"].sum(1).tolist() == [3, 10]


def test_all_examples_fit_the_stated_lengths_and_some_fill_them():
    pairs = [pair for task in ALL_TASKS for split in splits(task) for pair in examples(task, split)]
    assert max(len(source.encode()) + 1 for source, _ in pairs) == input_length() == 12
    assert max(len(target.encode()) + 1 for _, target in pairs) == target_length() == 10
    assert min(len(target) for _, target in pairs) >= 1


def test_a_text_that_does_not_fit_is_refused_instead_of_cut():
    with pytest.raises(ValueError, match="needs 13 tokens, there are 12"):
        tokenise([("kzt abcdefgh", "a")])


def test_strings_repeat_no_letter_and_asking_for_too_many_is_an_error():
    drawn = strings.draw("abc", 1, 2, 9, (0,))
    assert sorted(drawn) == ["a", "ab", "ac", "b", "ba", "bc", "c", "ca", "cb"]
    with pytest.raises(ValueError, match="only 9 of 10"):
        strings.draw("abc", 1, 2, 10, (0,))


def test_string_lengths_and_letters_are_spread_evenly():
    drawn = strings.draw(LETTERS.letters, 4, 7, 4000, (5,))
    lengths = np.bincount([len(text) for text in drawn], minlength=8)[4:]
    firsts = np.unique([text[0] for text in drawn], return_counts=True)[1]
    # The tolerance is five standard deviations of a binomial count (4000, 1/4) or (4000, 1/10).
    assert np.abs(lengths - 1000).max() < 5 * np.sqrt(4000 / 4 * 3 / 4)
    assert np.abs(firsts - 400).max() < 5 * np.sqrt(4000 / 10 * 9 / 10)
