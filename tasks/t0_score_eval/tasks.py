"""Registers P3's tasks for rank classification, as far as a folder has them, as seqio tasks and mixtures."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from poly_jax.data.quiet import seqio
from poly_jax.data.registry import check_registered_alike
from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot import metrics
from poly_jax.tasks.t0_few_shot.encoding import Encoding
from poly_jax.tasks.t0_pretraining.data_sets import training_data_set
from poly_jax.tasks.t0_pretraining.folders import TEXTS, TRAIN, cached_splits
from poly_jax.tasks.t0_pretraining.row_files import ScoredRecords
from poly_jax.tasks.t0_score_eval.source import ScoreEvalSource
from poly_jax.tasks.t0_score_eval.templates import SCORE_EVAL, held_out_task

_FEATURES = {**TEXTS, "idx": "int32", "is_correct": "bool"}


@dataclasses.dataclass(frozen=True)
class _Registration:
    """The arguments of one call of `register`."""

    folder: str
    vocabulary: seqio.Vocabulary
    length_norm: float
    end_inputs: bool


_registered: dict[str, _Registration] = {}


def register(
    folder: str,
    vocabulary: seqio.Vocabulary,
    *,
    length_norm: float = 0.0,
    end_inputs: bool = True,
    prefix: str = "t0_p3",
) -> None:
    """Registers a seqio task per data set that has folders `<template>_score_eval`, and two mixtures.

    The mixture `<prefix>_held_out` has T0's held-out tasks, `<prefix>_rte`, with the templates by which T0 is
    evaluated. The mixture `<prefix>_training` has the data sets that T0 is trained on, `<prefix>_glue_mrpc`,
    with all templates that have answer choices. The tasks are for evaluation: the rows of the split `train`
    are left out. Other folders are left alone. A second call with the same arguments does nothing.

    Each example is shown with every template of its data set. `accuracy` is the mean over templates, and
    `median_accuracy` and `interquartile_range` are what T0 reports (arXiv 2110.08207).

    Args:
      folder: folder with P3 as published, `data/<template>_score_eval/`, or with such folders themselves;
        local or remote (gs://).
      vocabulary: vocabulary of the inputs and the targets.
      length_norm: exponent of the length normalisation, see `metrics.rank_accuracy`; T0 normalises nothing.
      end_inputs: whether inputs end with an end of sequence, as `t0_pretraining.register` trains; P3's and
        T0's do not.
      prefix: prefix of the names, so that two folders or settings can be used side by side.

    Raises:
      UserError: the folder has no such template, the description of a split is broken, or the prefix was
        registered with other arguments.
    """
    registration = _Registration(os.fspath(folder), vocabulary, length_norm, end_inputs)
    if prefix in _registered:
        check_registered_alike(prefix, _registered[prefix], registration)
        return
    held_out, training = _find(epath.Path(folder))
    encoding = Encoding(vocabulary, end_inputs)
    metric = functools.partial(metrics.rank_accuracy, length_norm=length_norm, by_template=True)
    for mixture, data_sets in (("held_out", held_out), ("training", training)):
        for name, templates in data_sets.items():
            seqio.TaskRegistry.add(
                f"{prefix}_{name}",
                source=ScoreEvalSource(templates),
                preprocessors=[encoding],
                output_features={
                    "inputs": seqio.Feature(vocabulary, add_eos=end_inputs),
                    "targets": seqio.Feature(vocabulary, add_eos=True),
                },
                postprocess_fn=marked,
                metric_fns=[metric],
            )
        if data_sets:
            names = [f"{prefix}_{name}" for name in data_sets]
            seqio.MixtureRegistry.add(f"{prefix}_{mixture}", names, default_rate=1.0)
    _registered[prefix] = registration


def marked(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """Return which choices are right, their numbers of tokens, the template and the weight of a target."""
    if not is_target or example is None:
        return text
    return {
        "correct": np.asarray(example["correct"]).astype(bool).tolist(),
        "tokens": np.count_nonzero(example["choices"], axis=-1).tolist(),
        "template": example["template"].decode(),
        "weight": float(example["weight"]),
    }


Templates = dict[str, dict[str, Mapping[str, ScoredRecords]]]


def _find(folder: epath.Path) -> tuple[Templates, Templates]:
    """Return the files of the held-out tasks and of the training data sets, by template and split."""
    inside = folder / "data" if (folder / "data").is_dir() else folder
    held_out: Templates = {}
    training: Templates = {}
    for path in sorted(inside.glob(f"*{SCORE_EVAL}")) if inside.is_dir() else ():
        template = path.name.removesuffix(SCORE_EVAL)
        task, data_set = held_out_task(template), training_data_set(template)
        if task is None and data_set is None:
            continue
        files = {
            split: ScoredRecords(shards)
            for split, shards in cached_splits(path, _FEATURES).items()
            if split != TRAIN
        }
        if files and task is not None:
            held_out.setdefault(task, {})[template] = files
        elif files and data_set is not None:
            training.setdefault(data_set.p3_name, {})[template] = files
    if not held_out and not training:
        raise UserError(
            f"no template of T0's held-out tasks or training data sets at "
            f"{inside / f'<template>{SCORE_EVAL}' / 'info.validation.json'}; give the folder that holds P3's "
            "data/"
        )
    return held_out, training
