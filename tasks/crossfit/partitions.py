"""Reads a partition of CrossFit's tasks: which tasks are trained on, and which are held out."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.suggestion import close_names, did_you_mean

Part = Literal["train", "dev", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

TaskOrder = Literal["list", "sorted"]

SIZES: Mapping[str, tuple[int, int, int]] = {
    "random": (120, 20, 20),
    "train_classification_test_classification": (45, 10, 10),
    "train_nonclassification_test_classification": (45, 10, 10),
    "train_halfhalf_test_classification": (45, 10, 10),
    "train_non_nli_test_nli": (57, 8, 0),
    "train_nonparaphrase_classification_test_paraphrase": (61, 4, 0),
    "train_non_multiple_choice_qa_test_multiple_choice": (29, 22, 0),
    "train_non_mrc_qa_test_mrc": (42, 9, 0),
}
"""Numbers of train, dev and test tasks of the eight partitions (Ye et al., arXiv 2104.08835)."""

# The first of these that a folder has is used; the second is the place in CrossFit's own repository.
_FOLDERS = ("splits", "dataloader/custom_tasks_splits")
_FETCH = "fetch it again from CrossFit's repository"


@dataclasses.dataclass(frozen=True)
class Partition:
    """The tasks of a partition, in the order of its file.

    Attributes:
      train: tasks that a model is trained on.
      dev: tasks for choosing settings; in the four partitions without test tasks, the held-out tasks.
      test: held-out tasks.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def held_out(self) -> tuple[str, ...]:
        """The tasks that results are reported on: `test`, or `dev` where the partition has no test tasks."""
        return self.test or self.dev

    @property
    def leaked(self) -> tuple[str, ...]:
        """The held-out tasks that are train tasks too, as 'sick' is in `train_non_nli_test_nli`."""
        return tuple(task for task in self.held_out if task in self.train)

    def in_order(self, part: Part, order: TaskOrder = "list") -> tuple[str, ...]:
        """Return the tasks of a part in the order of the file ("list") or of their names ("sorted").

        Raises:
          UserError: the part or the order is not known.
        """
        if part not in PARTS:
            raise UserError(f"{part!r} is not a part of a partition; use {', '.join(map(repr, PARTS))}")
        if order not in get_args(TaskOrder):
            raise UserError(f"the order of tasks is {order!r}; use 'list' or 'sorted'")
        names = getattr(self, part)
        return tuple(sorted(names)) if order == "sorted" else names


def read_partition(folder: epath.Path, name: str) -> Partition:
    """Read `<name>.json` from `splits/` or `dataloader/custom_tasks_splits/` of a folder.

    Args:
      folder: the folder of the benchmark.
      name: one of `SIZES`, or the name of a file of one's own.

    Raises:
      UserError: there is no such file, it does not hold lists of names, a list has a task twice, or a
        published partition does not have its published size.
    """
    path = _path(folder, name)
    fields = Fields(read_json(path, advice=_FETCH), path, _FETCH)
    lists = {part: tuple(fields.take_list(part, str)) for part in PARTS}
    for part, names in lists.items():
        twice = [task for task in names if names.count(task) > 1]
        if twice:
            raise UserError(f"{path}: task {twice[0]!r} is twice in {part!r}; list it once")
    sizes = tuple(len(lists[part]) for part in PARTS)
    if sizes != SIZES.get(name, sizes):
        raise UserError(
            f"{path} has {sizes} train, dev and test tasks, and the published partition has {SIZES[name]}; "
            f"{_FETCH}, or give your own partition another name"
        )
    return Partition(**lists)


def _path(folder: epath.Path, name: str) -> epath.Path:
    for place in _FOLDERS:
        path = folder / place / f"{name}.json"
        if path.exists():
            return path
    found = [path.stem for place in _FOLDERS for path in (folder / place).glob("*.json")]
    advice = did_you_mean(close_names(name, found)) or (
        f"it has {', '.join(sorted(found))}" if found else "give the folder of CrossFit's repository"
    )
    raise UserError(f"there is no partition at {folder / _FOLDERS[0] / f'{name}.json'}; {advice}")
