"""Registers T0's held-out tasks, as far as a folder has their files, as seqio tasks and a mixture."""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from typing import get_args

from etils import epath

from poly_jax.data.broken_rows import checked_share
from poly_jax.data.quiet import seqio
from poly_jax.data.registry import check_registered_alike
from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot import metrics
from poly_jax.tasks.t0_few_shot.encoding import Encoding
from poly_jax.tasks.t0_few_shot.held_out import HELD_OUT_TASKS
from poly_jax.tasks.t0_few_shot.source import VALIDATION, EvaluationTemplates, HeldOutSource

_TEMPLATES = "promptsource_templates"
# The first one of these that the folder has is used.
_VALIDATION_FOLDERS = ("validation", "validation_reconstructed")
_SEED_FILE = re.compile(r"(\d+)_seed\.jsonl")
_SHOTS_FOLDER = re.compile(r"(\d+)_shot")


@dataclasses.dataclass(frozen=True)
class _Registration:
    """The arguments of one call of `register`."""

    folder: str
    vocabulary: seqio.Vocabulary
    evaluation_templates: str
    length_norm: float
    seed: int
    shots: tuple[tuple[str, int], ...]
    max_broken_share: float


_registered: dict[str, _Registration] = {}


def register(
    folder: str,
    vocabulary: seqio.Vocabulary,
    *,
    evaluation_templates: EvaluationTemplates = "drawn",
    length_norm: float = 1.0,
    seed: int = 42,
    shots: Mapping[str, int] | None = None,
    max_broken_share: float = 0.0,
    prefix: str = "t0",
) -> None:
    """Registers a seqio task per held-out task that has files, `<prefix>_rte`, and the mixture of all.

    The mixture is `<prefix>_few_shot`. Files are `few_shot/<task>/<shots>_shot/<seed>_seed.jsonl` as T-Few
    has them, `validation/<task>.jsonl` and `promptsource_templates/<data set>/<subset>/templates.yaml`; they
    are read when their task is used. A task has the splits `train_<seed>` of every such file, `train` and
    `validation`, and answer choices, so that it is evaluated by rank classification and trained with
    TokenLoss or ChoiceLoss. A second call with the same arguments does nothing.

    Args:
      folder: folder with the files; local or remote (gs://).
      vocabulary: vocabulary of the inputs and the targets.
      evaluation_templates: "drawn" shows each example of `validation` with one template, which is drawn once
        and is the same for all runs (T-Few, MHR); "all" shows it with every template, for the mean and the
        median over templates (T0).
      length_norm: exponent of the length normalisation, see `metrics.rank_accuracy`.
      seed: seed of the few-shot file that is `train`.
      shots: number of shots, and so the folder to use, for each task that has several folders.
      max_broken_share: largest share of a file's examples that may be broken and left out.
      prefix: prefix of the names, so that two folders or protocols can be used side by side.

    Raises:
      UserError: no task has a file, `shots` does not choose between several folders, or the prefix was
        registered with other arguments.
    """
    chosen = dict(shots or {})
    registration = _Registration(
        os.fspath(folder),
        vocabulary,
        evaluation_templates,
        length_norm,
        seed,
        tuple(sorted(chosen.items())),
        checked_share(max_broken_share),
    )
    if prefix in _registered:
        check_registered_alike(prefix, _registered[prefix], registration)
        return
    if evaluation_templates not in get_args(EvaluationTemplates):
        raise UserError(
            f"t0_few_shot.register.evaluation_templates is {evaluation_templates!r}; use "
            + " or ".join(map(repr, get_args(EvaluationTemplates)))
        )
    root = epath.Path(folder)
    files = {task: _files(root, task.name, chosen.get(task.name), seed) for task in HELD_OUT_TASKS}
    files = {task: splits for task, splits in files.items() if splits}
    if not files:
        raise UserError(
            f"no task has a file at {root / 'few_shot' / '<task>' / '<shots>_shot' / '<seed>_seed.jsonl'} or "
            f"{root / 'validation' / '<task>.jsonl'}; give the folder that holds few_shot/ and validation/"
        )
    # All tasks share these objects, so that a reader can see that they are preprocessed alike.
    preprocessors = [seqio.CacheDatasetPlaceholder(), Encoding(vocabulary)]
    for task, splits in files.items():
        seqio.TaskRegistry.add(
            task_name(task.name, prefix),
            source=HeldOutSource(
                task,
                root / _TEMPLATES / task.templates / "templates.yaml",
                splits,
                evaluation_templates,
                max_broken_share,
            ),
            preprocessors=preprocessors,
            output_features={
                feature: seqio.Feature(vocabulary, add_eos=True) for feature in ("inputs", "targets")
            },
            postprocess_fn=metrics.labelled,
            metric_fns=[
                functools.partial(
                    metrics.rank_accuracy,
                    length_norm=length_norm,
                    by_template=evaluation_templates == "all",
                )
            ],
        )
    names = [task_name(task.name, prefix) for task in files]
    seqio.MixtureRegistry.add(f"{prefix}_few_shot", names, default_rate=1.0)
    _registered[prefix] = registration


def task_name(name: str, prefix: str = "t0") -> str:
    """Return the name of the seqio task for a held-out task's name; seqio allows no "-" in it."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_.]', '_', name)}"


def _files(root: epath.Path, task: str, shots: int | None, seed: int) -> dict[str, epath.Path]:
    """Return the file of every split that the folder has."""
    splits = {}
    folder = _few_shot_folder(root / "few_shot" / task, shots)
    if folder is not None:
        seeds = {
            int(match[1]): path for path in folder.iterdir() if (match := _SEED_FILE.fullmatch(path.name))
        }
        splits = {f"train_{number}": path for number, path in sorted(seeds.items())}
        if seed in seeds:
            splits = {"train": seeds[seed], **splits}
    for name in _VALIDATION_FOLDERS:
        path = root / name / f"{task}.jsonl"
        if path.exists():
            return {**splits, VALIDATION: path}
    return splits


def _few_shot_folder(folder: epath.Path, shots: int | None) -> epath.Path | None:
    """Return the folder of a task's few-shot files, or None if it has none."""
    found = {}
    if folder.exists():
        found = {
            int(match[1]): path for path in folder.iterdir() if (match := _SHOTS_FOLDER.fullmatch(path.name))
        }
    if shots is None and len(found) < 2:
        return next(iter(found.values()), None)
    if shots not in found:
        there = ", ".join(map(str, sorted(found))) or "none"
        asked = "does not say which" if shots is None else f"asks for {shots}"
        raise UserError(
            f"{folder} has files of these numbers of shots: {there}; t0_few_shot.register.shots {asked}"
        )
    return found[shots]
