"""Finds the files of T0's training templates in a folder, in each layout that the rows come in."""

import re
from collections.abc import Collection, Mapping

from etils import epath

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.tasks.t0_pretraining.data_sets import DataSet, training_data_set
from poly_jax.tasks.t0_pretraining.row_files import FETCH, CachedRecords, JsonLines, RowFile

TRAIN = "train"
_INFO = re.compile(r"info\.(\w+)\.json")
TEXTS = {"inputs_pretokenized": "string", "targets_pretokenized": "string"}
"""The features of a cached task that are read, and their dtypes."""


def find_templates(
    folder: epath.Path, *, truncated: bool, max_broken_share: float = 0.0
) -> dict[DataSet, dict[str, Mapping[str, RowFile]]]:
    """Find the files of T0's training templates.

    Args:
      folder: folder with `data/<template>/` as P3 has them, with such folders themselves, or with
        `<template>.jsonl`; names are P3's.
      truncated: whether a template's training rows are only its first ones, see `DataSet.rows_per_template`.
      max_broken_share: see `RowFile`.

    Returns:
      For each data set that has a template in the folder, by P3's names of its templates, the files by split.

    Raises:
      UserError: there is no such template, one is there in both layouts, or the description of a split is
        broken.
    """
    inside = folder / "data" if (folder / "data").is_dir() else folder
    found: dict[DataSet, dict[str, Mapping[str, RowFile]]] = {}
    for path in sorted(inside.iterdir()) if inside.is_dir() else ():
        name = path.name.removesuffix(".jsonl")
        data_set = training_data_set(name)
        if data_set is None:
            continue
        limit = data_set.rows_per_template if truncated else None
        make = _json_lines if path.name != name else _cached
        splits = make(path, limit, max_broken_share)
        if splits and name in found.get(data_set, ()):
            raise UserError(f"{inside} has both {name}/ and {name}.jsonl; take one of them out")
        if splits:
            found.setdefault(data_set, {})[name] = splits
    if not found:
        raise UserError(
            f"no template of T0's training data sets at {inside / '<template>' / 'info.train.json'} or "
            f"{inside / '<template>.jsonl'}; give the folder that holds P3's data/, or the JSONL files"
        )
    return found


def _json_lines(path: epath.Path, limit: int | None, max_broken_share: float) -> Mapping[str, RowFile]:
    return {TRAIN: JsonLines([path], limit, max_broken_share)}


def _cached(folder: epath.Path, limit: int | None, max_broken_share: float) -> Mapping[str, RowFile]:
    """Return the files of each split that seqio has described in the folder."""
    if not folder.is_dir():
        return {}
    return {
        split: CachedRecords(shards, limit if split == TRAIN else None, max_broken_share)
        for split, shards in cached_splits(folder, TEXTS).items()
    }


def cached_splits(folder: epath.Path, wanted: Mapping[str, str]) -> dict[str, list[epath.Path]]:
    """Find the files of each split that seqio has described in the folder of a cached task.

    Args:
      folder: the folder, with `info.<split>.json` and `<split>.tfrecord-<shard>-of-<shards>`.
      wanted: features that the task must have, and the names of their dtypes.

    Raises:
      UserError: the description of a split is broken, lacks a feature, or does not fit its files.
    """
    present = {path.name for path in folder.iterdir()}
    names = [match[1] for match in map(_INFO.fullmatch, sorted(present)) if match]
    return {split: _shards(folder, split, present, wanted) for split in names}


def _shards(
    folder: epath.Path, split: str, present: Collection[str], wanted: Mapping[str, str]
) -> list[epath.Path]:
    info = folder / f"info.{split}.json"
    fields = Fields(read_json(info, advice=FETCH), info, FETCH)
    features = fields.inside("features")
    for name, dtype in wanted.items():
        if features.inside(name).take("dtype", str) != dtype:
            raise UserError(f"{info}: feature {name!r} is not of dtype {dtype!r}; {FETCH}")
    count = fields.take("num_shards", int, at_least=1)
    there = sum(name.startswith(f"{split}.tfrecord-") for name in present)
    if there != count:
        raise UserError(
            f"{info}: num_shards is {count}, and the folder has {counted(there, 'file')} {split}.tfrecord-*; "
            "fetch the folder again"
        )
    return [folder / f"{split}.tfrecord-{shard:05d}-of-{count:05d}" for shard in range(count)]
