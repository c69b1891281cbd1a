"""The comparison of code: for each kind of work its sides, measured in turns, and the table that shows it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cpu import peers, works
from benchmarks.cpu.builds import corpus_builds
from benchmarks.cpu.peers import Peer
from benchmarks.cpu.sides import CrossfarmCode, Side
from benchmarks.cpu.tables import ROOFLINE, Goal, Table, as_data, duration, rates, ratio, spread, times
from benchmarks.cpu.turns import OURS, Effort, Floor, Measured, Processors, measure
from benchmarks.cpu.works import Work
from benchmarks.report import Samples
from clients.sdk.device import Device
from clients.sdk.farm import Farm

NUMPY, TUNED_NUMPY = "numpy", "numpy, best kernels"
BY_HAND, DEFAULT_TVM = "TVM by hand", "TVM"
INITIALIZERS, INPUTS = "ONNX Runtime", "with weights as inputs"
#: Rounds in which OpenBLAS's kernels are tried.
_TRIALS = 3
#: A product counts as large from here on, in FLOPs: 512 × 512 × 512.
_LARGE = 2 * 512**3
#: What two threads must bring.
_SPEEDUP = 1.7

Start = AbstractContextManager[Peer]


@dataclass
class CodeBench:
    """Everything the sections need, running.

    Attributes:
        farm, device: ours, with one lease for the whole run.
        roofline: the machine's own limits.
        threads: what each side may use.
        versions: of the peers that were met, in order.
    """

    farm: Farm
    device: Device
    roofline: Peer
    log: Path
    effort: Effort
    threads: int
    versions: dict[str, None] = field(default_factory=dict)

    def measure(self, all_works: Iterable[Work], others: Mapping[str, Start]) -> list[Measured]:
        """Every work on ourselves, on the ``others`` by name, and on the roofline."""
        with ExitStack() as stack:
            sides: dict[str, Side] = {OURS: CrossfarmCode(self.farm, self.device, self.threads)}
            for name, start in others.items():
                started = stack.enter_context(start)
                self.versions.setdefault(started.version)
                sides[name] = started
            sides[ROOFLINE] = Floor(self.roofline, self.threads)
            found = []
            for work in all_works:
                print(f"  {work.op} {work.name}", file=sys.stderr)
                found.append(measure(work, sides, self.effort))
            return found


def roofline(bench: CodeBench) -> Iterator[Table]:
    """What the machine can do: the best of the rounds, as a limit is a limit."""
    kinds = {"fused multiply-adds, GFLOP/s": "peak", "copy, GB/s read and written": "copy", "read, GB/s": "read"}
    counts = sorted({1, bench.threads})
    found: dict[tuple[str, int], list[float]] = {(kind, count): [] for kind in kinds.values() for count in counts}
    for _ in range(bench.effort.rounds):
        for (kind, count), samples in found.items():
            samples.append(1 / float(bench.roofline.ask(kind, threads=count, seconds=0.05)["rate"]))
    rows = [
        (name, *(f"{1e-9 / min(found[kind, count]):.3g}{spread(Samples(found[kind, count]))}" for count in counts))
        for name, kind in kinds.items()
    ]
    data = [{"kind": kind, "threads": count, "rates": [1 / s for s in found[kind, count]]} for kind, count in found]
    head = ("limit", *(f"{count} thread{'s' if count > 1 else ''}" for count in counts))
    yield Table("What the machine can do", head, rows, data=data)


def matmuls(bench: CodeBench) -> Iterator[Table]:
    """Matrix products against OpenBLAS and TVM."""
    core_type = _best_core_type(bench)
    others = {
        NUMPY: peers.numpy(bench.threads, log=bench.log),
        TUNED_NUMPY: peers.numpy(bench.threads, log=bench.log, core_type=core_type),
        BY_HAND: peers.tvm(bench.threads, log=bench.log, schedule="hand"),
        DEFAULT_TVM: peers.tvm(bench.threads, log=bench.log, schedule="default"),
    }
    found = bench.measure(works.matmuls(bench.effort.quick), others)

    def goal(measured: Measured) -> Goal | None:
        if measured.work.sizes["m"] == 1:
            return Goal(0.9, (ROOFLINE,), "roofline")
        square = measured.work.sizes["m"] == measured.work.sizes["n"]
        large = square and measured.work.flops >= _LARGE and measured.work.sizes["batch"] == 1
        return Goal(0.85, (NUMPY, TUNED_NUMPY), "OpenBLAS") if large else None

    yield rates(
        "Matrix products, fp32",
        found,
        (OURS, *others),
        lambda measured: measured.work.flops,
        "GFLOP/s",
        ("OpenBLAS", (NUMPY, TUNED_NUMPY)),
        goal,
        (
            f"Best kernels: `OPENBLAS_CORETYPE={core_type}`, found by trying; × OpenBLAS is against the faster one. "
            "TVM by hand: B packed in panels of 32 columns, a register tile of 8 rows. TVM: its default pipeline.",
        ),
    )


def convolutions(bench: CodeBench) -> Iterator[Table]:
    """Convolutions against ONNX Runtime."""
    kinds = {
        "ResNet-50's convolutions, fp32, NCHW, batch 1": works.resnet_convolutions,
        "MobileNet's depthwise convolutions, 3 × 3": works.depthwise_convolutions,
    }
    for title, make in kinds.items():
        others = {
            INITIALIZERS: peers.onnxruntime(bench.threads, log=bench.log, weights="initializers"),
            INPUTS: peers.onnxruntime(bench.threads, log=bench.log, weights="inputs"),
        }
        found = bench.measure(make(bench.effort.quick), others)
        note = (
            "Weights are constants of ONNX Runtime's model, which it lays out for itself beforehand, or inputs, as they"
            " are at crossfarm. ×: our time in theirs, less is better."
        )
        yield times(title, found, (OURS, *others), tuple(others), limit=1.5, notes=(note,))


def memory(bench: CodeBench) -> Iterator[Table]:
    """What memory bounds, against the bandwidth of the same minutes."""
    others = {
        NUMPY: peers.numpy(bench.threads, log=bench.log),
        INITIALIZERS: peers.onnxruntime(bench.threads, log=bench.log, weights="initializers"),
    }
    found = bench.measure(works.memory_bound(bench.effort.quick), others)
    yield rates(
        "Memory-bound work, fp32, on 4096 × 4096 where nothing else is said",
        found,
        (OURS, *others),
        lambda measured: measured.work.bytes,
        "GB/s",
        ("best peer", tuple(others)),
        lambda measured: Goal(0.8, (ROOFLINE,), "roofline"),
        ("Bytes: each input read once, each output written once. Roofline: copy where as much is written, else read.",),
    )


def threads(bench: CodeBench) -> Iterator[Table]:
    """Our code on all processors against our code on one."""
    alone = "1 thread"
    sides = {
        OURS: CrossfarmCode(bench.farm, bench.device, bench.threads),
        alone: CrossfarmCode(bench.farm, bench.device, 1),
    }
    floors = {ROOFLINE: Floor(bench.roofline, bench.threads), f"{ROOFLINE}, {alone}": Floor(bench.roofline, 1)}
    processors = Processors(bench.roofline, bench.threads)
    found = [
        measure(work, {**sides, **floors}, bench.effort, processors.wait) for work in works.large(bench.effort.quick)
    ]
    goal = Goal(_SPEEDUP, (alone,), alone)

    def of_the_machine(measured: Measured) -> float | None:
        many, one = (measured.median(side) for side in floors)
        return one / many if one and many else None

    yield Table(
        f"{bench.threads} threads against one",
        ("work", f"{bench.threads} threads", alone, f"× {alone}", "roofline's ×", "goal", "met"),
        [
            (
                f"{measured.work.op} {measured.work.name}",
                *(duration(measured.seconds[side]) for side in sides),
                ratio(measured.speed(alone)),
                ratio(of_the_machine(measured)),
                *goal.cells(measured),
            )
            for measured in found
        ],
        (
            "Roofline's ×: what more threads bring to the loop that finds the limit which applies, in the same turns. "
            "Where memory bounds a work, it is the memory that decides.",
            f"Each round began when {bench.threads} threads together did at least 0.9 × {bench.threads} times the "
            f"arithmetic of one (the host may run them on one core for a while): {processors.waited:.0f} s were waited "
            f"for that, {processors.missed} rounds began without.",
        ),
        data=[as_data(measured) for measured in found],
    )


def builds(bench: CodeBench) -> Iterator[Table]:
    """Cold builds of the corpus."""
    yield from corpus_builds(bench.farm, bench.device.target, rounds=bench.effort.rounds, quick=bench.effort.quick)


#: By the name that ``--only`` takes, in the order of the document.
SECTIONS: dict[str, Callable[[CodeBench], Iterator[Table]]] = {
    "roofline": roofline,
    "matmul": matmuls,
    "convolution": convolutions,
    "memory": memory,
    "threads": threads,
    "corpus-builds": builds,
}


@contextmanager
def code_bench(farm: Farm, *, log: Path, effort: Effort) -> Iterator[CodeBench]:
    """A device of ``farm`` for the whole run, and the roofline."""
    with farm.acquire("kind=cpu") as device, peers.roofline(log=log) as limits:
        yield CodeBench(farm, device, limits, log, effort, os.cpu_count() or 1)


def _best_core_type(bench: CodeBench) -> str:
    """The kernels with which OpenBLAS multiplies 1024 × 1024 matrices fastest; those that fail are passed over."""
    work = works.matmul("1024", 1, 1024, 1024, 1024)
    with ExitStack() as stack:
        tried: dict[str, list[float]] = {}
        running: dict[str, Peer] = {}
        for core_type in peers.CORE_TYPES.get(platform.machine(), ()):
            candidate = stack.enter_context(peers.numpy(bench.threads, log=bench.log, core_type=core_type))
            try:
                candidate.prepare(work)
            except RuntimeError as failure:
                print(f"  OpenBLAS's {core_type} kernels fail here: {failure}", file=sys.stderr)
                continue
            running[core_type], tried[core_type] = candidate, []
        for _ in range(_TRIALS):
            for core_type, candidate in running.items():
                tried[core_type] += candidate.measure(bench.effort.repeat, bench.effort.min_seconds)
                candidate.settle()
    return min(tried, key=lambda core_type: Samples(tried[core_type]).median or float("inf"), default="")
