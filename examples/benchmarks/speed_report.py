"""From the lines of a benchmark run to its table: ratios are formed within a round, then their median and range are taken."""

import json
import operator
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from speed_rows import Row

__all__ = ["Spread", "compare", "read_lines", "table"]

Line = dict[str, Any]
Rounds = dict[int, list[Line]]
_SIGNS = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Spread:
    """A median over rounds, and its range.

    >>> str(Spread.of([3.0, 1.0, 2.5])), str(Spread.of([41_000, 40_000]))
    ('2.5 (1-3)', '40,500 (40,000-41,000)')
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}-{_short(self.most)})"


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def read_lines(text: str) -> list[Line]:
    r"""Return the JSON objects among the lines of ``text``.

    >>> read_lines('loading\n{"auc": 0.7}\n[1]')
    [{'auc': 0.7}]
    """
    found = []
    for line in text.splitlines():
        if line.lstrip().startswith("{"):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


def cell_lines(lines: Iterable[Line], cell: str) -> Rounds:
    """Return the lines of a cell by round; ``cell/part`` takes those whose task holds the part."""
    name, _, part = cell.partition("/")
    rounds: Rounds = {}
    for line in lines:
        if line["cell"] == name and "failed" not in line and part in str(line.get("task", line.get("what", ""))):
            rounds.setdefault(line["round"], []).append(line)
    return rounds


def values(rounds: Rounds, key: str) -> dict[int, float]:
    """Return the median of ``key`` in each round that has it."""
    found = {number: [line[key] for line in lines if key in line] for number, lines in rounds.items()}
    return {number: statistics.median(numbers) for number, numbers in found.items() if numbers}


@dataclass(frozen=True)
class Result:
    """A row's outcome; None where nothing was measured."""

    row: Row
    value: Spread | None = None
    against: Spread | None = None
    ratio: Spread | None = None

    @property
    def reached(self) -> str:
        """``yes`` or ``no``, by the median; empty where there is no aim or no number."""
        counts = self.ratio if self.row.against else self.value
        if not self.row.aim or counts is None:
            return ""
        sign, number = self.row.aim.split()
        return "yes" if _SIGNS[sign](counts.median, float(number)) else "no"


def compare(lines: Sequence[Line], row: Row) -> Result:
    """Return the outcome of a row; ratios are of the rounds that both cells have."""
    ours = cell_lines(lines, row.cell)
    if row.against is None:
        key = next((key for key in row.keys if values(ours, key)), None)
        return Result(row, Spread.of(list(values(ours, key).values())) if key else None)
    theirs = cell_lines(lines, row.against)
    for mine, other in _sides(ours, theirs, row.keys):
        both = sorted(mine.keys() & other.keys())
        if both:
            ratios = [other[n] / mine[n] if row.of_times else mine[n] / other[n] for n in both]
            return Result(
                row, *(Spread.of(part) for part in ([mine[n] for n in both], [other[n] for n in both], ratios))
            )
    return Result(row)


def _sides(ours: Rounds, theirs: Rounds, keys: Sequence[str]) -> Iterator[tuple[dict[int, float], dict[int, float]]]:
    """Yield what to compare: the same number of both, or else the first that each has (rows are samples elsewhere)."""
    for key in keys:
        yield values(ours, key), values(theirs, key)
    first = [next((found for key in keys if (found := values(side, key))), {}) for side in (ours, theirs)]
    yield first[0], first[1]


def table(lines: Sequence[Line], rows: Sequence[Row]) -> str:
    """Return the whole table in Markdown."""
    head = ("what", "median (range)", "beside it", "ratio (range)", "aim", "reached")
    text = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        result = compare(lines, row)
        shown = [result.value or "-", result.against or ("-" if row.against else ""), result.ratio or ""]
        text.append(" | ".join([row.what, *(str(part) for part in shown), row.aim, result.reached]))
    return "\n".join(f"| {line} |" for line in text)
