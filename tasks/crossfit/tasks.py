"""Registers CrossFit's tasks, as far as a folder has their files, as seqio tasks and mixtures."""

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from etils import epath

from poly_jax.counted import counted
from poly_jax.data.broken_rows import checked_share
from poly_jax.data.quiet import seqio
from poly_jax.data.registry import check_registered_alike
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.tasks.crossfit.encoding import Encoding
from poly_jax.tasks.crossfit.labels import LABELS
from poly_jax.tasks.crossfit.metrics import Score, stripped_or_references
from poly_jax.tasks.crossfit.partitions import PARTS, Part, Partition, TaskOrder, read_partition
from poly_jax.tasks.crossfit.sample_files import Splits, data_folder, find_splits
from poly_jax.tasks.crossfit.scores import MetricName
from poly_jax.tasks.crossfit.source import SampleSource
from poly_jax.tasks.crossfit.task_metrics import METRIC_OF_TASK, MULTIPLE_CHOICE


@dataclasses.dataclass(frozen=True)
class _Registration:
    """The arguments of one call of `register`."""

    folder: str
    vocabulary: seqio.Vocabulary
    partition: str
    seeds: tuple[int, ...] | None
    shots: tuple[tuple[str, int], ...]
    metrics: tuple[tuple[str, str], ...]
    descriptions: str | None
    check_choices: bool
    max_broken_share: float


_registered: dict[str, _Registration] = {}


def register(
    folder: str,
    vocabulary: seqio.Vocabulary,
    *,
    partition: str = "random",
    seeds: Sequence[int] | None = None,
    shots: Mapping[str, int] | None = None,
    metrics: Mapping[str, str] | None = None,
    descriptions: str | None = None,
    check_choices: bool = True,
    max_broken_share: float = 0.0,
    prefix: str = "crossfit",
) -> None:
    """Registers a seqio task per task of a partition that has files, and a mixture for each of its parts.

    The mixtures are `<prefix>_train`, `_dev`, `_test` (absent where the partition has no test tasks) and
    `_held_out` (`_test`, or `_dev` where there is no `_test`), at rates equal to their numbers of training
    rows. Files are `data/<task>/<task>_<shots>_<seed>_{train,dev,test}.tsv` (or `tsv/<task>/...`, or
    `<task>/...`) and `splits/<partition>.json` (or in `dataloader/custom_tasks_splits/`). No TSV file is read
    before its split is used. `sample_files.find_splits` lists the splits of a task. A second call with the
    same arguments does nothing.

    Args:
      folder: folder with the files; local or remote (gs://).
      vocabulary: vocabulary of the inputs and the targets.
      partition: name of the partition's file, see `partitions.SIZES`.
      seeds: seeds of the samples that are used, in their order; None for all.
      shots: number of shots in the file names of each task that has several.
      metrics: names of the metrics (`scores.METRICS`) of tasks that are not among CrossFit's 160.
      descriptions: path of a JSON object with a description for some tasks, which is put before their inputs.
      check_choices: whether the target of a multiple-choice task must be one of the choices in its input, and
        that of a classification task one of CrossFit's labels (`labels.py`).
      max_broken_share: largest share of a split's rows that may be broken and left out.
      prefix: prefix of the names, so that two folders, partitions or settings can be used side by side.

    Raises:
      UserError: there is no partition or no task has a file, a task has no known metric, a setting is not
        right, or the prefix was registered with other arguments.
    """
    chosen = dict(shots or {})
    own = dict(metrics or {})
    registration = _Registration(
        os.fspath(folder),
        vocabulary,
        partition,
        None if seeds is None else tuple(seeds),
        tuple(sorted(chosen.items())),
        tuple(sorted(own.items())),
        None if descriptions is None else os.fspath(descriptions),
        check_choices,
        checked_share(max_broken_share),
    )
    if prefix in _registered:
        check_registered_alike(prefix, _registered[prefix], registration)
        return
    parts = read_partition(epath.Path(folder), partition)
    place = data_folder(epath.Path(folder))
    files = {
        task: find_splits(place, task, chosen.get(task), seeds)
        for part in PARTS
        for task in getattr(parts, part)
    }
    files = {task: splits for task, splits in files.items() if splits}
    if not files:
        raise UserError(
            f"no task of partition {partition!r} has a file at "
            f"{place / '<task>' / '<task>_<shots>_<seed>_train.tsv'}; give the folder that holds data/"
        )
    texts = {} if descriptions is None else _descriptions(descriptions, parts)
    scores = {task: _score(task, own) for task in files}
    encoding = Encoding(vocabulary)
    for task, splits in files.items():
        checked = check_choices and task in MULTIPLE_CHOICE
        _add_task(
            task_name(task, prefix),
            SampleSource(
                task,
                splits,
                texts.get(task, ""),
                checked,
                LABELS.get(task) if check_choices else None,
                max_broken_share,
            ),
            scores[task],
            encoding,
            vocabulary,
        )
    for part in PARTS:
        _add_mixture(f"{prefix}_{part}", getattr(parts, part), files, prefix, place)
    if parts.leaked:
        print(
            f"{partition}: {', '.join(parts.leaked)} is a train task and a held-out task, as its file says; "
            "leave it out of one of the two when you report results",
            file=sys.stderr,
        )
    held_out = [task_name(task, prefix) for task in parts.held_out if task in files]
    if held_out:
        seqio.MixtureRegistry.add(f"{prefix}_held_out", [(name, _num_rows) for name in held_out])
    _registered[prefix] = registration


def task_name(name: str, prefix: str = "crossfit") -> str:
    """Return the name of the seqio task for CrossFit's name of a task; seqio allows no "-" in it."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_.]', '_', name)}"


def task_names(
    folder: str,
    partition: str = "random",
    part: Part = "train",
    order: TaskOrder = "list",
    prefix: str = "crossfit",
) -> list[str]:
    """Return the names of the seqio tasks of a part of a partition, whether or not they have files.

    The reference implementation numbers tasks in the order of the partition's list, which is not sorted. Runs
    of this project number them in the order of their sorted names. To import a router that was trained
    elsewhere, give `poly-jax import --tasks` these names in the order of the list.

    Args:
      folder: the benchmark's folder.
      partition: name of the partition's file.
      part: "train", "dev" or "test".
      order: "list" for the order of the file, "sorted" for the order of CrossFit's names.
      prefix: prefix of the names.

    Raises:
      UserError: there is no such partition, or the part or the order is not known.
    """
    names = read_partition(epath.Path(folder), partition).in_order(part, order)
    return [task_name(name, prefix) for name in names]


def _descriptions(path: str, parts: Partition) -> dict[str, str]:
    fields = Fields(read_json(path), path, "give a JSON object of texts by the names of tasks")
    known = {*parts.train, *parts.dev, *parts.test}
    return {task: fields.take(task, str) for task in fields if task in known}


def _score(task: str, own: Mapping[str, str]) -> Score:
    metric: Any = own.get(task, METRIC_OF_TASK.get(task))
    if metric is None:
        raise UserError(
            f"task {task!r} is not one of CrossFit's 160, so its metric is not known; bind "
            f"crossfit.register.metrics = {{{task!r}: 'ACC'}}, or another metric"
        )
    if metric not in get_args(MetricName):
        raise UserError(
            f"crossfit.register.metrics gives {metric!r} to task {task!r}; use one of "
            + ", ".join(map(repr, get_args(MetricName)))
        )
    return Score(metric)


def _add_task(
    name: str, source: SampleSource, score: Score, encoding: Encoding, vocabulary: seqio.Vocabulary
) -> None:
    if name in seqio.TaskRegistry.names():
        raise UserError(f"a seqio task {name!r} is registered already; give crossfit.register another prefix")
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[seqio.CacheDatasetPlaceholder(), encoding],
        output_features={
            feature: seqio.Feature(vocabulary, add_eos=True) for feature in ("inputs", "targets")
        },
        postprocess_fn=stripped_or_references,
        metric_fns=[score],
    )


def _add_mixture(
    name: str, tasks: Sequence[str], files: Mapping[str, Splits], prefix: str, place: epath.Path
) -> None:
    found = [task for task in tasks if task in files]
    if len(found) < len(tasks):
        print(
            f"{place}: {len(found)} of the {counted(len(tasks), 'task')} of {name} have files; it leaves"
            " out the others",
            file=sys.stderr,
        )
    if found:
        seqio.MixtureRegistry.add(name, [(task_name(task, prefix), _num_rows) for task in found])


def _num_rows(task: Any) -> float:
    return float(seqio.mixing_rate_num_examples(task, split="train" if "train" in task.splits else "test"))
