"""Where the time of a call goes: its steps, in order, with the time that each takes and what it has to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossfarm.artifact import Signature
from crossfarm.artifact.sizes import Size
from crossfarm.errors import InvalidArtifact
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, IndexExpr
from crossfarm.wire.v1.artifact_pb2 import Step as StepMessage
from crossfarm.wire.v1.session_pb2 import Reply

#: Headings of ``Step.cells``.
COLUMNS = ("µs", "share", "GFLOP/s", "GB/s", "function", "of the model")


@dataclass(frozen=True)
class KernelTime:
    """A launch of a kernel: its name, and the median of its seconds over the runs, by the device's clock."""

    kernel: str
    seconds: float


@dataclass(frozen=True)
class Step:
    """Part of a call.

    Attributes:
        function: the tensor program that ran, or the kernel where the artifact says no more.
        origin: the nodes of the model that it computes; "" where there are none.
        seconds: the median over the runs.
        share: its part of the time of all steps, 0 to 1.
        operations: arithmetic on what tensors hold, as the program was written: a fused multiply-add is two. None where
            the artifact does not say.
        bytes: of the step's inputs and outputs, each element once: what must be moved at least. None likewise.
        kernels: what was launched for it, in order, on devices that run kernels.
    """

    function: str
    origin: str
    seconds: float
    share: float
    operations: int | None
    bytes: int | None
    kernels: tuple[KernelTime, ...] = ()

    @property
    def operations_per_second(self) -> float | None:
        return self._per_second(self.operations)

    @property
    def bytes_per_second(self) -> float | None:
        return self._per_second(self.bytes)

    def cells(self) -> tuple[str, ...]:
        """The step as a row of a table with ``COLUMNS``; "-" for what is not known."""
        rates = (self.operations_per_second, self.bytes_per_second)
        return (
            f"{self.seconds * 1e6:.1f}",
            f"{self.share:.1%}",
            *("-" if rate is None else f"{rate * 1e-9:.3g}" for rate in rates),
            self.function,
            self.origin or "-",
        )

    def _per_second(self, count: int | None) -> float | None:
        return None if count is None or not self.seconds else count / self.seconds


@dataclass(frozen=True)
class Profile:
    """The steps of a call on a device. Printed, it is a table of them.

    Attributes:
        steps: in the order that they run in.
        whole: the device could not tell them apart (or the artifact, of an older release, does not name them): there
            is one, the whole call, timed by the worker's clock.
        runs: seconds of each step in each run, in the order taken.
        environment: what the device told of itself, as ``BenchmarkResult.environment``.
    """

    steps: tuple[Step, ...]
    whole: bool
    runs: tuple[tuple[float, ...], ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds of all steps together. What lies between them, such as the start of a kernel, is not in it."""
        return sum(step.seconds for step in self.steps)

    def longest(self) -> list[Step]:
        """The steps, those that take longest first."""
        return sorted(self.steps, key=lambda step: -step.seconds)

    def __str__(self) -> str:
        rows = [COLUMNS, *(step.cells() for step in self.steps)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        numbers = len(COLUMNS) - 2
        lines = [
            "  ".join(c.rjust(w) if i < numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, f"{self.total * 1e6:.1f} µs in {len(self.steps)} steps, {len(self.runs)} runs"])


def profile_of(signature: Signature, symbols: Sequence[int], answer: Reply.Profiled) -> Profile:
    """The profile that a device's answer is, of a call with these sizes.

    Raises:
        InvalidArtifact: what the artifact says of the function's steps is not what the device ran.
    """
    entry = signature.entry
    times = np.asarray(answer.seconds, dtype=np.float64)
    if not answer.parts or not len(times) or len(times) % answer.parts:
        raise InvalidArtifact(f"the device told {len(times)} times of the {answer.parts} parts of {entry.name}")
    times = times.reshape(-1, answer.parts)
    messages, kernels = _parts(entry, whole=answer.whole)
    counts = [message.launches if kernels else 1 for message in messages]
    if sum(counts) != answer.parts or (kernels and len(kernels) != answer.parts):
        raise InvalidArtifact(
            f"function {entry.name!r} has {sum(counts)} parts by its artifact, and {answer.parts} on the device",
            hint="build the artifact again",
        )
    ends = np.cumsum(counts)
    runs = np.stack([times[:, end - count : end].sum(axis=1) for count, end in zip(counts, ends)], axis=1)
    medians, each = np.median(runs, axis=0), np.median(times, axis=0)
    total = float(medians.sum()) or 1.0
    steps = [
        Step(
            message.function,
            message.origin,
            float(seconds),
            float(seconds) / total,
            _count(message.operations, entry, symbols),
            _count(message.bytes, entry, symbols),
            tuple(KernelTime(kernels[i], float(each[i])) for i in range(end - count, end)) if kernels else (),
        )
        for message, seconds, count, end in zip(messages, medians, counts, map(int, ends))
    ]
    if answer.whole and entry.steps:
        steps = [_together(entry, symbols, steps[0])]
    whole = answer.whole and len(entry.steps) != 1
    return Profile(tuple(steps), whole, tuple(map(tuple, runs.tolist())), dict(answer.environment))


def _parts(entry: EntryPoint, *, whole: bool) -> tuple[list[StepMessage], list[str]]:
    """What the device's times are of: steps, and the kernels that they launch. Older artifacts tell no steps."""
    if whole:
        return [StepMessage(function=entry.name)], []
    kernels = [launch.kernel for launch in entry.launch.launches]
    if entry.steps:
        return list(entry.steps), kernels
    return [StepMessage(function=kernel, launches=1) for kernel in kernels], kernels


def _together(entry: EntryPoint, symbols: Sequence[int], whole: Step) -> Step:
    """The whole call, with what all its steps have to do."""
    operations = [_count(step.operations, entry, symbols) for step in entry.steps]
    moved = [_count(step.bytes, entry, symbols) for step in entry.steps]
    only = entry.steps[0] if len(entry.steps) == 1 else StepMessage(function=entry.name)
    return Step(only.function, only.origin, whole.seconds, whole.share, _sum(operations), _sum(moved))


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _count(expr: IndexExpr, entry: EntryPoint, symbols: Sequence[int]) -> int | None:
    """A count at the call's sizes; None where there is none. Raises InvalidArtifact for a malformed one."""
    if not expr.ops:
        return None
    try:
        return max(0, Size(expr, len(entry.symbols)).evaluate(symbols))
    except ZeroDivisionError:
        return None
    except ValueError as failure:
        raise InvalidArtifact(
            f"function {entry.name!r} says malformed things of its steps: {failure}", hint="build the artifact again"
        ) from None
