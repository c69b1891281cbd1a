"""Agents: they come, go, come back under another connection, and say what they hold."""

from __future__ import annotations

from dataclasses import replace

from crossfarm import errors
from crossfarm.selectors import Selector
from crossfarm.wire.v1 import tracker_pb2 as wire

from . import admission, events, leases
from .state import Agent, Device, Lease, Phase, Request, detached
from .turn import Turn


def registered(turn: Turn, event: events.AgentRegistered, stores: tuple[str, ...]) -> None:
    """An agent says which devices it has and which leases still run. Its word replaces what was known of them."""
    state, register = turn.state, event.register
    refusal = _refusal(turn, event.stream, register)
    if refusal is not None:
        turn.close(event.stream, refusal)
        return
    known = state.agents.get(register.agent_id)
    if known is not None and known.stream is not None and known.stream != event.stream:
        _supersede(turn, known, known.stream)
    before = known.devices if known is not None else frozenset()
    named = {device.id: device for device in register.devices}
    state.agent_streams[event.stream] = register.agent_id
    turn.put_agent(
        Agent(
            id=register.agent_id,
            stream=event.stream,
            heard=turn.now,
            deadline=turn.now + turn.config.dead_after_ms,
            devices=before | frozenset(named),
            instance=register.instance,
        )
    )
    turn.tell_agent(
        event.stream,
        registered=wire.Registered(
            heartbeat_interval_ms=turn.config.heartbeat_interval_ms,
            dead_after_ms=turn.config.dead_after_ms,
            stores=stores,
        ),
    )
    for end in register.ended:
        outcome = admission.outcome_of(end.outcome)
        leases.ended(turn, events.LeaseEnded(turn.now, event.stream, end.lease_id, outcome, device_ok=end.device_ok))
    held = {lease.device_id: lease for lease in register.held}
    for info in register.devices:
        _attach(turn, register.agent_id, info, held.get(info.id))
    for device_id in sorted(before - frozenset(named)):
        _leave_out(turn, state.devices[device_id])


def heard(turn: Turn, event: events.AgentHeard) -> None:
    agent = turn.state.agents.get(turn.state.agent_streams.get(event.stream, ""))
    if agent is not None:
        turn.put_agent(replace(agent, heard=turn.now, deadline=turn.now + turn.config.dead_after_ms))
        turn.tell_agent(event.stream, ack=wire.HeartbeatAck(sequence=event.sequence))


def gone(turn: Turn, event: events.AgentDetached) -> None:
    """The stream broke. The devices are not given to anybody; running leases go on, for the agent may be back soon."""
    agent = turn.state.agents.get(turn.state.agent_streams.pop(event.stream, ""))
    if agent is None or agent.stream != event.stream:
        return  # superseded, or closed by us
    turn.put_agent(replace(agent, stream=None, deadline=turn.now + turn.config.reattach_ms))
    _detach(turn, agent, "the connection to its agent broke")


def due(turn: Turn, agent: Agent) -> None:
    """Attached but silent, or away for too long: its leases are lost to their clients. The devices stay taken until the
    agent comes back and says that nothing runs there any more."""
    silent = (turn.now - agent.heard) / 1000
    if agent.stream is not None:
        turn.close(agent.stream, errors.Unavailable(f"agent {agent.id} was not heard for {silent:.1f} s"))
        turn.state.agent_streams.pop(agent.stream, None)
        _detach(turn, agent, f"its agent was not heard for {silent:.1f} s")
    turn.put_agent(replace(agent, stream=None, deadline=None))
    for lease in _leases_of(turn, agent):
        if lease.phase is Phase.ACTIVE:
            where = f"agent {agent.id}, which runs {lease.device_id}, was not heard for {silent:.1f} s"
            leases.end(turn, lease, leases.lost(f"lease {lease.id} is lost: {where}"))


def reported(turn: Turn, event: events.DeviceReported) -> None:
    """The agent's word on a device's health; it ends a check."""
    device = turn.state.devices.get(event.device_id)
    if device is not None and device.agent_id == turn.state.agent_streams.get(event.stream):
        reason = "" if event.healthy else event.reason or "its agent says so"
        turn.put_device(replace(device, healthy=event.healthy, checking=False, reason=reason))


def forget(turn: Turn, device: Device) -> None:
    """A device that has been away for very long is no longer counted on."""
    lease = turn.state.leases.get(device.lease_id or "")
    if lease is not None:
        turn.drop_lease(lease, device=device)
    turn.drop_device(device.id)
    agent = turn.state.agents[device.agent_id]
    left = agent.devices - {device.id}
    if left or agent.stream is not None:
        turn.put_agent(replace(agent, devices=left))
    else:
        del turn.state.agents[agent.id]


def _refusal(turn: Turn, stream: int, register: wire.Register) -> errors.Error | None:
    if not register.agent_id:
        return errors.UsageError("an agent without a name cannot register", hint="give it one: --name")
    if turn.state.agent_streams.get(stream, register.agent_id) != register.agent_id:
        return errors.UsageError(f"one connection is one agent: this one is not {register.agent_id}")
    other = turn.state.agents.get(register.agent_id)
    attached_elsewhere = other is not None and other.stream not in (None, stream)
    if other is not None and attached_elsewhere and other.instance and register.instance not in ("", other.instance):
        # Worth retrying: a machine that lost power and is up again finds its older self still counted as there.
        return errors.Unavailable(
            f"an agent named {register.agent_id} is attached already, from another machine or process",
            hint="give one of them another --name",
        )
    seen: set[str] = set()
    for info in register.devices:
        known = turn.state.devices.get(info.id)
        if not info.id or info.id in seen:
            return errors.UsageError(
                f"agent {register.agent_id} registers {info.id or 'a device without an id'!r} twice or without a name",
                hint="each device needs an id of its own, such as agent/device",
            )
        if known is not None and known.agent_id != register.agent_id:
            return errors.UsageError(
                f"device id {info.id!r} of agent {register.agent_id} already belongs to agent {known.agent_id}",
                hint="device ids are unique in the farm; name them agent/device",
            )
        seen.add(info.id)
    for held in register.held:
        lease = turn.state.leases.get(held.lease_id)
        if held.device_id not in seen or (lease is not None and lease.device_id != held.device_id):
            return errors.UsageError(
                f"agent {register.agent_id} holds lease {held.lease_id} on {held.device_id!r}, where it is not",
                hint="restart the agent: it then holds nothing",
            )
    return None


def _supersede(turn: Turn, agent: Agent, stream: int) -> None:
    """The agent dialled anew before its older connection was noticed to be dead; only the newer one counts."""
    turn.close(
        stream,
        errors.Cancelled(
            f"agent {agent.id} registered on a newer connection",
            hint="if two machines use this name, give one of them another --name",
        ),
    )
    turn.state.agent_streams.pop(stream, None)
    turn.put_agent(replace(agent, stream=None))
    _detach(turn, agent, "its agent is reconnecting")


def _attach(turn: Turn, agent_id: str, info: wire.DeviceInfo, held: wire.Register.HeldLease | None) -> None:
    """One device of a registration, and the lease that its agent holds there, if any."""
    state = turn.state
    known = state.devices.get(info.id)
    device = Device(
        id=info.id,
        agent_id=agent_id,
        attributes={
            admission.printable(key): admission.printable(info.attributes[key]) for key in sorted(info.attributes)
        },
        target=info.target.SerializeToString(deterministic=True) if info.HasField("target") else b"",
        attached=True,
        healthy=info.state != wire.UNHEALTHY,
        checking=info.state == wire.CHECKING,
        reason=admission.reason_of(info.reason),
        lease_id=known.lease_id if known is not None else None,
        since=known.since if known is not None else turn.now,
        seen=turn.now,
    )
    turn.put_device(device)
    lease = state.leases.get(device.lease_id or "")
    if lease is not None and held is not None and _is_held(lease, held):
        if lease.phase is Phase.ENDING:
            leases.end(turn, lease, lease.outcome or leases.RELEASED)
        return
    if lease is not None:
        leases.drop_unheld(turn, lease, device)
    if held is not None:
        _end_unknown(turn, state.devices[info.id], held)


def _end_unknown(turn: Turn, device: Device, held: wire.Register.HeldLease) -> None:
    """The agent holds a lease that is not ours (any more). It must end, and the device is not free before it has. Its
    token was given by somebody, so ours go on above it."""
    state = turn.state
    state.fence = max(state.fence, held.fencing_token)
    nobody = Request(
        key=held.lease_id,
        request_id="",
        stream=None,
        selector=Selector(),
        priority=0,
        order=0,
        opened=turn.now,
        deadline=None,
        ttl_ms=turn.config.default_ttl_ms,
        client="",
        limits=wire.SessionLimits(),
        secret=b"",
    )
    lease = Lease(
        id=held.lease_id,
        request=nobody,
        device_id=device.id,
        fencing_token=held.fencing_token,
        session_token="",
        phase=Phase.ENDING,
        deadline=turn.now,
        outcome=leases.lost(f"lease {held.lease_id} is not known to this tracker"),
    )
    turn.put_lease(lease)
    leases.due(turn, lease)


def _leave_out(turn: Turn, device: Device) -> None:
    """The agent is here and no longer has the device, so nothing can run on it."""
    lease = turn.state.leases.get(device.lease_id or "")
    absent = detached(device, turn.now, f"agent {device.agent_id} no longer has it")
    turn.put_device(absent)
    if lease is not None:
        leases.drop_unheld(turn, lease, absent)


def _detach(turn: Turn, agent: Agent, reason: str) -> None:
    for device_id in sorted(agent.devices):
        turn.put_device(detached(turn.state.devices[device_id], turn.now, reason))
    for lease in _leases_of(turn, agent):
        if lease.phase is Phase.STARTING:
            leases.abandon_start(turn, lease, reason)


def _leases_of(turn: Turn, agent: Agent) -> list[Lease]:
    ids = [turn.state.devices[device_id].lease_id for device_id in sorted(agent.devices)]
    return [turn.state.leases[id_] for id_ in ids if id_ is not None]


def _is_held(lease: Lease, held: wire.Register.HeldLease) -> bool:
    return (lease.id, lease.fencing_token) == (held.lease_id, held.fencing_token)
