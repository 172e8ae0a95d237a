"""The report about prepared tasks: examples, dropped rows, lengths, and how many examples are cut."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from poly_jax.data.broken_rows import BrokenRow
from poly_jax.prepare.lengths import PERCENTILES, Lengths
from poly_jax.reporting.table import print_table

_SHOWN_TASKS = 30
_SHOWN_ROWS = 20


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """One split of a task, or the splits of one name of all tasks.

    Attributes:
      task: name of the task, or "all".
      split: name of the split.
      examples: number of rows in the cache.
      lengths: lengths of the examples by feature, before they are cut.
      dropped: rows that the source dropped.
    """

    task: str
    split: str
    examples: int
    lengths: Mapping[str, Lengths]
    dropped: tuple[BrokenRow, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """The findings of `poly-jax prepare`.

    Attributes:
      limits: number of tokens of each feature, above which it is cut.
      splits: the splits of every task, in order.
    """

    limits: Mapping[str, int]
    splits: tuple[SplitReport, ...]

    @classmethod
    def of(cls, tasks: Sequence[Mapping[str, Any]]) -> "Report":
        """Make the report of the files `report.json` of tasks."""
        return cls(
            tasks[0]["limits"],
            tuple(
                SplitReport(
                    task["task"],
                    split,
                    content["examples"],
                    {name: Lengths(dict(map(tuple, counts))) for name, counts in content["lengths"].items()},
                    tuple(BrokenRow(**row) for row in content["dropped"]),
                )
                for task in tasks
                for split, content in task["splits"].items()
            ),
        )

    def totals(self) -> list[SplitReport]:
        """Return the union of all tasks for each split."""
        names = list(dict.fromkeys(each.split for each in self.splits))
        return [_union(split, [each for each in self.splits if each.split == split]) for split in names]

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len({each.task for each in self.splits})

    def columns(self) -> list[str]:
        """Return the names of the columns of a table with a column for every number."""
        names = ["task", "split", "examples", "dropped"]
        for feature, limit in self.limits.items():
            names += [f"{feature} {percent}%" for percent in PERCENTILES]
            names += ["longest", f"over {limit}"]
        return names

    def row(self, part: SplitReport) -> list[str]:
        """Return a row of the table: numbers of tokens at the percentiles, and the share that is cut."""
        row = [part.task, part.split, f"{part.examples:,}", f"{len(part.dropped):,}"]
        for feature, limit in self.limits.items():
            lengths = part.lengths.get(feature, Lengths({}))
            row += [f"{lengths.percentile(percent):,}" for percent in PERCENTILES]
            row += [f"{lengths.longest:,}", f"{lengths.share_above(limit):.1%}"]
        return row

    def _short_columns(self) -> list[str]:
        names = ["task", "split", "examples"]
        for feature, limit in self.limits.items():
            names += [feature, f"over {limit}"]
        return names

    def _short_row(self, part: SplitReport) -> list[str]:
        """Return a row for a narrow terminal: the numbers of tokens of a feature are one cell."""
        cells = self.row(part)
        short, rest = cells[:3], cells[4:]
        width = len(PERCENTILES) + 2
        for start in range(0, len(rest), width):
            *tokens, over = rest[start : start + width]
            short += ["/".join(tokens), over]
        return short

    def content(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "limits": dict(self.limits),
            "splits": [self._content(part) for part in self.splits],
            "totals": [self._content(part) for part in self.totals()],
        }

    def _content(self, part: SplitReport) -> dict[str, Any]:
        return {
            "task": part.task,
            "split": part.split,
            "examples": part.examples,
            "lengths": {
                feature: {
                    **{f"percentile_{percent}": lengths.percentile(percent) for percent in PERCENTILES},
                    "longest": lengths.longest,
                    "share_truncated": lengths.share_above(self.limits[feature]),
                }
                for feature, lengths in part.lengths.items()
            },
            "dropped": [dataclasses.asdict(row) for row in part.dropped],
        }

    def show(self) -> None:
        """Print the report. Where it is long, only the page has all of it."""
        percents = "/".join(map(str, (*PERCENTILES, 100)))
        title = f"numbers of tokens that {percents}% of the examples do not exceed"
        parts = [*self.splits, *self.totals()] if 1 < self.tasks <= _SHOWN_TASKS else self.totals()
        print_table(title, self._short_columns(), list(map(self._short_row, parts)))
        dropped = [(part, row) for part in self.splits for row in part.dropped]
        for part, row in dropped[:_SHOWN_ROWS]:
            print(f"dropped from {part.task}, {part.split}: {row.file}, line {row.line}: {row.reason}")
        if len(dropped) > _SHOWN_ROWS:
            print(f"... and {len(dropped) - _SHOWN_ROWS:,} more dropped rows")


def _union(split: str, parts: Iterable[SplitReport]) -> SplitReport:
    parts = list(parts)
    features = dict.fromkeys(feature for part in parts for feature in part.lengths)
    return SplitReport(
        "all",
        split,
        sum(part.examples for part in parts),
        {
            feature: Lengths.union(part.lengths[feature] for part in parts if feature in part.lengths)
            for feature in features
        },
        tuple(row for part in parts for row in part.dropped),
    )
