"""A lease's life: started on a device, granted, renewed, resumed, ended, confirmed."""

from __future__ import annotations

import hmac
from dataclasses import replace

from crossfarm import errors
from crossfarm.wire.status import to_detail
from crossfarm.wire.v1 import tracker_pb2 as wire

from . import events
from .state import Device, Lease, Phase, Request, device_info
from .turn import Turn

RELEASED = wire.Outcome(kind=wire.Outcome.RELEASED)


def lost(message: str, hint: str = "acquire a device again", *, expired: bool = False) -> wire.Outcome:
    """The outcome of a lease that the farm ended, not its program."""
    kind = wire.Outcome.EXPIRED if expired else wire.Outcome.INFRASTRUCTURE_FAILED
    return wire.Outcome(kind=kind, error=to_detail(errors.LeaseLost(message, hint=hint)))


def start(turn: Turn, request: Request, device: Device) -> None:
    """Gives ``device`` to ``request``, which has left the queue: its agent is told to bind a worker."""
    fence = turn.next_fence()
    attempt = len(request.tried)
    lease = Lease(
        id=f"{request.key}.{attempt}" if attempt else request.key,
        request=request,
        device_id=device.id,
        fencing_token=fence,
        session_token=request.session_token(fence),
        phase=Phase.STARTING,
        deadline=turn.now + turn.config.start_timeout_ms,
    )
    turn.put_lease(lease)
    stream = turn.agent_stream_of(device.id)
    if stream is None:
        raise AssertionError(f"{device.id} is free without an agent")
    turn.tell_agent(
        stream,
        start=wire.StartLease(
            lease_id=lease.id,
            device_id=device.id,
            fencing_token=fence,
            session_token=lease.session_token,
            limits=request.limits,
        ),
    )


def ready(turn: Turn, event: events.LeaseReady) -> None:
    """A worker is bound to the lease and listens."""
    lease = _of_agent(turn, event.stream, event.lease_id)
    if lease is None or lease.phase is Phase.ENDING:
        outcome = (
            lost(f"lease {event.lease_id} was over before its worker was ready") if lease is None else lease.outcome
        )
        turn.tell_agent(event.stream, end=wire.EndLease(lease_id=event.lease_id, outcome=outcome))
        return
    if lease.phase is not Phase.STARTING:
        return
    lease = replace(lease, phase=Phase.ACTIVE, address=event.address, deadline=turn.now + lease.request.ttl_ms)
    turn.put_lease(lease)
    _tell_granted(turn, lease)


def ended(turn: Turn, event: events.LeaseEnded) -> None:
    """No worker of the lease runs any more: its own end, a crash, a failed start, or our EndLease carried out."""
    lease = _of_agent(turn, event.stream, event.lease_id)
    if lease is None:
        return
    device = turn.state.devices[lease.device_id]
    if not event.device_ok:
        device = replace(device, checking=True, reason=f"being checked after lease {lease.id}")
    if lease.phase is Phase.STARTING:
        said = event.outcome.error.message or wire.Outcome.Kind.Name(event.outcome.kind)
        turn.drop_lease(lease, device=device)
        try_again(turn, lease, said)
        return
    if lease.phase is Phase.ACTIVE:
        _tell_ended(turn, lease, event.outcome)
    turn.drop_lease(lease, device=device)


def end(turn: Turn, lease: Lease, outcome: wire.Outcome) -> None:
    """Ends a lease that is over for its client now; the device is another's only once the agent has confirmed."""
    if lease.phase is not Phase.ENDING:
        _tell_ended(turn, lease, outcome)
    _wait_for_agent(turn, lease, outcome)


def abandon_start(turn: Turn, lease: Lease, reason: str) -> None:
    """Gives up a start whose agent does not answer. A worker may yet come up there, so the device stays taken."""
    _wait_for_agent(turn, lease, lost(f"lease {lease.id} was given up: {reason}"))
    try_again(turn, lease, reason)


def drop_unheld(turn: Turn, lease: Lease, device: Device) -> None:
    """The agent came back without the lease: its worker is gone, and ``device`` can be used again."""
    reason = f"agent {device.agent_id} came back without it; it had restarted, or its worker had died"
    if lease.phase is Phase.ACTIVE:
        _tell_ended(turn, lease, lost(f"lease {lease.id} on {device.id} is lost: {reason}"))
    turn.drop_lease(lease, device=device)
    if lease.phase is Phase.STARTING:
        try_again(turn, lease, reason)


def try_again(turn: Turn, lease: Lease, reason: str) -> None:
    """A start failed: back to its old place in the queue, or, after too many, an error to the client."""
    request = replace(lease.request, tried=(*lease.request.tried, lease.device_id))
    if request.stream is None:
        return  # its client is away; if it comes back, it opens anew
    turn.state.lease_streams.pop(request.stream, None)
    if len(request.tried) < turn.config.start_attempts:
        turn.enqueue(request)
        return
    turn.close(
        request.stream,
        errors.InfrastructureError(
            f"no lease for {describe(request)}: the start failed {len(request.tried)} times"
            f" (on {', '.join(dict.fromkeys(request.tried))}), the last time because: {reason}",
            hint="try again, or select another device; the agents' logs say more",
        ),
    )


# --- clients


def renewed(turn: Turn, event: events.LeaseRenewed) -> None:
    lease = turn.state.leases.get(turn.state.lease_streams.get(event.stream, ""))
    if lease is not None and lease.phase is Phase.ACTIVE:
        turn.put_lease(replace(lease, deadline=turn.now + lease.request.ttl_ms))
        turn.tell_client(event.stream, renewed=wire.AcquireEvent.Renewed(ttl_ms=lease.request.ttl_ms))


def released(turn: Turn, event: events.LeaseReleased) -> None:
    """The client lets go; a waiting request just leaves the queue."""
    outcome = event.outcome or RELEASED
    lease = turn.state.leases.get(turn.state.lease_streams.get(event.stream, ""))
    request = turn.state.requests.get(turn.state.request_streams.get(event.stream, ""))
    if lease is not None:
        end(turn, lease, outcome)
    elif request is not None:
        turn.dequeue(request)
        turn.tell_client(event.stream, ended=wire.AcquireEvent.Ended(outcome=outcome))
        turn.close(event.stream)


def client_gone(turn: Turn, event: events.ClientGone) -> None:
    """The stream broke: a waiting request leaves the queue, a lease waits a little for its client to resume."""
    request = turn.state.requests.get(turn.state.request_streams.get(event.stream, ""))
    lease = turn.state.leases.get(turn.state.lease_streams.get(event.stream, ""))
    if request is not None:
        turn.dequeue(request)
    if lease is not None:
        away = replace(lease.request, stream=None)
        turn.put_lease(replace(lease, request=away, grace=turn.now + turn.config.resume_grace_ms))


def resumed(turn: Turn, event: events.LeaseResumed) -> None:
    """A client is back, after its connection or the tracker was away."""
    lease = turn.state.leases.get(event.lease_id) or turn.state.ended.get(event.lease_id)
    if lease is None:
        gone = errors.LeaseLost(f"no lease {event.lease_id}: it ended while its client was away")
        turn.close(event.stream, gone)
        return
    token_fits = hmac.compare_digest(lease.session_token.encode(), event.session_token.encode())
    if not token_fits or lease.fencing_token != event.fencing_token:
        refused = errors.PermissionDenied(
            f"this is not the token of lease {lease.id}",
            hint="only the client that a lease was granted to can resume it",
        )
        turn.close(event.stream, refused)
        return
    if lease.phase in (Phase.ENDING, Phase.ENDED):
        outcome = lease.outcome or RELEASED
        turn.tell_client(event.stream, ended=wire.AcquireEvent.Ended(outcome=outcome))
        turn.close(event.stream)
        return
    adopt(turn, lease, event.stream)


def adopt(turn: Turn, lease: Lease, stream: int) -> None:
    """Makes ``stream`` the lease's client stream; an older one is closed."""
    if lease.request.stream is not None:
        turn.close(lease.request.stream, errors.Cancelled(f"lease {lease.id} was resumed on another connection"))
    lease = replace(lease, request=replace(lease.request, stream=stream), grace=None)
    if lease.phase is Phase.ACTIVE:
        lease = replace(lease, deadline=turn.now + lease.request.ttl_ms)
    turn.put_lease(lease)
    if lease.phase is Phase.ACTIVE:
        _tell_granted(turn, lease)


# --- time


def due(turn: Turn, lease: Lease) -> None:
    """The lease's deadline or its client's grace has passed."""
    seconds = (turn.now - lease.deadline + lease.request.ttl_ms) / 1000
    if lease.phase is Phase.ENDING:
        stream = turn.agent_stream_of(lease.device_id)
        turn.put_lease(replace(lease, deadline=turn.now + turn.config.end_retry_ms))
        if stream is not None:
            turn.tell_agent(stream, end=wire.EndLease(lease_id=lease.id, outcome=lease.outcome))
    elif lease.grace is not None and lease.grace <= turn.now:
        away = f"lease {lease.id} was released: its client's connection broke and the client did not come back"
        end(turn, lease, lost(away, expired=True))
    elif lease.phase is Phase.STARTING:
        limit = turn.config.start_timeout_ms / 1000
        abandon_start(turn, lease, f"the worker on {lease.device_id} was not ready within {limit:g} s")
    else:
        end(turn, lease, lost(f"lease {lease.id} expired: it was not renewed for {seconds:.1f} s", expired=True))


def describe(request: Request) -> str:
    """The request in a message to people."""
    return f"selector {str(request.selector)!r}" if request.selector.conditions else "the empty selector"


def _tell_granted(turn: Turn, lease: Lease) -> None:
    if lease.request.stream is None:
        return
    turn.tell_client(
        lease.request.stream,
        granted=wire.AcquireEvent.Granted(
            lease_id=lease.id,
            fencing_token=lease.fencing_token,
            session_token=lease.session_token,
            address=lease.address,
            device=device_info(turn.state.devices[lease.device_id], turn.state),
            ttl_ms=lease.request.ttl_ms,
        ),
    )


def _tell_ended(turn: Turn, lease: Lease, outcome: wire.Outcome) -> None:
    """Tells the client, or, where it did not ask for this end, remembers what to tell it should it come back."""
    stream = lease.request.stream
    if stream is not None:
        turn.tell_client(stream, ended=wire.AcquireEvent.Ended(outcome=outcome))
        turn.close(stream)
        turn.state.lease_streams.pop(stream, None)
    if outcome.kind != wire.Outcome.RELEASED:
        turn.remember(replace(lease, request=replace(lease.request, stream=None), outcome=outcome))


def _wait_for_agent(turn: Turn, lease: Lease, outcome: wire.Outcome) -> None:
    if lease.phase is not Phase.ENDING:
        parted = replace(lease.request, stream=None)
        deadline = turn.now + turn.config.end_retry_ms
        lease = replace(lease, request=parted, phase=Phase.ENDING, outcome=outcome, grace=None, deadline=deadline)
        turn.put_lease(lease)
    stream = turn.agent_stream_of(lease.device_id)
    if stream is not None:
        turn.tell_agent(stream, end=wire.EndLease(lease_id=lease.id, outcome=lease.outcome))


def _of_agent(turn: Turn, stream: int, lease_id: str) -> Lease | None:
    """The lease, if it is on a device of the agent that speaks: no agent can end another's lease."""
    lease = turn.state.leases.get(lease_id)
    agent = turn.state.agent_streams.get(stream)
    if lease is None or turn.state.devices[lease.device_id].agent_id != agent:
        return None
    return lease
