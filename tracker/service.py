"""The tracker over gRPC. Handlers translate: a message in is an event for the machine, what the machine says goes out.

Written on ``grpc.aio``: every agent and every client holds a stream open for as long as it is there, and with threads
each would hold one too. A thousand devices and their clients are two thousand idle coroutines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine

import grpc
import grpc.aio

from crossfarm import selectors
from crossfarm.errors import UsageError
from crossfarm.wire import channels, serving
from crossfarm.wire.v1 import capabilities_pb2, tracker_pb2_grpc
from crossfarm.wire.v1 import tracker_pb2 as wire

from . import admission, events
from .core import Core, Outbox
from .rpc import peer_host, reports_errors

#: After a client's half of the stream ended: if it was a broken connection, the cancellation follows within this time.
_CANCELLATION_FOLLOWS_SECONDS = 0.1


class TrackerService(tracker_pb2_grpc.TrackerServicer):
    """The servicer. ``compilers`` are the addresses that clients and agents are told of."""

    def __init__(self, core: Core, compilers: list[str]) -> None:
        self._core = core
        self._compilers = compilers

    @reports_errors
    async def GetCapabilities(
        self, request: capabilities_pb2.GetCapabilitiesRequest, context: grpc.aio.ServicerContext
    ) -> capabilities_pb2.Capabilities:
        limits = {"max_message_bytes": channels.MAX_MESSAGE_BYTES, "max_selector_length": selectors.MAX_LENGTH}
        return serving.capabilities("tracker", ["resume", "priority"], limits)

    @reports_errors
    async def ListDevices(
        self, request: wire.ListDevicesRequest, context: grpc.aio.ServicerContext
    ) -> wire.ListDevicesResponse:
        return wire.ListDevicesResponse(devices=self._core.devices(selectors.parse(request.selector)))

    @reports_errors
    async def GetFarm(self, request: wire.GetFarmRequest, context: grpc.aio.ServicerContext) -> wire.FarmInfo:
        return wire.FarmInfo(compilers=self._compilers)

    @reports_errors
    async def Attach(self, requests: AsyncIterator[wire.AgentMessage], context: grpc.aio.ServicerContext) -> None:
        outbox = self._core.open_stream()
        try:
            await _converse(context, outbox, self._hear_agent(requests, outbox, peer_host(context.peer())))
        finally:
            self._core.post(events.AgentDetached(self._core.now(), outbox.number))
            self._core.close_stream(outbox)

    @reports_errors
    async def Acquire(self, requests: AsyncIterator[wire.AcquireRequest], context: grpc.aio.ServicerContext) -> None:
        outbox = self._core.open_stream()
        try:
            await _converse(context, outbox, self._hear_client(requests, outbox))
        finally:
            self._core.post(events.ClientGone(self._core.now(), outbox.number))
            self._core.close_stream(outbox)

    async def _hear_agent(self, requests: AsyncIterator[wire.AgentMessage], outbox: Outbox, host: str) -> None:
        """Posts what the agent says until it hangs up."""
        core, stream = self._core, outbox.number
        registered = False
        async for request in requests:
            now, which = core.now(), request.WhichOneof("message")
            if which == "register":
                register = request.register
                serving.check_api("the agent", register.api_low, register.api_high, doing="registering an agent")
                admission.check_register(register)
                core.post(events.AgentRegistered(now, stream, register))
                registered = True
            elif not registered:
                raise UsageError("an agent's first message must be Register")
            elif which == "heartbeat":
                core.post(events.AgentHeard(now, stream, request.heartbeat.sequence))
            elif which == "ready":
                address = request.ready.address
                admission.check_names(address)
                if channels.split_address(address)[0] == "":
                    address = f"{host}{address}"
                core.post(events.LeaseReady(now, stream, request.ready.lease_id, address))
            elif which == "ended":
                ended = request.ended
                outcome = admission.outcome_of(ended.outcome)
                core.post(events.LeaseEnded(now, stream, ended.lease_id, outcome, ended.device_ok))
            elif which == "status":
                status = request.status
                reason = admission.reason_of(status.reason)
                core.post(events.DeviceReported(now, stream, status.device_id, status.healthy, reason))
        outbox.close()

    async def _hear_client(self, requests: AsyncIterator[wire.AcquireRequest], outbox: Outbox) -> None:
        """Posts what the client says until it closes its half, which means that it lets go."""
        core, stream = self._core, outbox.number
        first = True
        async for request in requests:
            now, which = core.now(), request.WhichOneof("message")
            if first != (which in ("open", "resume")):
                raise UsageError("the first message of Acquire, and only that, is Open or Resume")
            first = False
            if which == "open":
                core.post(self._opened(stream, request.open))
            elif which == "resume":
                resume = request.resume
                core.post(events.LeaseResumed(now, stream, resume.lease_id, resume.fencing_token, resume.session_token))
            elif which == "renew":
                core.post(events.LeaseRenewed(now, stream))
            elif which == "release":
                said = request.release
                outcome = admission.outcome_of(said.outcome) if said.HasField("outcome") else None
                core.post(events.LeaseReleased(now, stream, outcome))
        # A connection that breaks looks the same at first; then the whole call is cancelled, and this with it.
        await asyncio.sleep(_CANCELLATION_FOLLOWS_SECONDS)
        core.post(events.LeaseReleased(core.now(), stream))
        if first:
            outbox.close()

    def _opened(self, stream: int, request: wire.AcquireRequest.Open) -> events.RequestOpened:
        version = request.api_version
        serving.check_api("the client", version, version, doing="asking for a device")
        admission.check_names(request.client, request.request_id)
        return events.RequestOpened(
            now=self._core.now(),
            stream=stream,
            key=self._core.new_key(),
            secret=self._core.new_secret(),
            request_id=request.request_id,
            selector=selectors.parse(request.selector),
            priority=request.priority,
            queue_timeout_ms=request.queue_timeout_ms,
            ttl_ms=request.ttl_ms,
            client=request.client,
            limits=request.limits,
        )


async def _converse(context: grpc.aio.ServicerContext, outbox: Outbox, hearing: Coroutine[None, None, None]) -> None:
    """Writes what the machine says while ``hearing`` posts what the peer says; an error in hearing ends both."""

    def heard(task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, Exception):
            outbox.close(failure)

    ear = asyncio.create_task(hearing)
    ear.add_done_callback(heard)
    try:
        async for message in outbox:
            await context.write(message)
    finally:
        ear.cancel()
