"""Makes the rows of many examples with one call of TensorFlow's operations.

A preprocessor that is mapped over examples costs some tenths of a millisecond for each, however short its
text is. Where it has a form for many examples, the records of all tasks are parsed and tokenised some
hundreds at a time.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poly_jax.data.drawn_reference import DrawnReference
from poly_jax.data.example_chunks import TEXTS
from poly_jax.data.feature_converter import CHOICE_FEATURES
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.task_sources import Source, cache_opener, dataset_opener, record_features

# More threads would hold more examples in memory at a time.
_MOST_THREADS = 16
# Types that a record holds as they are; it holds all others as int64.
_STORED = (tf.string, tf.float32)


def many_rows(
    sources: Sequence[Source], lengths: Mapping[str, int], examples_at_once: int
) -> tf.data.Dataset | None:
    """Return the rows of sources that are made alike, one source after another.

    Args:
      sources: the sources, with equal `Source.alike`.
      lengths: number of tokens of `inputs` and of `targets`; longer examples are cut.
      examples_at_once: number of examples whose rows are made together.

    Returns:
      A dataset of dictionaries of the rows of so many examples: `place` [rows], int64, the place of a row's
      source; `inputs` and `targets`, the tokens of all rows, one row after another; `inputs_length` and
      `targets_length` [rows]; the `CHOICE_FEATURES` that there are. None where the only preprocessor has no
      form for many examples, or the examples of a source have sizes that differ.
    """
    encode = _form_for_many(sources[0])
    opened = _opened(sources)
    if encode is None or opened is None:
        return None
    open_source, parse = opened

    @tf.autograph.experimental.do_not_convert
    def numbered(place: tf.Tensor) -> tf.data.Dataset:
        places = tf.data.Dataset.from_tensors(place).repeat()
        # tf.data's own `counter` and `enumerate` run a function for each example.
        return tf.data.Dataset.zip((places, tf.data.Dataset.range(tf.int64.max), open_source(place)))

    @tf.autograph.experimental.do_not_convert
    def rows(places: tf.Tensor, numbers: tf.Tensor, examples: Any) -> dict[str, tf.Tensor]:
        encoded, origins = encode(parse(examples), numbers, lengths)
        tokens = {name: encoded[name].flat_values for name in TEXTS}
        sizes = {f"{name}_length": encoded[name].row_lengths() for name in TEXTS}
        kept = {name: encoded[name] for name in CHOICE_FEATURES if name in encoded}
        return {"place": tf.gather(places, origins), **tokens, **sizes, **kept}

    dataset = tf.data.Dataset.range(len(sources)).flat_map(numbered).batch(examples_at_once)
    return dataset.map(rows, num_parallel_calls=min(os.cpu_count() or 1, _MOST_THREADS))


def _form_for_many(source: Source) -> Callable[..., Any] | None:
    """Return `DrawnReference.many_rows_per_target` of a task that does nothing else to its examples."""
    task = source.routed.unrouted
    if type(task) is not seqio.Task or len(source.preprocessors) != 1:
        return None
    # seqio refuses to read a task without the cache that it requires.
    if task.requires_caching and source.cache is None:
        return None
    (part,) = source.preprocessors
    owner = getattr(part, "__self__", None)
    if not isinstance(owner, DrawnReference) or part != owner.one_row_per_target or not owner.encodes_many:
        return None
    return owner.many_rows_per_target


def _opened(
    sources: Sequence[Source],
) -> tuple[Callable[[tf.Tensor], tf.data.Dataset], Callable[[Any], Mapping[str, tf.Tensor]]] | None:
    """Return a function that opens a source, and one that makes examples of many of its elements."""
    first = sources[0]
    if first.cache is None:
        if first.dataset is None or not _sizes_are_fixed(first.dataset.element_spec):
            return None
        return dataset_opener(sources), lambda examples: examples
    features = record_features(first.cache)
    if features is None:
        return None
    stored = {
        name: tf.io.FixedLenFeature(spec.shape, spec.dtype if spec.dtype in _STORED else tf.int64)
        for name, spec in features.items()
    }

    def parse(records: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(records, stored)
        return {name: tf.cast(parsed[name], spec.dtype) for name, spec in features.items()}

    return cache_opener(sources, tf.data.TFRecordDataset), parse


def _sizes_are_fixed(spec: Any) -> bool:
    return isinstance(spec, Mapping) and all(
        isinstance(each, tf.TensorSpec) and each.shape.is_fully_defined() for each in spec.values()
    )
