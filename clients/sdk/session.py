"""A session from the client's side: requests out, answers in, one stream.

Sending puts frames into a queue, which gRPC's own sending thread empties: whatever has gathered there while a message
was on its way becomes the next message. Receiving has no thread at all: of those who wait for an answer one reads the
stream and hands out what comes, the others sleep until theirs is there or it is their turn to read. A call that waits
for its result so takes the shortest way there is through gRPC for Python.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import grpc

from clients.sdk.future import Future
from crossfarm import errors
from crossfarm.compat import versions
from crossfarm.wire import channels, status
from crossfarm.wire.tensors import (
    CHUNK_BYTES,
    STREAM_OPTIONS,
    Packet,
    call_message,
    decode_response,
    done_message,
    encode,
)
from crossfarm.wire.v1.session_pb2 import CancelRequest, RequestFrame, SessionRequest, SessionResponse
from crossfarm.wire.v1.session_pb2_grpc import SessionStub

#: Requests that may be on their way; one more waits for the oldest. Bounds the memory of both sides.
WINDOW = 4096
#: Frames in one message at most, so that the device begins with the first while the last are still made.
_BATCH = 1024
#: How long to wait for the tracker to say why a session broke.
_WHY_SECONDS = 5.0
_CANCEL_SECONDS = 5.0

#: A frame with its payload; a call, as (request, number of the bound call); or a whole message.
Item = tuple[RequestFrame, memoryview | None] | tuple[int, int] | bytes


class LeaseLike(Protocol):
    """What a session needs of ``clients.sdk.lease.Lease``."""

    @property
    def id(self) -> str: ...

    @property
    def session_token(self) -> str: ...

    @property
    def address(self) -> str: ...

    def failure(self, wait: float) -> errors.Error | None: ...


class Session:
    """The connection to a lease's worker. All methods may be called from any thread.

    Args:
        lease: says where and with which token.
        security: credentials for the connection.
        client: who this is, for the device's log.
    """

    def __init__(self, lease: LeaseLike, *, security: channels.Security = channels.PLAINTEXT, client: str = "") -> None:
        self._lease = lease
        self._client = client
        self._security = security
        self._channel: grpc.Channel | None = None
        self._guard = threading.RLock()  # numbers, the queue's order, the stream's state
        self._numbers = 0
        self._requests = 0
        self._stream: _Stream | None = None
        self._broken: errors.Error | None = None  # for good
        self._reading = threading.Lock()  # whoever holds it reads answers
        self._news = threading.Condition()
        self._sleepers = 0
        self._reader: threading.Thread | None = None
        self._forgotten: deque[int] = deque()  # tensors that nobody sees any more
        self.welcome = self._connect()

    # --- sending ---

    def number(self) -> int:
        """A fresh number for a module, a tensor or a bound call."""
        with self._guard:
            self._numbers += 1
            return self._numbers

    def send(self, frames: Sequence[tuple[RequestFrame, memoryview | None]], wanted: Sequence[Future[Any]]) -> None:
        """Sends frames in one go, nothing of other threads between them.

        Args:
            frames: with their payloads; those whose ``request`` is not 0 are answered.
            wanted: a future for each frame that is answered, in order.
        """
        self._make_room()
        with self._guard:
            stream = self._connected()
            waiting = iter(wanted)
            while self._forgotten:
                free = RequestFrame.Free(tensor=self._forgotten.popleft())
                stream.queue.put((RequestFrame(free=free), None))
            for frame, payload in frames:
                if frame.request:
                    self._requests += 1
                    frame.request = self._requests
                    future = next(waiting)
                    future._request = self._requests
                    stream.pending.append(future)
                stream.queue.put((frame, payload))

    def call(self, number: int) -> Future[Any]:
        """Sends one call of a bound number: the way of pipelined calls, so it does as little as it can."""
        future: Future[Any] = Future(self)
        stream = self._stream
        if stream is not None and len(stream.pending) >= WINDOW:
            self._make_room()
        with self._guard:
            stream = self._stream or self._connected()
            self._requests = future._request = request = self._requests + 1
            stream.pending.append(future)
            stream.queue.put((request, number))
        return future

    def run(self, number: int) -> Future[Any]:
        """``call`` and ``wait`` in one, by the shortest way: nothing lies between handing the call over and reading."""
        stream = self._stream
        if stream is None or stream.pending or not self._reading.acquire(blocking=False):
            future = self.call(number)
            self.wait(future)
            return future
        try:
            future = Future(self)
            with self._guard:
                self._requests = future._request = request = self._requests + 1
                expected = done_message(request)
                stream.pending.append(future)
                stream.queue.put(call_message(request, number))
            self._read(expected)
            while not future._done:
                self._read()
        finally:
            self._reading.release()
            if self._sleepers:
                self._wake()
        return future

    def request(self, frame: RequestFrame, payload: memoryview | None = None) -> Future[Any]:
        """Sends one frame that is answered."""
        frame.request = 1
        future: Future[Any] = Future(self)
        self.send([(frame, payload)], [future])
        return future

    def forget(self, number: int) -> None:
        """Tensor ``number`` is freed with the next request. Takes no lock: the garbage collector calls it."""
        self._forgotten.append(number)

    def cancel(self, first: int, last: int) -> None:
        """Asks that requests ``first`` to ``last`` are not begun. Overtakes what waits on the stream."""
        asked = CancelRequest(lease_id=self._lease.id, session_token=self._lease.session_token, first=first, last=last)
        with self._guard:
            self._connected()
            assert self._channel is not None
            stub = SessionStub(self._channel)
        with status.rpc_errors(doing="cancelling a request", peer=self._lease.address):
            stub.Cancel(asked, timeout=_CANCEL_SECONDS)

    def close(self) -> None:
        """Ends the session; whoever waits gets an error. Again is nothing."""
        with self._guard:
            stream, self._stream = self._stream, None
            if self._broken is None:
                self._broken = errors.Cancelled("the session is closed", hint="acquire a device again")
        if stream is not None:
            stream.end()
        if self._channel is not None:
            self._channel.close()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join()

    @property
    def closed(self) -> bool:
        """True once no request can be sent any more."""
        return self._broken is not None

    # --- receiving ---

    def wait(self, future: Future[Any], timeout: float | None = None) -> None:
        """Returns when ``future`` is done. Raises Timeout after ``timeout`` seconds."""
        if timeout is not None:
            self._wait_at_most(future, timeout)
            return
        while not future._done:
            if self._reading.acquire(blocking=False):
                try:
                    while not future._done:
                        self._read()
                finally:
                    self._reading.release()
                    self._wake()
            else:
                with self._news:
                    self._sleepers += 1
                    try:
                        if not future._done and self._reading.locked():
                            self._news.wait()
                    finally:
                        self._sleepers -= 1

    def _wait_at_most(self, future: Future[Any], timeout: float) -> None:
        """A read of the stream cannot be given up, so here a thread reads while this one looks at the clock."""
        with self._guard:
            if self._reader is None or not self._reader.is_alive():
                self._reader = threading.Thread(target=self._read_all, name="session-reader", daemon=True)
                self._reader.start()
        with self._news:
            self._sleepers += 1
            try:
                arrived = self._news.wait_for(lambda: future._done, timeout)
            finally:
                self._sleepers -= 1
        if not arrived:
            raise errors.Timeout(
                f"no result within {timeout:g} s", hint="wait longer; to stop the call itself give it timeout= as well"
            )

    def _read_all(self) -> None:
        """Reads until nothing is awaited."""
        with self._reading:
            while (stream := self._stream) is not None and stream.pending:
                self._read()
        self._wake()

    def _make_room(self) -> None:
        while (stream := self._stream) is not None and len(stream.pending) >= WINDOW:
            self.wait(stream.pending[0])

    def _wake(self) -> None:
        if self._sleepers:
            with self._news:
                self._news.notify_all()

    def _read(self, expected: bytes = b"") -> None:
        """Takes in one message. The caller holds ``_reading``; ``expected`` says that the oldest request succeeded."""
        stream = self._stream
        if stream is None:
            return
        try:
            received = next(stream.responses)
            if received == expected:
                stream.pending.popleft()._done = True
            else:
                stream.take(*decode_response(received))
        except (grpc.RpcError, StopIteration, errors.InfrastructureError) as failure:
            self._lost(stream, failure)
        if self._sleepers:
            self._wake()

    # --- the stream's life ---

    def _connect(self) -> Future[Any]:
        """Opens a stream; its greeting goes ahead of everything and is not waited for. The caller holds ``_guard``."""
        if self._channel is not None:
            self._channel.close()  # it may hold on to the connection that broke
        self._channel = channels.open_channel(self._lease.address, self._security, STREAM_OPTIONS)
        stream = _Stream(self._channel)
        hello = RequestFrame.Hello(
            lease_id=self._lease.id,
            session_token=self._lease.session_token,
            api_version=versions.API_VERSION,
            client=self._client,
        )
        welcome: Future[Any] = Future(self)
        self._requests = welcome._request = self._requests + 1
        stream.pending.append(welcome)
        stream.queue.put((RequestFrame(request=self._requests, hello=hello), None))
        self._stream = stream
        return welcome

    def _connected(self) -> _Stream:
        """The stream, opened again if it broke while the lease went on. Raises why there can be none."""
        if self._broken is not None:
            raise self._broken
        if self._stream is None:
            self.welcome = self._connect()
        assert self._stream is not None
        return self._stream

    def _lost(self, stream: _Stream, failure: Exception) -> None:
        """The stream broke: everyone who waits on it learns why, from the tracker where it knows."""
        if self._broken is None:
            error = self._reason(failure)
        else:
            error = self._broken
        with self._guard:
            if self._stream is stream:
                self._stream = None
            if not isinstance(error, errors.Unavailable) and self._broken is None:
                self._broken = error
        stream.fail(error)

    def _reason(self, failure: Exception) -> errors.Error:
        if isinstance(failure, errors.Error):
            return failure
        said = failure.details() if isinstance(failure, grpc.Call) else "the device ended it"
        if isinstance(failure, grpc.Call) and any(k == status.TRAILER for k, _ in failure.trailing_metadata() or ()):
            # The worker lives and refuses: a lease that ended says more than the refusal that followed from it.
            return self._lease.failure(0) or status.error_of(failure)  # type: ignore[arg-type]
        return self._lease.failure(_WHY_SECONDS) or errors.Unavailable(
            f"the connection to the device at {self._lease.address} broke ({said})",
            hint="the lease goes on, but what was on its way is lost: send it again",
        )


class _Stream:
    """One Open call: what waits to be sent and who waits for an answer."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self.pending: deque[Future[Any]] = deque()
        self._call = channel.stream_stream("/crossfarm.v1.Session/Open", None, None)(self._messages())
        self.responses: Iterator[bytes] = iter(self._call)

    def end(self) -> None:
        self.queue.put(None)
        self._call.cancel()
        self.fail(errors.Cancelled("the session was closed before the answer came"))

    def fail(self, error: errors.Error) -> None:
        """Everyone who waits gets ``error``, and gRPC's sending thread comes to its end."""
        self.queue.put(None)
        while self.pending:
            future = self.pending.popleft()
            future._error = error
            future._done = True

    def take(self, message: SessionResponse, data: memoryview) -> None:
        """Hands out the answers of a message, which come in the order of the requests."""
        pending = self.pending
        at = 0
        for reply in message.replies:
            kind = reply.WhichOneof("result")
            future = pending[0]
            if reply.request != future._request:
                raise errors.InfrastructureError(
                    f"the device answers request {reply.request} where {future._request} is next",
                    hint="client and agent do not fit together; upgrade the older one",
                )
            if kind is None:
                for _ in range(reply.count or 1):
                    pending.popleft()._done = True
                continue
            if kind == "chunk":
                chunk = reply.chunk
                assert future._sink is not None
                future._sink[chunk.offset : chunk.offset + chunk.bytes] = data[at : at + chunk.bytes]
                at += chunk.bytes
                if not chunk.last:
                    continue
            elif kind == "error":
                future._error = status.from_detail(reply.error)
            else:
                future._value = getattr(reply, kind)
            pending.popleft()
            future._done = True

    def _messages(self) -> Iterator[bytes]:
        """What gRPC sends: each time it is ready, everything that waits, up to the size of a message."""
        waiting = self.queue
        item = waiting.get()
        while item is not None:
            if isinstance(item, bytes):
                yield item
                item = waiting.get()
                continue
            gathered = _Gathered()
            gathered.add(*item)
            while not (gathered.full() or waiting.empty()):
                item = waiting.get()
                if item is None or isinstance(item, bytes):
                    yield gathered.finish()
                    break
                gathered.add(*item)
            else:
                yield gathered.finish()
                item = waiting.get()


class _Gathered:
    """Frames on their way into one message; calls whose requests follow one another share a frame."""

    def __init__(self) -> None:
        self._packet: Packet[SessionRequest] = Packet(SessionRequest())
        self._calls: list[int] = []
        self._first = 0
        self._count = 0

    def add(self, frame: RequestFrame | int, payload: memoryview | int | None) -> None:
        """A frame and its payload, or the request of a call and its bound number."""
        self._count += 1
        if isinstance(frame, int):
            assert isinstance(payload, int)
            if frame != self._first + len(self._calls):
                self._settle()
            if not self._calls:
                self._first = frame
            self._calls.append(payload)
            return
        self._settle()
        self._packet.message.frames.append(frame)
        if payload is not None:
            assert isinstance(payload, memoryview)
            self._packet.add(payload)

    def full(self) -> bool:
        return self._packet.size >= CHUNK_BYTES or self._count >= _BATCH

    def finish(self) -> bytes:
        """The message."""
        self._settle()
        return encode(self._packet)

    def _settle(self) -> None:
        if self._calls:
            self._packet.message.frames.add(request=self._first).calls.call.extend(self._calls)
            self._calls = []
