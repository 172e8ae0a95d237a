"""Registers the task files of a folder as seqio tasks, and its split lists as mixtures."""

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from etils import epath

from poly_jax.counted import counted
from poly_jax.data.broken_rows import checked_share
from poly_jax.data.quiet import seqio
from poly_jax.data.registry import check_registered_alike, mixture_or_task
from poly_jax.errors import UserError
from poly_jax.files.unpacked import is_archive, unpacked
from poly_jax.tasks.super_natural_instructions import metrics
from poly_jax.tasks.super_natural_instructions.encoding import Encoding
from poly_jax.tasks.super_natural_instructions.online_subset import ONLINE_SUBSET
from poly_jax.tasks.super_natural_instructions.prompts import form
from poly_jax.tasks.super_natural_instructions.reading import read_names
from poly_jax.tasks.super_natural_instructions.rouge_tokens import RougeTokens
from poly_jax.tasks.super_natural_instructions.source import TaskFileSource
from poly_jax.tasks.super_natural_instructions.splits import (
    NUM_TEST,
    test_task_splits,
    train_task_splits,
)

Track = Literal["default", "xlingual"]
References = Literal["drawn", "rows"]

# The files of a checkout that are read, wherever in an archive it is.
_FILES = re.compile(r"(?:^|/)(tasks/[^/]+\.json|splits/[^/]+/[^/]+\.txt)$")


@dataclasses.dataclass(frozen=True)
class _Registration:
    """The arguments of one call of `register`."""

    folder: str
    vocabulary: seqio.Vocabulary
    track: str
    prompt: str
    positive_examples: int
    max_instances_per_task: int
    references: str
    seed: int
    shots: int
    few_shot_seeds: tuple[int, ...]
    rouge_tokens: RougeTokens
    gpt2_merges: str | None
    max_broken_share: float


_registered: dict[str, _Registration] = {}


def register(
    folder: str,
    vocabulary: seqio.Vocabulary,
    *,
    track: Track = "default",
    prompt: str = "NEW",
    positive_examples: int = 0,
    max_instances_per_task: int = 100,
    references: References = "drawn",
    seed: int = 42,
    shots: int = 32,
    few_shot_seeds: Sequence[int] = (13, 42, 58),
    rouge_tokens: RougeTokens = "auto",
    gpt2_merges: str | None = None,
    max_broken_share: float = 0.0,
    prefix: str = "sni",
) -> None:
    """Registers a seqio task per file of `<folder>/tasks/` and the mixtures `<prefix>_train` and `_test`.

    The mixtures hold the tasks of `<folder>/splits/<track>/{train,test}_tasks.txt` that have a file, at rates
    equal to their numbers of training examples. In the English track, `<prefix>_test_20` holds those of
    `online_subset.py`, for evaluation in training. No task file is read before its task is used. A second
    call with the same arguments does nothing. `splits.py` makes the splits. Tasks of the test list have
    `test`, `train` and `validation`, and the last two also for each few-shot seed (`train_13`). Other tasks
    have `train` and `validation`. A split without instances is absent.

    Args:
      folder: folder with the files in their original layout, such as a git checkout, or a zip or tar archive
        of it, which is unpacked once (`poly_jax.files.unpacked`); local or remote (gs://).
      vocabulary: vocabulary of the inputs and the targets.
      track: "default" for the split lists of the English track, "xlingual" for the cross-lingual one.
      prompt: 'NEW' or 'OLD', see `prompts.py`.
      positive_examples: largest number of examples that a prompt shows; fewer if they do not fit the length.
      max_instances_per_task: largest number of training instances of a train task.
      references: "drawn" draws one reference as the target each time an instance is read (MHR's camera-ready
        version); "rows" makes each reference of a train task's instance a row of its own (its first release).
      seed: seed that shuffles the instances of a train task.
      shots: number of training instances that a test task has for few-shot learning.
      few_shot_seeds: seeds that shuffle a test task's pool; each makes its own splits.
      rouge_tokens: tokens that ROUGE-L compares, see `rouge_tokens.py`.
      gpt2_merges: path of GPT-2's `merges.txt`, whose tokens the official cross-lingual evaluation compares.
      max_broken_share: largest share of a file's instances that may be broken and left out. The instances
        after them move up, also in the test set, which has the first 100.
      prefix: prefix of the names, so that two folders or prompt forms can be used side by side.

    Raises:
      UserError: there is no task file or no split list, a setting is not known, or the prefix was registered
        with other arguments.
    """
    registration = _Registration(
        os.fspath(folder),
        vocabulary,
        track,
        prompt,
        positive_examples,
        max_instances_per_task,
        references,
        seed,
        shots,
        tuple(few_shot_seeds),
        rouge_tokens,
        gpt2_merges,
        checked_share(max_broken_share),
    )
    if prefix in _registered:
        check_registered_alike(prefix, _registered[prefix], registration)
        return
    encoding = Encoding(form(prompt), vocabulary)
    metric = metrics.Scores(rouge_tokens, gpt2_merges)
    if not registration.few_shot_seeds or min(max_instances_per_task, shots) < 1 or positive_examples < 0:
        raise UserError(
            f"max_instances_per_task {max_instances_per_task} and shots {shots} must be 1 or more, "
            f"positive_examples {positive_examples} 0 or more and few_shot_seeds {few_shot_seeds} not empty"
        )
    for name, value, known in (
        ("track", track, get_args(Track)),
        ("references", references, get_args(References)),
    ):
        if value not in known:
            raise UserError(
                f"super_natural_instructions.register.{name} is {value!r}; use "
                + " or ".join(map(repr, known))
            )
    root = unpacked(folder, _FILES) if is_archive(folder) else epath.Path(folder)
    files = _files(root)
    lists = {split: read_names(root / "splits" / track / f"{split}_tasks.txt") for split in ("train", "test")}
    held_out = frozenset(lists["test"])
    for stem, path in files.items():
        _add_task(task_name(stem, prefix), path, stem in held_out, registration, encoding, metric)
    for split, stems in lists.items():
        found = sorted({task_name(stem, prefix) for stem in stems if stem in files})
        if len(found) < len(stems):
            print(
                f"{folder}: {len(found)} of the {counted(len(stems), 'task')} of the {split} list have a"
                " file; "
                f"{prefix}_{split} leaves out the others",
                file=sys.stderr,
            )
        if found:
            seqio.MixtureRegistry.add(f"{prefix}_{split}", [(name, _num_training_examples) for name in found])
    online = [task_name(stem, prefix) for stem in ONLINE_SUBSET if stem in files and stem in held_out]
    if online and track == "default":
        seqio.MixtureRegistry.add(f"{prefix}_test_20", [(name, _num_training_examples) for name in online])
    _registered[prefix] = registration


def task_name(stem: str, prefix: str = "sni") -> str:
    """Return the name of the seqio task for a task file's name without `.json`; seqio allows no "-" in it."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_.]', '_', stem)}"


def categories(names: Iterable[str]) -> dict[str, str]:
    """Return the category of each task, as the official results name it, such as `textual_entailment`.

    Raises:
      UserError: a task is unknown or not one of Super-NaturalInstructions, or its file has no category.
    """
    found = {}
    for name in names:
        source = getattr(mixture_or_task(name), "source", None)
        if not isinstance(source, TaskFileSource):
            raise UserError(
                f"{name!r} is not a task of Super-NaturalInstructions, so that it has no category"
            )
        found[name] = source.category
    return found


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    """The task files by stem."""
    files = {path.stem: path for path in sorted((folder / "tasks").glob("*.json"))}
    if not files:
        raise UserError(
            f"no task file at {folder / 'tasks' / '*.json'}; give the folder of a Super-NaturalInstructions "
            "checkout, with tasks/ and splits/ in it, or a zip or tar archive of it"
        )
    return files


def _add_task(
    name: str,
    path: epath.Path,
    held_out: bool,
    settings: _Registration,
    encoding: Encoding,
    metric: metrics.Scores,
) -> None:
    if held_out:
        split = functools.partial(test_task_splits, seeds=settings.few_shot_seeds, shots=settings.shots)
    else:
        split = functools.partial(
            train_task_splits, seed=settings.seed, max_instances=settings.max_instances_per_task
        )
    if name in seqio.TaskRegistry.names():
        raise UserError(
            f"{path}: a seqio task {name!r} is registered already; rename the file or set a prefix"
        )
    seqio.TaskRegistry.add(
        name,
        source=TaskFileSource(
            path,
            split,
            settings.positive_examples,
            settings.references == "rows" and not held_out,
            settings.max_broken_share,
        ),
        preprocessors=[
            seqio.CacheDatasetPlaceholder(),
            encoding,
        ],
        output_features={
            feature: seqio.Feature(settings.vocabulary, add_eos=True) for feature in ("inputs", "targets")
        },
        postprocess_fn=metrics.all_references,
        metric_fns=[metric],
        # seqio shuffles the repeated stream, so a larger buffer would only hold more copies.
        shuffle_buffer_size=max(NUM_TEST, settings.max_instances_per_task),
    )


def _num_training_examples(task: Any) -> float:
    return float(seqio.mixing_rate_num_examples(task, split="train" if "train" in task.splits else "test"))
