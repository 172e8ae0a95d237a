"""Texts that describe tasks, and which known tasks another text is like."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from poly_jax.data.quiet import seqio
from poly_jax.data.user_code import blaming, watched
from poly_jax.errors import UserError
from poly_jax.files.task_file import json_pairs
from poly_jax.files.text_file import read_text

# The number of examples whose inputs describe a task.
_READ = 32
# Where each of the benchmark's described training tasks is left out in turn, 0.3 predicts its weights best
# (docs/zero_shot.md).
_RIDGE = 0.3
_ADVICE = "give a JSON object with a text for every task that it describes"


class Nearest(NamedTuple):
    """The known task whose text is most similar to another text, and the cosine of their TF-IDF vectors."""

    task: str
    cosine: float


def nearest(known: Mapping[str, str], text: str) -> Nearest:
    """Find the known task whose text is most similar to a text, by the cosine of TF-IDF vectors of words.

    Args:
      known: the text of every known task.
      text: the text of another task.

    Raises:
      UserError: no known task has a word in common with the text.
    """
    # scikit-learn takes a second to import, and only this function needs it.
    from sklearn.feature_extraction.text import TfidfVectorizer

    # A word may have a single letter.
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    try:
        vectors = vectorizer.fit_transform([*known.values(), text])
    except ValueError:  # There is no word in any of the texts.
        cosines = [0.0] * len(known)
    else:
        cosines = (vectors[:-1] @ vectors[-1].T).toarray()[:, 0].tolist()
    best = max(range(len(cosines)), key=cosines.__getitem__)
    if not cosines[best] > 0:
        raise UserError(
            f"no known task has a word in common with {text[:60]!r}, so none is the nearest; describe"
            " the known tasks and the unknown one with --descriptions=FILE, or use --unknown=average"
        )
    return Nearest(list(known)[best], cosines[best])


def regression_shares(known: Mapping[str, str], text: str) -> Float[np.ndarray, "known"]:
    """Find how much of each known task's row makes up the row that ridge regression predicts for a text.

    With the known tasks' TF-IDF vectors X, centred, and the vector x of the text minus their mean, the shares
    are `1/T + x X' (X X' + 0.3 I)^-1`. They sum to 1 and may be negative. The vectors are of groups of two to
    four letters within words, so that forms of a word are alike.

    Args:
      known: the text of each of T known tasks.
      text: the text of another task.

    Raises:
      UserError: no known task has a group of letters in common with the text.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    vectors = vectorizer.fit_transform(known.values())
    asked = vectorizer.transform([text])
    if not (vectors @ asked.T).nnz:
        raise UserError(
            f"no known task has letters in common with {text[:60]!r}, so there is nothing to predict a row"
            " from; describe the known tasks and the unknown one with --descriptions=FILE, or use"
            " --unknown=average"
        )
    # The regression is linear in the rows: a row of the identity stands for each known task's.
    return Ridge(alpha=_RIDGE).fit(vectors, np.eye(len(known))).predict(asked)[0]


def read_descriptions(path: str) -> dict[str, str]:
    """Read the texts that describe tasks, from a JSON object with a text for each task's name.

    Raises:
      UserError: the file cannot be read, or holds something else.
    """
    try:
        pairs = json_pairs(read_text(path, advice=_ADVICE))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as descriptions of tasks ({error}); {_ADVICE}") from None
    for name, text in pairs:
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{path}: the description of {name!r} is {text!r}, which is not a text; {_ADVICE}"
            )
    return dict(pairs)


def known_texts(
    names: Sequence[str], descriptions: Mapping[str, str], lengths: Mapping[str, int]
) -> dict[str, str]:
    """The text of every known task: its description, or else the inputs of its first training examples.

    Args:
      names: names of the known tasks.
      descriptions: descriptions of some of them.
      lengths: number of tokens of `inputs` and `targets`.

    Raises:
      UserError: a task has no description and is not registered, or its examples cannot be read.
    """
    registered = seqio.TaskRegistry.names()
    if missing := [name for name in names if name not in descriptions and name not in registered]:
        raise UserError(
            f"{len(missing)} of the {len(names)} known tasks have no examples, such as {missing[0]!r}, "
            "because they are not registered with seqio; describe them with --descriptions=FILE"
        )
    return {name: descriptions.get(name) or example_texts(name, "train", lengths) for name in names}


def example_texts(name: str, split: str, lengths: Mapping[str, int]) -> str:
    """The inputs of the first examples of a registered task's split, or of its first split without this one.

    Raises:
      UserError: the examples cannot be read.
    """
    task = watched(seqio.TaskRegistry.get(name))
    there = split if split in task.splits else next(iter(task.splits))
    with blaming(f"reading split {there!r} of task {name!r}"):
        examples = task.get_dataset(dict(lengths), split=there, shuffle=False, num_epochs=1).take(_READ)
        rows = [example["inputs"].tolist() for example in examples.as_numpy_iterator()]
    return "\n".join(map(task.output_features["inputs"].vocabulary.decode, rows))
