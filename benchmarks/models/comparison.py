"""Whole models beside ONNX Runtime and TVM's default pipeline: what they take to build, to run, and of memory."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.cpu import peers
from benchmarks.cpu.comparison import DEFAULT_TVM, INITIALIZERS, CodeBench
from benchmarks.cpu.sides import CrossfarmCode, Side
from benchmarks.cpu.tables import ROOFLINE, Table, as_data, duration, geometric_mean, inverse, ratio
from benchmarks.cpu.turns import OURS, Floor, Measured, measure
from benchmarks.cpu.works import Work
from benchmarks.models.works import models as light_models
from benchmarks.report import quantity
from crossfarm.artifact import Artifact
from crossfarm.frontends.onnx import load_onnx

#: All models together may take so many seconds to build, none of them cached.
BUILDS = 60.0
#: And each so many times ONNX Runtime's time to run.
LIMIT = 1.5


class CrossfarmModel(CrossfarmCode):
    """The farm as its users have it, with a model's file.

    Attributes:
        build_seconds: the cold build of the last model, from the file to the artifact.
        memory: the most bytes that the device's worker has had in memory.
    """

    build_seconds = 0.0
    memory = 0

    def build(self, work: Work) -> Artifact:
        began = time.perf_counter()
        built = self._farm.compiler.build(load_onnx(work.program), [self._device.target], use_cache=False).artifact
        self.build_seconds = time.perf_counter() - began
        return built

    def result(self) -> list[float]:
        self.memory = _largest_worker()
        return super().result()


@dataclass(frozen=True)
class _Row:
    measured: Measured
    build_seconds: float
    memory: dict[str, int]


def models(bench: CodeBench) -> Iterator[Table]:
    """Each model in peers of its own, so that memory is its own too."""
    folder = bench.log.parent
    rows = [_row(bench, work) for work in light_models(folder, quick=bench.effort.quick)]
    yield _table(bench, rows)


def _row(bench: CodeBench, work: Work) -> _Row:
    print(f"  {work.name}", file=sys.stderr)
    with ExitStack() as stack:
        others = {
            INITIALIZERS: stack.enter_context(peers.onnxruntime(bench.threads, log=bench.log, weights="initializers")),
            DEFAULT_TVM: stack.enter_context(peers.tvm(bench.threads, log=bench.log, schedule="default")),
        }
        ours = CrossfarmModel(bench.farm, bench.device, bench.threads)
        gc.collect()  # the model before may be waiting for it
        bench.device.synchronize()
        _forget_peaks()
        sides: dict[str, Side] = {OURS: ours, **others, ROOFLINE: Floor(bench.roofline, bench.threads)}
        measured = measure(work, sides, bench.effort)
        memory = {name: int(peer.ask("memory")["bytes"]) for name, peer in others.items() if name in measured.seconds}
        for peer in others.values():
            bench.versions.setdefault(peer.version)
        return _Row(measured, ours.build_seconds, {OURS: ours.memory, **memory})


def _table(bench: CodeBench, rows: list[_Row]) -> Table:
    times = (OURS, INITIALIZERS, DEFAULT_TVM)
    head = (
        "model", "GFLOP", *times, "× ONNX Runtime", "× as fast as TVM", "× roofline", "build",
        *(f"memory, {side}" for side in times), "goal", "met",
    )  # fmt: skip
    lines = []
    for row in rows:
        measured = row.measured
        slower, faster = inverse(measured.speed(INITIALIZERS)), measured.speed(DEFAULT_TVM)
        met = slower is not None and slower <= LIMIT and faster is not None and faster >= 1
        lines.append(
            (
                measured.work.name,
                f"{measured.work.flops / 1e9:.2f}",
                *(duration(measured.seconds.get(side)) for side in times),
                ratio(slower),
                ratio(faster),
                ratio(measured.speed(ROOFLINE)),
                quantity(row.build_seconds, "s"),
                *(_megabytes(row.memory.get(side)) for side in times),
                f"≤ {LIMIT:g} × ONNX Runtime, faster than TVM",
                "yes" if met else "no",
            )
        )
    mean = geometric_mean([inverse(row.measured.speed(INITIALIZERS)) for row in rows])
    lines.append(("geometric mean", *("" for _ in range(4)), ratio(mean), *("" for _ in head[6:])))
    total = sum(row.build_seconds for row in rows)
    notes = (
        f"Cold builds of all {len(rows)}: {total:.1f} s, goal ≤ {BUILDS:g} s; "
        f"{'met' if total <= BUILDS else 'not met'}. A build is from the ONNX file to the "
        "artifact at the client, nothing cached.",
        "Weights are drawn at random, the same for all sides, and stored in the file; batch 1. Memory: the most that "
        "the process which runs the model had, its own program included. × ONNX Runtime: our time in theirs.",
    )
    return Table("Whole models, fp32", head, lines, notes, [_data(row) for row in rows])


def _data(row: _Row) -> dict[str, object]:
    return {**as_data(row.measured), "build_seconds": row.build_seconds, "memory": row.memory}


def _agents() -> Iterator[int]:
    """The processes of the farm's agent, which this process started: workers are among them."""
    for process in psutil.Process().children(recursive=True):
        try:
            if "device_agent" in " ".join(process.cmdline()):
                yield process.pid
        except psutil.Error:
            continue  # it ended meanwhile


def _forget_peaks() -> None:
    """What the agent's processes had in memory before does not count any more (Linux tells and forgets)."""
    for pid in _agents():
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def _largest_worker() -> int:
    """The most bytes that any process of the agent has had in memory since."""
    return max(map(_peak, _agents()), default=0)


def _peak(pid: int) -> int:
    """``VmHWM`` of a process, in bytes; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _megabytes(count: int | None) -> str:
    return "–" if not count else f"{count / 1e6:,.0f} MB"
