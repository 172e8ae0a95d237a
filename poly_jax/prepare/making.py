"""Makes the cache of one task: whole where it is small, or shard by shard."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from poly_jax.data.broken_rows import BrokenRow
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.user_code import blaming, cause
from poly_jax.errors import UserError
from poly_jax.files.durable_file import WriteError, durable_file
from poly_jax.prepare.lengths import Lengths, measured
from poly_jax.prepare.origin import FIRST_ROWS, changed, digest, digest_of_first_rows, origin, sha256
from poly_jax.prepare.records import described, serialized, token_counts
from poly_jax.prepare.rows import batches, forgetful, n_shards, shard
from poly_jax.prepare.task_folder import REPORT, TaskFolder


@dataclasses.dataclass(frozen=True)
class Place:
    """The folder of a cache, and the limits that its report compares lengths with.

    Attributes:
      cache_dir: the folder of the cache.
      limits: number of tokens of `inputs` and `targets`.
    """

    cache_dir: str
    limits: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Shard:
    """The facts about a shard that was written.

    Attributes:
      name: name of its file.
      file: size and SHA-256 of its file.
      info: description of its features.
      examples: number of rows.
      tokens: number of tokens in all rows by feature, for features that are tokens already.
      max_tokens: the largest number of tokens of a row.
      lengths: lengths of the examples that its rows give, by feature.
      broken: rows that the source dropped.
      first_rows: digest of the first rows.
    """

    name: str
    file: Mapping[str, Any]
    info: Mapping[str, Any]
    examples: int
    tokens: Mapping[str, int]
    max_tokens: Mapping[str, int]
    lengths: Mapping[str, Lengths]
    broken: tuple[BrokenRow, ...]
    first_rows: str


def check(name: str, place: Place) -> str | None:
    """Check a complete folder of a task.

    Returns:
      None if it is as it was written, else why it must be made again.

    Raises:
      UserError: the folder was made from other raw files or with other settings, or by another program.
    """
    folder = TaskFolder(place.cache_dir, name)
    damaged = folder.damaged()
    if damaged is not None:
        return f"{damaged} does not match its checksum"
    task = forgetful(seqio.TaskRegistry.get(name))
    before = folder.manifest()["splits"]
    with blaming(f"the data source of task {name!r}"):
        splits = sorted(task.splits)
        now = {split: origin(task, split, digest_of_first_rows(task, split)) for split in splits}
    why = None
    if set(before) != set(now):
        why = f"it had the splits {', '.join(before)}, and has {', '.join(now)} now"
    for split in now if why is None else ():
        why = why or changed(before[split], now[split])
    if why is not None:
        raise UserError(
            f"{folder.path} was prepared from other data: {why}; give another --output_dir, or delete the "
            "folder to prepare it again"
        )
    if folder.report()["limits"] != dict(place.limits):
        return "its report is for other lengths"
    return None


def make_task(name: str, place: Place) -> dict[str, int] | None:
    """Make the cache of a task if it is small.

    Returns:
      None if the cache is complete; for a large task the number of shards of each split, which `make_shard`
      is to make.

    Raises:
      UserError: the task cannot be read; a `WriteError` if the cache cannot be written.
    """
    task = forgetful(seqio.TaskRegistry.get(name))
    with blaming(f"the data source of task {name!r}"):
        shards = {split: n_shards(task, split) for split in sorted(task.splits)}
    TaskFolder(place.cache_dir, name).clear()
    if max(shards.values()) > 1:
        return shards
    finish(name, place, {split: [_written(task, place, split, 0, 1)] for split in shards}, task)
    return None


def make_shard(name: str, place: Place, split: str, index: int, count: int) -> Shard:
    """Make one shard of a large task.

    Raises:
      UserError: an error of `make_task`.
    """
    return _written(forgetful(seqio.TaskRegistry.get(name)), place, split, index, count)


def finish(
    name: str, place: Place, shards: Mapping[str, Sequence[Shard]], task: seqio.Task | None = None
) -> None:
    """Describe the shards of all splits, and complete the folder of their task.

    Args:
      name: name of the task.
      place: folder of its cache.
      shards: the shards of each split, in their order.
      task: the task, where it has been read already.

    Raises:
      UserError: an error of `make_task`.
    """
    task = task or forgetful(seqio.TaskRegistry.get(name))
    folder = TaskFolder(place.cache_dir, name)
    origins, reports = {}, {}
    for split, parts in shards.items():
        info = {
            "features": parts[0].info,
            "num_shards": len(parts),
            "seqio_version": seqio.__version__,
        }
        folder.write_json(f"info.{split}.json", info)
        folder.write_json(f"stats.{split}.json", _statistics(parts))
        broken = sorted({row for part in parts for row in part.broken}, key=dataclasses.astuple)
        lengths = {
            feature: Lengths.union(part.lengths[feature] for part in parts)
            for feature in sorted(parts[0].lengths)
        }
        reports[split] = {
            "examples": sum(part.examples for part in parts),
            "lengths": {feature: sorted(each.counts.items()) for feature, each in lengths.items()},
            "dropped": [dataclasses.asdict(row) for row in broken],
        }
        origins[split] = origin(task, split, parts[0].first_rows)
    folder.write_json(REPORT, {"task": name, "limits": dict(place.limits), "splits": reports})
    folder.complete({part.name: part.file for parts in shards.values() for part in parts}, origins)


def _written(task: seqio.Task, place: Place, split: str, index: int, count: int) -> Shard:
    rows = shard(task, split, index, count)
    spec = rows.element_spec
    if not isinstance(spec, dict):
        raise UserError(
            f"the rows of task {task.name!r} are not dictionaries of features at its "
            "CacheDatasetPlaceholder; put the placeholder after the preprocessor that makes them"
        )
    try:
        info = described(spec)
    except UserError as error:
        raise UserError(f"task {task.name!r}: {error}") from error
    path = TaskFolder(place.cache_dir, task.name).shard(split, index, count)
    tokens: dict[str, int] = {}
    longest: dict[str, int] = {}
    lengths: list[Mapping[str, Lengths]] = []
    first: list[bytes] = []
    examples = 0
    limits = {name: limit for name, limit in place.limits.items() if name in task.output_features}
    with durable_file(path) as partial, _Records(os.fspath(partial), os.fspath(path)) as writer:
        for batch in batches(rows, task, split):
            records = serialized(batch)
            writer.write(records)
            examples += len(records)
            first += records[: FIRST_ROWS - len(first)]
            for name, counts in token_counts(batch, task.output_features).items():
                tokens[name] = tokens.get(name, 0) + int(np.sum(counts))
                longest[name] = max(longest.get(name, 0), int(np.max(counts, initial=0)))
            lengths.append(measured(task, [batch], spec, limits))
    return Shard(
        path.name,
        {"bytes": path.stat().st_size, "sha256": sha256(path)},
        info,
        examples,
        tokens,
        longest,
        {name: Lengths.union(part[name] for part in lengths) for name in limits},
        tuple(getattr(task.source, "broken_rows", lambda split: ())(split)),
        digest(first),
    )


class _Records:
    """TensorFlow's writer of TFRecord files; a failure to write is a `WriteError`."""

    def __init__(self, partial: str, path: str) -> None:
        self._partial = partial
        self._path = path

    def __enter__(self) -> "_Records":
        self._writer = self._caught(tf.io.TFRecordWriter, self._partial)
        return self

    def write(self, records: Iterable[bytes]) -> None:
        """Append records."""
        for record in records:
            self._caught(self._writer.write, record)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._caught(self._writer.close)
            return
        # The error that ended the block says more.
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()

    def _caught(self, call: Any, *args: Any) -> Any:
        try:
            return call(*args)
        except tf.errors.OpError as error:
            raise WriteError(f"{self._path} cannot be written: {cause(error)}") from error


def _statistics(parts: Sequence[Shard]) -> dict[str, int]:
    """Return the statistics of a split under the names that seqio gives them."""
    statistics = {"examples": sum(part.examples for part in parts)}
    for name in {name for part in parts for name in part.tokens}:
        total = f"{name}_tokens"
        statistics[total] = sum(part.tokens.get(name, 0) for part in parts)
        longest = total.replace("tokens", "max_tokens")
        statistics[longest] = max(part.max_tokens.get(name, 0) for part in parts)
    return statistics
