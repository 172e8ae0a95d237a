"""The two published forms of a prompt, as token ids.

T5's vocabulary ignores newlines and repeated spaces, but a byte vocabulary does not, so they are kept. A text
is encoded in parts that end at spaces. SentencePiece pieces do not cross spaces, so the ids are as in the
whole text.
"""

import dataclasses
import string
from collections.abc import Mapping
from typing import Any

from poly_jax.data.encoded_text import cut
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.token_rows import beginning, joined, sizes, vocabulary_tokens
from poly_jax.errors import UserError

_END_OF_SEQUENCE = "</s>"


@dataclasses.dataclass(frozen=True)
class PromptForm:
    """A prompt: the head, the demonstrations that fit and the tail; `{name}` stands for an example's field.

    Attributes:
      head: the text before the demonstrations.
      demonstration: the text of one positive example, whose number `{number}` counts from 1.
      tail: the text of the instance.
      kept_end: the text that a prompt ends with even where it is cut.
    """

    head: str
    demonstration: str
    tail: str
    kept_end: str = ""


FORMS: Mapping[str, PromptForm] = {
    # The form in the camera-ready code of MHR.
    "NEW": PromptForm(
        head="Task definition: {definition}\n",
        demonstration=" Positive Example {number} -\nInput: {input}\n Output: {output} </s>\n\n",
        tail="Now complete the following example -\nInput: {input}\nOutput:",
        kept_end="\nOutput:",
    ),
    # The form in MHR's first release. Tk-Instruct has the same without the task's name.
    "OLD": PromptForm(
        head="{task}. Definition: {definition}\n\n",
        demonstration=" Positive Example {number} -\nInput: {input}\n Output: {output}\n",
        tail="Now complete the following example -\nInput: {input}\nOutput: ",
    ),
}


def form(name: str) -> PromptForm:
    """Return the prompt form of this name.

    Raises:
      UserError: there is no form of that name.
    """
    if name not in FORMS:
        raise UserError(f"prompt {name!r} is not known; give one of {', '.join(map(repr, FORMS))}")
    return FORMS[name]


def punctuated(text: str) -> str:
    """Add a full stop to a text unless it ends in ASCII punctuation."""
    return text if text and text[-1] in string.punctuation else text + "."


def encode_prompt(
    example: Mapping[str, tf.Tensor],
    prompt: PromptForm,
    vocabulary: seqio.Vocabulary,
    length: int | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Encode the prompt of an example, or of each of many.

    Demonstrations are added in order, up to the first with which the prompt and its end of sequence would
    have more than `length` tokens. A prompt that is longer without any demonstration is cut at its end, where
    `kept_end` replaces the last tokens.

    Args:
      example: scalar texts `task`, `definition` and `input`, and vectors of equal length
        `demonstration_inputs` and `demonstration_outputs`, or neither; all but `task` punctuated. Of many
        examples, each has a first axis of them.
      prompt: the form.
      vocabulary: vocabulary of the text; its `eos_id` ends the prompt.
      length: largest number of tokens, including the end of sequence; None for no limit.

    Returns:
      The ids, int32 [at most length], and the whole text. Of many examples, the ids are a tf.RaggedTensor.
    """
    fields = {name: example[name] for name in ("task", "definition", "input")}
    head, tail = _fill(prompt.head, fields), _fill(prompt.tail, fields)
    texts, ids = [head], [vocabulary_tokens(head, vocabulary)]
    tail_ids = vocabulary_tokens(tail, vocabulary)
    room = None if length is None else length - sizes(ids[0]) - sizes(tail_ids) - 1
    for number in range(_num_demonstrations(example)):
        shown = {
            "number": str(number + 1),
            "input": example["demonstration_inputs"][..., number],
            "output": example["demonstration_outputs"][..., number],
        }
        text = _fill(prompt.demonstration, shown)
        pieces = prompt.demonstration.split(_END_OF_SEQUENCE)
        encoded: list[Any] = [vocabulary_tokens(_fill(piece, shown), vocabulary) for piece in pieces]
        for place in range(len(pieces) - 1):
            encoded.insert(2 * place + 1, [vocabulary.eos_id])
        demonstration = joined(encoded)
        if room is not None:
            # After the first demonstration that does not fit, no other one is added.
            fits = sizes(demonstration) <= room
            room = tf.where(fits, room - sizes(demonstration), -1)
            text = tf.where(fits, text, "")
            demonstration = beginning(demonstration, tf.where(fits, sizes(demonstration), 0))
        texts.append(text)
        ids.append(demonstration)
    whole = joined([*ids, tail_ids])
    return _cut(whole, prompt, vocabulary, length), tf.strings.join([*texts, tail])


def _cut(ids: tf.Tensor, prompt: PromptForm, vocabulary: seqio.Vocabulary, length: int | None) -> tf.Tensor:
    if length is not None and prompt.kept_end:
        # The published code keeps one more token, so the end of sequence replaces the last of `kept_end`.
        kept_end = list(vocabulary.encode(prompt.kept_end))
        room = max(length - 1 - len(kept_end), 0)
        fits = sizes(ids) < length
        ended = joined([beginning(ids, tf.where(fits, length, room)), kept_end])
        ids = beginning(ended, tf.where(fits, sizes(ids), sizes(ended)))
    return cut(ids, vocabulary, length)


def _num_demonstrations(example: Mapping[str, tf.Tensor]) -> int:
    return example["demonstration_inputs"].shape[-1] if "demonstration_inputs" in example else 0


def _fill(template: str, fields: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Fill a template. Unlike in str.format, the texts are tensors, known only when the dataset runs."""
    pieces = [fields[name] if kind == "field" else name for kind, name in _parsed(template)]
    return tf.strings.join(pieces)


def _parsed(template: str) -> list[tuple[str, str]]:
    parsed = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parsed += [("literal", literal)] if literal else []
        parsed += [("field", name)] if name else []
    return parsed
