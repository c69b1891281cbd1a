"""The machine, the store and the clock put together, on one asyncio loop.

Events are posted by the gRPC handlers and applied in order of arrival. All that have come in by the time the loop gets
there form one batch: applied one by one, saved in one commit, and only then answered. The commit runs on the loop
itself: it takes well below a millisecond, less than handing it to a thread would.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import TypeAlias

from crossfarm.errors import Error, InfrastructureError, ResourceExhausted, Unavailable
from crossfarm.selectors import Selector
from crossfarm.wire.v1 import tracker_pb2 as wire

from . import events
from .machine import Machine
from .state import device_info
from .store import Store

log = logging.getLogger(__name__)

Message: TypeAlias = wire.TrackerMessage | wire.AcquireEvent

#: Messages that may wait for a peer that does not read. Heartbeats and places in the queue are all it can miss.
_OUTBOX_LIMIT = 1_000

#: A timer that fires so late means that this process stood still: suspended, or starved of its processor.
_STALL_MS = 1_000


class Outbox:
    """What the tracker says on one open stream: iterate to get the messages; ends when the machine closes the stream.

    Raises (iteration): the error that the machine closed the stream with.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self._error: Exception | None = None

    def put(self, message: Message) -> None:
        if self.closed:
            return
        if self._queue.qsize() >= _OUTBOX_LIMIT:
            self.close(ResourceExhausted("the peer does not read what it is sent"))
            return
        self._queue.put_nowait(message)

    def close(self, error: Exception | None = None) -> None:
        if not self.closed:
            self.closed, self._error = True, error
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Message]:
        while (message := await self._queue.get()) is not None:
            yield message
        if self._error is not None:
            raise self._error


class Core:
    """Owns the machine and the store while the tracker runs. All methods are for the loop's thread.

    Args:
        on_failure: called once when the state cannot be saved; nothing is promised from then on.
    """

    def __init__(self, machine: Machine, store: Store, *, on_failure: Callable[[Error], None]) -> None:
        self.machine = machine
        self._store = store
        self._on_failure = on_failure
        self._outboxes: dict[int, Outbox] = {}
        self._numbers = count(1)
        self._pending: list[events.Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wanted: int | None = None  # when the timer should fire
        self._judge_after = 0
        self._stopped = False
        # Unix time that cannot go back: comparable with what was saved, immune to the clock being set.
        self._epoch = time.time_ns() - time.monotonic_ns()
        saved = store.load()
        machine.restore(self.now(), fence=saved.fence, devices=saved.devices, leases_held=saved.leases)
        if saved.devices:
            log.info("took up %d devices and %d leases", len(saved.devices), len(saved.leases))

    def start(self) -> None:
        """Starts the timer; call on the running loop."""
        self._set_timer()

    def stop(self) -> None:
        """Ends all streams. Nothing is released: leases go on, and their clients resume with the next tracker."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for outbox in list(self._outboxes.values()):
            outbox.close(Unavailable("the tracker is stopping", hint="resume when it is back; the lease goes on"))

    def now(self) -> int:
        """Milliseconds of the tracker's clock, as events carry them."""
        return (self._epoch + time.monotonic_ns()) // 1_000_000

    def new_key(self) -> str:
        return f"lease-{secrets.token_hex(8)}"

    def new_secret(self) -> bytes:
        return secrets.token_bytes(32)

    def open_stream(self) -> Outbox:
        """A new stream's number and outbox; close it with ``close_stream``."""
        outbox = Outbox(next(self._numbers))
        self._outboxes[outbox.number] = outbox
        return outbox

    def close_stream(self, outbox: Outbox) -> None:
        """The peer is gone: whatever is still said on this stream is dropped."""
        outbox.closed = True
        self._outboxes.pop(outbox.number, None)

    def post(self, event: events.Event) -> None:
        """Hands an event to the machine; what follows from it comes out of the outboxes."""
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._drain)
        self._pending.append(event)

    def devices(self, selector: Selector) -> list[wire.DeviceInfo]:
        """The known devices that meet ``selector``, by id."""
        state = self.machine.state
        found = (device for _, device in sorted(state.devices.items()) if selector.matches(device.facts))
        return [device_info(device, state) for device in found]

    def _drain(self) -> None:
        batch, self._pending = self._pending, []
        if self._stopped:
            return
        self._notice_stall()
        try:
            steps = [self.machine.handle(event) for event in batch]
            changes = [change for step in steps for change in step.changes]
            if changes:
                self._store.commit(changes)
        except InfrastructureError as failure:
            self._fail(failure)
            return
        except Exception as failure:
            # Names only: events carry tokens, and logs are read by others.
            log.exception("the machine failed on one of: %s", ", ".join(type(event).__name__ for event in batch))
            self._fail(InfrastructureError(f"internal error: {type(failure).__name__}: {failure}"))
            return
        for step in steps:
            for effect in step.effects:
                outbox = self._outboxes.get(effect.stream)
                if outbox is None:
                    continue
                if isinstance(effect, events.Send):
                    outbox.put(effect.message)
                else:
                    outbox.close(effect.error)
        self._set_timer()

    def _fail(self, failure: Error) -> None:
        """Memory and disk may disagree now, so nothing more is said: the next start goes on from what was saved."""
        self._stopped = True
        log.critical("stopping: %s", failure)
        self._on_failure(failure)

    def _notice_stall(self) -> None:
        """While this process stood still nobody was heard, and none of them is to blame: what they said waits in the
        sockets. So no deadline is judged before everybody has had the time of two heartbeats to be heard."""
        if self._wanted is not None and self.now() - self._wanted > _STALL_MS:
            log.warning("stood still for %.1f s", (self.now() - self._wanted) / 1000)
            self._judge_after = self.now() + 2 * self.machine.config.heartbeat_interval_ms
            self._wanted = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._wanted = None
        due = self.machine.next_time()
        if due is not None:
            self._wanted = max(due, self._judge_after, self.now())
            delay = (self._wanted - self.now()) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._notice_stall()
        if self.now() < self._judge_after:
            self._set_timer()
        else:
            self.post(events.TimePassed(self.now()))
