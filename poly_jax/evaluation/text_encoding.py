"""Encodes texts from outside the data sets as a task's own preprocessors encode its examples.

`seqio.Feature.add_eos` does not say whether inputs end with the end of sequence: only the preprocessors
`append_eos` and `append_eos_after_trim` read it, and a task may have neither.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from poly_jax.counted import counted
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.user_code import cause, watched
from poly_jax.errors import UserError

_TOKENIZERS = (seqio.preprocessors.tokenize, seqio.preprocessors.tokenize_and_append_eos)
# The number of examples that are read to see whether a feature ends with the end of sequence.
_LOOKED_AT = 64

Lengths = Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """Encodes texts as one feature of a task.

    Attributes:
      vocabulary: vocabulary of the feature.
      length: number of tokens of an encoded text; longer texts are cut.
      encode_whole: function that encodes texts of any length as the task's preprocessors do, with at most
        `length` tokens each; None where a text has only its vocabulary's tokens and the end of sequence.
      ends: whether a text ends with the end of sequence, even where it is cut; used without `encode_whole`.
    """

    vocabulary: seqio.Vocabulary
    length: int
    ends: bool = True
    encode_whole: Callable[[Sequence[str]], list[list[int]]] | None = None

    def __call__(self, texts: Sequence[str]) -> Int[np.ndarray, "texts length"]:
        """Encode texts, padded with 0; standard error says how many had to be cut.

        Raises:
          UserError: a text cannot be encoded.
        """
        tokens = [_tokens(self.vocabulary, text) for text in texts]
        end = [self.vocabulary.eos_id] if self.ends else []
        if self.encode_whole is None:
            encoded = [[*row[: self.length - len(end)], *end] for row in tokens]
        else:
            encoded = self.encode_whole(texts)
        # Only the text's own tokens count here, with or without an end of sequence.
        cut = sum(row[: len(own)] != own for row, own in zip(encoded, tokens, strict=True))
        if cut:
            print(
                f"{cut:,} of {counted(len(texts), 'text')} were cut to {counted(self.length, 'token')}; the"
                " rest was not read",
                file=sys.stderr,
            )
        rows = np.zeros((len(texts), self.length), np.int32)
        for place, row in enumerate(encoded):
            rows[place, : len(row)] = row
        return rows


def t5_encoder(vocabulary: seqio.Vocabulary, length: int) -> TextEncoder:
    """Make the encoder of T5's own tasks: a text ends with the end of sequence, even where it is cut."""
    return TextEncoder(vocabulary, length)


def task_encoder(task: seqio.Task, lengths: Lengths, feature: str = "inputs") -> TextEncoder:
    """Make the encoder that gives a text the tokens that the task's preprocessors give it in training.

    Where the task tokenizes with seqio's preprocessors, the text passes through these and all later ones.
    Where it tokenizes with a preprocessor of its own, its examples show whether they end with the end of
    sequence. Where the examples cannot be read, T5's convention is used, and standard error says so.

    Args:
      task: a registered task.
      lengths: number of tokens of `inputs` and `targets`.
      feature: name of the feature to which the texts belong.

    Raises:
      UserError: the feature does not consist of tokens of a text.
    """
    description = task.output_features[feature]
    if description.rank != 1 or description.vocabulary.eos_id is None:
        raise UserError(
            f"the feature {feature!r} of task {task.name!r} is not made of tokens: texts cannot be encoded"
        )
    steps = _encoding_steps(task)
    if steps:
        encode = functools.partial(_run, task, steps, lengths, feature)
        try:
            encode([""])
        except Exception:
            pass  # The steps need more of an example than its texts.
        else:
            return TextEncoder(description.vocabulary, lengths[feature], encode_whole=encode)
    return TextEncoder(description.vocabulary, lengths[feature], _examples_end(task, lengths, feature))


def encoder_of(
    name: str | None, vocabulary: seqio.Vocabulary, length: int, feature: str = "inputs"
) -> TextEncoder:
    """Make the encoder of a registered task; T5's encoder where no such task has this vocabulary."""
    if name in seqio.TaskRegistry.names():
        task = seqio.TaskRegistry.get(name)
        if task.output_features[feature].vocabulary == vocabulary:
            return task_encoder(task, {"inputs": length, "targets": length}, feature)
    return t5_encoder(vocabulary, length)


def say_if_endless(task: seqio.Task, lengths: Lengths) -> None:
    """Say on standard error that a task's targets have no end of sequence, so that its outputs never end."""
    encoder = task_encoder(task, lengths, "targets")
    ends = encoder.ends
    if encoder.encode_whole is not None:
        # The target is short enough to leave room for an end of sequence.
        ends = encoder.encode_whole([""])[0][-1:] == [encoder.vocabulary.eos_id]
    if not ends:
        print(
            f"the targets of task {task.name!r} have no end of sequence, so its outputs do not end "
            "before Decoding.max_length; add seqio.preprocessors.append_eos to the task and train again",
            file=sys.stderr,
        )


def _encoding_steps(task: seqio.Task) -> list[Callable[..., tf.data.Dataset]]:
    """Return the task's preprocessors from seqio's tokenizing one onwards; empty if none tokenizes."""
    preprocessors = list(watched(task).preprocessors)
    for place, step in enumerate(task.preprocessors):
        while isinstance(step, functools.partial):
            step = step.func
        if step in _TOKENIZERS:
            return [
                each for each in preprocessors[place:] if not isinstance(each, seqio.CacheDatasetPlaceholder)
            ]
    return []


def _run(
    task: seqio.Task,
    steps: Sequence[Callable[..., tf.data.Dataset]],
    lengths: Lengths,
    feature: str,
    texts: Sequence[str],
) -> list[list[int]]:
    """Run the preprocessors on texts; return one row of tokens for each, cut as seqio cuts."""
    blank = [""] * len(texts)
    columns: dict[str, Any] = {name: blank for name in task.output_features} | {feature: list(texts)}
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    with seqio.utils.map_seed_manager(0):
        for step in steps:
            dataset = seqio.utils.add_kwargs_to_transform(
                step, sequence_length=dict(lengths), output_features=task.output_features
            )(dataset)
    rows = [row[feature][: lengths[feature]].tolist() for row in dataset.as_numpy_iterator()]
    if len(rows) != len(texts):
        raise UserError(
            f"the preprocessors of task {task.name!r} make {counted(len(rows), 'example')} of"
            f" {counted(len(texts), 'text')}: "
            "texts cannot be encoded"
        )
    return rows


def _examples_end(task: seqio.Task, lengths: Lengths, feature: str) -> bool:
    """Whether the task's examples end with the end of sequence."""
    end = task.output_features[feature].vocabulary.eos_id
    try:
        split = next(iter(task.splits))
        dataset = watched(task).get_dataset(dict(lengths), split=split, shuffle=False, num_epochs=1)
        rows = [example[feature] for example in dataset.take(_LOOKED_AT).as_numpy_iterator()]
    except Exception as error:
        print(
            f"the examples of task {task.name!r} cannot be read ({cause(error)}): {feature} are encoded with "
            "an end of sequence, as T5's are",
            file=sys.stderr,
        )
        return True
    # A text that was cut may have lost its end of sequence.
    whole = [row for row in rows if len(row) < lengths[feature]] or rows
    return not whole or any(len(row) and int(row[-1]) == end for row in whole)


def _tokens(vocabulary: seqio.Vocabulary, text: str) -> list[int]:
    try:
        return list(vocabulary.encode(text))
    except UnicodeEncodeError:
        raise UserError(f"{text!a:.80} has half of a surrogate pair, which no tokenizer reads") from None
