"""What is compared: for each kind of work, what each side does, in rounds that take turns.

The sides are measured alternately, so that whatever else the machine does meets all of them; each is a process of its
own, idle while another is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.crossfarm_side import CrossfarmSide
from benchmarks.floors import GrpcFloor
from benchmarks.report import Goal, Row, Samples
from benchmarks.tvm import TvmPeer
from clients.sdk.device import Device

RTT_MS, MBIT = 20.0, 100.0
#: What crossfarm must reach. Times in seconds; of_floor goals are multiples of what bare gRPC does in the same run.
LEASE, JOB, BUILD_COLD, BUILD_CACHED = Goal(0.015), Goal(0.35), Goal(0.100), Goal(0.010)
CALL, PIPELINED, TENSOR = Goal(1.25, of_floor=True), Goal(50_000), Goal(0.7, of_floor=True)
TENSOR_MEGABYTES = (1, 16, 64)

Measure = Callable[[], list[float]]


@dataclass(frozen=True)
class Sides:
    """Everyone who is measured, running."""

    ours: CrossfarmSide
    peer: TvmPeer
    floor: GrpcFloor


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds of each kind of work, and calls of an empty function in a round."""

    rounds: int = 7
    calls: int = 2000
    pipelined: int = 20_000


def leases(sides: Sides, effort: Effort) -> Iterator[Row]:
    ours, peer = _turns(effort.rounds, sides.ours.lease, lambda: sides.peer.measure("lease"))
    yield Row("lease: ask the tracker, usable session", "s", ours, peer, goal=LEASE)


def calls(sides: Sides, effort: Effort) -> Iterator[Row]:
    with ExitStack() as stack:
        device = stack.enter_context(sides.ours.near_device())
        ours, peer, floor = _turns(
            effort.rounds,
            lambda: sides.ours.call(device, effort.calls),
            lambda: sides.peer.measure("call", count=effort.calls),
            lambda: sides.floor.ping_pong(effort.calls),
        )
        yield Row("call of an empty function", "s", ours, peer, floor, goal=CALL)
        ours, peer = _turns(
            effort.rounds,
            lambda: sides.ours.pipelined(device, effort.pipelined),
            lambda: sides.peer.measure("call", count=effort.calls),
        )
        yield Row("calls, pipelined (TVM: one by one)", "calls/s", _rates(ours, 1), _rates(peer, 1), goal=PIPELINED)


def tensors(sides: Sides, effort: Effort) -> Iterator[Row]:
    with ExitStack() as stack:
        device = stack.enter_context(sides.ours.near_device())
        for megabytes in TENSOR_MEGABYTES:
            for up in (True, False):
                yield _tensor(sides, effort, device, megabytes, up)


def _tensor(sides: Sides, effort: Effort, device: Device, megabytes: int, up: bool) -> Row:
    ours, peer, floor = _turns(
        effort.rounds,
        lambda: sides.ours.tensor(device, megabytes, up),
        lambda: sides.peer.measure("tensor", megabytes=megabytes, up=up),
        lambda: sides.floor.tensor(megabytes, up),
    )
    work = f"tensor of {megabytes} MB, {'up' if up else 'down'}"
    ours, peer, floor = (_rates(side, megabytes) for side in (ours, peer, floor))
    return Row(work, "MB/s", ours, peer, floor, goal=TENSOR)


def jobs(sides: Sides, effort: Effort) -> Iterator[Row]:
    ours, peer = _turns(effort.rounds, sides.ours.job, lambda: sides.peer.measure("job"))
    yield Row(f"whole remote job, {RTT_MS:g} ms round trip, {MBIT:g} Mbit/s", "s", ours, peer, goal=JOB)


def builds(sides: Sides, effort: Effort) -> Iterator[Row]:
    cold, cached, peer = _turns(
        effort.rounds, sides.ours.build_cold, sides.ours.build_cached, lambda: sides.peer.measure("build")
    )
    yield Row("build of a small module, cold", "s", cold, peer, goal=BUILD_COLD)
    yield Row("build of a small module, cached", "s", cached, peer, goal=BUILD_CACHED)


#: By the name that ``--only`` takes, in the order of the table.
SECTIONS: dict[str, Callable[[Sides, Effort], Iterator[Row]]] = {
    "leases": leases,
    "calls": calls,
    "tensors": tensors,
    "jobs": jobs,
    "builds": builds,
}


def _turns(rounds: int, *measures: Measure) -> list[Samples]:
    """Samples of each, taken in turns after a round that warms up and is thrown away."""
    found: list[list[float]] = [[] for _ in measures]
    for turn in range(1 + rounds):
        for samples, measure in zip(found, measures):
            measured = measure()
            if turn:
                samples.extend(measured)
    return [Samples(samples) for samples in found]


def _rates(seconds: Samples, amount: float) -> Samples:
    return Samples([amount / value for value in seconds.values])
