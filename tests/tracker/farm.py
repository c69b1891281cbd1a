"""A real tracker process, and small real agents and clients that do just what they are told, over gRPC."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil

from crossfarm.compat.versions import API_VERSION
from crossfarm.errors import Error, LeaseLost
from crossfarm.wire.channels import open_channel
from crossfarm.wire.status import error_of, rpc_errors
from crossfarm.wire.v1 import tracker_pb2 as wire
from crossfarm.wire.v1 import tracker_pb2_grpc

#: How long anything that must happen may take before a test gives up on it; nothing waits this long in a good run.
PATIENCE = 20.0


class TrackerProcess:
    """``python -m tracker serve`` on a fixed port, so that it can be killed and started again at the same address."""

    def __init__(self, state: Path, *options: str) -> None:
        self._state = state
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        announce = self._state.parent / f"{self._state.name}.json"
        announce.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tracker", "serve", "--listen", self.address, "--state", str(self._state)]
        self._process = subprocess.Popen([*command, "--announce", str(announce), "--with-parent", *self._options])
        for _ in patiently("the tracker to start"):
            if announce.exists():
                break
            assert self._process.poll() is None, "the tracker ended"
        self.address = json.loads(announce.read_text())["address"]

    def kill(self) -> None:
        """SIGKILL: nothing is written, nothing is said."""
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Waits for it to end by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def fill_disk(self) -> None:
        """From now on its files cannot grow, as on a full disk."""
        assert self._process is not None
        psutil.Process(self._process.pid).rlimit(psutil.RLIMIT_FSIZE, (4096, 4096))

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None


def patiently(what: str) -> Iterator[None]:
    """Iterate until the thing is so; fails the test when it never is."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        yield
        time.sleep(0.005)
    raise AssertionError(f"gave up waiting for {what}")


class _Stream:
    """One bidirectional stream: ``send`` messages, ``expect`` answers."""

    def __init__(self, address: str, method: str) -> None:
        self._channel = open_channel(address)
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stub = tracker_pb2_grpc.TrackerStub(self._channel)
        self._call = getattr(stub, method)(iter(self._outgoing.get, None))
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"test-{method}")
        self._reader.start()

    def send(self, message: Any) -> None:
        self._outgoing.put(message)

    def receive(self) -> Any:
        """The next message; None after the stream ended in good order; raises the error that ended it otherwise."""
        try:
            item = self._received.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("no message came") from None
        if isinstance(item, Error):
            raise item
        return item

    def drain(self) -> None:
        """Reads to the end of the stream; raises the error that ended it."""
        while self.receive() is not None:
            pass

    def half_close(self) -> None:
        self._outgoing.put(None)

    def close(self) -> None:
        """Breaks the connection, as a killed process would."""
        self._call.cancel()
        self._outgoing.put(None)
        self._channel.close()
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        try:
            for message in self._call:
                self._received.put(message)
            self._received.put(None)
        except grpc.RpcError as failure:
            self._received.put(error_of(failure))


class Agent(_Stream):
    """An agent whose devices do nothing: it starts what it is told to start at once, unless ``automatic`` is off."""

    def __init__(
        self,
        address: str,
        name: str,
        devices: dict[str, dict[str, str]],
        *,
        held: list[wire.Register.HeldLease] | None = None,
        running: dict[str, wire.StartLease] | None = None,
        automatic: bool = True,
        api: int = API_VERSION,
        register: bool = True,
    ) -> None:
        self.name = name
        self.automatic = automatic
        self.running: dict[str, wire.StartLease] = dict(running or {})
        super().__init__(address, "Attach")
        self.send(
            wire.AgentMessage(
                register=wire.Register(
                    agent_id=name,
                    devices=[wire.DeviceInfo(id=f"{name}/{d}", attributes=a) for d, a in devices.items()],
                    held=held if held is not None else self.held(),
                    api_low=api,
                    api_high=api,
                )
            )
        )
        if register:
            self.registered: wire.Registered = self.receive().registered

    def ready(self, lease_id: str, address: str = "127.0.0.1:9") -> None:
        self.send(wire.AgentMessage(ready=wire.LeaseReady(lease_id=lease_id, address=address)))

    def ended(self, lease_id: str, outcome: wire.Outcome | None = None, *, device_ok: bool = True) -> None:
        self.running.pop(lease_id, None)
        ended = wire.LeaseEnded(lease_id=lease_id, outcome=outcome or wire.Outcome(kind=wire.Outcome.RELEASED))
        ended.device_ok = device_ok
        self.send(wire.AgentMessage(ended=ended))

    def status(self, device: str, healthy: bool, reason: str = "") -> None:
        status = wire.DeviceStatus(device_id=f"{self.name}/{device}", healthy=healthy, reason=reason)
        self.send(wire.AgentMessage(status=status))

    def heartbeat(self, sequence: int) -> None:
        self.send(wire.AgentMessage(heartbeat=wire.Heartbeat(sequence=sequence)))

    def held(self) -> list[wire.Register.HeldLease]:
        """What this agent says it holds when it registers again."""
        return [
            wire.Register.HeldLease(lease_id=s.lease_id, fencing_token=s.fencing_token, device_id=s.device_id)
            for s in self.running.values()
        ]

    def _start(self, start: wire.StartLease) -> None:
        self.running[start.lease_id] = start
        if self.automatic:
            self.ready(start.lease_id)

    def _read(self) -> None:
        try:
            for message in self._call:
                if message.HasField("start"):
                    self._start(message.start)
                if message.HasField("end") and self.automatic:
                    self.ended(message.end.lease_id)
                self._received.put(message)
            self._received.put(None)
        except grpc.RpcError as failure:
            self._received.put(error_of(failure))


class Client(_Stream):
    """A client's Acquire stream."""

    def __init__(self, address: str) -> None:
        super().__init__(address, "Acquire")

    @classmethod
    def opens(cls, address: str, selector: str = "", **fields: Any) -> Client:
        client = cls(address)
        fields.setdefault("api_version", API_VERSION)
        fields.setdefault("priority", 50)
        client.send(wire.AcquireRequest(open=wire.AcquireRequest.Open(selector=selector, **fields)))
        return client

    @classmethod
    def resumes(cls, address: str, lease: wire.AcquireEvent.Granted, token: str | None = None) -> Client:
        client = cls(address)
        resume = wire.AcquireRequest.Resume(lease_id=lease.lease_id, fencing_token=lease.fencing_token)
        resume.session_token = lease.session_token if token is None else token
        client.send(wire.AcquireRequest(resume=resume))
        return client

    def granted(self) -> wire.AcquireEvent.Granted:
        """Waits for the grant, past any places in the queue."""
        while not (event := self.receive()).HasField("granted"):
            if event.HasField("ended"):
                raise LeaseLost(f"ended instead: {event.ended.outcome}")
        return event.granted

    def queued(self) -> wire.AcquireEvent.Queued:
        event = self.receive()
        assert event.HasField("queued"), event
        return event.queued

    def ended(self) -> wire.Outcome:
        while not (event := self.receive()).HasField("ended"):
            pass
        assert self.receive() is None
        return event.ended.outcome

    def renew(self) -> None:
        self.send(wire.AcquireRequest(renew=wire.AcquireRequest.Renew()))

    def release(self) -> None:
        self.send(wire.AcquireRequest(release=wire.AcquireRequest.Release()))


def devices(address: str, selector: str = "") -> dict[str, wire.DeviceInfo]:
    with open_channel(address) as channel, rpc_errors():
        answer = tracker_pb2_grpc.TrackerStub(channel).ListDevices(wire.ListDevicesRequest(selector=selector))
    return {device.id: device for device in answer.devices}


def wait_for_state(address: str, device: str, state: int) -> wire.DeviceInfo:
    for _ in patiently(f"{device} to be {wire.DeviceState.Name(state)}"):
        info = devices(address).get(device)
        if info is not None and info.state == state:
            return info
    raise AssertionError


@contextlib.contextmanager
def running_tracker(state: Path, *options: str) -> Iterator[TrackerProcess]:
    tracker = TrackerProcess(state, *options)
    try:
        yield tracker
    finally:
        if tracker.running:
            tracker.stop()
