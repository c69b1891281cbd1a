"""Profiles: the time of each part of a call, over some runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crossfarm.errors import ArgumentError
from crossfarm.wire.v1.session_pb2 import Reply, RequestFrame
from device_agent.drivers.base import BoundCall
from device_agent.worker.limits import Guard
from device_agent.worker.measure import MAX_NUMBER, environment, facts_of, timed

#: Numbers in one answer: 8 MiB of them, half of what a message may have.
MAX_TIMES = 1 << 20


def profile(
    call: BoundCall, asked: RequestFrame.Profile, guard: Guard, synchronize: Callable[[], None]
) -> Reply.Profiled:
    """Runs the call as often as asked; times of its parts, or of the whole where the driver cannot tell them apart.

    Raises:
        ArgumentError: numbers that make no sense, or more times than an answer has room for.
        ProgramError: the program failed in one of its runs.
    """
    if not 1 <= asked.repeat <= MAX_TIMES or asked.warmup > MAX_NUMBER:
        raise ArgumentError(f"a profile takes 1 to {MAX_TIMES} runs, after at most {MAX_NUMBER} others")
    before = environment()
    if asked.warmup:
        guard.run(lambda: timed(call, asked.warmup, synchronize), asked.warmup)
    first = guard.run(call.profile)
    run: Callable[[], Sequence[float]] = call.profile if first else lambda: (timed(call, 1, synchronize),)
    seconds = list(first or guard.run(run))
    parts = len(seconds)
    if parts * asked.repeat > MAX_TIMES:
        raise ArgumentError(
            f"{guard.what} has {parts} parts: a profile of it takes at most {MAX_TIMES // parts} runs, not "
            f"{asked.repeat}"
        )
    for _ in range(asked.repeat - 1):
        seconds += guard.run(run)
    return Reply.Profiled(seconds=seconds, parts=parts, whole=not first, environment=facts_of(call, before))
