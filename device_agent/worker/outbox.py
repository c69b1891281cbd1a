"""Answers on their way into messages."""

from __future__ import annotations

import time

from crossfarm import errors
from crossfarm.wire.status import to_detail
from crossfarm.wire.tensors import CHUNK_BYTES, Packet
from crossfarm.wire.v1.session_pb2 import Reply, SessionResponse

#: Results wait this long at most, in seconds, for others to share their message.
FLUSH_SECONDS = 0.002


class Outbox:
    """The message being filled; successes in a row share one reply."""

    __slots__ = ("_count", "_first", "flush_at", "packet")

    def __init__(self) -> None:
        self.packet = Packet(SessionResponse())
        self.flush_at = time.monotonic() + FLUSH_SECONDS
        self._first = self._count = 0  # successes not written down yet

    def done(self, request: int) -> None:
        if self._count:
            if request == self._first + self._count:
                self._count += 1
                return
            self._settle()
        self._first, self._count = request, 1

    def fail(self, request: int, failure: errors.Error) -> None:
        self.add(Reply(request=request, error=to_detail(failure)))

    def add(self, reply: Reply) -> None:
        self._settle()
        self.packet.message.replies.append(reply)

    def empty(self) -> bool:
        return not (self._count or self.packet.message.replies)

    def due(self) -> bool:
        return self.packet.size >= CHUNK_BYTES or (time.monotonic() > self.flush_at and not self.empty())

    def take(self) -> Packet[SessionResponse]:
        """The message, and a new one begins."""
        self._settle()
        packet = self.packet
        self.packet = Packet(SessionResponse())
        self.flush_at = time.monotonic() + FLUSH_SECONDS
        return packet

    def last(self) -> Packet[SessionResponse]:
        """The message; none follows it."""
        self._settle()
        return self.packet

    def _settle(self) -> None:
        if self._count:
            self.packet.message.replies.add(request=self._first, count=self._count)
            self._count = 0
