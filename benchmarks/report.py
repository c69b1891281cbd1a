"""Rows of the comparison, and the three forms they are given out in: a table, JSON, and a part of a document."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

#: Around the part of a document that is written here; the part's name stands in it.
BEGIN, END = "<!-- measured{}: begin -->", "<!-- measured{}: end -->"
_HEAD = ("work", "crossfarm", "Apache TVM", "bare gRPC", "× TVM", "× gRPC", "goal", "met")

Unit = Literal["s", "calls/s", "MB/s"]


@dataclass(frozen=True)
class Goal:
    """What crossfarm must reach: a value in the row's unit, or with ``of_floor`` a multiple of the floor's."""

    value: float
    of_floor: bool = False


@dataclass(frozen=True)
class Samples:
    """Repeated measurements of one thing by one side; empty where the side was not measured."""

    values: Sequence[float] = ()

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third, of two values at least."""
        low, _, high = statistics.quantiles(self.values, n=4)
        return low, high


@dataclass(frozen=True)
class Row:
    """One kind of work, as every side did it in the same run.

    Attributes:
        work: what was done; unit: of all values. Less is better in seconds, more in rates.
        ours, peer, floor: what crossfarm, Apache TVM and bare gRPC measured.
    """

    work: str
    unit: Unit
    ours: Samples
    peer: Samples = field(default_factory=Samples)
    floor: Samples = field(default_factory=Samples)
    goal: Goal | None = None

    @property
    def less_is_better(self) -> bool:
        return self.unit == "s"

    def advantage(self, other: Samples) -> float | None:
        """How many times better crossfarm is than ``other``: above 1 it is ahead, whatever the unit."""
        ours, theirs = self.ours.median, other.median
        if not ours or not theirs:
            return None
        return theirs / ours if self.less_is_better else ours / theirs

    @property
    def limit(self) -> float | None:
        """The goal in the row's unit; None where there is none, or no floor to hold it against."""
        if self.goal is None:
            return None
        if not self.goal.of_floor:
            return self.goal.value
        return None if self.floor.median is None else self.goal.value * self.floor.median

    @property
    def met(self) -> bool | None:
        ours, limit = self.ours.median, self.limit
        if ours is None or limit is None:
            return None
        return ours <= limit if self.less_is_better else ours >= limit

    def cells(self) -> tuple[str, ...]:
        sign = "≤" if self.less_is_better else "≥"
        goal = ""
        if self.goal is not None:
            goal = f"{self.goal.value:g} × gRPC" if self.goal.of_floor else quantity(self.goal.value, self.unit)
            goal = f"{sign} {goal}"
        return (
            self.work,
            *(quantity(side.median, self.unit) for side in (self.ours, self.peer, self.floor)),
            *(_ratio(self.advantage(side)) for side in (self.peer, self.floor)),
            goal,
            {True: "yes", False: "no", None: ""}[self.met],
        )


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, aligned so that it reads as a table in a terminal too."""
    return aligned([_HEAD, *(row.cells() for row in rows)])


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first line the heading."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in table]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Every sample, with the medians' ratios beside them."""
    return [
        {
            **asdict(row),
            "times_peer": row.advantage(row.peer),
            "times_floor": row.advantage(row.floor),
            "limit": row.limit,
            "met": row.met,
        }
        for row in rows
    ]


def update_document(path: Path, text: str, part: str = "") -> None:
    """Puts ``text`` between the markers of a part in ``path``. Raises ValueError where they are missing."""
    first, last = (marker.format(f" {part}" if part else "") for marker in (BEGIN, END))
    before, begin, rest = path.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{path} has no {first} … {last}")
    path.write_text(f"{before}{first}\n\n{text}\n{last}{after}")


def quantity(value: float | None, unit: Unit) -> str:
    """A value with its unit, for people."""
    if value is None:
        return "–"
    if unit == "s":
        for scale, name in ((1, "s"), (1e-3, "ms")):
            if value >= scale:
                return f"{value / scale:.3g} {name}"
        return f"{value / 1e-6:.3g} µs"
    return f"{value:,.0f} {unit}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
