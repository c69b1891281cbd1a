"""What the tracker knows: devices, agents, leases and waiting requests, as plain frozen records in dictionaries.

Times are milliseconds of the tracker's clock, which never goes back while the process lives. Wire messages held in
records (outcomes, limits) are never changed after they were put there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

from crossfarm.selectors import Selector
from crossfarm.wire.v1 import tracker_pb2 as wire


@dataclass(frozen=True)
class Config:
    """The times and bounds of the rules, all in milliseconds unless said otherwise."""

    heartbeat_interval_ms: int = 2_000
    #: An attached agent that says nothing for so long is gone: its stream is closed, its leases are lost.
    dead_after_ms: int = 8_000
    #: An agent whose connection broke may come back for so long before its leases are lost.
    reattach_ms: int = 4_000
    #: The same after the tracker itself was away: agents retry with a growing pause.
    restart_grace_ms: int = 15_000
    #: A client whose stream broke may resume for so long before its lease is released.
    resume_grace_ms: int = 5_000
    #: A worker that is not ready after so long counts as a failed start.
    start_timeout_ms: int = 30_000
    #: The agent is told again that a lease ended until it confirms.
    end_retry_ms: int = 10_000
    default_ttl_ms: int = 30_000
    min_ttl_ms: int = 1_000
    max_ttl_ms: int = 3_600_000
    #: How often a request is started, on another device each time where there is one.
    start_attempts: int = 3
    #: Why a lease ended is told to a client that resumes within this time.
    remember_lease_ms: int = 120_000
    #: A device that nobody has seen for so long is no longer one of the farm.
    forget_device_ms: int = 7 * 24 * 3_600_000
    #: Waiting clients hear of their place at most this often.
    position_interval_ms: int = 250


@dataclass(frozen=True)
class Device:
    """A device, attached or not. ``lease_id`` is set for as long as a worker of that lease may still run on it."""

    id: str
    agent_id: str
    attributes: Mapping[str, str]
    target: bytes = b""
    attached: bool = False
    healthy: bool = True
    checking: bool = False
    reason: str = ""
    lease_id: str | None = None
    since: int = 0
    seen: int = 0

    @property
    def state(self) -> wire.DeviceState:
        if not self.attached:
            return wire.OFFLINE
        if self.lease_id is not None:
            return wire.LEASED
        if not self.healthy:
            return wire.UNHEALTHY
        return wire.CHECKING if self.checking else wire.FREE

    @cached_property
    def facts(self) -> dict[str, str]:
        """What selectors look at."""
        return {"name": self.id, **self.attributes, "id": self.id, "agent": self.agent_id}


@dataclass(frozen=True)
class Agent:
    """``deadline``: when it counts as gone unless heard (attached) or back (not attached); None once it is gone."""

    id: str
    stream: int | None
    heard: int
    deadline: int | None
    devices: frozenset[str] = frozenset()
    instance: str = ""


@dataclass(frozen=True)
class Request:
    """What a client asked for. It is a queue entry until a device is given, then part of the lease.

    Attributes:
        key: unique id given by the tracker; the lease's id on the first attempt.
        request_id: the client's own name for it, so that a retried Open is the same request; may be empty.
        stream: the client's open stream, or None while it is away.
        order: place of arrival; with ``priority`` it makes the order of the queue, and it is kept over retries.
        deadline: when the wait ends in a Timeout, or None.
        secret: random bytes from which the session token of each attempt is derived.
        tried: devices on which the start failed, in order.
    """

    key: str
    request_id: str
    stream: int | None
    selector: Selector
    priority: int
    order: int
    opened: int
    deadline: int | None
    ttl_ms: int
    client: str
    limits: wire.SessionLimits
    secret: bytes
    tried: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts the queue: higher priority first, then first come."""
        return (-self.priority, self.order)

    def session_token(self, fencing_token: int) -> str:
        """The token of one attempt: an agent whose start failed must not learn the next one's."""
        return hashlib.blake2b(b"%d" % fencing_token, key=self.secret, digest_size=24).hexdigest()


class Phase(str, Enum):
    """A lease's life. From STARTING to the end of ENDING its device belongs to nobody else."""

    STARTING = "starting"  # the agent was told, the worker is not ready yet
    ACTIVE = "active"  # granted
    ENDING = "ending"  # over for its client; the agent has not confirmed yet
    ENDED = "ended"  # only remembered, to tell a client that comes back why


@dataclass(frozen=True)
class Lease:
    """``deadline``: of the start, the renewal, the next EndLease, or the memory, by phase.
    ``grace``: when a client that is away loses it, or None while it is there."""

    id: str
    request: Request
    device_id: str
    fencing_token: int
    session_token: str
    phase: Phase
    deadline: int
    address: str = ""
    grace: int | None = None
    outcome: wire.Outcome | None = None

    @property
    def next_time(self) -> int:
        return self.deadline if self.grace is None else min(self.deadline, self.grace)


@dataclass
class State:
    """Everything. Dictionaries keep the order of arrival, so that the same events give the same effects."""

    devices: dict[str, Device] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)  # waiting
    leases: dict[str, Lease] = field(default_factory=dict)  # STARTING, ACTIVE, ENDING
    ended: dict[str, Lease] = field(default_factory=dict)
    fence: int = 0  # the last fencing token given
    order: int = 0  # the last place of arrival given

    # Indexes: they follow from the above.
    free: dict[str, None] = field(default_factory=dict)
    queue: list[tuple[tuple[int, int], str]] = field(default_factory=list)  # (rank, key), sorted
    agent_streams: dict[int, str] = field(default_factory=dict)
    request_streams: dict[int, str] = field(default_factory=dict)
    lease_streams: dict[int, str] = field(default_factory=dict)
    by_request_id: dict[str, str] = field(default_factory=dict)  # → key of a waiting request, or id of a lease
    matching: dict[Selector, frozenset[str]] = field(default_factory=dict)  # emptied when any attributes change
    told: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # request → the last Queued it was sent
    positions_due: int | None = None

    def devices_matching(self, selector: Selector) -> frozenset[str]:
        """Ids of all known devices, in whatever state, that meet ``selector``."""
        found = self.matching.get(selector)
        if found is None:
            if len(self.matching) >= _MATCHES_KEPT:
                self.matching.clear()
            found = frozenset(d.id for d in self.devices.values() if selector.matches(d.facts))
            self.matching[selector] = found
        return found


_MATCHES_KEPT = 1024


def device_info(device: Device, state: State) -> wire.DeviceInfo:
    """The device as clients see it."""
    lease = state.leases.get(device.lease_id) if device.lease_id else None
    info = wire.DeviceInfo(
        id=device.id,
        attributes=dict(device.attributes),
        state=device.state,
        reason=device.reason,
        since_unix_ms=device.since,
    )
    if device.target:
        info.target.ParseFromString(device.target)
    if lease is not None:
        info.lease_id = lease.id
        info.holder = lease.request.client
    return info


def detached(device: Device, now: int, reason: str) -> Device:
    """The device without its agent."""
    return replace(device, attached=False, checking=False, reason=reason, seen=now)
