"""crossfarm as it is measured: a private farm on loopback, and one whose tracker and workers are behind a slow link."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import numpy as np

import crossfarm as cf
from benchmarks.processes import FAR, NEAR, child, free_ports
from clients.sdk.device import Device
from clients.sdk.farm import Farm

#: Ports for the workers of the far agent: the one that holds a lease, the one that warms up, and some being freed.
FAR_WORKERS = 6
JOB_ELEMENTS = 65536
_START_SECONDS = 60.0


class CrossfarmSide:
    """What is measured of crossfarm; each method returns seconds, one value for each repetition.

    Attributes:
        far_ports: those that the slow link must carry.
    """

    def __init__(self, program: Path, near: Farm, far_tracker: str, far_ports: list[int]) -> None:
        self._text = program.read_text()
        self._near = near
        self._far_tracker = far_tracker
        self.far_ports = far_ports
        self._module = cf.parse(self._text)
        self._artifact = near.build(self._module)
        self._fresh = count(int(time.time()))

    def build_cold(self) -> list[float]:
        """A module that no cache has seen, from IRModule to the artifact's bytes here."""
        module = self._fresh_module()
        began = time.perf_counter()
        self._near.build(module)
        return [time.perf_counter() - began]

    def build_cached(self) -> list[float]:
        """The same module again."""
        began = time.perf_counter()
        self._near.build(self._module)
        return [time.perf_counter() - began]

    def lease(self) -> list[float]:
        """From asking the tracker to the first answer of the device."""
        began = time.perf_counter()
        with self._near.acquire("kind=cpu") as device:
            device.synchronize()
            return [time.perf_counter() - began]

    @contextmanager
    def near_device(self) -> Iterator[Device]:
        """A leased device of the private farm."""
        with self._near.acquire("kind=cpu") as device:
            yield device

    def call(self, device: Device, calls: int) -> list[float]:
        """``calls`` synchronous calls of the empty function, each timed."""
        empty = device.load(self._artifact)["empty"]
        for _ in range(min(calls, 50)):
            empty()
        found = []
        for _ in range(calls):
            began = time.perf_counter()
            empty()
            found.append(time.perf_counter() - began)
        return found

    def pipelined(self, device: Device, calls: int) -> list[float]:
        """Seconds for each call when ``calls`` of them are in flight together."""
        empty = device.load(self._artifact)["empty"]
        began = time.perf_counter()
        for future in [empty.submit() for _ in range(calls)]:
            future.result()
        return [(time.perf_counter() - began) / calls]

    def tensor(self, device: Device, megabytes: int, up: bool) -> list[float]:
        """Moves ``megabytes`` MB (10^6 bytes) of bytes the device has not seen to it, or from it."""
        data = np.random.default_rng(next(self._fresh)).integers(0, 255, megabytes * 1_000_000, dtype=np.uint8)
        if up:
            began = time.perf_counter()
            device.tensor(data)
            device.synchronize()  # until every byte is in place there
            return [time.perf_counter() - began]
        tensor = device.tensor(data)
        device.synchronize()
        began = time.perf_counter()
        fetched = tensor.numpy()
        took = time.perf_counter() - began
        if not np.array_equal(fetched, data):
            raise AssertionError("the tensor came back changed")
        return [took]

    def job(self) -> list[float]:
        """A whole job over the slow link: connect, load, two tensors in, call, benchmark 3 × 3, one tensor out.

        The artifact and the tensors are new each time, so that no cache of the device helps.
        """
        artifact = self._near.build(self._fresh_module())
        a, b = (np.random.default_rng(next(self._fresh)).random(JOB_ELEMENTS, dtype=np.float32) for _ in range(2))
        began = time.perf_counter()
        with cf.connect(self._far_tracker) as farm, farm.acquire("kind=cpu") as device:
            add = device.load(artifact)["add"]
            x, y, z = device.tensor(a), device.tensor(b), device.empty(a.shape, "float32")
            called = add.submit(x, y, out=z)
            add.benchmark(x, y, out=z, warmup=0, repeat=3, number=3, min_repeat_ms=0)
            called.result()
            result = z.numpy()
            took = time.perf_counter() - began
        if not np.array_equal(result, a + b):
            raise AssertionError("the remote sum is wrong")
        return [took]

    def _fresh_module(self) -> cf.IRModule:
        """The same program with a number in an attribute that nobody reads: as much work, another digest."""
        marked = f'T.func_attr({{"benchmark.round": {next(self._fresh)}}})\n        T.evaluate(0)'
        return cf.parse(self._text.replace("T.evaluate(0)", marked))


@contextmanager
def crossfarm_side(program: Path, *, log: Path, state: Path) -> Iterator[CrossfarmSide]:
    """Starts both farms. The far one's tracker and agent are told to be called by the far address."""
    low = free_ports(1 + FAR_WORKERS)
    workers = range(low + 1, low + 1 + FAR_WORKERS)
    with ExitStack() as stack:
        near = stack.enter_context(cf.connect("embedded"))
        tracker = [sys.executable, "-m", "tracker", "serve", "--listen", f"{NEAR}:{low}"]
        _start(stack, [*tracker, "--state", str(state / "tracker")], state / "tracker.json", log)
        agent = [sys.executable, "-m", "device_agent", "serve", "--tracker", f"{NEAR}:{low}", "--name", "far"]
        agent += ["--advertise", FAR, "--ports", f"{workers.start}-{workers.stop - 1}"]
        _start(stack, [*agent, "--state", str(state / "agent")], state / "agent.json", log)
        yield CrossfarmSide(program, near, f"{FAR}:{low}", [low, *workers])


def _start(stack: ExitStack, command: list[str], announcement: Path, log: Path) -> None:
    process = stack.enter_context(child([*command, "--announce", str(announcement), "--with-parent"], log=log))
    deadline = time.monotonic() + _START_SECONDS
    while not announcement.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{' '.join(command[1:4])} did not start: see {log}")
        time.sleep(0.02)
