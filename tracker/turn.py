"""One event's work on the state: every change of a record goes through here, so that nothing is forgotten on the way
(indexes, deadlines, what must be saved, what must be said)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import replace

from crossfarm.errors import Error
from crossfarm.wire.v1 import tracker_pb2 as wire

from . import events
from .deadlines import Deadlines
from .state import Agent, Config, Device, Lease, Phase, Request, State


class Turn:
    """The state while one event is handled; ``step()`` gives what must be saved and said.

    Attributes:
        schedule: a device or a request is there that was not before: look for pairs.
        recheck: attributes changed: a waiting request may have become impossible.
    """

    def __init__(self, config: Config, state: State, deadlines: Deadlines, now: int) -> None:
        self.config = config
        self.state = state
        self.now = now
        self.schedule = False
        self.recheck = False
        self._deadlines = deadlines
        self._effects: list[events.Effect] = []
        self._devices: dict[str, None] = {}
        self._leases: dict[str, None] = {}
        self._fence = state.fence

    # --- records

    def put_device(self, device: Device) -> None:
        """Stores a device; the time of its state is set here."""
        state = self.state
        old = state.devices.get(device.id)
        if old is None or old.state != device.state:
            device = replace(device, since=self.now)
            self.positions_changed()
        state.devices[device.id] = device
        if old is None or old.facts != device.facts:
            state.matching.clear()
            self.recheck = True
        if device.state == wire.FREE:
            self.schedule = self.schedule or device.id not in state.free
            state.free[device.id] = None
        else:
            state.free.pop(device.id, None)
        if old is None or _saved(old) != _saved(device):
            self._devices[device.id] = None
        if not device.attached:
            self._deadlines.at(("device", device.id), device.seen + self.config.forget_device_ms)

    def drop_device(self, device_id: str) -> None:
        """Forgets a device that has not been seen for long."""
        self.state.devices.pop(device_id)
        self.state.matching.clear()
        self.recheck = True
        self._devices[device_id] = None

    def put_agent(self, agent: Agent) -> None:
        self.state.agents[agent.id] = agent
        if agent.deadline is not None:
            self._deadlines.at(("agent", agent.id), agent.deadline)

    def put_lease(self, lease: Lease) -> None:
        """Stores a lease and keeps its device's ``lease_id`` true."""
        state = self.state
        old = state.leases.get(lease.id)
        state.leases[lease.id] = lease
        if old is None or (old.phase, old.address) != (lease.phase, lease.address):
            self._leases[lease.id] = None
        if old is not None and old.request.stream is not None and old.request.stream != lease.request.stream:
            state.lease_streams.pop(old.request.stream, None)
        if lease.request.stream is not None:
            state.lease_streams[lease.request.stream] = lease.id
        if lease.phase is not Phase.ENDING and lease.request.request_id:
            state.by_request_id[lease.request.request_id] = lease.id
        elif state.by_request_id.get(lease.request.request_id) == lease.id:
            del state.by_request_id[lease.request.request_id]
        self._deadlines.at(("lease", lease.id), lease.next_time)
        device = state.devices[lease.device_id]
        if device.lease_id != lease.id:
            self.put_device(replace(device, lease_id=lease.id))

    def drop_lease(self, lease: Lease, *, device: Device) -> None:
        """The agent says that no worker of the lease runs any more: ``device`` is as it is afterwards."""
        state = self.state
        del state.leases[lease.id]
        if lease.request.stream is not None:
            state.lease_streams.pop(lease.request.stream, None)
        if state.by_request_id.get(lease.request.request_id) == lease.id:
            del state.by_request_id[lease.request.request_id]
        self._leases[lease.id] = None
        self.put_device(replace(device, lease_id=None))

    def remember(self, lease: Lease) -> None:
        """Keeps why a lease ended for a while."""
        until = self.now + self.config.remember_lease_ms
        self.state.ended[lease.id] = replace(lease, phase=Phase.ENDED, deadline=until, grace=None)
        self._leases[lease.id] = None
        self._deadlines.at(("ended", lease.id), until)

    def forget(self, lease_id: str) -> None:
        del self.state.ended[lease_id]
        self._leases[lease_id] = None

    def enqueue(self, request: Request) -> None:
        state = self.state
        state.requests[request.key] = request
        insort(state.queue, (request.rank, request.key))
        if request.stream is not None:
            state.request_streams[request.stream] = request.key
        if request.request_id:
            state.by_request_id[request.request_id] = request.key
        if request.deadline is not None:
            self._deadlines.at(("request", request.key), request.deadline)
        self.schedule = True
        self.positions_changed()

    def dequeue(self, request: Request) -> None:
        state = self.state
        del state.requests[request.key]
        del state.queue[bisect_left(state.queue, (request.rank, request.key))]
        state.told.pop(request.key, None)
        if request.stream is not None:
            state.request_streams.pop(request.stream, None)
        if state.by_request_id.get(request.request_id) == request.key:
            del state.by_request_id[request.request_id]
        self.positions_changed()

    def next_fence(self) -> int:
        self.state.fence += 1
        return self.state.fence

    def positions_changed(self) -> None:
        """Waiting clients are told soon, and together: not at every change."""
        if self.state.requests and self.state.positions_due is None:
            self.state.positions_due = self.now + self.config.position_interval_ms
            self._deadlines.at(("positions", ""), self.state.positions_due)

    # --- what is said

    def tell_agent(self, stream: int, **message: object) -> None:
        """One of TrackerMessage's fields, by name."""
        self._effects.append(events.Send(stream, wire.TrackerMessage(**message)))  # type: ignore[arg-type]

    def tell_client(self, stream: int, **message: object) -> None:
        """One of AcquireEvent's fields, by name."""
        self._effects.append(events.Send(stream, wire.AcquireEvent(**message)))  # type: ignore[arg-type]

    def close(self, stream: int, error: Error | None = None) -> None:
        self._effects.append(events.Close(stream, error))

    def agent_stream_of(self, device_id: str) -> int | None:
        """The open stream of the agent that owns the device."""
        agent = self.state.agents.get(self.state.devices[device_id].agent_id)
        return agent.stream if agent is not None else None

    # --- the result

    def step(self) -> events.Step:
        state = self.state
        changes: list[events.Change] = []
        if state.fence != self._fence:
            changes.append(events.SaveFence(state.fence))
        for device_id in self._devices:
            device = state.devices.get(device_id)
            changes.append(events.SaveDevice(device) if device else events.DropDevice(device_id))
        for lease_id in self._leases:
            lease = state.leases.get(lease_id) or state.ended.get(lease_id)
            changes.append(events.SaveLease(lease) if lease else events.DropLease(lease_id))
        return events.Step(tuple(changes), tuple(self._effects))


def _saved(device: Device) -> tuple[str, Mapping[str, str], bytes, int]:
    """The part of a device that outlives the tracker; the rest its agent says when it comes back."""
    return device.agent_id, device.attributes, device.target, device.seen
