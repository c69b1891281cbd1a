"""What can happen to the tracker, and what follows from it.

An event carries everything that is not a rule: the time, new ids, random bytes. A step's ``changes`` must be on disk
before its ``effects`` are carried out: then no kill can make the tracker forget what it has promised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crossfarm.errors import Error
from crossfarm.selectors import Selector
from crossfarm.wire.v1 import tracker_pb2 as wire

from .state import Device, Lease

# --- events: agents


@dataclass(frozen=True)
class AgentRegistered:
    now: int
    stream: int
    register: wire.Register


@dataclass(frozen=True)
class AgentHeard:
    now: int
    stream: int
    sequence: int


@dataclass(frozen=True)
class AgentDetached:
    """Its stream ended, however that came."""

    now: int
    stream: int


@dataclass(frozen=True)
class LeaseReady:
    """``address``: host and port, complete."""

    now: int
    stream: int
    lease_id: str
    address: str


@dataclass(frozen=True)
class LeaseEnded:
    now: int
    stream: int
    lease_id: str
    outcome: wire.Outcome
    device_ok: bool


@dataclass(frozen=True)
class DeviceReported:
    now: int
    stream: int
    device_id: str
    healthy: bool
    reason: str


# --- events: clients


@dataclass(frozen=True)
class RequestOpened:
    """``key``: a new unique id. ``secret``: 32 new random bytes. The others are as in ``AcquireRequest.Open``."""

    now: int
    stream: int
    key: str
    secret: bytes
    request_id: str
    selector: Selector
    priority: int
    queue_timeout_ms: int
    ttl_ms: int
    client: str
    limits: wire.SessionLimits


@dataclass(frozen=True)
class LeaseResumed:
    now: int
    stream: int
    lease_id: str
    fencing_token: int
    session_token: str


@dataclass(frozen=True)
class LeaseRenewed:
    now: int
    stream: int


@dataclass(frozen=True)
class LeaseReleased:
    """The client lets go of its lease, or of its place in the queue. ``outcome``: what it says of its work, or None."""

    now: int
    stream: int
    outcome: wire.Outcome | None = None


@dataclass(frozen=True)
class ClientGone:
    """The client's stream broke without a Release: the client may have died, or may be back in a moment."""

    now: int
    stream: int


@dataclass(frozen=True)
class TimePassed:
    now: int


Event: TypeAlias = (
    AgentRegistered
    | AgentHeard
    | AgentDetached
    | LeaseReady
    | LeaseEnded
    | DeviceReported
    | RequestOpened
    | LeaseResumed
    | LeaseRenewed
    | LeaseReleased
    | ClientGone
    | TimePassed
)

# --- changes: what must be on disk


@dataclass(frozen=True)
class SaveDevice:
    device: Device


@dataclass(frozen=True)
class DropDevice:
    device_id: str


@dataclass(frozen=True)
class SaveLease:
    lease: Lease


@dataclass(frozen=True)
class DropLease:
    lease_id: str


@dataclass(frozen=True)
class SaveFence:
    """The highest fencing token given."""

    fence: int


Change: TypeAlias = SaveDevice | DropDevice | SaveLease | DropLease | SaveFence

# --- effects: what is then said


@dataclass(frozen=True)
class Send:
    """A message on an open stream, an agent's or a client's."""

    stream: int
    message: wire.TrackerMessage | wire.AcquireEvent


@dataclass(frozen=True)
class Close:
    """The stream ends: in good order, or with an error of the tree."""

    stream: int
    error: Error | None = None


Effect: TypeAlias = Send | Close


@dataclass(frozen=True)
class Step:
    """What one event led to."""

    changes: tuple[Change, ...] = ()
    effects: tuple[Effect, ...] = ()
