"""Registers the tasks of a folder of files as seqio tasks, and a mixture of them."""

import dataclasses
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from etils import epath

from poly_jax.data.broken_rows import checked_share
from poly_jax.data.quiet import seqio
from poly_jax.data.registry import check_registered_alike, close_to
from poly_jax.errors import UserError
from poly_jax.tasks.from_files.encoding import Encoding
from poly_jax.tasks.from_files.examples import Columns
from poly_jax.tasks.from_files.folders import TEST, TRAIN, VALIDATION, Splits, find_tasks
from poly_jax.tasks.from_files.metrics import RANK_ACCURACY, answers, named_metrics
from poly_jax.tasks.from_files.source import FilesSource

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Registration:
    """The arguments of one call of `register`."""

    folder: str
    vocabulary: seqio.Vocabulary
    inputs: object
    targets: object
    choices: object
    metrics: object
    fractions: Mapping[str, float]
    seed: int
    max_broken_share: float


_registered: dict[str, _Registration] = {}


def register(
    folder: str,
    vocabulary: seqio.Vocabulary,
    *,
    inputs: str | Mapping[str, str] | None = None,
    targets: str | Mapping[str, str] | None = None,
    choices: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    metrics: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    max_broken_share: float = 0.0,
    prefix: str = "mine",
) -> None:
    """Registers a seqio task `<prefix>_<name>` for every task in a folder, and the mixture `<prefix>` of all.

    `folders.find_tasks` says what a task is. The mixture's rates are the numbers of training rows. No file is
    read before a split of its task is used, and then once. A second call with the same arguments does
    nothing. The settings from `inputs` to `metrics` hold for all tasks, or are dictionaries with a value for
    each task that needs one, by its name in the folder.

    Args:
      folder: folder of the tasks, or the folder or file of one; local or remote (gs://).
      vocabulary: vocabulary of the inputs and the targets.
      inputs: the column of the inputs, or a template such as "Question: {question}\\nAnswer:" (see
        `texts.RowText`); None where one column has a name of `examples.INPUT_COLUMNS`.
      targets: the column of the targets, with a text or a list of right answers, or a template; None where
        one column has a name of `examples.TARGET_COLUMNS`.
      choices: the answers to choose from, or the column (or field, such as "{choices[text]}") with each row's
        list of them. A target is then one of these texts, or its number from 0, and the task is evaluated by
        rank classification and can be trained with ChoiceLoss.
      metrics: names of `metrics.METRICS`; None for "rank_accuracy" where the task has choices, and
        "exact_match" where it has none.
      fractions: shares of the training rows that become `validation` or `test` where a task has no files of
        that split, such as {'test': 0.1}.
      seed: seed that draws the rows of `fractions`.
      max_broken_share: largest share of the rows of a split that may be broken and left out.
      prefix: prefix of the names, so that several folders or settings can be used side by side.

    Raises:
      UserError: the folder holds no task, a setting is not right or is for a task that does not exist, or the
        prefix was registered with other arguments.
    """
    shares = _checked_fractions({} if fractions is None else fractions)
    registration = _Registration(
        os.fspath(folder),
        vocabulary,
        inputs,
        targets,
        choices,
        metrics,
        shares,
        seed,
        checked_share(max_broken_share),
    )
    if not re.fullmatch(r"\w[\w.]*", prefix):
        raise UserError(f"from_files.register.prefix is {prefix!r}; use letters, digits, '_' and '.'")
    if prefix in _registered:
        check_registered_alike(prefix, _registered[prefix], registration)
        return
    found = find_tasks(epath.Path(folder))
    for setting in ("inputs", "targets", "choices", "metrics"):
        _check_tasks(setting, getattr(registration, setting), found)
    # All tasks have the same preprocessor, so that readers can share what they make of it.
    encoding = Encoding(vocabulary)
    tasks: dict[str, dict[str, Any]] = {}
    for name, splits in found.items():
        own_choices = _of(choices, name)
        columns = Columns(
            _of(inputs, name),
            _of(targets, name),
            own_choices if isinstance(own_choices, str | None) else tuple(own_choices),
        )
        default = "exact_match" if columns.choices is None else RANK_ACCURACY
        chosen = _of(metrics, name) or default
        tasks[_new_name(name, prefix, tasks)] = {
            "source": FilesSource(name, splits, columns, shares, seed, max_broken_share),
            "metric_fns": named_metrics(
                [chosen] if isinstance(chosen, str) else chosen, columns.choices is not None
            ),
        }
    if prefix in {*tasks, *seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}:
        raise UserError(
            f"seqio already has a task or mixture {prefix!r}; bind another from_files.register.prefix"
        )
    feature = seqio.Feature(vocabulary, add_eos=True)
    for name, parts in tasks.items():
        seqio.TaskRegistry.add(
            name,
            preprocessors=[seqio.CacheDatasetPlaceholder(), encoding],
            output_features={"inputs": feature, "targets": feature},
            postprocess_fn=answers,
            **parts,
        )
    seqio.MixtureRegistry.add(prefix, [(name, _num_training_rows) for name in tasks])
    _registered[prefix] = registration


def task_name(name: str, prefix: str = "mine") -> str:
    """Return the name of the seqio task for a task's name in the folder; seqio allows no "-" in it."""
    allowed = re.sub(r"[^\w.]", "_", name)
    return f"{prefix}_{allowed}"


def _new_name(name: str, prefix: str, tasks: Collection[str]) -> str:
    registered = task_name(name, prefix)
    if registered in tasks or registered in seqio.TaskRegistry.names():
        raise UserError(
            f"{name!r} would be the seqio task {registered!r}, as another name of the folder or of an earlier"
            " one is already; rename it, or bind another from_files.register.prefix"
        )
    return registered


def _of(setting: T | Mapping[str, T], task: str) -> T | None:
    """Return the value of a setting for a task."""
    return setting.get(task) if isinstance(setting, Mapping) else setting


def _check_tasks(setting: str, value: Any, tasks: Mapping[str, Splits]) -> None:
    for name in value if isinstance(value, Mapping) else ():
        if name not in tasks:
            raise UserError(
                f"from_files.register.{setting} has a value for {name!r}, which is not a task of the folder "
                f"({close_to(name, tasks, 'the folder has all')})"
            )


def _checked_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    shares = isinstance(fractions, Mapping) and all(
        isinstance(each, int | float) for each in fractions.values()
    )
    if not shares:
        raise UserError(
            f"from_files.register.fractions is {fractions!r}; give a share for each split, such as"
            " {'test': 0.1}"
        )
    wrong = [split for split in fractions if split not in (VALIDATION, TEST)]
    if wrong:
        raise UserError(
            f"from_files.register.fractions has the split {wrong[0]!r}; give shares for {VALIDATION!r} and "
            f"{TEST!r}"
        )
    if not all(0 < share < 1 for share in fractions.values()) or sum(fractions.values()) >= 1:
        raise UserError(
            f"from_files.register.fractions is {dict(fractions)}; give shares above 0 that leave some rows "
            f"for {TRAIN!r}"
        )
    return dict(fractions)


def _num_training_rows(task: seqio.Task) -> float:
    """The number of training rows, which an offline cache knows without reading the files again."""
    if TRAIN not in task.splits:
        return 0.0
    if task.cache_dir is not None:
        statistics = epath.Path(seqio.utils.get_cached_stats_path(task.cache_dir, TRAIN))
        if statistics.exists():
            return float(task.get_cached_stats(TRAIN)["examples"])
    return float(task.num_input_examples(TRAIN))
