"""The supervisor with workers that do what the test says, when it says so."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossfarm.wire.v1.tracker_pb2 import AgentMessage, DeviceInfo, StartLease
from device_agent import supervisor as supervisor_module
from device_agent.supervisor import Supervisor

WAIT_SECONDS = 10


class ScriptedWorker:
    """A worker's end of the pipes."""

    pid = 2**22 + 1  # beyond the kernel's: there is no such process to kill

    def __init__(self) -> None:
        commands, to_worker = os.pipe()
        from_worker, events = os.pipe()
        errors, self._errors = os.pipe()
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb"), os.fdopen(errors, "rb"),
        )  # fmt: skip
        self._commands, self._events = os.fdopen(commands, "rb"), os.fdopen(events, "wb")
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def wait(self) -> int:
        self._ended.wait()
        return 0

    def next_command(self) -> str:
        return str(json.loads(self._commands.readline())["command"])

    def says(self, event: str, **fields: str) -> None:
        self._events.write(json.dumps({"event": event, **fields}).encode() + b"\n")
        self._events.flush()

    def end(self) -> None:
        """Again is nothing."""
        with self._lock:
            if self._ended.is_set():
                return
            self._ended.set()
            self._events.close()
            os.close(self._errors)

    def close(self) -> None:
        self._commands.close()


class ScriptedSpawner:
    def __init__(self) -> None:
        self.started: queue.Queue[ScriptedWorker] = queue.Queue()
        self._all: list[ScriptedWorker] = []
        self._over = False

    def spawn(self, arguments: list[str]) -> ScriptedWorker:
        worker = ScriptedWorker()
        self._all.append(worker)
        self.started.put(worker)
        if self._over:
            worker.end()
        return worker

    def finish(self) -> None:
        """Every worker ends, and those that are still started end at once: there is nobody to write their script."""
        self._over = True
        for worker in list(self._all):
            worker.end()

    def forget(self) -> None:
        """Once the supervisor has stopped: no descriptor stays open."""
        for worker in self._all:
            worker.end()
            worker.close()

    def next(self) -> ScriptedWorker:
        return self.started.get(timeout=WAIT_SECONDS)

    def close(self) -> None:
        """Nothing is kept."""


@pytest.fixture
def spawner(monkeypatch: pytest.MonkeyPatch) -> ScriptedSpawner:
    made = ScriptedSpawner()
    monkeypatch.setattr(supervisor_module, "best_spawner", lambda drivers: made)
    return made


@pytest.fixture
def sent() -> queue.Queue[AgentMessage]:
    return queue.Queue()


@pytest.fixture
def supervisor(spawner: ScriptedSpawner, sent: queue.Queue[AgentMessage], tmp_path: Path) -> Iterator[Supervisor]:
    devices = [(DeviceInfo(id="a/null0"), "null", 0)]
    made = Supervisor(devices, state=tmp_path, host="127.0.0.1", send=sent.put, on_all_ready=lambda: None)
    made.start()
    yield made
    spawner.finish()
    made.stop()
    spawner.forget()


def test_a_worker_that_is_ready_after_it_was_asked_to_make_room_gets_no_lease(
    supervisor: Supervisor, spawner: ScriptedSpawner, sent: queue.Queue[AgentMessage]
) -> None:
    """A driver may take its time to open a device: the tracker's answer to the registration is there before."""
    early = spawner.next()
    supervisor.set_stores(["127.0.0.1:1"])
    assert early.next_command() == "end"
    supervisor.start_lease(StartLease(lease_id="one", device_id="a/null0"))
    early.says("ready", address="127.0.0.1:2")
    early.end()
    later = spawner.next()
    later.says("ready", address="127.0.0.1:3")
    assert later.next_command() == "bind"
    later.says("bound")
    assert sent.get(timeout=WAIT_SECONDS).ready.address == "127.0.0.1:3"

    later.end()
