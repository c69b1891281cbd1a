"""A real worker process, bound by hand over its control pipe, and a lease that knows how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.sdk.device import Device
from crossfarm import errors
from crossfarm.target import Target
from crossfarm.wire import status
from crossfarm.wire.v1.tracker_pb2 import DeviceInfo
from device_agent.exits import WorkerExit, classify

TOKEN = "the lease's secret"


class WorkerLease:
    """A worker process as a supervisor would run it, seen as the lease of its client."""

    def __init__(
        self, driver: str, state: Path, limits: Mapping[str, int] | None = None, arguments: Sequence[str] = ()
    ) -> None:
        self.id = "lease-1"
        self.session_token = TOKEN
        self.fencing_token = 1
        self.info = DeviceInfo(id=f"test/{driver}0", attributes={"kind": driver}, target=Target.detect().to_proto())
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "device_agent.worker", "--driver", driver, "--state", str(state)),
                *("--device-json", json.dumps({"id": self.info.id}), *arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pid = self._process.pid
        self._stderr = b""
        self._threads = [threading.Thread(target=f) for f in (self._read_events, self._read_stderr)]
        for thread in self._threads:
            thread.start()
        self.address = self.wait_for("ready")["address"]
        self.command("bind", lease_id=self.id, session_token=TOKEN, fencing_token=1, limits=dict(limits or {}))
        self.wait_for("bound")

    def command(self, name: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": name, **fields}).encode() + b"\n")
        self._process.stdin.flush()

    def wait_for(self, kind: str, seconds: float = 30) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((event for event in self.events if event["event"] == kind), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._process.poll() is not None, seconds)
            event = found()
        assert event is not None, f"no {kind}: {self._stderr.decode()}"
        return event

    def failure(self, wait: float) -> errors.Error | None:
        """What the tracker would say: taken from the worker's own words, or from its exit status."""
        try:
            returncode = self._process.wait(wait)
        except subprocess.TimeoutExpired:
            return None
        for thread in self._threads:
            thread.join()
        for event in self.events:
            if event["event"] == "outcome":
                return errors.all_errors()[event["type"]](event["message"], hint=event["hint"])
        outcome = classify(WorkerExit(returncode, log=self._stderr.decode()), self.info.id)
        return status.from_detail(outcome.error)

    def release(self) -> None:
        """Ends the worker, if it still is there, and waits for its end."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait(10)
        for thread in self._threads:
            thread.join()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._changed:
                    self.events.append(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            self._stderr = stream.read()


def open_device(driver: str, state: Path, **limits: int) -> Device:
    """A device of that driver; its ``close`` ends the worker."""
    return Device(WorkerLease(driver, state, limits))  # type: ignore[arg-type]
