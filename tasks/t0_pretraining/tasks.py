"""Registers T0's training templates, as far as a folder has their rows, as seqio tasks and a mixture."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from etils import epath

from poly_jax.data.broken_rows import checked_share
from poly_jax.data.quiet import seqio
from poly_jax.data.registry import check_registered_alike
from poly_jax.errors import UserError
from poly_jax.tasks.exact_match import exact_match
from poly_jax.tasks.t0_pretraining.data_sets import DATA_SETS, DataSet
from poly_jax.tasks.t0_pretraining.encoding import Encoding
from poly_jax.tasks.t0_pretraining.folders import find_templates
from poly_jax.tasks.t0_pretraining.row_files import RowFile
from poly_jax.tasks.t0_pretraining.source import TemplatesSource

TaskIdentity = Literal["template", "data_set"]
Mixing = Literal["t_few", "t_zero"]


@dataclasses.dataclass(frozen=True)
class _Registration:
    """The arguments of one call of `register`."""

    folder: str
    vocabulary: seqio.Vocabulary
    task_identity: str
    mixing: str
    end_inputs: bool
    max_broken_share: float


_registered: dict[str, _Registration] = {}


def register(
    folder: str,
    vocabulary: seqio.Vocabulary,
    *,
    task_identity: TaskIdentity = "template",
    mixing: Mixing = "t_few",
    end_inputs: bool = True,
    max_broken_share: float = 0.0,
    prefix: str = "t0",
) -> None:
    """Registers T0's training tasks that have files, `<prefix>_<P3's name>`, and their mixture.

    The mixture is `<prefix>_train`. `folders.py` says which files are found; what the folder has beside T0's
    38 training data sets is left alone. No row is read before its task is used. A second call with the same
    arguments does nothing.

    Args:
      folder: folder with P3 as published, or with a JSONL file for each template; local or remote (gs://).
      vocabulary: vocabulary of the inputs and the targets.
      task_identity: what is a task, and so has a row of its own in the routers: each of the 313 templates
        (MHR, arXiv 2211.03831), or each of the 38 data sets, whose templates' rows are then one task's.
      mixing: "t_few" keeps the first rows of each template and draws all kept rows alike (T-Few, MHR);
        "t_zero" keeps all rows and draws templates at fixed rates (T0). `data_sets.py` has both formulas.
      end_inputs: whether inputs end with an end of sequence: they do in T-Few and MHR, but not in P3 and T0.
      max_broken_share: largest share of a template's rows that may be broken and left out. With 0, a broken
        row stops training when it is drawn; above 0, all rows are read once at the start.
      prefix: prefix of the names, so that two folders or settings can be used side by side.

    Raises:
      UserError: the folder has no template of these data sets, a setting is not known, or the prefix was
        registered with other arguments.
    """
    registration = _Registration(
        os.fspath(folder), vocabulary, task_identity, mixing, end_inputs, checked_share(max_broken_share)
    )
    if prefix in _registered:
        check_registered_alike(prefix, _registered[prefix], registration)
        return
    for name, value, known in (
        ("task_identity", task_identity, get_args(TaskIdentity)),
        ("mixing", mixing, get_args(Mixing)),
    ):
        if value not in known:
            raise UserError(
                f"t0_pretraining.register.{name} is {value!r}; use {' or '.join(map(repr, known))}"
            )
    found = find_templates(epath.Path(folder), truncated=mixing == "t_few", max_broken_share=max_broken_share)
    _report_missing(folder, found)
    # All tasks share one object, so that a reader can see that they are preprocessed alike.
    encoding = Encoding(vocabulary, end_inputs)
    rates = []
    for data_set, templates in found.items():
        groups: Mapping[str, Sequence[str]] = {data_set.p3_name: list(templates)}
        if task_identity == "template":
            groups = {template: [template] for template in templates}
        for name, members in groups.items():
            task = _add_task(
                task_name(name, prefix), {each: templates[each] for each in members}, registration, encoding
            )
            fixed = float(data_set.rate_per_template * len(members))
            rates.append((task, fixed if mixing == "t_zero" else _num_training_rows))
    seqio.MixtureRegistry.add(f"{prefix}_train", rates)
    _registered[prefix] = registration


def task_name(name: str, prefix: str = "t0") -> str:
    """Return the name of the seqio task for P3's name of a template or a data set."""
    return f"{prefix}_{name}"


def _add_task(
    name: str,
    templates: Mapping[str, Mapping[str, RowFile]],
    settings: _Registration,
    encoding: Encoding,
) -> str:
    if name in seqio.TaskRegistry.names():
        raise UserError(
            f"{settings.folder}: a seqio task {name!r} is registered already; give register another prefix"
        )
    seqio.TaskRegistry.add(
        name,
        source=TemplatesSource(templates),
        # No place for seqio's offline cache: the rows are texts already, and a cache would not be shuffled.
        preprocessors=[encoding],
        output_features={
            "inputs": seqio.Feature(settings.vocabulary, add_eos=settings.end_inputs),
            "targets": seqio.Feature(settings.vocabulary, add_eos=True),
        },
        metric_fns=[exact_match],
        # The source shuffles. A buffer of each of 313 tasks would only make saved positions large.
        shuffle_buffer_size=None,
    )
    return name


def _num_training_rows(task: seqio.Task) -> float:
    return float(task.num_input_examples("train") or 0) if "train" in task.splits else 0.0


def _report_missing(folder: str, found: Mapping[DataSet, Mapping[str, object]]) -> None:
    n_templates = sum(each.n_templates for each in DATA_SETS)
    n_found = sum(map(len, found.values()))
    if (len(found), n_found) != (len(DATA_SETS), n_templates):
        print(
            f"{folder}: {n_found} templates of {len(found)} data sets have rows; T0 trains on {n_templates} "
            f"templates of {len(DATA_SETS)} data sets",
            file=sys.stderr,
        )
