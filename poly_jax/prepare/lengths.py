"""The lengths of the inputs and the targets of a task's examples, in tokens, before they are cut."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from poly_jax.data.quick_options import quick_options
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.user_code import cause
from poly_jax.errors import UserError
from poly_jax.prepare.records import Columns
from poly_jax.prepare.rows import TRACED, preprocessors_key, spec_key

PERCENTILES = (50, 90, 99)
_AT_A_TIME = 1 << 12


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Numbers of examples by their number of tokens."""

    counts: Mapping[int, int]

    @classmethod
    def union(cls, parts: "Iterable[Lengths]") -> "Lengths":
        """Return the lengths of all examples of the parts."""
        total: collections.Counter[int] = collections.Counter()
        for part in parts:
            total.update(part.counts)
        return cls(dict(sorted(total.items())))

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(self.counts.values())

    @property
    def longest(self) -> int:
        """The largest number of tokens; 0 without examples."""
        return max(self.counts, default=0)

    def percentile(self, percent: float) -> int:
        """Return the smallest length that at least `percent` percent of the examples do not exceed."""
        needed, seen = percent * self.examples, 0
        for length, count in sorted(self.counts.items()):
            seen += count
            if 100 * seen >= needed:
                return length
        return 0

    def share_above(self, length: int) -> float:
        """Return the share of the examples with more tokens than `length`, from 0 to 1."""
        longer = sum(count for tokens, count in self.counts.items() if tokens > length)
        return longer / self.examples if self.examples else 0.0


def measured(
    task: seqio.Task, batches: Iterable[Columns], spec: Mapping[str, Any], limits: Mapping[str, int]
) -> dict[str, Lengths]:
    """Measure the features of `limits` in a task's examples.

    The preprocessors after the cache placeholder make the examples without a limit on their length. Where
    they cannot, as when they cut a text into pieces of the limit's length, they make them with `limits`.
    Preprocessors that combine rows see `rows.BATCH` of them at a time.

    Args:
      task: the task.
      batches: its rows at the place of the placeholder.
      spec: `element_spec` of these rows.
      limits: number of tokens of each feature.

    Raises:
      UserError: a preprocessor fails, also with `limits`.
    """
    names = sorted(limits)
    counts: dict[str, collections.Counter[int]] = {name: collections.Counter() for name in names}
    for batch in batches if names else ():
        for row in _token_counts(task, batch, spec, limits, names):
            for name, length in zip(names, row, strict=True):
                counts[name][int(length)] += 1
    return {name: Lengths(dict(sorted(counts[name].items()))) for name in names}


def _token_counts(
    task: seqio.Task, batch: Columns, spec: Mapping[str, Any], limits: Mapping[str, int], names: Sequence[str]
) -> Iterator[Any]:
    key = ("lengths", *preprocessors_key(task, cached=True), spec_key(spec), sorted(limits.items()))
    try:
        return TRACED.function(key, lambda: _counting(task, batch, limits, names))(dict(batch)).numpy()
    except UserError:
        raise
    except Exception as error:  # A user's preprocessor may raise anything.
        raise UserError(
            f"the preprocessors of task {task.name!r} after its CacheDatasetPlaceholder failed: "
            f"{cause(error)} (POLY_JAX_DEBUG=1 shows the traceback)"
        ) from error


def _counting(task: seqio.Task, batch: Columns, limits: Mapping[str, int], names: Sequence[str]) -> Any:
    """Trace a function from rows to the numbers of tokens of their examples, int32 [examples, names]."""
    signature = {
        name: tf.TensorSpec([None, *column.shape[1:]], column.dtype)
        if isinstance(column, tf.Tensor)
        else tf.RaggedTensorSpec([None, *column.shape[1:]], column.dtype, column.ragged_rank)
        for name, column in batch.items()
    }

    def traced(sequence_length: Mapping[str, int] | None) -> Any:
        @tf.function(input_signature=[signature], autograph=False)
        def count(rows: Columns) -> tf.Tensor:
            dataset = tf.data.Dataset.from_tensor_slices(rows)
            dataset = task.preprocess_postcache(dataset, sequence_length=sequence_length, seed=0)
            sizes = dataset.map(
                lambda example: tf.stack([tf.shape(example[name], tf.int32)[0] for name in names])
            ).batch(_AT_A_TIME)
            # Where the preprocessors drop all rows there is no batch, and a single element must be there.
            empty = tf.data.Dataset.from_tensors(tf.zeros([0, len(names)], tf.int32))
            together = sizes.concatenate(empty).ragged_batch(_AT_A_TIME).with_options(quick_options())
            return together.get_single_element().flat_values

        count(dict(batch))
        return count

    try:
        return traced(None)
    except Exception:  # A user's preprocessor may need a length, and fail without one in any way.
        return traced(limits)
