"""The queue: who waits for what, who is next, and what the waiting are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from crossfarm import errors
from crossfarm.selectors import Selector
from crossfarm.wire.v1 import tracker_pb2 as wire

from . import events, leases
from .state import Device, Request
from .turn import Turn

_NAMED = 3  # devices named in a message to people before "and 4 more"


def opened(turn: Turn, event: events.RequestOpened) -> None:
    """A new request, or one that its client sends again because it did not hear the answer."""
    state = turn.state
    if not state.devices_matching(event.selector):
        turn.close(event.stream, no_such_device(turn, event.selector))
        return
    known = state.by_request_id.get(event.request_id, "")
    lease = state.leases.get(known)
    waiting = state.requests.get(known)
    request = _request(turn, event)
    if lease is not None and _same(lease.request, request):
        leases.adopt(turn, lease, event.stream)
        return
    if waiting is not None and _same(waiting, request):
        turn.dequeue(waiting)
        if waiting.stream is not None:
            turn.close(waiting.stream, errors.Cancelled("the request was opened again on another connection"))
        request = replace(waiting, stream=event.stream)
    turn.enqueue(request)


def schedule(turn: Turn) -> None:
    """Gives free devices to waiting requests: by priority, then first come; a request that no free device meets does
    not hold up those behind it."""
    state = turn.state
    turn.schedule = False
    hopeless: set[Selector] = set()
    for _, key in list(state.queue):
        if not state.free:
            return
        request = state.requests[key]
        if request.selector in hopeless:
            continue
        device = _choose(turn, request)
        if device is None:
            hopeless.add(request.selector)
            continue
        turn.dequeue(request)
        leases.start(turn, request, device)


def refuse_impossible(turn: Turn) -> None:
    """After devices changed or were forgotten: ends the waits that nothing can ever end."""
    turn.recheck = False
    for request in list(turn.state.requests.values()):
        if not turn.state.devices_matching(request.selector):
            _fail(turn, request, no_such_device(turn, request.selector))


def timed_out(turn: Turn, request: Request) -> None:
    """The wait is over its limit."""
    waited = (turn.now - request.opened) / 1000
    _fail(
        turn,
        request,
        errors.Timeout(
            f"no device for {leases.describe(request)} within {waited:.1f} s: {_why_waiting(turn, request.selector)}",
            hint="wait longer (timeout=), raise the priority, or select more devices",
        ),
    )


def tell_positions(turn: Turn, only: str | None = None) -> None:
    """Tells each waiting client (or ``only`` that request's) its place if that has changed.

    A request's place counts the requests before it that want one of its devices. Requests with the same selector are
    counted together, so that this costs (requests × different selectors), not the square of the requests.
    """
    state = turn.state
    before: Counter[Selector] = Counter()
    overlap: dict[tuple[Selector, Selector], bool] = {}
    why: dict[Selector, str] = {}
    for _, key in state.queue:
        request = state.requests[key]
        mine = request.selector
        matching = state.devices_matching(mine)
        position = 1
        for other, count in before.items():
            pair = (mine, other)
            if pair not in overlap:
                overlap[pair] = not matching.isdisjoint(state.devices_matching(other))
            position += count * overlap[pair]
        before[mine] += 1
        if only not in (None, key):
            continue
        if mine not in why:
            why[mine] = _why_waiting(turn, mine)
        told = (position, len(matching), why[mine])
        if request.stream is not None and state.told.get(key) != told:
            state.told[key] = told
            queued = wire.AcquireEvent.Queued(position=position, matching=len(matching), busy_with=why[mine])
            turn.tell_client(request.stream, queued=queued)


def no_such_device(turn: Turn, selector: Selector) -> errors.NoSuchDevice:
    """Says which device came nearest, and by which conditions it misses."""
    devices = turn.state.devices.values()
    if not devices:
        return errors.NoSuchDevice(
            "no device has ever been registered here", hint="start an agent: crossfarm agent serve --tracker ADDRESS"
        )
    nearest = min(devices, key=lambda d: (len(selector.misses(d.facts)), d.state == wire.OFFLINE, d.id))
    misses = selector.misses(nearest.facts)
    has = [f"{c} (it has {_value(nearest, c.key)})" for c in misses]
    return errors.NoSuchDevice(
        f"none of the {len(devices)} known devices meets {str(selector)!r}: the nearest is {nearest.id}, which misses "
        + " and ".join(has),
        hint="crossfarm devices lists what is there; leave out a condition, or attach such a device",
        details={"nearest": nearest.id, "misses": ",".join(map(str, misses))},
    )


def _request(turn: Turn, event: events.RequestOpened) -> Request:
    config = turn.config
    turn.state.order += 1
    return Request(
        key=event.key,
        request_id=event.request_id,
        stream=event.stream,
        selector=event.selector,
        priority=max(0, min(100, event.priority)),
        order=turn.state.order,
        opened=turn.now,
        deadline=turn.now + event.queue_timeout_ms if event.queue_timeout_ms else None,
        ttl_ms=max(config.min_ttl_ms, min(config.max_ttl_ms, event.ttl_ms or config.default_ttl_ms)),
        client=event.client,
        limits=event.limits,
        secret=event.secret,
    )


def _same(old: Request, new: Request) -> bool:
    """A request id is the client's own random name; equal ids of different people or wishes are two requests."""
    return (old.client, old.selector) == (new.client, new.selector)


def _choose(turn: Turn, request: Request) -> Device | None:
    """The free device that has rested longest; one on which this request failed to start only if there is no other."""
    state = turn.state
    matching = state.devices_matching(request.selector)
    free = [state.devices[id_] for id_ in state.free if id_ in matching]
    return min(free, key=lambda d: (d.id in request.tried, d.since, d.id), default=None)


def _fail(turn: Turn, request: Request, error: errors.Error) -> None:
    turn.dequeue(request)
    if request.stream is not None:
        turn.close(request.stream, error)


def _why_waiting(turn: Turn, selector: Selector) -> str:
    """What the devices that would do are busy with, for people."""
    state = turn.state
    devices = [state.devices[id_] for id_ in sorted(state.devices_matching(selector))]
    groups: list[tuple[str, list[str]]] = [
        ("held by", [_holder(turn, d) for d in devices if d.state == wire.LEASED]),
        ("being checked:", [d.id for d in devices if d.state == wire.CHECKING]),
        ("unhealthy:", [f"{d.id} ({d.reason})" for d in devices if d.state == wire.UNHEALTHY]),
        ("offline:", [d.id for d in devices if d.state == wire.OFFLINE]),
    ]
    said = [f"{what} {_some(names)}" for what, names in groups if names]
    every = "all matching devices are offline; " if all(d.state == wire.OFFLINE for d in devices) else ""
    return every + "; ".join(said)


def _holder(turn: Turn, device: Device) -> str:
    lease = turn.state.leases.get(device.lease_id or "")
    return f"{lease.request.client or 'somebody'} ({device.id})" if lease is not None else device.id


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _value(device: Device, key: str) -> str:
    return f"{key}={device.facts[key]}" if key in device.facts else f"no {key}"
