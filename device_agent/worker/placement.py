"""What a client asks of a call's threads, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crossfarm.errors import ArgumentError
from crossfarm.wire.v1.session_pb2 import RequestFrame
from device_agent.drivers.base import ANYWHERE, Placement
from device_agent.worker.limits import MAX_THREADS


def placement_of(asked: RequestFrame.Bind, cpus: Sequence[int]) -> Placement:
    """Where the call shall run.

    Args:
        cpus: that calls on this device may name; none where there is nothing to choose.

    Raises:
        ArgumentError: for threads and CPUs that the device cannot give.
    """
    if not asked.threads and not asked.cpus:
        return ANYWHERE
    if not cpus:
        if asked.threads == 1 and not asked.cpus:
            return ANYWHERE
        raise ArgumentError("this device runs every call on one thread", hint="leave threads= and cpus= out")
    if asked.threads > MAX_THREADS:
        raise ArgumentError(f"a call cannot have {asked.threads} threads", hint=f"the most is {MAX_THREADS}")
    if unknown := sorted(set(asked.cpus) - set(cpus)):
        raise ArgumentError(
            f"calls on this device cannot run on CPU {ranges(unknown)}",
            hint=f"they may use {ranges(cpus)}",
            details={"cpus": ranges(cpus)},
        )
    if len(set(asked.cpus)) < len(asked.cpus):
        raise ArgumentError(f"cpus={list(asked.cpus)} names a CPU twice", hint="name each once; threads share them")
    return Placement(asked.threads, tuple(asked.cpus))


def ranges(numbers: Iterable[int]) -> str:
    """``0-3, 8``: numbers as people write them."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
