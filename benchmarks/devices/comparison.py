"""The comparison on devices that run kernels: launches beside bare ones, kernels beside those written by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from benchmarks.cpu import peers
from benchmarks.cpu.peers import Peer
from benchmarks.cpu.sides import CrossfarmCode, Side
from benchmarks.cpu.tables import ROOFLINE, Goal, Table, as_data, duration, rates, ratio
from benchmarks.cpu.turns import OURS, Effort, Floor, Measured, measure
from benchmarks.cpu.works import Work
from benchmarks.devices import works
from benchmarks.devices.launching import BARE
from benchmarks.devices.plain import PlainCode
from benchmarks.devices.works import QUEUED
from clients.sdk.device import Device
from clients.sdk.farm import Farm
from crossfarm.errors import NoSuchDevice

#: Kinds of devices, as people write them.
KINDS: Mapping[str, str] = {"opencl": "OpenCL", "vulkan": "Vulkan"}
PLAIN, FARM = "plain kernel", "the farm's benchmark"
#: How much of what bare launches reach ours must reach.
_LAUNCHES = 0.8
#: Ours must be at least as fast as those written by hand.
_KERNELS = Goal(1.0, (PLAIN,), PLAIN)
#: Calls of the farm's benchmark that make up a sample.
_CALLS = 200


@dataclass
class DeviceBench:
    """Everything the sections need.

    Attributes:
        farm: with the devices of this machine.
        roofline: this machine's own limits, for devices that are its CPU.
        scratch: a folder for artifacts.
        threads: processors of this machine.
        versions: of devices and packages that were met, in order.
    """

    farm: Farm
    roofline: Peer
    scratch: Path
    log: Path
    effort: Effort
    threads: int
    versions: dict[str, None] = field(default_factory=dict)

    @contextmanager
    def device(self, kind: str) -> Iterator[Device | None]:
        """A lease of a device of that kind; None where this machine has none."""
        try:
            leased = self.farm.acquire(f"kind={kind}")
        except NoSuchDevice:
            print(f"  no {KINDS[kind]} device here: skipped", file=sys.stderr)
            yield None
            return
        with leased as device:
            at = device.attributes
            self.versions.setdefault(f"{KINDS[kind]} on {at['name']}, driver {at['driver_version']}")
            yield device

    def measure(self, all_works: Iterable[Work], sides: Mapping[str, Side]) -> list[Measured]:
        found = []
        for work in all_works:
            print(f"  {work.op} {work.name}", file=sys.stderr)
            found.append(measure(work, sides, self.effort))
        return found


class FarmCalls(CrossfarmCode):
    """Calls as the farm's ``benchmark`` measures them on a worker.

    Attributes:
        queued: whether they only wait for the end of the last.
    """

    queued = True

    def prepare(self, work: Work) -> float:
        self.queued = work.op == QUEUED
        return super().prepare(work)

    def measure(self, repeat: int, min_seconds: float) -> list[float]:
        if self.queued:
            return super().measure(repeat, min_seconds)
        found = self._benchmark(warmup=0, repeat=repeat * _CALLS, min_repeat_ms=0)
        return [fmean(found[k * _CALLS : (k + 1) * _CALLS]) for k in range(repeat)]


def launches(bench: DeviceBench) -> Iterator[Table]:
    """Calls of a tiny kernel: our driver, and the farm around it, beside the package that the driver uses."""
    for kind, name in KINDS.items():
        bare = f"bare {BARE[kind][0]}"
        title = f"Launches on {name}"
        with bench.device(kind) as device:
            if device is None:
                yield _absent(title, name)
                continue
            (first, *_) = all_works = list(works.launches())
            path = bench.scratch / f"launch-{kind}.cfa"
            CrossfarmCode(bench.farm, device, None).build(first).save(path)
            with ExitStack() as stack:
                sides: dict[str, Side] = {}
                for side, by in ((OURS, "driver"), (bare, "bare")):
                    peer = stack.enter_context(_launching(kind, by, device, path, bench.log))
                    bench.versions.setdefault(peer.version)
                    sides[side] = peer
                sides[FARM] = FarmCalls(bench.farm, device, None)
                yield launch_table(title, bench.measure(all_works, sides), bare)


def kernels(bench: DeviceBench) -> Iterator[Table]:
    """Kernels beside those written by hand."""
    parts: tuple[tuple[str, Callable[[bool], Iterator[Work]], Callable[[Measured], int], str], ...] = (
        ("Products and convolutions", works.arithmetic, lambda measured: measured.work.flops, "GFLOP/s"),
        ("Memory-bound work", works.memory_bound, lambda measured: measured.work.bytes, "GB/s"),
    )
    for kind, name in KINDS.items():
        with bench.device(kind) as device:
            for what, make, amount, unit in parts:
                title = f"{what} on {name}, fp32"
                if device is None:
                    yield _absent(title, name)
                    continue
                sides: dict[str, Side] = {
                    OURS: CrossfarmCode(bench.farm, device, None),
                    PLAIN: PlainCode(bench.farm, device, None),
                }
                if device.attributes["device_type"] == "cpu":
                    sides[ROOFLINE] = Floor(bench.roofline, bench.threads)
                found = bench.measure(make(bench.effort.quick), sides)
                yield rates(title, found, (OURS, PLAIN), amount, unit, (PLAIN, (PLAIN,)), lambda _: _KERNELS)


#: By the name that ``--only`` takes, in the order of the document.
SECTIONS: dict[str, Callable[[DeviceBench], Iterator[Table]]] = {"launches": launches, "kernels": kernels}


@contextmanager
def device_bench(farm: Farm, *, scratch: Path, log: Path, effort: Effort, threads: int) -> Iterator[DeviceBench]:
    """The farm and the roofline."""
    with peers.roofline(log=log) as limits:
        yield DeviceBench(farm, limits, scratch, log, effort, threads)


def launch_table(title: str, found: list[Measured], bare: str) -> Table:
    """Launches by our driver, by ``bare``, and by the farm's benchmark, with how many times as fast as bare we are."""
    goal = Goal(_LAUNCHES, (bare,), bare)
    rows = [
        (
            measured.work.name,
            *(duration(measured.seconds.get(side)) for side in (OURS, bare, FARM)),
            ratio(measured.speed(bare)),
            ratio(_between(measured, bare, FARM)),
            *goal.cells(measured),
        )
        for measured in found
    ]
    head = ("work", "crossfarm's driver", bare, FARM, f"driver × {bare}", f"benchmark × {bare}", "goal", "met")
    notes = (
        "One kernel, one group of threads; the same code from the same artifact on every side. × above 1: faster.",
    )
    return Table(title, head, rows, notes, [as_data(measured) for measured in found])


def _launching(kind: str, by: str, device: Device, artifact: Path, log: Path) -> AbstractContextManager[Peer]:
    arguments = ["--kind", kind, "--by", by, "--device", device.attributes["name"], str(artifact)]
    return peers.started([sys.executable, "-m", "benchmarks.devices.launching", *arguments], {}, log)


def _between(measured: Measured, slower: str, faster: str) -> float | None:
    one, other = measured.median(slower), measured.median(faster)
    return one / other if one and other else None


def _absent(title: str, name: str) -> Table:
    return Table(title, ("work", OURS), [], (f"Not measured: this machine has no {name} device.",))
