"""The split of skill sets into training, held-out and pretraining sets, and the names of their tasks."""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int8

from poly_jax.errors import UserError
from poly_jax.tasks.skillbench import skills as skills_lib
from poly_jax.tasks.skillbench.skills import Inventory

SET_SIZES = (2, 3)
SLOTS = max(SET_SIZES)
# Input strings use none of these letters, so a name cannot be taken for a part of the string.
NAME_LETTERS = "klmnpqrstvwxz"

TRAIN_TASKS = 32
HELDOUT_TASKS = 8
TUNING_TASKS = 8
TRAIN_TASKS_PER_SKILL = 8
HELDOUT_TASKS_PER_SKILL = 2

Role = Literal["train", "heldout", "tuning"]
SkillSet = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """One text-to-text task: apply a set of skills to a string.

    Attributes:
        name: three meaningless letters, which are all that an input says about its task.
        skills: indices of the true skills in the inventory, ascending.
        role: `train` (multi-task training), `heldout` (few-shot adaptation only) or `tuning`
            (a training task under a fresh name with its held-back examples, for choosing learning rates).
        inventory: the inventory that the skills come from.
    """

    name: str
    skills: SkillSet
    role: Role
    inventory: Inventory = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """All compositions of an inventory, divided into disjoint groups.

    Attributes:
        inventory: the inventory of skills.
        train: tasks for multi-task training.
        heldout: tasks for adaptation from few examples, with sets of skills that no training task has.
        tuning: copies of some training tasks under fresh names.
        left_over: sets of skills that belong to no task, which the backbone may see in pretraining.
    """

    inventory: Inventory
    train: tuple[Task, ...]
    heldout: tuple[Task, ...]
    tuning: tuple[Task, ...]
    left_over: tuple[SkillSet, ...]


def _digest(*parts: object) -> str:
    # A hash and not a random generator: the split must not change with the version of a library, because a
    # backbone that was pretrained on earlier left-over sets could have seen the new benchmark.
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()


def skill_sets(inventory: Inventory) -> list[SkillSet]:
    """All sets of two or three skills, in lexical order by size."""
    places = range(len(inventory.skills))
    return [chosen for size in SET_SIZES for chosen in itertools.combinations(places, size)]


def abbreviates(name: str, word: str) -> bool:
    """Whether `word` has the letters of `name` in the same order, as `reverse` has the letters of `rvs`."""
    letters = iter(word)
    return all(letter in letters for letter in name)


def _names(inventory: Inventory) -> Iterator[str]:
    """Distinct names that abbreviate no skill; any two differ in at least two letters."""
    candidates = ("".join(letters) for letters in itertools.product(NAME_LETTERS, repeat=SLOTS))
    chosen: list[str] = []
    for name in sorted(candidates, key=lambda name: _digest(inventory.name, name)):
        if any(abbreviates(name, skill) for skill in inventory.skill_names):
            continue
        if all(sum(a != b for a, b in zip(name, other, strict=True)) >= 2 for other in chosen):
            chosen.append(name)
            yield name


def _order(inventory: Inventory, attempt: int) -> list[SkillSet]:
    """Draw an order of all sets in which pairs and triples alternate in proportion to their numbers."""
    placed = []
    for size in SET_SIZES:
        group = [chosen for chosen in skill_sets(inventory) if len(chosen) == size]
        group.sort(key=lambda chosen: _digest(inventory.name, attempt, chosen))
        placed += [((rank + 0.5) / len(group), chosen) for rank, chosen in enumerate(group)]
    return [chosen for _, chosen in sorted(placed)]


def _counts(inventory: Inventory, sets: Sequence[SkillSet]) -> list[int]:
    return [sum(skill in chosen for chosen in sets) for skill in range(len(inventory.skills))]


@functools.cache
def benchmark(inventory: Inventory = skills_lib.LETTERS) -> Benchmark:
    """Split an inventory's compositions and name their tasks.

    The result is the same on every machine. The order of the sets is redrawn until every skill is in at least
    `TRAIN_TASKS_PER_SKILL` training tasks, `HELDOUT_TASKS_PER_SKILL` held-out tasks and one tuning task.

    Raises:
        ValueError: the inventory is too small for the split.
    """
    if len(skill_sets(inventory)) <= TRAIN_TASKS + HELDOUT_TASKS:
        raise ValueError(f"inventory {inventory.name!r} has too few compositions; add skills")
    for attempt in range(1000):
        order = _order(inventory, attempt)
        train, heldout = order[:TRAIN_TASKS], order[TRAIN_TASKS : TRAIN_TASKS + HELDOUT_TASKS]
        tuning, left_over = train[:TUNING_TASKS], order[TRAIN_TASKS + HELDOUT_TASKS :]
        if (
            min(_counts(inventory, train)) >= TRAIN_TASKS_PER_SKILL
            and min(_counts(inventory, heldout)) >= HELDOUT_TASKS_PER_SKILL
            and min(_counts(inventory, tuning)) >= 1
        ):
            break
    else:
        raise ValueError(
            f"inventory {inventory.name!r} has no split in which every skill is covered; add skills"
        )
    names = _names(inventory)

    def tasks(chosen: Sequence[SkillSet], role: Role) -> tuple[Task, ...]:
        return tuple(Task(next(names), skill_set, role, inventory) for skill_set in chosen)

    return Benchmark(
        inventory=inventory,
        train=tasks(train, "train"),
        heldout=tasks(heldout, "heldout"),
        tuning=tasks(tuning, "tuning"),
        left_over=tuple(sorted(left_over)),
    )


def tasks_of(names: Sequence[str]) -> list[Task]:
    """Return the benchmark tasks that are registered with seqio under these names.

    A name may have any prompt form and data seed.

    Raises:
        UserError: a name does not belong to a task of the embedded benchmark.
    """
    bench = benchmark()
    by_name = {task.name: task for task in (*bench.train, *bench.heldout, *bench.tuning)}
    found = []
    for name in names:
        # The opaque name is a part of the registered one: skillbench_qrt, skillbench_nameless_qrt_seed3.
        task = next((by_name[part] for part in name.split("_") if part in by_name), None)
        if task is None:
            raise UserError(f"only tasks of the embedded benchmark have known skills, not {name!r}")
        found.append(task)
    return found


def skill_matrix(tasks: Sequence[Task]) -> Int8[np.ndarray, "task skill"]:
    """Return the true skills of tasks of one inventory: 1 where a task uses the skill, else 0."""
    matrix = np.zeros((len(tasks), len(tasks[0].inventory.skills)), np.int8)
    for row, task in zip(matrix, tasks, strict=True):
        row[list(task.skills)] = 1
    return matrix
