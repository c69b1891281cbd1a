"""SIGKILL to each program of a farm in the middle of a stream of jobs.

Every job ends in its right result or in an error that says it is worth retrying, and afterwards every device is free
and does a job. The processes are real; nothing is told that it will be killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

import crossfarm as cf

PROGRAM = """
@T.prim_func
def main(A: T.Buffer((256,), "float32"), B: T.Buffer((256,), "float32")):
    for i in range(256):
        with T.block("B"):
            v = T.axis.spatial(256, i)
            B[v] = A[v] * T.float32(2) + T.float32({constant})
"""
DEVICES = 2
CLIENTS = 3


@dataclass
class Tally:
    """What became of the jobs."""

    done: int = 0
    retryable: list[cf.Error] = field(default_factory=list)
    wrong: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def one_job(farm: cf.Farm, number: int) -> None:
    """Build (half of them new), lease, run and check."""
    module = cf.parse(PROGRAM.format(constant=number if number % 2 else 0))
    a = np.arange(256, dtype="float32")
    artifact = farm.build(module, target="llvm")
    with farm.acquire(timeout=60) as device:
        loaded = device.load(artifact)
        for _ in range(3):
            np.testing.assert_array_equal(loaded["main"](a), a * 2 + (number if number % 2 else 0))


def stream_of_jobs(address: str, stop: threading.Event, tally: Tally, first: int) -> None:
    number = first
    while not stop.is_set():
        number += CLIENTS
        try:
            with cf.connect(address) as farm:
                one_job(farm, number)
        except cf.RetryableError as failure:
            with tally.lock:
                tally.retryable.append(failure)
            stop.wait(0.1)  # as a client that retries would
        except BaseException as failure:  # noqa: BLE001 - judged by the test
            with tally.lock:
                tally.wrong.append(failure)
        else:
            with tally.lock:
                tally.done += 1


@dataclass
class RunningFarm:
    """A farm under ``crossfarm up``, which restarts what dies."""

    tracker: str
    pid: int

    def processes(self, program: str) -> list[psutil.Process]:
        """Running processes of one of its programs, by module name."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
                if process.status() != psutil.STATUS_ZOMBIE and program in process.cmdline():
                    found.append(process)
        return found

    def kill(self, program: str) -> bool:
        """SIGKILL to one process of that name; ``worker`` is the youngest of the leases' own, forks of the template."""
        found = self.processes("device_agent.template")[1:] if program == "worker" else self.processes(program)
        with contextlib.suppress(psutil.NoSuchProcess):
            if found:
                (max(found, key=lambda p: p.create_time()) if program == "worker" else found[0]).kill()
                return True
        return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningFarm]:
    """A farm with two devices that compute."""
    environment = {**os.environ, "CROSSFARM_STATE": str(tmp_path / "state"), "CROSSFARM_CACHE": str(tmp_path / "cache")}
    crossfarm = [sys.executable, "-m", "clients.cli.main"]
    up = [*crossfarm, "up", "--detach", "--agent-devices", "cpu,reference", "--json"]
    started = subprocess.run(up, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert started.returncode == 0, started.stderr
    said = json.loads(started.stdout)
    try:
        yield RunningFarm(said["tracker"], said["pid"])
    finally:
        down = subprocess.run(
            [*crossfarm, "down"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert down.returncode == 0, down.stderr


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {what}")


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "victim",
    ["tracker", "compiler_service", "compiler_service.worker", "device_agent", "device_agent.template", "worker"],
)
def test_a_killed_program_costs_no_job_and_no_device(victim: str, running: RunningFarm) -> None:
    stop, tally = threading.Event(), Tally()
    clients = [
        threading.Thread(target=stream_of_jobs, args=(running.tracker, stop, tally, first), name=f"client-{first}")
        for first in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        for _ in range(3):
            before = tally.done
            wait_until(lambda: tally.done >= before + 5 or bool(tally.wrong), 60, f"jobs go on; {tally}")  # noqa: B023
            wait_until(lambda: running.kill(victim), 30, f"{victim} runs")
        before = tally.done
        wait_until(lambda: tally.done >= before + 10 or bool(tally.wrong), 60, f"jobs after the last kill; {tally}")
    finally:
        stop.set()
        for client in clients:
            client.join(60)
    assert not tally.wrong, tally.wrong[0]
    with cf.connect(running.tracker) as farm:
        wait_until(
            lambda: [d.state for d in farm.devices()] == ["free"] * DEVICES, 30, f"all devices free: {farm.devices()}"
        )
        for info in farm.devices():
            with farm.acquire(f"id={info.id}", timeout=30) as device:
                artifact = farm.build(cf.parse(PROGRAM.format(constant=1)), target=device.target)
                device.load(artifact)["main"](np.zeros(256, "float32"))


@pytest.mark.slow
def test_a_killed_client_gives_its_device_back(running: RunningFarm) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, crossfarm as cf\n"
            f"farm = cf.connect({running.tracker!r})\n"
            f"devices = [farm.acquire(timeout=30) for _ in range({DEVICES})]\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with cf.connect(running.tracker) as farm:
            assert {d.state for d in farm.devices()} == {"leased"}
            holder.kill()
            with farm.acquire(timeout=15):
                pass
            wait_until(lambda: {d.state for d in farm.devices()} == {"free"}, 15, "all devices free")
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
