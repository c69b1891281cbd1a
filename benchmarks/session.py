"""The session alone, beside bare gRPC, in one run: ``python -m benchmarks.session [--rounds N] [--json FILE]``.

One worker with the null driver, without agent and tracker: what is measured is the protocol and the two ends of it.
Sides take turns, and a figure is the median over the rounds; compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.floors import GrpcFloor, grpc_floor
from clients.sdk.device import Device
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.errors import Error
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Variant
from crossfarm.wire.v1.tracker_pb2 import DeviceInfo

MEGABYTES = (1, 16, 64)


class Bench:
    """What crossfarm does; the methods return seconds, one value for each repetition."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._empty = device.load(_program())["empty"]

    def call(self, count: int) -> list[float]:
        found = []
        for _ in range(count):
            began = time.perf_counter()
            self._empty()
            found.append(time.perf_counter() - began)
        return found

    def pipelined(self, count: int) -> list[float]:
        began = time.perf_counter()
        for future in [self._empty.submit() for _ in range(count)]:
            future.result()
        return [(time.perf_counter() - began) / count]

    def up(self, data: np.ndarray) -> list[float]:
        began = time.perf_counter()
        tensor = self._device.tensor(data)
        self._device.synchronize()
        took = time.perf_counter() - began
        tensor.free()
        return [took]

    def down(self, data: np.ndarray) -> list[float]:
        with self._device.tensor(data) as tensor:
            self._device.synchronize()
            began = time.perf_counter()
            tensor.numpy()
            return [time.perf_counter() - began]


def measure(bench: Bench, floor: GrpcFloor, rounds: int, calls: int) -> list[dict[str, float | str]]:
    """Rows of (what, unit, ours, floor, ratio to the floor where more is better)."""
    rows: list[dict[str, float | str]] = []

    def add(
        what: str, unit: str, ours: Callable[[], list[float]], bare: Callable[[], list[float]], scale: float
    ) -> None:
        """``scale`` > 0 shows seconds × scale, < 0 shows -scale / seconds."""
        ours()  # warm-up of both
        bare()
        found: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            found[0].extend(ours())
            found[1].extend(bare())
        mine, theirs = (statistics.median(samples) for samples in found)
        shown = [s * scale if scale > 0 else -scale / s for s in (mine, theirs)]
        rows.append({"what": what, "unit": unit, "ours": shown[0], "floor": shown[1], "speed": theirs / mine})

    add("empty call", "us", lambda: bench.call(calls), lambda: floor.ping_pong(calls), 1e6)
    add("pipelined calls", "1/s", lambda: bench.pipelined(20_000), lambda: floor.ping_pong(calls), -1)
    for megabytes in MEGABYTES:
        data = np.random.default_rng(0).integers(0, 255, megabytes * 1_000_000, dtype=np.uint8)
        up, down = partial(bench.up, data), partial(bench.down, data)
        add(f"tensor {megabytes} MB up", "MB/s", up, partial(floor.tensor, megabytes, True), -megabytes)
        add(f"tensor {megabytes} MB down", "MB/s", down, partial(floor.tensor, megabytes, False), -megabytes)
    return rows


class _Worker:
    """A worker process as the lease of its client."""

    id, session_token, fencing_token = "benchmark", "benchmark", 1

    def __init__(self, state: Path, log: Path) -> None:
        self.info = DeviceInfo(id="null0", target=Target.detect().to_proto())
        with open(log, "wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "device_agent.worker", "--driver", "null", "--state", str(state)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.address = str(json.loads(self._process.stdout.readline())["address"])
        bind = {"command": "bind", "lease_id": self.id, "session_token": self.session_token}
        self._process.stdin.write(json.dumps(bind).encode() + b"\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def failure(self, wait: float) -> Error | None:
        return None

    def release(self) -> None:
        self._process.communicate()


@contextmanager
def null_device(scratch: Path) -> Iterator[Device]:
    """A device that computes nothing, in a worker of its own."""
    with Device(_Worker(scratch, scratch / "worker.log")) as device:  # type: ignore[arg-type]
        yield device


def _program() -> Artifact:
    entry = EntryPoint(name="empty")
    variant = Variant(target=Target("llvm").to_proto(), runtime="null", entry_points=[entry])
    return write_artifact("empty", [variant], [b""])


def main(argv: list[str] | None = None) -> int:
    """Measures and prints a table; with ``--json`` writes the rows as well."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.session", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with null_device(scratch) as device, grpc_floor(log=scratch / "floor.log") as floor:
            rows = measure(Bench(device), floor, options.rounds, options.calls)
    print(f"{'':22} {'ours':>10} {'bare gRPC':>10} {'':5} {'speed':>6}")
    for row in rows:
        print(f"{row['what']:22} {row['ours']:10,.0f} {row['floor']:10,.0f} {row['unit']:5} {row['speed']:6.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
