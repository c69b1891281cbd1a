"""A lease: the right to one device, kept alive by a thread until it is released or ends.

One ``Acquire`` stream carries everything: the place in the queue, the grant, renewals, the end and why. When the
stream breaks, a granted lease is resumed with its fencing token as long as its time to live has not run out, and a
request that still waits is opened again under the same request id; so a tracker that restarts costs nobody a device.
The thread reads the stream; renewals, every third of the time to live, come from the generator that feeds it.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import grpc

from crossfarm.compat.versions import API_VERSION
from crossfarm.errors import Error, LeaseLost, RemoteCrash, Timeout, Unavailable
from crossfarm.wire import status
from crossfarm.wire.v1 import tracker_pb2 as pb
from crossfarm.wire.v1.tracker_pb2_grpc import TrackerStub

#: How long a tracker that does not answer is called again before the wait for a device ends in Unavailable.
OUTAGE_SECONDS = 15.0
#: How long ``release`` waits for the tracker to confirm; the device comes back with the lease's time to live anyway.
RELEASE_SECONDS = 2.0
#: Between calls to a tracker that does not answer; doubled each time.
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.05, 1.0

#: What a stream that broke says when nobody chose to end it: the server stopped, or the connection went away.
_OUTAGE_CODES = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}
)


@dataclass(frozen=True)
class LeaseRequest:
    """What is asked of the tracker.

    Attributes:
        selector: which devices would do, see ``crossfarm.selectors``; "" for any.
        priority: 0 to 100, higher first.
        timeout: seconds to wait for a device, None for ever.
        session_seconds, call_seconds: limits of the whole session and of one call; 0 for the agent's own.
        memory_bytes: limit of the program's memory; 0 for the agent's own.
        ttl_seconds: how long the lease outlives its last renewal; 0 for the tracker's own.
        client: who asks, for people: user@host.
        request_id: makes a repeated request the same one.
    """

    selector: str = ""
    priority: int = 50
    timeout: float | None = None
    session_seconds: float = 0.0
    call_seconds: float = 0.0
    memory_bytes: int = 0
    ttl_seconds: float = 0.0
    client: str = ""
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def to_open(self, timeout: float | None) -> pb.AcquireRequest.Open:
        """The request as a message, with ``timeout`` seconds left to wait."""
        return pb.AcquireRequest.Open(
            selector=self.selector,
            priority=self.priority,
            queue_timeout_ms=0 if timeout is None else max(1, _milliseconds(timeout)),
            ttl_ms=_milliseconds(self.ttl_seconds),
            client=self.client,
            limits=pb.SessionLimits(
                session_ms=_milliseconds(self.session_seconds),
                call_ms=_milliseconds(self.call_seconds),
                memory_bytes=self.memory_bytes,
            ),
            api_version=API_VERSION,
            request_id=self.request_id,
        )


@dataclass(frozen=True)
class QueuePosition:
    """Where a request waits: ``position`` 1 is next; ``matching`` devices could meet it."""

    position: int
    matching: int
    busy_with: str  # for people


class Lease:
    """One lease from request to end. Make one with ``Lease.acquire``; use it as a context manager or ``release`` it.

    Attributes:
        id, fencing_token, session_token: what names and proves the lease.
        address: host:port of the worker that serves the session.
        info: the device as the tracker described it when it granted the lease.
    """

    def __init__(
        self,
        tracker: TrackerStub,
        request: LeaseRequest,
        *,
        peer: str,
        outage_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._tracker = tracker
        self._request = request
        self._peer = peer
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._opened = clock()
        self._contact = self._opened  # when the tracker last said something
        self._lost = self._opened  # when the stream last broke, having worked before
        self._changed = threading.Condition()
        self._positions: list[QueuePosition] = []
        self._grant: pb.AcquireEvent.Granted | None = None
        self._ttl = 0.0
        self._releasing = threading.Event()
        self._abandoned = False
        self._final = pb.Outcome(kind=pb.Outcome.RELEASED)
        self._over = False
        self._error: Error | None = None
        self._outbox: _Outbox | None = None
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name=f"lease-{request.request_id[:8]}", daemon=True)

    @staticmethod
    def acquire(
        tracker: TrackerStub,
        request: LeaseRequest,
        *,
        peer: str = "",
        on_queued: Callable[[QueuePosition], None] | None = None,
        outage_seconds: float = OUTAGE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> Lease:
        """Waits for a device and returns its lease. Safe to interrupt: whatever was asked for is taken back.

        Args:
            tracker: a stub on an open channel; it must stay open as long as the lease.
            peer: the tracker's address, for messages.
            on_queued: told, in the calling thread, each time the place in the queue changes.
            outage_seconds: how long a tracker that does not answer is tried.
            clock: seconds, for tests.
        Raises:
            NoSuchDevice, InvalidSelector: as the tracker says.
            Timeout: no device came free within ``request.timeout``.
            Unavailable: the tracker cannot be reached.
        """
        lease = Lease(tracker, request, peer=peer, outage_seconds=outage_seconds, clock=clock)
        lease._thread.start()
        try:
            lease._wait_for_grant(on_queued)
        except BaseException:
            lease.release()
            raise
        return lease

    @property
    def id(self) -> str:
        return self._granted.lease_id

    @property
    def fencing_token(self) -> int:
        return self._granted.fencing_token

    @property
    def session_token(self) -> str:
        return self._granted.session_token

    @property
    def address(self) -> str:
        return self._granted.address

    @property
    def info(self) -> pb.DeviceInfo:
        return self._granted.device

    @property
    def alive(self) -> bool:
        """False once the lease was released or ended, as far as this side knows."""
        return not self._over and not self._releasing.is_set()

    def failure(self, wait: float) -> Error | None:
        """Why the lease ended, waiting up to ``wait`` seconds for the tracker to say; None if it did not, or if it
        was released."""
        with self._changed:
            self._changed.wait_for(lambda: self._over, wait)
            return self._error

    def release(self, outcome: pb.Outcome | None = None) -> None:
        """Gives the device back; again is nothing. Returns when the tracker confirmed, or soon after if it cannot.

        Args:
            outcome: how it ended, if not well.
        """
        with self._changed:
            if not self._releasing.is_set():
                if outcome is not None:
                    self._final = outcome
                self._releasing.set()
                if self._outbox is not None:
                    self._outbox.finish(self._farewell())
        self._thread.join(RELEASE_SECONDS)
        if self._thread.is_alive():
            with self._changed:
                self._abandoned = True
                if self._call is not None:
                    self._call.cancel()
            self._thread.join(RELEASE_SECONDS)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def _granted(self) -> pb.AcquireEvent.Granted:
        assert self._grant is not None, "acquire returns only granted leases"
        return self._grant

    def _wait_for_grant(self, on_queued: Callable[[QueuePosition], None] | None) -> None:
        """Returns once granted, reporting positions on the way; raises why there will be no grant."""
        patience = None if self._request.timeout is None else self._request.timeout + self._outage_seconds
        while True:
            with self._changed:
                left = None if patience is None else max(0.0, self._opened + patience - self._clock())
                heard = self._changed.wait_for(lambda: self._over or self._grant is not None or self._positions, left)
                if not heard:  # the tracker keeps the time of the wait; one that hangs does not
                    raise Unavailable(f"{_DOING}: the tracker at {self._peer} took the request and went silent")
                positions, self._positions = self._positions, []
                if self._over:
                    raise self._error or Unavailable("the request for a device ended without a word")
                if self._grant is not None:
                    return
            if on_queued is not None and positions:
                on_queued(positions[-1])

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _FIRST_RETRY_SECONDS
        while True:
            before = self._contact
            failure = self._converse()
            if failure is None or not _is_outage(failure):
                return self._end(None if failure is None else status.error_of(failure, doing=_DOING, peer=self._peer))
            if self._contact != before:
                self._lost = self._clock()
                pause = _FIRST_RETRY_SECONDS
            if self._releasing.is_set() and (self._grant is None or self._abandoned or pause > _FIRST_RETRY_SECONDS):
                return self._end(None)  # nothing was granted, or one more call did not reach the tracker either
            if self._clock() + pause > self._give_up_at():
                return self._end(self._outage_error(failure))
            self._releasing.wait(pause)
            pause = min(2 * pause, _LAST_RETRY_SECONDS)

    def _converse(self) -> grpc.RpcError | None:
        """One stream, from its first request to its end. Returns why it broke, None if it ended as it should."""
        outbox = _Outbox(self._first_request(), self._renewal_period)
        with self._changed:
            self._outbox = outbox
            if self._releasing.is_set():
                outbox.finish(self._farewell())
        call = self._tracker.Acquire(iter(outbox))
        with self._changed:
            self._call = call
        try:
            for event in call:
                self._contact = self._clock()
                if self._heard(event, outbox):
                    return None
            return None if self._releasing.is_set() else _StreamEnded()
        except grpc.RpcError as failure:
            return failure
        finally:
            outbox.finish(None)
            call.cancel()

    def _first_request(self) -> pb.AcquireRequest:
        if self._grant is not None:
            resume = pb.AcquireRequest.Resume(
                lease_id=self._grant.lease_id,
                fencing_token=self._grant.fencing_token,
                session_token=self._grant.session_token,
            )
            return pb.AcquireRequest(resume=resume)
        timeout = self._request.timeout
        left = None if timeout is None else max(0.0, self._opened + timeout - self._clock())
        return pb.AcquireRequest(open=self._request.to_open(left))

    def _farewell(self) -> pb.Outcome | None:
        """What to say last: a request that was not granted is taken back by closing the stream."""
        return self._final if self._grant is not None else None

    def _renewal_period(self) -> float | None:
        return self._ttl / 3 if self._grant is not None else None

    def _heard(self, event: pb.AcquireEvent, outbox: _Outbox) -> bool:
        """Takes in one event; True if it was the last."""
        kind = event.WhichOneof("event")
        with self._changed:
            if kind == "queued":
                queued = event.queued
                self._positions.append(QueuePosition(queued.position, queued.matching, queued.busy_with))
            elif kind == "granted":
                self._ttl = event.granted.ttl_ms / 1000
                if self._grant is None:  # a resumed lease is granted again, the same
                    self._grant = event.granted
                outbox.renew_from_now_on()
            elif kind == "renewed":
                self._ttl = event.renewed.ttl_ms / 1000 or self._ttl
            self._changed.notify_all()
        if kind == "ended":
            self._end(error_of_outcome(event.ended.outcome, device=self._grant.device.id if self._grant else ""))
            return True
        return False

    def _end(self, error: Error | None) -> None:
        with self._changed:
            if not self._over:
                self._over = True
                self._error = None if self._releasing.is_set() else error
                self._changed.notify_all()

    def _give_up_at(self) -> float:
        if self._grant is not None:
            return self._contact + self._ttl
        end = self._lost + self._outage_seconds
        return end if self._request.timeout is None else min(end, self._opened + self._request.timeout)

    def _outage_error(self, failure: grpc.RpcError) -> Error:
        silent = self._clock() - self._contact
        if self._grant is not None:
            return LeaseLost(
                f"lost contact with the tracker at {self._peer} for {silent:.1f} s: the lease on "
                f"{self._grant.device.id} has run out",
                hint="acquire a device again",
            )
        said = failure.details() if isinstance(failure, grpc.Call) else "it closes every request"
        return Unavailable(
            f"{_DOING}: no answer from the tracker at {self._peer} for {silent:.1f} s ({said})",
            hint="check the address and that it runs",
        )


def error_of_outcome(outcome: pb.Outcome, *, device: str) -> Error | None:
    """The error that a lease's outcome stands for; None for a lease that its client released."""
    if outcome.HasField("error"):
        return status.from_detail(outcome.error)
    where = f"on {device} " if device else ""
    match outcome.kind:
        case pb.Outcome.RELEASED:
            return None
        case pb.Outcome.PROGRAM_FAILED:
            return RemoteCrash(f"the program killed its worker {where}".rstrip(), hint="the device's log says more")
        case pb.Outcome.SESSION_TIMEOUT:
            return Timeout(f"the session {where}ran out of its time", hint="allow more with session_timeout=")
        case pb.Outcome.EXPIRED:
            return LeaseLost(f"the lease {where}was not renewed in time", hint="acquire a device again")
        case pb.Outcome.KICKED:
            return LeaseLost(f"the lease {where}was ended by an administrator", hint="ask who needed the device")
        case _:
            return LeaseLost(f"the lease {where}ended because the farm failed", hint="acquire a device again")


_DOING = "asking the tracker for a device"


class _StreamEnded(grpc.RpcError):
    """The tracker closed the stream without saying how the lease ended: it is stopping."""


def _is_outage(failure: grpc.RpcError) -> bool:
    """True where calling again may find the tracker there; a tracker that said what is wrong is believed."""
    if not isinstance(failure, grpc.Call):
        return True
    if any(key == status.TRAILER for key, _ in failure.trailing_metadata() or ()):
        return isinstance(status.error_of(failure), Unavailable)
    return failure.code() in _OUTAGE_CODES


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


class _Outbox:
    """What one stream sends: its first request, then renewals by the clock, until it is finished."""

    def __init__(self, first: pb.AcquireRequest, period: Callable[[], float | None]) -> None:
        self._first = first
        self._period = period
        self._queue: queue.SimpleQueue[pb.AcquireRequest | _Wake | None] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[pb.AcquireRequest]:
        yield self._first
        while True:
            try:
                item = self._queue.get(timeout=self._period())
            except queue.Empty:
                yield pb.AcquireRequest(renew=pb.AcquireRequest.Renew())
                continue
            if item is None:
                return
            if not isinstance(item, _Wake):
                yield item

    def renew_from_now_on(self) -> None:
        """The period is known now: the wait for a request starts again with it."""
        self._queue.put(_Wake())

    def finish(self, outcome: pb.Outcome | None) -> None:
        """Ends the stream's sending side, with a release if there is an outcome to tell."""
        if outcome is not None:
            self._queue.put(pb.AcquireRequest(release=pb.AcquireRequest.Release(outcome=outcome)))
        self._queue.put(None)


class _Wake:
    """An item that sends nothing."""
