"""Registers the embedded benchmark with seqio; importing this module registers data seed 0."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from poly_jax.data import vocabularies
from poly_jax.data.quiet import seqio, tf
from poly_jax.tasks.exact_match import exact_match
from poly_jax.tasks.skillbench.compositions import Task, benchmark
from poly_jax.tasks.skillbench.examples import (
    PRETRAINING_STREAM,
    PRETRAINING_VALIDATION_STREAM,
    Form,
    check_seed,
    examples,
    splits,
    tokenise,
)
from poly_jax.tasks.skillbench.pretraining import pretraining_examples
from poly_jax.tasks.skillbench.pretraining_in_words import pretraining_examples_in_words

PRETRAINING_EXAMPLES = {"train": 2**20, "validation": 2**11}
PRETRAINING_TASK = "skillbench_pretrain"
PRETRAINING_IN_WORDS_TASK = "skillbench_pretrain_words"
_CHUNK = 2048
_SEQIO_FORMS: tuple[Form, ...] = ("named", "nameless", "described", "reworded")


def registered_name(name: str, form: Form = "named", data_seed: int = 0) -> str:
    """Return seqio's name of a task (given by its three letters) or mixture (`train`, `heldout`, `tuning`).

    For example `skillbench_train`, `skillbench_nameless_train`, `skillbench_train_seed3`.
    """
    prefix = "skillbench" if form == "named" else f"skillbench_{form}"
    return f"{prefix}_{name}" + (f"_seed{data_seed}" if data_seed else "")


def _task_dataset(
    split: str, shuffle_files: bool, seed: int | None = None, *, task: Task, form: Form, data_seed: int
) -> tf.data.Dataset:
    del shuffle_files, seed  # seqio itself shuffles the examples.
    inputs, targets = zip(*examples(task, split, data_seed, form), strict=True)
    return tf.data.Dataset.from_tensor_slices({"inputs": list(inputs), "targets": list(targets)})


def _pretraining_dataset(
    split: str, shuffle_files: bool, seed: int | None = None, *, in_words: bool = False
) -> tf.data.Dataset:
    """Make a dataset of token ids, tokenised in chunks, which saves seqio two passes per example."""
    del shuffle_files, seed  # The examples are already in random order.
    stream = PRETRAINING_STREAM if split == "train" else PRETRAINING_VALIDATION_STREAM

    draw = pretraining_examples_in_words if in_words else pretraining_examples
    form: Form = "described" if in_words else "named"

    def chunks() -> Iterator[tuple[np.ndarray, ...]]:
        for chunk in range(PRETRAINING_EXAMPLES[split] // _CHUNK):
            tokens = tokenise(draw(benchmark(), _CHUNK, (0, stream, chunk)), form=form)
            inputs, targets = tokens["encoder_input_tokens"], tokens["decoder_target_tokens"]
            yield inputs, np.count_nonzero(inputs, 1), targets, np.count_nonzero(targets, 1)

    padded, lengths = tf.TensorSpec([_CHUNK, None], tf.int32), tf.TensorSpec([_CHUNK], tf.int64)
    rows = tf.data.Dataset.from_generator(chunks, output_signature=(padded, lengths) * 2).unbatch()
    return rows.map(
        lambda inputs, input_length, targets, target_length: {
            "inputs": inputs[:input_length],
            "targets": targets[:target_length],
        },
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _add(name: str, source: seqio.DataSource, preprocessors: Sequence[Callable[..., Any]]) -> None:
    feature = seqio.Feature(vocabularies.byte(), add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=source,
        output_features={"inputs": feature, "targets": feature},
        preprocessors=preprocessors,
        metric_fns=[exact_match],
    )


def _register_form(form: Form, data_seed: int) -> None:
    roles = {"train": benchmark().train, "heldout": benchmark().heldout, "tuning": benchmark().tuning}
    for role, tasks in roles.items():
        names = [registered_name(task.name, form, data_seed) for task in tasks]
        for name, task in zip(names, tasks, strict=True):
            dataset = functools.partial(_task_dataset, task=task, form=form, data_seed=data_seed)
            sizes = splits(task)
            source = seqio.FunctionDataSource(dataset, tuple(sizes), num_input_examples=sizes)
            tokenised = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
            _add(name, source, [seqio.CacheDatasetPlaceholder(), *tokenised])
        seqio.MixtureRegistry.add(registered_name(role, form, data_seed), names, default_rate=1.0)


def register(data_seed: int = 0) -> None:
    """Register the tasks and mixtures whose strings `data_seed` draws; a second call changes nothing.

    Training tasks have the splits train, validation and test. Held-out and tuning tasks have the splits train
    (the few examples to adapt to) and test.

    Raises:
        UserError: the seed is negative.
    """
    check_seed(data_seed)
    if registered_name("train", data_seed=data_seed) in seqio.MixtureRegistry.names():
        return
    for form in _SEQIO_FORMS:
        _register_form(form, data_seed)


register()
for _name, _in_words in ((PRETRAINING_TASK, False), (PRETRAINING_IN_WORDS_TASK, True)):
    _add(
        _name,
        seqio.FunctionDataSource(
            functools.partial(_pretraining_dataset, in_words=_in_words),
            tuple(PRETRAINING_EXAMPLES),
            num_input_examples=PRETRAINING_EXAMPLES,
        ),
        preprocessors=[],
    )
