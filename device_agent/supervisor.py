"""Owns this machine's devices: keeps a warm worker for each, binds one to each lease, and says how each lease ended.

Everything here runs in one actor thread; workers' threads and the control stream only post to it. What goes to the
tracker leaves through ``send``; while the tracker is away it is dropped there, and ``held_leases`` tells it on return.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crossfarm import errors
from crossfarm.wire.v1.tracker_pb2 import (
    AgentMessage,
    DeviceInfo,
    DeviceState,
    DeviceStatus,
    EndLease,
    LeaseEnded,
    LeaseReady,
    Outcome,
    Register,
    StartLease,
)
from device_agent.actor import Actor, Timer
from device_agent.exits import WorkerExit, classify, oom_kills, outcome_of
from device_agent.spawn import best_spawner
from device_agent.worker_process import Event, WorkerProcess

log = logging.getLogger(__name__)


#: Ends told again at each registration.
_ENDS_KEPT = 16


@dataclass(frozen=True)
class Limits:
    """Times in seconds that the supervisor keeps.

    Attributes:
        warm_up: a worker may take this long to become ready (an emulated one is slow).
        bind: a ready worker may take this long to be bound.
        breath: pause after a lease has begun before the next worker is started.
        end: a worker asked to end may take this long before it is killed.
        restart: first pause before a worker that could not start is tried again; doubles up to ``restart_max``.
        failures: starts that fail in a row before the device is reported as unhealthy.
    """

    warm_up: float = 60.0
    bind: float = 15.0
    breath: float = 0.1
    end: float = 1.5
    restart: float = 0.2
    restart_max: float = 30.0
    failures: int = 3


@dataclass
class _Lease:
    start: StartLease
    worker: WorkerProcess | None = None
    bound: bool = False
    program_ran: bool = False
    oom_before: int = 0
    outcome: Outcome | None = None  # known before the worker's end: asked for, or told by the worker
    timers: list[Timer] = field(default_factory=list)


@dataclass
class _Device:
    info: DeviceInfo
    driver: str
    index: int
    warm: WorkerProcess | None = None  # started; ready once it has an address
    lease: _Lease | None = None
    failures: int = 0
    healthy: bool = True
    checking: bool = False  # the tracker waits for a DeviceStatus
    reason: str = ""  # of not being healthy


class Supervisor:
    """See the module's text.

    Args:
        devices: what the drivers found: (info, driver name, index within the driver).
        state: directory for workers' caches.
        host: address that workers listen on.
        send: takes a message for the tracker; never blocks.
        on_all_ready: called once when every device has had a ready worker, or was found unhealthy.
        advertise: host that clients are told instead of ``host``, where a forwarder stands in between.
    """

    def __init__(
        self,
        devices: list[tuple[DeviceInfo, str, int]],
        *,
        state: Path,
        host: str,
        send: Callable[[AgentMessage], None],
        on_all_ready: Callable[[], None],
        worker_arguments: list[str] | None = None,
        advertise: str = "",
        limits: Limits = Limits(),
    ) -> None:
        self._devices = {info.id: _Device(info, driver, index) for info, driver, index in devices}
        self._waiting_for_first = set(self._devices)
        self._state = state
        self._host = host
        self._send = send
        self._on_all_ready = on_all_ready
        self._worker_arguments = worker_arguments or []
        self._advertise = advertise
        self._limits = limits
        self._stores: list[str] = []
        self._ends: deque[LeaseEnded] = deque(maxlen=_ENDS_KEPT)
        self._spawner = best_spawner(sorted({driver for _, driver, _ in devices}))
        self._actor = Actor("supervisor")
        self._stopping = False

    def start(self) -> None:
        """Starts the actor and the first workers."""
        self._actor.start()
        self._actor.post(self._start_all)

    def stop(self) -> None:
        """Ends all leases and workers and returns when their processes are gone."""
        remaining: list[WorkerProcess] = []
        asked = threading.Event()

        def end_all() -> None:
            self._stopping = True
            for device in self._devices.values():
                if device.lease is not None and device.lease.outcome is None:
                    device.lease.outcome = outcome_of(
                        Outcome.INFRASTRUCTURE_FAILED,
                        errors.LeaseLost(f"the agent of {device.info.id} was stopped", hint="try again"),
                    )
                for worker in (device.warm, device.lease.worker if device.lease else None):
                    if worker is not None:
                        worker.command("end")
                        remaining.append(worker)
            asked.set()

        self._actor.post(end_all)
        asked.wait()
        for worker in remaining:
            worker.join(self._limits.end)
            worker.kill()
            worker.join()
        # Last, so that what their ends mean is still said to the tracker.
        self._actor.stop()
        self._spawner.close()

    # --- from the control stream, any thread ---

    def set_stores(self, stores: list[str]) -> None:
        """Compiler services that workers started from now on may fetch artifacts from."""
        self._actor.post(lambda: self._set_stores(stores))

    def start_lease(self, message: StartLease) -> None:
        """Binds a warm worker to the lease; LeaseReady or LeaseEnded follows."""
        self._actor.post(lambda: self._start_lease(message))

    def end_lease(self, message: EndLease) -> None:
        """Ends the lease's worker; LeaseEnded follows when it is gone, also for a lease not known here."""
        self._actor.post(lambda: self._end_lease(message))

    def snapshot(self, deliver: Callable[[Register], None]) -> None:
        """Calls ``deliver`` from the actor, in order with everything else sent: devices, held leases, latest ends."""
        self._actor.post(
            lambda: deliver(
                Register(devices=[self._info(d) for d in self._devices.values()], held=self._held(), ended=self._ends)
            )
        )

    # --- actor thread only from here on ---

    def _held(self) -> list[Register.HeldLease]:
        return [
            Register.HeldLease(
                lease_id=device.lease.start.lease_id,
                fencing_token=device.lease.start.fencing_token,
                device_id=device.info.id,
            )
            for device in self._devices.values()
            if device.lease is not None
        ]

    def _info(self, device: _Device) -> DeviceInfo:
        info = DeviceInfo()
        info.CopyFrom(device.info)
        if not device.healthy:
            info.state, info.reason = DeviceState.UNHEALTHY, device.reason
        elif device.checking:
            info.state = DeviceState.CHECKING
        return info

    def _start_all(self) -> None:
        for device in self._devices.values():
            self._warm_up(device)

    def _set_stores(self, stores: list[str]) -> None:
        if stores == self._stores:
            return
        self._stores = stores
        for device in self._devices.values():
            if device.warm is not None:  # it knows the old stores: another one takes its place
                device.warm.retire()

    def _warm_up(self, device: _Device) -> None:
        """Starts the device's next worker unless it has one."""
        if self._stopping or device.warm is not None:
            return
        arguments = [
            "--driver", device.driver,
            "--device-index", str(device.index),
            "--device-json", json.dumps({"id": device.info.id, "attributes": dict(device.info.attributes)}),
            "--state", str(self._state),
            "--host", self._host,
            *(word for store in self._stores for word in ("--store", store)),
            *self._worker_arguments,
        ]  # fmt: skip
        try:
            worker = WorkerProcess(
                arguments,
                spawner=self._spawner,
                on_event=lambda w, event: self._actor.post(lambda: self._on_event(device, w, event)),
                on_exit=lambda w, code: self._actor.post(lambda: self._on_exit(device, w, code)),
            )
        except OSError as failure:
            self._start_failed(device, f"cannot start a worker: {failure}")
            return
        device.warm = worker

        def too_slow() -> None:
            if device.warm is worker and not worker.address:
                log.error("worker %d of %s was not ready within its time", worker.pid, device.info.id)
                worker.kill()

        self._actor.after(self._limits.warm_up, too_slow)

    def _start_failed(self, device: _Device, reason: str) -> None:
        """A worker could not start: pause and try again; tell the tracker once it looks lasting."""
        device.failures += 1
        log.error("%s: %s (failure %d in a row)", device.info.id, reason, device.failures)
        if device.failures >= self._limits.failures:
            if device.healthy or device.checking:
                device.healthy = device.checking = False
                device.reason = reason[:1000]
                self._send_status(device, healthy=False, reason=reason)
            self._first_done(device)
            if device.lease is not None and not device.lease.bound:
                self._finish(device, device.lease, self._broken_device(device, reason), device_ok=False)
        pause = min(self._limits.restart * 2 ** (device.failures - 1), self._limits.restart_max)
        self._actor.after(pause, lambda: self._warm_up(device))

    def _broken_device(self, device: _Device, reason: str) -> Outcome:
        return outcome_of(
            Outcome.INFRASTRUCTURE_FAILED,
            errors.LeaseLost(f"the device {device.info.id} cannot start a worker: {reason}", hint="try another device"),
        )

    def _first_done(self, device: _Device) -> None:
        if device.info.id in self._waiting_for_first:
            self._waiting_for_first.discard(device.info.id)
            if not self._waiting_for_first:
                self._on_all_ready()

    def _on_event(self, device: _Device, worker: WorkerProcess, event: Event) -> None:
        kind = event.get("event")
        if kind == "ready" and worker is device.warm and not worker.retired:
            device.failures = 0
            if not device.healthy or device.checking:
                device.healthy, device.checking = True, False
                self._send_status(device, healthy=True, reason="")
            self._first_done(device)
            if device.lease is not None and device.lease.worker is None:
                self._bind(device, device.lease)
            return
        lease = device.lease
        if lease is None or lease.worker is not worker:
            return
        if kind == "bound":
            lease.bound = True
            address = worker.address
            if self._advertise:
                address = f"{self._advertise}:{address.rpartition(':')[2]}"
            self._send(AgentMessage(ready=LeaseReady(lease_id=lease.start.lease_id, address=address)))
            # The next lease's worker starts during this one, so that it is there at once; but not in the very moment in
            # which this one's client connects.
            self._actor.after(self._limits.breath, lambda: self._warm_up(device))
        elif kind == "loaded":
            lease.program_ran = True
        elif kind == "outcome" and lease.outcome is None:
            lease.outcome = self._told_outcome(device, event)

    def _told_outcome(self, device: _Device, event: Event) -> Outcome:
        """What a worker says of its own end; it runs foreign code, so only known words are taken."""
        cls = errors.all_errors().get(str(event.get("type")), errors.RemoteCrash)
        kinds = {"PROGRAM_FAILED": Outcome.PROGRAM_FAILED, "SESSION_TIMEOUT": Outcome.SESSION_TIMEOUT}
        kind = kinds.get(str(event.get("kind")), Outcome.INFRASTRUCTURE_FAILED)
        message = str(event.get("message") or f"the worker on {device.info.id} ended itself")
        return outcome_of(kind, cls(message[:4000], hint=str(event.get("hint") or "")[:1000]))

    def _start_lease(self, message: StartLease) -> None:
        device = self._devices.get(message.device_id)
        if device is None or device.lease is not None or self._stopping:
            why = "has no such device" if device is None else "is not free"
            outcome = outcome_of(
                Outcome.INFRASTRUCTURE_FAILED,
                errors.LeaseLost(f"the agent says that {message.device_id} {why}", hint="try again"),
            )
            self._send(
                AgentMessage(ended=LeaseEnded(lease_id=message.lease_id, outcome=outcome, device_ok=device is None))
            )
            return
        device.lease = lease = _Lease(message)
        if device.warm is not None and device.warm.address and not device.warm.retired:
            self._bind(device, lease)
        else:
            self._warm_up(device)

    def _bind(self, device: _Device, lease: _Lease) -> None:
        worker = device.warm
        assert worker is not None
        device.warm = None
        lease.worker = worker
        lease.oom_before = oom_kills()
        limits = lease.start.limits
        worker.command(
            "bind",
            lease_id=lease.start.lease_id,
            session_token=lease.start.session_token,
            fencing_token=lease.start.fencing_token,
            limits={
                "call_ms": limits.call_ms,
                "session_ms": limits.session_ms,
                "memory_bytes": limits.memory_bytes,
            },
        )

        def not_bound() -> None:
            if not lease.bound:
                worker.kill()

        lease.timers.append(self._actor.after(self._limits.bind, not_bound))
        if limits.session_ms:
            seconds = limits.session_ms / 1000
            lease.timers.append(self._actor.after(seconds, lambda: self._session_timeout(device, lease, seconds)))

    def _session_timeout(self, device: _Device, lease: _Lease, seconds: float) -> None:
        if lease.outcome is None:
            lease.outcome = outcome_of(
                Outcome.SESSION_TIMEOUT,
                errors.Timeout(
                    f"the session on {device.info.id} reached its limit of {seconds:g} s",
                    hint="ask for a longer one: acquire(session_timeout=…)",
                ),
            )
        if lease.worker is not None:
            lease.worker.kill()

    def _end_lease(self, message: EndLease) -> None:
        for device in self._devices.values():
            lease = device.lease
            if lease is None or lease.start.lease_id != message.lease_id:
                continue
            if lease.outcome is None:
                lease.outcome = message.outcome
            worker = lease.worker
            if worker is None:
                self._finish(device, lease, lease.outcome, device_ok=True)
            else:
                worker.command("end")
                lease.timers.append(self._actor.after(self._limits.end, worker.kill))
            return
        self._send(
            AgentMessage(ended=LeaseEnded(lease_id=message.lease_id, outcome=message.outcome, device_ok=True)),
        )

    def _on_exit(self, device: _Device, worker: WorkerProcess, returncode: int) -> None:
        if worker is device.warm:
            device.warm = None
            if self._stopping:
                return
            if worker.retired:
                self._warm_up(device)
            else:
                said = worker.log_tail.strip().rpartition("\n")[
                    2
                ]  # people see this in tables; the agent's log has it all
                self._start_failed(device, f"a worker ended with status {returncode}: {said[-500:]}")
            return
        lease = device.lease
        if lease is None or lease.worker is not worker:
            return
        outcome, asked = lease.outcome, lease.outcome is not None
        if outcome is None:
            ended = WorkerExit(
                returncode,
                log=worker.log_tail,
                oom_kills=oom_kills() - lease.oom_before,
                program_ran=lease.program_ran,
            )
            outcome = classify(ended, device.info.id)
        # After an end that nobody asked for the device counts as fine once another worker has opened it.
        self._finish(device, lease, outcome, device_ok=asked)

    def _finish(self, device: _Device, lease: _Lease, outcome: Outcome, *, device_ok: bool) -> None:
        for timer in lease.timers:
            timer.cancel()
        device.lease = None
        if outcome.kind not in (Outcome.RELEASED, Outcome.KIND_UNSPECIFIED):
            log.info("lease %s on %s ended: %s", lease.start.lease_id, device.info.id, outcome.error.message)
        ended = LeaseEnded(lease_id=lease.start.lease_id, outcome=outcome, device_ok=device_ok and device.healthy)
        self._ends.append(ended)
        self._send(AgentMessage(ended=ended))
        if self._stopping:
            return
        if not (device_ok and device.healthy):
            self._check(device)
        self._warm_up(device)

    def _check(self, device: _Device) -> None:
        """Proves the device with a fresh worker: one that was warm before the fault proves nothing."""
        device.checking = True
        if device.warm is not None:
            device.warm.retire()

    def _send_status(self, device: _Device, *, healthy: bool, reason: str) -> None:
        self._send(
            AgentMessage(status=DeviceStatus(device_id=device.info.id, healthy=healthy, reason=reason[:1000])),
        )
