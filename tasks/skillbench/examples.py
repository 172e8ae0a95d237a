"""Seeded examples of a benchmark task: prompts, targets, and their token arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int32

from poly_jax.errors import UserError
from poly_jax.tasks.skillbench import skills as skills_lib
from poly_jax.tasks.skillbench import strings
from poly_jax.tasks.skillbench.compositions import SLOTS, Task
from poly_jax.tasks.skillbench.descriptions import LONGEST_PROMPT, prompt_in_words
from poly_jax.tasks.skillbench.skills import Inventory

Example = tuple[str, str]
Form = Literal["named", "nameless", "told", "described", "reworded"]

PLACEHOLDER = "_"
_BYTE_OFFSET = 3
_EOS = 1
# The second number of a seed, after the data seed: no two uses of one data seed draw the same numbers.
TASK_STREAM, PRETRAINING_STREAM, PRETRAINING_VALIDATION_STREAM = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Examples per task and split.

    Attributes:
        train: number of examples of a training task for multi-task training.
        validation: number of held-back examples of a training task, which its tuning task splits.
        test: number of test examples of a training task.
        few_shot: number of examples of a held-out or tuning task to adapt to.
        heldout_test: number of test examples of a held-out task.
    """

    train: int = 64
    validation: int = 64
    test: int = 64
    few_shot: int = 16
    heldout_test: int = 128


DEFAULT_SIZES = Sizes()


def splits(task: Task, sizes: Sizes = DEFAULT_SIZES) -> dict[str, int]:
    """Return the number of examples in each split of a task.

    Raises:
        UserError: a size is below 1, or `few_shot` leaves a tuning task nothing to test on.
    """
    for field, size in dataclasses.asdict(sizes).items():
        if size < 1:
            raise UserError(f"skillbench size {field}={size}: give at least 1")
    if task.role == "train":
        return {"train": sizes.train, "validation": sizes.validation, "test": sizes.test}
    if task.role == "heldout":
        return {"train": sizes.few_shot, "test": sizes.heldout_test}
    if sizes.few_shot >= sizes.validation:
        raise UserError(
            f"skillbench few_shot={sizes.few_shot} uses up the {sizes.validation} held-back examples of a "
            "tuning task: give less than `validation`"
        )
    return {"train": sizes.few_shot, "test": sizes.validation - sizes.few_shot}


def check_seed(data_seed: int) -> None:
    """Raise a UserError if the seed is negative."""
    if data_seed < 0:
        raise UserError(f"skillbench data_seed={data_seed}: give 0 or more")


def _texts(task: Task, split: str, data_seed: int, sizes: Sizes) -> list[str]:
    """Return the input strings of one split, a consecutive part of the task's own list of distinct strings.

    The test split comes first and the train split last, so more training examples do not change the test.
    """
    counts = splits(task, sizes)
    if task.role == "tuning":
        order = ["held back", "train", "test"]
        counts = {"held back": sizes.test, **counts}
    else:
        order = [name for name in ("test", "validation", "train") if name in counts]
    start = sum(counts[name] for name in order[: order.index(split)])
    inventory = task.inventory
    # The set, not the name, seeds the strings: a tuning task shares its training task's list.
    seed = (data_seed, TASK_STREAM, sum(1 << skill for skill in task.skills))
    drawn = strings.draw(
        inventory.letters,
        inventory.shortest,
        inventory.longest,
        start + counts[split],
        seed,
        inventory.accepts,
    )
    return drawn[start:]


def prompt(task: Task, text: str, data_seed: int = 0, form: Form = "named") -> str:
    """Return what comes before an input string and a blank.

    `named` gives the task's meaningless name. `nameless` gives placeholders. `told` gives the digits of the
    true skills, as in the backbone's pretraining: its score is the best that the backbone can reach. These
    three have `SLOTS` bytes, which are the same for all strings. `described` and `reworded` say the skills in
    words, in an order that differs between strings.

    Raises:
        UserError: the form is unknown.
    """
    if form == "named":
        return task.name
    if form == "nameless":
        return PLACEHOLDER * SLOTS
    if form == "told":
        return "".join(map(str, task.skills)).ljust(SLOTS, PLACEHOLDER)
    if form == "described" or form == "reworded":
        return prompt_in_words(task, text, data_seed, form)
    raise UserError(f"skillbench form {form!r} is unknown: choose one of {', '.join(get_args(Form))}")


def examples(
    task: Task, split: str, data_seed: int = 0, form: Form = "named", sizes: Sizes = DEFAULT_SIZES
) -> list[Example]:
    """Return the (input, target) pairs of one split of a task.

    No input string is in two splits of the task.

    Raises:
        UserError: the task has no such split, the form is unknown, the seed is negative, or a size is
            impossible.
    """
    known = splits(task, sizes)
    if split not in known:
        raise UserError(
            f"skillbench task {task.name!r} has no split {split!r}: choose one of {', '.join(known)}"
        )
    check_seed(data_seed)
    return [
        (f"{prompt(task, text, data_seed, form)} {text}", task.inventory.apply(task.skills, text))
        for text in _texts(task, split, data_seed, sizes)
    ]


def input_length(inventory: Inventory = skills_lib.LETTERS, form: Form = "named") -> int:
    """Return the number of tokens of the longest input: prompt, a blank, the string, the end of sequence."""
    longest = LONGEST_PROMPT if form in ("described", "reworded") else SLOTS
    return longest + 1 + inventory.longest + 1


def target_length(inventory: Inventory = skills_lib.LETTERS) -> int:
    """Return the number of tokens of the longest target, with its end of sequence."""
    return inventory.longest_target + 1


def _tokens(texts: Sequence[str], width: int) -> Int32[np.ndarray, "example width"]:
    tokens = np.zeros((len(texts), width), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        encoded = np.frombuffer(text.encode(), np.uint8)
        if len(encoded) + 1 > width:
            raise ValueError(f"{text!r} needs {len(encoded) + 1} tokens, there are {width}")
        row[: len(encoded)] = encoded
        row[: len(encoded)] += _BYTE_OFFSET
        row[len(encoded)] = _EOS
    return tokens


def tokenise(
    pairs: Sequence[Example], inventory: Inventory = skills_lib.LETTERS, form: Form = "named"
) -> dict[str, Int32[np.ndarray, "example _"]]:
    """Encode examples as a model's batch of byte tokens (byte + 3; end of sequence 1; padding 0).

    Returns:
        `encoder_input_tokens` [example, input_length], and three arrays [example, target_length]:
        `decoder_input_tokens` (targets shifted right by one, starting with 0), `decoder_target_tokens`, and
        `decoder_loss_weights` (1 on targets and their end, 0 on padding). All are int32, as seqio's converter
        makes them.
    """
    sources, targets = zip(*pairs, strict=True)
    target_tokens = _tokens(targets, target_length(inventory))
    return {
        "encoder_input_tokens": _tokens(sources, input_length(inventory, form)),
        "decoder_input_tokens": np.pad(target_tokens[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": target_tokens,
        "decoder_loss_weights": (target_tokens > 0).astype(np.int32),
    }
