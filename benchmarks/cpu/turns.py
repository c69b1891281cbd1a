"""Sides in turns: what one work gives, measured so that whatever else the machine does meets all of them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from benchmarks.cpu.peers import Peer
from benchmarks.cpu.sides import Side, Unsupported, agree
from benchmarks.cpu.works import Work
from benchmarks.report import Samples

#: The name of our own side, first in each table.
OURS = "crossfarm"
#: A side whose single run takes longer than this gets one sample; it is out of the race anyway.
_SLOW_SECONDS = 0.3
#: A run longer than this is a sample by itself.
_LONG_SECONDS = 0.05
#: How long a look at the processors takes for each number of threads, and the pause before the next one.
_LOOK_SECONDS = 0.02
_PAUSE_SECONDS = 0.2
#: Operations a byte above which arithmetic bounds a work, and not memory, on every CPU of today.
_INTENSE = 16.0


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, samples of each side in a round, and what a sample lasts at least."""

    rounds: int = 5
    repeat: int = 3
    min_seconds: float = 0.015
    quick: bool = False

    @classmethod
    def of(cls, *, quick: bool) -> Effort:
        return cls(rounds=3, repeat=2, min_seconds=0.01, quick=True) if quick else cls()


@dataclass(frozen=True)
class Measured:
    """A work and each side's seconds for it; sides that cannot do it are absent."""

    work: Work
    seconds: Mapping[str, Samples]

    def median(self, side: str) -> float | None:
        return self.seconds[side].median if side in self.seconds else None

    def best(self, sides: Iterable[str]) -> float | None:
        """The shortest of their medians."""
        return min((median for side in sides if (median := self.median(side)) is not None), default=None)

    def speed(self, *others: str) -> float | None:
        """How many times as fast as the best of the others we are."""
        ours, theirs = self.median(OURS), self.best(others)
        return theirs / ours if ours and theirs else None


class Floor:
    """The machine as a side: how long a work must take at the rate that the roofline's loops reach in the same turn."""

    def __init__(self, roofline: Peer, threads: int) -> None:
        self._roofline, self._threads = roofline, threads
        self._kind, self._amount = "copy", 0

    def prepare(self, work: Work) -> float:
        self._kind, self._amount = bound_of(work)
        return 0.0

    def measure(self, repeat: int, min_seconds: float) -> list[float]:
        rate = self._roofline.ask(self._kind, threads=self._threads, seconds=min_seconds)["rate"]
        return [self._amount / float(rate)]

    def settle(self) -> None:
        """Nothing to do: its threads end with the measurement."""

    def result(self) -> list[float]:
        raise Unsupported("the roofline computes nothing")


class Processors:
    """Whether the machine runs several threads at once just now.

    The processors of a virtual machine are threads of its host's, and for seconds at a time several may share one core:
    what more threads bring cannot be measured then. The roofline's arithmetic, which touches no memory, tells.

    Attributes:
        waited: seconds spent waiting so far.
        missed: how often the wait was given up.
    """

    def __init__(self, roofline: Peer, threads: int, *, share: float = 0.9, patience: float = 240.0) -> None:
        """``share`` of ``threads`` times the rate of one thread counts as all; ``patience``: seconds of waiting in
        total."""
        self._roofline, self._threads, self._share, self._patience = roofline, threads, share, patience
        self.waited, self.missed = 0.0, 0

    def wait(self) -> None:
        """Returns when the threads run at once, or when patience is at its end."""
        began = time.monotonic()
        left = self._patience - self.waited
        while self._gain() < self._share * self._threads:
            if time.monotonic() - began > left:
                self.missed += 1
                break
            time.sleep(_PAUSE_SECONDS)
        self.waited += time.monotonic() - began

    def _gain(self) -> float:
        one, all_ = (
            float(self._roofline.ask("peak", threads=count, seconds=_LOOK_SECONDS)["rate"])
            for count in (1, self._threads)
        )
        return all_ / one


def bound_of(work: Work) -> tuple[str, int]:
    """What bounds a work, "peak", "read" or "copy", and how much of that it takes at least: FLOPs or bytes.

    Inputs that are much larger than the output are read; otherwise as much is written as read.
    """
    if work.flops > _INTENSE * work.bytes:
        return "peak", work.flops
    read = work.bytes - 4 * math.prod(work.output)
    return ("read" if read > 0.9 * work.bytes else "copy"), work.bytes


def measure(
    work: Work, sides: Mapping[str, Side], effort: Effort, before_round: Callable[[], None] = lambda: None
) -> Measured:
    """One work on every side. Raises RuntimeError where ours gives another result than the first peer that tells."""
    first: dict[str, float] = {}
    for name, side in sides.items():
        try:
            first[name] = side.prepare(work)
            side.settle()
        except Unsupported as reason:
            print(f"  {work.name}: without {name}: {reason}", file=sys.stderr)
    _check(work, {name: side for name, side in sides.items() if name in first})
    found = {name: [seconds] if seconds > _SLOW_SECONDS else [] for name, seconds in first.items()}
    for _ in range(effort.rounds):
        before_round()
        for name, seconds in first.items():
            if seconds <= _SLOW_SECONDS:
                repeat = 1 if seconds > _LONG_SECONDS else effort.repeat
                found[name] += sides[name].measure(repeat, effort.min_seconds)
                sides[name].settle()
    return Measured(work, {name: Samples(samples) for name, samples in found.items()})


def _check(work: Work, sides: Mapping[str, Side]) -> None:
    if OURS not in sides:
        return
    ours = sides[OURS].result()
    for name, side in sides.items():
        if name != OURS:
            try:
                theirs = side.result()
            except Unsupported:
                continue
            if not agree(ours, theirs):
                raise RuntimeError(f"{work.op} {work.name}: crossfarm and {name} give different results")
            return
