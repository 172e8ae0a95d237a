"""The program behind `poly-jax data`: prints what the model sees of a mixture's data."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from poly_jax.counted import counted
from poly_jax.data.packing import Packing
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import RoutedMixture, RoutedTask, routed
from poly_jax.data.stream import Batch
from poly_jax.data.task_table import TaskTable
from poly_jax.data.user_code import reading_error
from poly_jax.errors import UserError
from poly_jax.experiment import Data
from poly_jax.inspection.sample import Sample, packed_rows, read_sample
from poly_jax.inspection.statistics import PERCENTILES, fill, lengths
from poly_jax.inspection.token_texts import printable, token_texts
from poly_jax.reporting.table import print_table

_TASKS_LISTED = 20
_TASKS_SHOWN = 3
_TOKENS_SHOWN = 64
# Width of texts and tokens, as of this project's own text files.
_WIDTH = 100
# The data is not shuffled; the seed fixes the random numbers of a task's own preprocessors.
_SEED = 0


def show_data(data: Data, task: str | None = None, examples: int = 1, seed: int = 0) -> None:
    """Print a mixture's tasks, rates, examples, lengths and rows.

    Args:
      data: the mixture, its split and the lengths of a row.
      task: name of the only task whose examples are shown and measured; None for the whole mixture.
      examples: number of examples that are shown of each task.
      seed: seed of the run, whose first rows are shown.

    Raises:
      UserError: the mixture, the task or the split is unknown, or the data cannot be read.
    """
    data.register_tasks()
    table = TaskTable.of(data.mixture)
    view = routed(data.mixture, table)
    if task is not None:
        table.id(task)
    tasks = [each for each in view.tasks if data.split in each.splits and task in (None, each.name)]
    if not tasks:
        raise UserError(
            f"{task or data.mixture!r} has no split {data.split!r}; choose one with --split: "
            f"{', '.join(sorted({split for each in view.tasks for split in each.splits}))}"
        )
    _show_mixture(view, data)
    shown = tasks[:_TASKS_SHOWN]
    for each in shown:
        for number, example in enumerate(_first(each, data, examples), 1):
            _show_example(each, example, number, data)
    if len(shown) < len(tasks):
        _say(f"\n{counted(len(tasks) - len(shown), 'other task')}: --task=NAME shows the examples of one.")
    sample = read_sample(task or data.mixture, table, data, seed)
    what = f"task {task}" if task else f"mixture {data.mixture}"
    _show_lengths(sample, data, what)
    _show_fill(sample, data)
    _show_row(sample, data, table, view.output_features)


def _show_mixture(view: RoutedMixture, data: Data) -> None:
    with_split = [task for task in view.tasks if data.split in task.splits]
    rates = {task.name: view.get_rate(task) for task in with_split}
    total = sum(rates.values())
    rows = []
    for task in sorted(view.tasks, key=lambda each: each.task_id):
        count = task.num_input_examples(data.split) if task.name in rates else 0
        rate = rates.get(task.name, 0.0)
        rows.append(
            [
                task.name,
                str(task.task_id),
                "?" if count is None else f"{count:,}",
                f"{rate:,.6g}",
                f"{100 * rate / total:.2f} %" if total else "",
            ]
        )
    print_table(
        f"{data.mixture}, split {data.split}: {counted(len(rows), 'task')}",
        ("task", "id", "rows", "rate", "share"),
        rows[:_TASKS_LISTED],
    )
    if len(rows) > _TASKS_LISTED:
        _say(f"... and {counted(len(rows) - _TASKS_LISTED, 'more task')}")


def _first(task: RoutedTask, data: Data, count: int) -> list[dict[str, Any]]:
    """The first examples of a task in the order of its source."""
    dataset = task.get_dataset(data.sequence_length, data.split, shuffle=False, seed=_SEED, num_epochs=1)
    try:
        return list(itertools.islice(dataset.as_numpy_iterator(), count))
    except tf.errors.OpError as error:
        raise reading_error([task.unrouted], data.split, data.sequence_length, error) from error


def _show_example(task: RoutedTask, example: Mapping[str, Any], number: int, data: Data) -> None:
    _title(f"{task.name} (task id {task.task_id}), example {number} of split {data.split}")
    for feature, length in data.sequence_length.items():
        vocabulary = task.output_features[feature].vocabulary
        ids = example[feature].tolist()
        _say(f"{feature}, {len(ids)} of at most {counted(length, 'token')}", "bold")
        _text(vocabulary.decode(ids))
        _text(_tokens(vocabulary, ids), "dim")
    vocabulary = task.output_features["targets"].vocabulary
    if "choices" in example and "label" in example:
        _say("answer choices, of which * is right", "bold")
        for place, ids in enumerate(example["choices"].tolist()):
            if any(ids):
                mark = "*" if place == example["label"] else " "
                _text(f"{mark} {vocabulary.decode([each for each in ids if each])}")
    elif len(references := example.get("references", ())) > 1:
        _say("references, of which one is drawn as the target", "bold")
        for reference in references:
            _text(reference.decode())


def _tokens(vocabulary: seqio.Vocabulary, ids: Sequence[int]) -> str:
    """Pieces with their ids, the first ones of many."""
    pieces = token_texts(vocabulary, ids[:_TOKENS_SHOWN])
    shown = [f"{piece}·{number}" for piece, number in zip(pieces, ids, strict=False)]
    more = len(ids) - _TOKENS_SHOWN
    return " ".join(shown) + (f" ... and {more:,} more" if more > 0 else "")


def _show_lengths(sample: Sample, data: Data, what: str) -> None:
    rows = []
    for feature, tokens in (("inputs", sample.inputs_lengths), ("targets", sample.targets_lengths)):
        most = data.sequence_length[feature]
        found = lengths(tokens, most)
        rows.append(
            [feature, *(f"{each:,}" for each in found.percentiles), f"{most:,}", _percent(found.share_cut)]
        )
    heads = [f"{each} %" for each in PERCENTILES[:-1]]
    _say("")
    print_table(
        f"tokens of {counted(len(sample.inputs_lengths), 'example')} of {what}",
        ("", *heads, "longest", "row", "cut"),
        rows,
    )


def _show_fill(sample: Sample, data: Data) -> None:
    rows = []
    kinds: tuple[Packing, ...] = ("none", "first-fit", "best-fit")
    for packing in kinds:
        found = fill(packed_rows(sample, data, packing))
        name = f"{packing} (bound)" if packing == data.packing else packing
        shares = (_percent(found.inputs), _percent(found.targets))
        rows.append([name, f"{found.rows:,}", *shares, f"{found.examples:.2f}"])
    _say("")
    print_table(
        f"fill of the first rows of {data.inputs_length:,} and {data.targets_length:,} tokens",
        ("Data.packing", "rows", "inputs", "targets", "examples a row"),
        rows,
    )


def _show_row(sample: Sample, data: Data, table: TaskTable, features: Mapping[str, seqio.Feature]) -> None:
    """Print the segments of the first packed row, also where the run does not pack rows."""
    packing: Packing = "best-fit" if data.packing == "none" else data.packing
    row = next(packed_rows(sample, data, packing))
    rows = [
        [str(segment), table.name(task), text, str(len(inputs)), str(len(targets))]
        for segment, task, inputs, targets, text in _segments(row, features)
    ]
    _say("")
    columns = ("segment", "task", "text", "inputs", "targets")
    print_table(f"segments of the first row that {packing} packs", columns, rows, n_texts=3)
    if packing != data.packing:
        _say(f"Data.packing is {data.packing!r}, so that this run does not pack its rows.")


def _segments(row: Batch, features: Mapping[str, seqio.Feature]) -> list[tuple[int, int, Any, Any, str]]:
    tokens, segments = row["encoder_input_tokens"][0], row["encoder_segment_ids"][0]
    targets, target_segments = row["decoder_target_tokens"][0], row["decoder_segment_ids"][0]
    found = []
    for segment in range(1, int(max(segments.max(), target_segments.max())) + 1):
        inputs, outputs = tokens[segments == segment], targets[target_segments == segment]
        text = _begin(features["inputs"].vocabulary.decode(inputs.tolist()), 40)
        target = _begin(features["targets"].vocabulary.decode(outputs.tolist()), 20)
        found.append((segment, int(row["task_ids"][0][segment - 1]), inputs, outputs, f"{text} → {target}"))
    return found


def _begin(text: str, most: int) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _title(text: str) -> None:
    _say(f"\n{text}", "bold underline")


def _say(text: str, style: str = "") -> None:
    Console(soft_wrap=True).print(Text(text, style=style))


def _text(text: str, style: str = "") -> None:
    """Print a text with a margin, whose own line ends are kept."""
    for line in text.split("\n"):
        for part in textwrap.wrap(printable(line), _WIDTH, break_on_hyphens=False) or [""]:
            _say(f"  {part}", style)
