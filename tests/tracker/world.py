"""The machine under an injected clock and ids; what it says is sorted by stream, what it saves is kept in dicts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from crossfarm import selectors
from crossfarm.wire.v1 import tracker_pb2 as wire
from tracker import events
from tracker.machine import Machine
from tracker.state import Config
from tracker.store import device_of, device_row, lease_of, lease_row

CPU = {"kind": "cpu", "arch": "x86_64"}
BOARD = {"kind": "cpu", "arch": "aarch64"}

#: The devices of an agent "a" that has one, or two.
ONE = {"a/cpu": CPU}
TWO = {"a/cpu": CPU, "a/board": BOARD}


def kinds(messages: list[object]) -> list[str]:
    """The names of messages and errors."""
    return [type(message).__name__ for message in messages]


class World:
    """Drives one machine. Streams are numbers that rise; each method posts one event and returns its step."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.machine = Machine(self.config, stores=("store:1",))
        self.now = 1_000_000
        self.said: dict[int, list[Any]] = defaultdict(list)  # stream → messages; an error or None where it was closed
        self.saved_devices: dict[str, dict[str, Any]] = {}  # rows, by id
        self.saved_leases: dict[str, dict[str, Any]] = {}
        self.saved_fence = 0
        self.history: list[tuple[events.Event, events.Step]] = []
        self._streams = 0
        self._keys = 0

    def stream(self) -> int:
        self._streams += 1
        return self._streams

    def post(self, event: events.Event) -> events.Step:
        step = self.machine.handle(event)
        self.history.append((event, step))
        for change in step.changes:
            self._save(change)
        for effect in step.effects:
            if isinstance(effect, events.Send):
                field = effect.message.WhichOneof(effect.message.DESCRIPTOR.oneofs[0].name)
                self.said[effect.stream].append(getattr(effect.message, str(field)))
            else:
                self.said[effect.stream].append(effect.error)
        return step

    def take(self, stream: int) -> list[Any]:
        """What was said on the stream since the last take."""
        return self.said.pop(stream, [])

    def restart(self) -> None:
        """Kills the tracker and starts it from what it saved; every stream is broken."""
        self.machine = Machine(self.config, stores=("store:1",))
        self.machine.restore(
            self.now,
            fence=self.saved_fence,
            devices=[device_of(row) for _, row in sorted(self.saved_devices.items())],
            leases_held=[lease_of(row) for _, row in sorted(self.saved_leases.items())],
        )
        self.said.clear()

    # --- agents

    def attach(
        self,
        name: str,
        devices: dict[str, dict[str, str]],
        held: list[wire.Register.HeldLease] | None = None,
        states: dict[str, wire.DeviceState] | None = None,
        instance: str = "",
    ) -> int:
        """Registers an agent on a new stream, which is returned."""
        stream = self.stream()
        register = wire.Register(agent_id=name, held=held or [], instance=instance)
        for id_, attributes in devices.items():
            register.devices.add(id=id_, attributes=attributes, state=(states or {}).get(id_, wire.FREE))
        self.post(events.AgentRegistered(self.now, stream, register))
        return stream

    def detach(self, agent: int) -> events.Step:
        return self.post(events.AgentDetached(self.now, agent))

    def heartbeat(self, agent: int) -> events.Step:
        return self.post(events.AgentHeard(self.now, agent, 1))

    def ready(self, agent: int, lease_id: str, address: str = "host:1") -> events.Step:
        return self.post(events.LeaseReady(self.now, agent, lease_id, address))

    def worker_ended(
        self, agent: int, lease_id: str, outcome: wire.Outcome | None = None, device_ok: bool = True
    ) -> events.Step:
        outcome = outcome or wire.Outcome(kind=wire.Outcome.RELEASED)
        return self.post(events.LeaseEnded(self.now, agent, lease_id, outcome, device_ok))

    def report(self, agent: int, device: str, healthy: bool, reason: str = "") -> events.Step:
        return self.post(events.DeviceReported(self.now, agent, device, healthy, reason))

    # --- clients

    def open(self, selector: str = "", priority: int = 50, timeout_ms: int = 0, **fields: Any) -> int:
        """Asks for a device on a new stream, which is returned."""
        stream = self.stream()
        self._keys += 1
        self.post(
            events.RequestOpened(
                now=self.now,
                stream=stream,
                key=f"lease-{self._keys}",
                secret=b"%032d" % self._keys,
                request_id=fields.get("request_id", ""),
                selector=selectors.parse(selector),
                priority=priority,
                queue_timeout_ms=timeout_ms,
                ttl_ms=fields.get("ttl_ms", 0),
                client=fields.get("client", f"user{stream}@host"),
                limits=wire.SessionLimits(call_ms=7),
            )
        )
        return stream

    def resume(self, lease: wire.AcquireEvent.Granted, token: str | None = None, fence: int | None = None) -> int:
        stream = self.stream()
        token = lease.session_token if token is None else token
        fence = lease.fencing_token if fence is None else fence
        self.post(events.LeaseResumed(self.now, stream, lease.lease_id, fence, token))
        return stream

    def renew(self, client: int) -> events.Step:
        return self.post(events.LeaseRenewed(self.now, client))

    def release(self, client: int) -> events.Step:
        return self.post(events.LeaseReleased(self.now, client))

    def break_client(self, client: int) -> events.Step:
        return self.post(events.ClientGone(self.now, client))

    # --- time

    def passes(self, milliseconds: int) -> None:
        """Time goes on, and the machine is called at each of its deadlines on the way, as the real timer does."""
        end = self.now + milliseconds
        while (due := self.machine.next_time()) is not None and due <= end:
            self.now = max(self.now, due)
            self.post(events.TimePassed(self.now))
        self.now = end

    # --- short ways

    def grant(self, agent: int, selector: str = "", **fields: Any) -> tuple[int, wire.AcquireEvent.Granted]:
        """Opens a request that ``agent`` starts at once: the client's stream and what it was granted."""
        client = self.open(selector, **fields)
        start = next(m for m in self.take(agent) if isinstance(m, wire.StartLease))
        self.ready(agent, start.lease_id)
        granted = self.take(client)[-1]
        assert isinstance(granted, wire.AcquireEvent.Granted), granted
        return client, granted

    def state_of(self, device: str) -> str:
        return wire.DeviceState.Name(self.machine.state.devices[device].state)

    def _save(self, change: events.Change) -> None:
        match change:
            case events.SaveDevice(device):
                self.saved_devices[device.id] = device_row(device)
            case events.DropDevice(device_id):
                del self.saved_devices[device_id]
            case events.SaveLease(lease):
                self.saved_leases[lease.id] = lease_row(lease)
            case events.DropLease(lease_id):
                self.saved_leases.pop(lease_id, None)
            case events.SaveFence(fence):
                assert fence > self.saved_fence
                self.saved_fence = fence


def held(*starts: wire.StartLease | wire.AcquireEvent.Granted, device: str = "") -> list[wire.Register.HeldLease]:
    """What an agent that runs these leases says when it registers."""
    return [
        wire.Register.HeldLease(
            lease_id=start.lease_id,
            fencing_token=start.fencing_token,
            device_id=device or (start.device_id if isinstance(start, wire.StartLease) else start.device.id),
        )
        for start in starts
    ]
