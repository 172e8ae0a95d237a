"""Prompts in words say the skills of their task in any order, and leave the older prompts as they were."""

import collections
import hashlib
import itertools

import numpy as np
import pytest

from poly_jax.data.quiet import seqio
from poly_jax.tasks.skillbench import tasks
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.descriptions import LONGEST_PROMPT, WORDS, description
from poly_jax.tasks.skillbench.examples import examples, input_length, splits, tokenise
from poly_jax.tasks.skillbench.pretraining_in_words import pretraining_examples_in_words
from poly_jax.tasks.skillbench.skills import LETTERS

BENCHMARK = benchmark()
ALL_TASKS = BENCHMARK.train + BENCHMARK.heldout + BENCHMARK.tuning
# drop, then upper.
TASK = BENCHMARK.train[13]


def prompts(task, split="test", data_seed=0, form="described"):
    return [source.split(" ")[0] for source, _ in examples(task, split, data_seed, form)]


def test_a_prompt_has_one_of_two_words_for_each_skill_in_either_order():
    by_hand = {
        f"{a}+{b}"
        for one, two in itertools.product(("drop", "omit"), ("upper", "raise"))
        for a, b in ((one, two), (two, one))
    }
    assert len(by_hand) == 8
    assert set(prompts(TASK)) == by_hand
    assert set(prompts(TASK, form="reworded")) == {
        "+".join(f"{word}s" for word in prompt.split("+")) for prompt in by_hand
    }


def test_orders_and_words_are_equally_likely():
    counts = collections.Counter(
        prompt for seed in range(20) for prompt in prompts(BENCHMARK.train[0], "train", seed)
    )
    # Three skills have 6 orders and 8 choices of words. The tolerance is five standard deviations.
    assert len(counts) == 48
    expected = 20 * 64 / 48
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_the_same_words_are_trained_and_held_out_in_other_combinations_only():
    def used(group, form="described"):
        texts = [
            prompt for task in group for split in splits(task) for prompt in prompts(task, split, form=form)
        ]
        return {word for text in texts for word in text.split("+")}, {
            frozenset(text.split("+")) for text in texts
        }

    trained, trained_sets = used(BENCHMARK.train)
    assert trained == {word for pair in WORDS.values() for word in pair}
    heldout, heldout_sets = used(BENCHMARK.heldout)
    assert heldout == trained
    assert not heldout_sets & trained_sets
    assert not used(BENCHMARK.heldout, "reworded")[0] & trained


def test_no_word_stands_for_two_skills():
    words = [f"{word}{ending}" for pair in WORDS.values() for word in pair for ending in ("", "s")]
    assert list(WORDS) == list(LETTERS.skill_names)
    assert len(set(words)) == len(words) == 32


def test_strings_and_targets_are_those_of_the_opaque_form():
    for task in (TASK, BENCHMARK.heldout[0], BENCHMARK.tuning[0]):
        for split in splits(task):
            named = [(source.split(" ")[1], target) for source, target in examples(task, split, 3)]
            for form in ("described", "reworded"):
                described = examples(task, split, 3, form)
                assert [(source.split(" ")[1], target) for source, target in described] == named


def test_no_string_is_in_two_splits_of_a_described_task():
    for task in ALL_TASKS:
        texts = [
            source.split(" ")[1]
            for split in splits(task)
            for source, _ in examples(task, split, 0, "described")
        ]
        assert len(set(texts)) == len(texts)


def test_examples_are_the_same_every_time_and_on_every_machine():
    assert examples(BENCHMARK.train[0], "train", form="described")[:2] == [
        ("flip+spin+step jgiefb", "gfjhac"),
        ("move+roll+flip fecib", "jdfgc"),
    ]


@pytest.mark.parametrize(
    ("form", "digest"),
    [
        ("named", "1f437b1ace435667875893a2f19227d9fab543d0c77322b2a837b7884c5ce585"),
        ("nameless", "2bdff34e4e932274dd83cf3e618d9375ee111d79cf999924599e7d12aaf607d9"),
        ("told", "c474322585efca7d4d73b124830b3e28ca79b4d2209c3bd0c9b779c8805d9fe0"),
    ],
)
def test_batches_of_the_older_forms_are_those_from_before_there_were_descriptions(form, digest):
    found = hashlib.sha256()
    for task in ALL_TASKS:
        for name, array in sorted(tokenise(examples(task, "test", 3, form)).items()):
            found.update(name.encode())
            found.update(array.tobytes())
    assert found.hexdigest() == digest


def test_every_input_fits_the_length_that_both_wordings_share():
    assert len("shifts+uppers+raises") == LONGEST_PROMPT
    assert input_length(form="described") == input_length(form="reworded") == 20 + 1 + 7 + 1
    for form in ("described", "reworded"):
        for task in ALL_TASKS:
            batch = tokenise(examples(task, "train", form=form), form=form)
            assert batch["encoder_input_tokens"].shape[1] == 29


def test_a_description_has_every_word_of_every_skill():
    assert description(TASK) == "drop omit upper raise"
    assert description(TASK, "reworded") == "drops omits uppers raises"


@pytest.mark.parametrize("form", ["described", "reworded"])
def test_seqio_serves_the_described_tasks(form):
    name = tasks.registered_name(TASK.name, form)
    assert name == f"skillbench_{form}_{TASK.name}"
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        {"inputs": 29, "targets": 10}, "test", shuffle=False
    )
    served = [row["inputs_pretokenized"].decode() for row in dataset.as_numpy_iterator()]
    assert served == [source for source, _ in examples(TASK, "test", form=form)]
    mixture = seqio.get_mixture_or_task(f"skillbench_{form}_heldout")
    assert len(mixture.tasks) == 8


@pytest.fixture(scope="module")
def stream():
    return pretraining_examples_in_words(BENCHMARK, 8000, (0, 1, 0))


def digits(prompt):
    return tuple(sorted(int(mark) for mark in prompt if mark.isdigit()))


def test_pretraining_in_words_shows_no_benchmark_composition_and_none_of_its_words(stream):
    kept = {task.skills for task in BENCHMARK.train + BENCHMARK.heldout}
    seen = {digits(source.split(" ")[0]) for source, _ in stream}
    assert not seen & kept
    assert seen == {(), *((skill,) for skill in range(8)), *BENCHMARK.left_over}
    meaningful = {f"{word}{ending}" for pair in WORDS.values() for word in pair for ending in ("", "s")}
    assert not meaningful & {word for source, _ in stream for word in source.split(" ")[0].split("+")}


def test_pretraining_in_words_puts_each_skills_digit_into_a_word_of_its_own(stream):
    for source, target in stream:
        prompt, text = source.split(" ")
        words = prompt.split("+")
        assert 1 <= len(words) <= 3
        assert all(3 <= len(word) <= 6 and len(digits(word)) <= 1 for word in words)
        assert target == LETTERS.apply(digits(prompt), text)
    sizes = collections.Counter(len(word) for source, _ in stream for word in source.split(" ")[0].split("+"))
    shares = np.array([sizes[size] for size in (3, 4, 5, 6)]) / sizes.total()
    np.testing.assert_allclose(shares, 1 / 4, atol=5 * (3 / 16 / sizes.total()) ** 0.5)
