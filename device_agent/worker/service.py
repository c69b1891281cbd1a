"""The gRPC face of a session: who may speak, one stream at a time, messages in and out.

The stream's messages are serialized and parsed here, by ``crossfarm.wire.tensors``, which is why the service is
registered with handlers of its own instead of the generated ones; on the wire it is ``Session`` of ``session.proto``.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable, Iterator

import grpc

from crossfarm import _version, errors
from crossfarm.compat import versions
from crossfarm.wire import serving, status
from crossfarm.wire.tensors import CHUNK_BYTES, Packet, decode_request, encode
from crossfarm.wire.v1.capabilities_pb2 import Capabilities, GetCapabilitiesRequest
from crossfarm.wire.v1.session_pb2 import (
    CancelRequest,
    CancelResponse,
    Reply,
    RequestFrame,
    SessionResponse,
)
from crossfarm.wire.v1.tracker_pb2 import SessionLimits
from device_agent.worker.executor import Executor
from device_agent.worker.limits import MAX_TENSORS

log = logging.getLogger(__name__)

SERVICE = "crossfarm.v1.Session"


class Lease:
    """The lease that a worker is bound to."""

    def __init__(self, lease_id: str, session_token: str, executor: Executor) -> None:
        self.id = lease_id
        self._token = session_token
        self.executor = executor

    def admits(self, lease_id: str, token: str) -> bool:
        """True for the lease's own client; takes the same time for every wrong token."""
        right = hmac.compare_digest(token.encode(), self._token.encode())
        return right and bool(self._token) and lease_id == self.id


class SessionService:
    """Serves the session of one lease, once ``bind`` has told it which.

    Args:
        on_client: told whether a client is connected, whenever that changes.
    """

    def __init__(self, on_client: Callable[[bool], None]) -> None:
        self._on_client = on_client
        self._lease: Lease | None = None
        self._guard = threading.Lock()  # the stream that counts
        self._stream: grpc.ServicerContext | None = None
        self._turn = threading.Lock()  # held while frames are carried out

    def bind(self, lease: Lease) -> None:
        self._lease = lease

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service."""
        handlers = {
            "Open": grpc.stream_stream_rpc_method_handler(self.open),
            "Cancel": grpc.unary_unary_rpc_method_handler(
                self.cancel,
                request_deserializer=CancelRequest.FromString,
                response_serializer=CancelResponse.SerializeToString,
            ),
            "GetCapabilities": grpc.unary_unary_rpc_method_handler(
                self.capabilities,
                request_deserializer=GetCapabilitiesRequest.FromString,
                response_serializer=Capabilities.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    @status.reports_errors
    def capabilities(self, request: GetCapabilitiesRequest, context: grpc.ServicerContext) -> Capabilities:
        return serving.capabilities("session", [], {"max_tensors": MAX_TENSORS, "chunk_bytes": CHUNK_BYTES})

    @status.reports_errors
    def cancel(self, request: CancelRequest, context: grpc.ServicerContext) -> CancelResponse:
        self._admit(request.lease_id, request.session_token).executor.cancel(request.first, request.last)
        return CancelResponse()

    @status.reports_errors
    def open(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        first = next(requests, None)
        if first is None:
            return
        message, data = decode_request(first)
        hello = message.frames[0].hello if message.frames else RequestFrame.Hello()
        lease = self._admit(hello.lease_id, hello.session_token)
        serving.check_api("the client", hello.api_version, hello.api_version, doing="opening a session")
        executor = lease.executor
        self._take_over(context)
        try:
            yield encode(_welcome(message.frames[0].request, executor))
            yield from self._carry_out(context, executor.run(message, data, skip=1))
            for received in requests:
                message, data = decode_request(received)
                with self._turn:
                    answer = executor.run_one(message) if self._stream is context else None
                if answer is not None:
                    yield answer
                else:
                    yield from self._carry_out(context, executor.run(message, data))
        finally:
            with self._guard:
                current = self._stream is context
                if current:
                    self._stream = None
            if current:
                self._on_client(False)

    def _admit(self, lease_id: str, token: str) -> Lease:
        """The lease, for its own client. Raises PermissionDenied."""
        lease = self._lease
        if lease is None or not lease.admits(lease_id, token):
            raise errors.PermissionDenied(
                "the session token is not that of the lease that holds this device",
                hint="use the lease's own session; a device whose lease ended must be acquired again",
            )
        return lease

    def _take_over(self, context: grpc.ServicerContext) -> None:
        """Makes this stream the one that counts and ends the one before."""
        with self._guard:
            before, self._stream = self._stream, context
        if before is not None:
            log.info("another stream of the lease's client takes over")
            before.cancel()
        else:
            self._on_client(True)

    def _carry_out(self, context: grpc.ServicerContext, packets: Iterator[Packet[SessionResponse]]) -> Iterator[bytes]:
        """The packets one by one, as long as this stream is the one that counts; never two streams at once."""
        while True:
            with self._turn:
                if self._stream is not context:
                    return
                packet = next(packets, None)
            if packet is None:
                return
            yield encode(packet)


def _welcome(request: int, executor: Executor) -> Packet[SessionResponse]:
    limits = executor.limits
    welcome = Reply.Welcome(
        api_version=versions.API_VERSION,
        release=_version.__version__,
        resumed=not executor.empty,
        limits=SessionLimits(
            session_ms=round(limits.session_seconds * 1000),
            call_ms=round(limits.call_seconds * 1000),
            memory_bytes=limits.memory_bytes,
        ),
        max_tensor_bytes=limits.memory_bytes,
        max_tensors=MAX_TENSORS,
        cpus=executor.cpus,
    )
    return Packet(SessionResponse(replies=[Reply(request=request, welcome=welcome)]))
