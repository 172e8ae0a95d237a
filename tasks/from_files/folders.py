"""Finds the tasks of a folder and the files of their splits."""

import re
from collections.abc import Mapping, Sequence

from etils import epath

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.tasks.from_files.row_files import FILES, is_row_file

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_SPLITS = {
    TRAIN: TRAIN,
    "training": TRAIN,
    VALIDATION: VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    TEST: TEST,
}
# "train", or one of several files of a split, such as the Hub's "train-00000-of-00002".
_STEM = re.compile(rf"({'|'.join(_SPLITS)})(?:-(\d+)-of-(\d+))?", re.IGNORECASE)
# What Dataset.save_to_disk and DatasetDict.save_to_disk write beside the data.
_DATASET, _DATASET_DICT = "state.json", "dataset_dict.json"

Splits = Mapping[str, tuple[epath.Path, ...]]


def find_tasks(place: epath.Path) -> dict[str, Splits]:
    """Find the tasks in a folder.

    A task is a file, whose rows are the split `train`, or a folder with files by split (`train.jsonl`,
    `validation.csv`, also `dev` and `val`; `data/train-00000-of-00002.parquet`), or a folder that
    `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote. The folder may hold any number of these, or
    itself be one. What is neither is left alone, as are names that begin with "." or "_".

    Args:
      place: the folder, or the file of a single task; local or remote (gs://).

    Returns:
      The files of each split, by the name of the task: its folder's name or its file's without the suffix.

    Raises:
      UserError: there is no task, two tasks have one name, the folder holds files by split beside other
        tasks, or a description of Hugging Face is broken.
    """
    if place.is_file():
        if not is_row_file(place):
            raise UserError(
                f"{place} is not a {_suffixes()} file; convert it, or give a folder of such files"
            )
        return {place.stem: {TRAIN: (place,)}}
    if not place.is_dir():
        raise UserError(f"there is no folder or file {place}; give the folder that holds the tasks' files")
    if splits := _splits(place):
        return {place.name: splits}
    tasks: dict[str, Splits] = {}
    for path in _inside(place):
        name, splits = path.name, {}
        if path.is_dir():
            splits = _splits(path)
        elif is_row_file(path):
            name, splits = path.stem, {TRAIN: (path,)}
        if splits and name in tasks:
            raise UserError(f"{place} has two tasks named {name!r}; rename one")
        if splits:
            tasks[name] = splits
    if not tasks:
        raise UserError(
            f"{place} holds no task; give a folder with a {_suffixes()} file for each task, with a folder of "
            "train, validation and test files for each, or with folders that Dataset.save_to_disk wrote"
        )
    return tasks


def _splits(folder: epath.Path) -> Splits:
    """Return the files of a task that a folder holds by split; nothing where it does not."""
    if (folder / _DATASET_DICT).is_file():
        names = _json(folder / _DATASET_DICT).take_list("splits", str)
        return {_split(name): _saved(folder / name) for name in names}
    if (folder / _DATASET).is_file():
        return {TRAIN: _saved(folder)}
    splits: dict[str, tuple[epath.Path, ...]] = {}
    others = []
    places = [folder, folder / "data"] if (folder / "data").is_dir() else [folder]
    for path in (path for place in places for path in _inside(place) if is_row_file(path)):
        if match := _STEM.fullmatch(path.stem):
            split = _split(match[1])
            splits[split] = (*splits.get(split, ()), path)
        else:
            others.append(path)
    if splits and others:
        raise UserError(
            f"{folder} holds the files of a split ({next(iter(splits.values()))[0].name}) and another file "
            f"({others[0].name}); put each task's files into a folder of their own"
        )
    for split, paths in splits.items():
        _check_parts(split, paths)
    return {split: splits[split] for split in (TRAIN, VALIDATION, TEST) if split in splits}


def _check_parts(split: str, paths: Sequence[epath.Path]) -> None:
    """Refuse files of which one is the whole split, since rows would be read twice, and missing files."""
    numbers, counts = set(), set()
    for path in paths:
        match = _STEM.fullmatch(path.stem)
        assert match
        if match[2] is not None:
            numbers.add(int(match[2]))
            counts.add(int(match[3]))
        elif len(paths) > 1:
            raise UserError(f"{paths[0]} and {paths[1]} are both the split {split!r}; remove one")
    if not numbers:
        return
    if len(counts) > 1:
        raise UserError(
            f"the files of the split {split!r} in {paths[0].parent} say that they are {min(counts)} and"
            f" {max(counts)} in number; keep those of one data set"
        )
    (count,) = counts
    # The Hub counts from 0, and some programs from 1.
    first = 0 if 0 in numbers else 1
    if missing := sorted(set(range(first, first + count)) - numbers):
        raise UserError(
            f"{paths[0].parent} lacks {len(missing)} of the {counted(count, 'file')} of the split"
            f" {split!r}, the first"
            f" with number {missing[0]}; copy them, or rename the files that are there"
        )


def _saved(folder: epath.Path) -> tuple[epath.Path, ...]:
    """Return the Arrow files that `Dataset.save_to_disk` wrote, as its `state.json` lists them."""
    state = _json(folder / _DATASET)
    files = state.take_list("_data_files", dict)
    names = [Fields(file, f"{folder / _DATASET}: _data_files").take("filename", str) for file in files]
    if "_indices_data_files" in state and state.take("_indices_data_files", object):
        raise UserError(f"{folder} was saved by an old version of datasets; save it again with a newer one")
    if not names:
        raise UserError(f"{folder / _DATASET} lists no file; save the data set again")
    return tuple(folder / epath.Path(name).name for name in names)


def _json(path: epath.Path) -> Fields:
    advice = "save the data set again"
    return Fields(read_json(path, advice=advice), path, advice)


def _split(name: str) -> str:
    return _SPLITS.get(name.lower(), name)


def _inside(folder: epath.Path) -> list[epath.Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "_"))]


def _suffixes() -> str:
    *first, last = [suffix for suffix in FILES if suffix != ".arrow"]
    return f"{', '.join(first)} or {last}"
