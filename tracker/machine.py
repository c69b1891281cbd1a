"""The tracker's rules as one machine: an event in, changes to save and messages to send out.

No I/O, no clock and no randomness: times, ids and random bytes come with the events, so the same events always give the
same steps, and the tests need no waiting. The promises, each with a test:

- A device is leased to one client at a time. While a worker of an older lease may still run on it (its agent has not
  confirmed the end, or is away), nobody else gets it.
- Fencing tokens only rise, over restarts too.
- Every device whose agent is there comes back to the pool, however its lease ended.
- Requests are served by priority, then first come, among those that a free device meets.
- A lease ends when its client says so, does not renew it, or has lost its stream and does not resume; when its agent
  says so, comes back without it, or stays away.
- A restart of the tracker ends no lease whose agent and client come back in time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from . import agents, events, leases, waiting
from .deadlines import Deadlines, Key
from .events import Event, Step
from .state import Agent, Config, Device, Lease, Phase, State
from .turn import Turn


class Machine:
    """The rules over one state.

    Args:
        stores: addresses that agents are told at registration: where artifacts can be fetched by digest.
    """

    def __init__(self, config: Config | None = None, *, stores: tuple[str, ...] = ()) -> None:
        self.config = config or Config()
        self.state = State()
        self._stores = stores
        self._deadlines = Deadlines()

    def restore(self, now: int, *, fence: int, devices: Iterable[Device], leases_held: Iterable[Lease]) -> None:
        """Takes up what was saved, after a restart. All agents and clients are away, and have some time to come back;
        a device on which a lease may still run stays taken until its agent has said what it holds."""
        turn = Turn(self.config, self.state, self._deadlines, now)
        self.state.fence = fence
        owned: dict[str, set[str]] = {}
        for device in devices:
            turn.put_device(replace(device, attached=False, reason="the tracker restarted; its agent is not back yet"))
            owned.setdefault(device.agent_id, set()).add(device.id)
        deadline = now + self.config.restart_grace_ms
        for agent_id, ids in owned.items():
            turn.put_agent(Agent(agent_id, stream=None, heard=now, deadline=deadline, devices=frozenset(ids)))
        for lease in leases_held:
            if lease.phase is Phase.ENDED:
                turn.remember(lease)
            elif lease.phase is Phase.ACTIVE:
                turn.put_lease(replace(lease, deadline=now + lease.request.ttl_ms))
            else:
                outcome = lease.outcome or leases.lost(
                    f"the tracker restarted while lease {lease.id} was being started"
                )
                retry = now + self.config.end_retry_ms
                turn.put_lease(replace(lease, phase=Phase.ENDING, outcome=outcome, deadline=retry))

    def handle(self, event: Event) -> Step:
        """Applies one event. Save the step's changes before carrying out its effects."""
        turn = Turn(self.config, self.state, self._deadlines, event.now)
        self._apply(turn, event)
        if turn.recheck:
            waiting.refuse_impossible(turn)
        if turn.schedule:
            waiting.schedule(turn)
        if isinstance(event, events.RequestOpened):
            key = self.state.request_streams.get(event.stream)
            if key is not None:
                waiting.tell_positions(turn, only=key)
        return turn.step()

    def next_time(self) -> int | None:
        """When the machine wants a TimePassed, if nothing happens before."""
        return self._deadlines.next()

    def _apply(self, turn: Turn, event: Event) -> None:
        match event:
            case events.AgentHeard():
                agents.heard(turn, event)
            case events.LeaseRenewed():
                leases.renewed(turn, event)
            case events.RequestOpened():
                waiting.opened(turn, event)
            case events.LeaseReady():
                leases.ready(turn, event)
            case events.LeaseEnded():
                leases.ended(turn, event)
            case events.LeaseReleased():
                leases.released(turn, event)
            case events.LeaseResumed():
                leases.resumed(turn, event)
            case events.ClientGone():
                leases.client_gone(turn, event)
            case events.DeviceReported():
                agents.reported(turn, event)
            case events.AgentRegistered():
                agents.registered(turn, event, self._stores)
            case events.AgentDetached():
                agents.gone(turn, event)
            case events.TimePassed():
                for key in self._deadlines.due(event.now):
                    self._due(turn, key)

    def _due(self, turn: Turn, key: Key) -> None:
        """A deadline came up; the record may be gone, or have got a later one meanwhile."""
        kind, name = key
        state, now = self.state, turn.now
        time = self._time_of(kind, name)
        if time is None:
            return
        if time > now:
            self._deadlines.at(key, time)
        elif kind == "lease":
            leases.due(turn, state.leases[name])
        elif kind == "request":
            waiting.timed_out(turn, state.requests[name])
        elif kind == "agent":
            agents.due(turn, state.agents[name])
        elif kind == "ended":
            turn.forget(name)
        elif kind == "device":
            agents.forget(turn, state.devices[name])
        else:
            state.positions_due = None
            waiting.tell_positions(turn)

    def _time_of(self, kind: str, name: str) -> int | None:
        """The real time of a deadline; None where there is none any more."""
        state = self.state
        if kind == "lease":
            return state.leases[name].next_time if name in state.leases else None
        if kind == "request":
            return state.requests[name].deadline if name in state.requests else None
        if kind == "agent":
            return state.agents[name].deadline if name in state.agents else None
        if kind == "ended":
            return state.ended[name].deadline if name in state.ended else None
        if kind == "device":
            device = state.devices.get(name)
            absent = device is not None and not device.attached
            return device.seen + self.config.forget_device_ms if device is not None and absent else None
        return state.positions_due
