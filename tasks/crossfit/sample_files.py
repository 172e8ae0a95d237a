"""Finds the files of a task: `<task>/<task>_<shots>_<seed>_<split>.tsv`, several samples for each task."""

import re
from collections.abc import Mapping, Sequence

from etils import epath

from poly_jax.errors import UserError

ALL = "all"
"""The split with the rows of `train` and of `validation`, which CrossFit's own multi-task runs train on."""

# seqio's name for each of CrossFit's splits.
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
# Where the folders of the tasks are; the first of these that has tasks is used.
_FOLDERS = ("data", "tsv", "")

Splits = Mapping[str, tuple[epath.Path, ...]]


def data_folder(folder: epath.Path) -> epath.Path:
    """Return the folder of the tasks' folders: `data/` or `tsv/` in `folder`, or `folder` itself."""
    return next(folder / name for name in _FOLDERS if (folder / name).is_dir() or not name)


def find_splits(
    folder: epath.Path, task: str, shots: int | None = None, seeds: Sequence[int] | None = None
) -> Splits:
    """Find the files of every split of a task.

    A sample is the files of one seed. `train` and `validation` have the files of all samples, in order, so a
    row that several samples drew is there several times (CrossFit does the same). `train_<seed>` and
    `validation_<seed>` have the files of one sample. `all` is `train` and `validation` of each sample in
    turn. `test` is the test file of the first sample; the published ones are the same for all samples.

    Args:
      folder: folder of the tasks' folders.
      task: the name of the task, which is also the name of its folder.
      shots: the number of shots in the names of the files; None where the folder has only one.
      seeds: the seeds of the samples, in their order; None for all, ordered by their text (100 before 13), as
        CrossFit orders files.

    Returns:
      The files by split; nothing where the task has no folder or no file.

    Raises:
      UserError: the folder has several numbers of shots and `shots` does not choose one, or a seed of `seeds`
        has no file.
    """
    place = folder / task
    if not place.is_dir():
        return {}
    name = re.compile(rf"{re.escape(task)}_(\d+)_(\d+)_({'|'.join(_SPLITS)})\.tsv")
    files: dict[int, dict[int, dict[str, epath.Path]]] = {}
    for path in place.iterdir():
        if match := name.fullmatch(path.name):
            files.setdefault(int(match[1]), {}).setdefault(int(match[2]), {})[_SPLITS[match[3]]] = path
    if not files:
        return {}
    samples = files[_chosen(place, files, shots)]
    order = sorted(samples, key=str) if seeds is None else list(seeds)
    if missing := [seed for seed in order if seed not in samples]:
        raise UserError(
            f"{place} has no file of seed {missing[0]}; it has seeds {', '.join(map(str, sorted(samples)))}"
        )
    return _splits([(seed, samples[seed]) for seed in order])


def _chosen(place: epath.Path, files: Mapping[int, object], shots: int | None) -> int:
    if shots is None and len(files) == 1:
        return next(iter(files))
    if shots is None or shots not in files:
        asked = "does not say which" if shots is None else f"asks for {shots}"
        there = ", ".join(map(str, sorted(files)))
        raise UserError(
            f"{place} has files of these numbers of shots: {there}; crossfit.register.shots {asked}"
        )
    return shots


def _splits(samples: Sequence[tuple[int, Mapping[str, epath.Path]]]) -> Splits:
    splits: dict[str, tuple[epath.Path, ...]] = {}
    for split in ("train", "validation"):
        splits[split] = tuple(files[split] for _, files in samples if split in files)
    splits[ALL] = tuple(
        files[split] for _, files in samples for split in ("train", "validation") if split in files
    )
    for seed, files in samples:
        splits |= {f"{split}_{seed}": (files[split],) for split in ("train", "validation") if split in files}
    splits["test"] = tuple(files["test"] for _, files in samples if "test" in files)[:1]
    return {split: paths for split, paths in splits.items() if paths}
