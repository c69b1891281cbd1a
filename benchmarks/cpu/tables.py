"""What was measured as tables: the values each kind of work is judged by, goals, and whether they are met."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cpu.turns import OURS, Measured
from benchmarks.report import Samples, aligned, quantity

#: The roofline's name among the sides.
ROOFLINE = "roofline"


@dataclass(frozen=True)
class Table:
    """Rows under a heading.

    Attributes:
        notes: lines below the table.
        data: the samples behind it, for JSON.
    """

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    data: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"### {self.title}\n\n{aligned([self.head, *self.rows])}{notes}"


@dataclass(frozen=True)
class Goal:
    """How fast crossfarm must be: at least ``value`` times the best of ``sides``."""

    value: float
    sides: tuple[str, ...]
    named: str

    def cells(self, measured: Measured) -> tuple[str, str]:
        speed = measured.speed(*self.sides)
        return f"≥ {self.value:g} × {self.named}", "" if speed is None else "yes" if speed >= self.value else "no"


def rates(
    title: str,
    found: Sequence[Measured],
    sides: Sequence[str],
    amount: Callable[[Measured], int],
    unit: str,
    against: tuple[str, tuple[str, ...]],
    goal_of: Callable[[Measured], Goal | None],
    notes: tuple[str, ...] = (),
) -> Table:
    """Each side's 10^9 of ``amount`` a second, how fast we are ``against`` others, and our share of the roofline."""
    head = ("work", *(f"{side}, {unit}" if side == OURS else side for side in sides))
    head = (*head, f"× {against[0]}", "× roofline", "goal", "met")
    rows = []
    for measured in found:
        goal = goal_of(measured)
        rows.append(
            (
                measured.work.name,
                *(rate(measured.seconds.get(side), amount(measured)) for side in sides),
                ratio(measured.speed(*against[1])),
                ratio(measured.speed(ROOFLINE)),
                *(goal.cells(measured) if goal else ("", "")),
            )
        )
    return Table(title, head, rows, notes, [as_data(measured) for measured in found])


def times(
    title: str,
    found: Sequence[Measured],
    sides: Sequence[str],
    others: Sequence[str],
    limit: float,
    notes: tuple[str, ...] = (),
) -> Table:
    """Each side's time, how many times as long as each of ``others`` we take, and that in the geometric mean."""
    head = ("work", *sides, *(f"× {other}" for other in others), "× roofline")
    rows = [
        (
            measured.work.name,
            *(duration(measured.seconds.get(side)) for side in sides),
            *(ratio(inverse(measured.speed(other))) for other in others),
            ratio(measured.speed(ROOFLINE)),
        )
        for measured in found
    ]
    means = [geometric_mean([inverse(measured.speed(other)) for measured in found]) for other in others]
    rows.append(("geometric mean", *("" for _ in sides), *map(ratio, means), ""))
    verdict = "met" if means[0] is not None and means[0] <= limit else "not met"
    notes = (*notes, f"Goal: ≤ {limit:g} × {others[0]} in the geometric mean; {verdict}.")
    return Table(title, head, rows, notes, [as_data(measured) for measured in found])


def rate(seconds: Samples | None, amount: float) -> str:
    """10^9 of ``amount`` a second, with the spread where there is one."""
    if seconds is None or seconds.median is None:
        return "–"
    return f"{_digits(amount / seconds.median / 1e9)}{spread(seconds)}"


def duration(seconds: Samples | None) -> str:
    """A time with its spread."""
    return "–" if seconds is None or seconds.median is None else f"{quantity(seconds.median, 's')}{spread(seconds)}"


def spread(samples: Samples) -> str:
    """Half the distance between the quartiles, in percent of the median."""
    median = samples.median
    if not median or len(samples.values) < 4:
        return ""
    low, high = samples.quartiles
    return f" ±{50 * (high - low) / median:.0f}%"


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def geometric_mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are there."""
    present = [value for value in values if value]
    return math.exp(sum(map(math.log, present)) / len(present)) if present else None


def as_data(measured: Measured) -> dict[str, Any]:
    """Every sample, in seconds."""
    return {
        "work": measured.work.name,
        "op": measured.work.op,
        "sizes": measured.work.sizes,
        "flops": measured.work.flops,
        "bytes": measured.work.bytes,
        "seconds": {side: list(samples.values) for side, samples in measured.seconds.items()},
    }


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
