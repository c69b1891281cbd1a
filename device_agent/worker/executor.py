"""Carries out a session's frames, in order, on one device.

One thread at a time runs ``run``; ``cancel`` may be called from any. What a frame makes stays for the whole lease, also
when the stream that brought it breaks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from crossfarm import errors
from crossfarm.artifact import Signature
from crossfarm.artifact.store import check_digest
from crossfarm.ir import dtype as dtypes
from crossfarm.wire.tensors import CHUNK_BYTES, Packet, done_message, encode
from crossfarm.wire.v1.session_pb2 import Reply, RequestFrame, SessionRequest, SessionResponse
from device_agent.drivers.base import BoundCall, CallArgument, Device, Memory, Program
from device_agent.worker import measure, profile
from device_agent.worker.limits import (
    MAX_CALLS,
    MAX_MODULES,
    MAX_RANK,
    MAX_TENSORS,
    Guard,
    Limits,
    MemoryBudget,
    Watchdog,
)
from device_agent.worker.outbox import Outbox
from device_agent.worker.placement import placement_of
from device_agent.worker.table import Table

if TYPE_CHECKING:
    from crossfarm.wire.v1.artifact_pb2 import Variant
    from device_agent.worker.artifacts import Cache, Resolver
    from device_agent.worker.logs import LogRing

log = logging.getLogger(__name__)

#: Fetched parts up to this size wait with other results for their message.
_COPIED_BYTES = 32 << 10
Packets = Iterator[Packet[SessionResponse]]


class Loader(Protocol):
    """Checks an artifact's bytes and loads the variant that fits this device."""

    def __call__(self, data: bytes) -> tuple[Program, Variant, int]:
        """(program, its variant, the variant's index). Raises InvalidArtifact or IncompatibleArtifact."""


@dataclass
class _Module:
    name: str
    program: Program
    signatures: dict[str, Signature]
    calls: set[int] = field(default_factory=set)  # bound calls of it, which go with it


@dataclass
class _Tensor:
    memory: Memory
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    arrived: int = 0
    calls: set[int] = field(default_factory=set)  # bound calls that use it, which go with it


@dataclass
class _Call:
    run: BoundCall
    what: str
    limit: float
    workspace: int
    uses: list[_Module | _Tensor]


class Executor:
    """A lease's state on the device.

    Args:
        device: open, used by nobody else.
        load: turns artifact bytes into a program.
        artifacts: finds artifacts by digest.
        constants: tensor contents kept by digest.
        logs: what the program has said.
    """

    def __init__(
        self,
        device: Device,
        *,
        load: Loader,
        artifacts: Resolver,
        constants: Cache,
        logs: LogRing,
        limits: Limits,
        watchdog: Watchdog,
    ) -> None:
        self.limits = limits
        self._device = device
        self._load_artifact = load
        self._artifacts = artifacts
        self._constants = constants
        self._logs = logs
        self._watchdog = watchdog
        self._budget = MemoryBudget(limits.memory_bytes)
        self._modules: Table[_Module] = Table("module", MAX_MODULES)
        self._tensors: Table[_Tensor] = Table("tensor", MAX_TENSORS)
        self._calls: Table[_Call] = Table("bound call", MAX_CALLS)
        self._cancelled = (0, -1)  # requests, first and last
        self._seen = 0
        self._actions: dict[str, Callable[[RequestFrame], Reply | None]] = {
            "unload": self._unload,
            "allocate": self._allocate,
            "progress": self._progress,
            "reuse": self._reuse,
            "keep": self._keep,
            "bind": self._bind,
            "unbind": self._unbind,
            "benchmark": self._measure,
            "profile": self._measure,
            "free": self._free,
            "logs": self._read_logs,
            "ping": lambda frame: None,
        }

    @property
    def cpus(self) -> tuple[int, ...]:
        """CPUs that calls may name."""
        return self._device.cpus

    @property
    def empty(self) -> bool:
        """True while nothing has been made: there is nothing that a stream could resume."""
        return not (len(self._modules) or len(self._tensors))

    def cancel(self, first: int, last: int) -> None:
        """Requests ``first`` to ``last`` that have not begun are answered with Cancelled; last 0 means all so far."""
        self._cancelled = (first, last or self._seen)

    def run(self, message: SessionRequest, data: memoryview, skip: int = 0) -> Packets:
        """Carries out a message's frames from number ``skip`` on and yields the messages that answer them."""
        out = Outbox()
        at = 0
        for frame in message.frames[skip:] if skip else message.frames:
            kind = frame.WhichOneof("body")
            if kind == "calls":
                numbers, done = frame.calls.call, 0
                while (done := self._run_calls(frame.request, numbers, done, out)) < len(numbers):
                    yield out.take()
                continue
            if kind == "fetch":
                yield from self._fetch(frame, out)
            else:
                part = _NOTHING
                if size := _payload_size(frame, kind):
                    part, at = data[at : at + size], at + size
                self._one(frame, kind, part, out)
            if out.due():
                yield out.take()
        if not out.empty():
            yield out.last()

    def run_one(self, message: SessionRequest) -> bytes | None:
        """The answer to a message that is one call and no more, None for any other: what a client that waits for each
        result sends, by the shortest way."""
        frames = message.frames
        if len(frames) != 1:
            return None
        frame = frames[0]
        numbers, request = frame.calls.call, frame.request
        if len(numbers) != 1 or numbers[0] not in self._calls or self._cancelled[1] >= request:
            return None
        self._seen = request
        call, watchdog = self._calls.get(numbers[0]), self._watchdog
        watchdog.enter(time.monotonic(), call.limit, call.what)
        failure = self._attempt(call)
        watchdog.leave()
        if failure is None:
            return done_message(request)
        out = Outbox()
        out.fail(request, failure)
        return encode(out.last())

    def _one(self, frame: RequestFrame, kind: str | None, part: memoryview, out: Outbox) -> None:
        """Any frame with one answer; a failure is answered, or sticks to what the frame was to make."""
        self._seen = max(self._seen, frame.request)
        try:
            self._check_cancelled(frame.request)
            reply: Reply | None = None
            if kind == "upload":
                self._upload(frame.upload, part)
            elif kind == "load":
                reply = self._load(frame, part)
            elif kind is not None and (action := self._actions.get(kind)) is not None:
                reply = action(frame)
            else:
                raise errors.UnsupportedTarget(
                    "this device does not know a request that the client sent", hint="upgrade the device's agent"
                )
        except MemoryError:
            failure: errors.Error = errors.LimitExceeded(
                f"the device has no memory left for this {kind} request",
                hint="free tensors, or use smaller ones",
                details={"limit": str(self.limits.memory_bytes)},
            )
        except errors.Error as raised:
            failure = raised
        except Exception as bug:  # a driver's mistake is this request's failure, not the session's end
            log.exception("%s request", kind)
            failure = errors.InfrastructureError(f"internal error of the device's driver: {type(bug).__name__}: {bug}")
        else:
            if frame.request:
                if reply is None:
                    out.done(frame.request)
                else:
                    reply.request = frame.request
                    out.add(reply)
            return
        self._stick(frame, kind, failure)
        if frame.request:
            out.fail(frame.request, failure)

    # --- calls, the hot path ---

    def _run_calls(self, first: int, numbers: Sequence[int], at: int, out: Outbox) -> int:
        """Runs calls from position ``at`` on until all are done or answers are due; returns the next position."""
        get, watchdog, now = self._calls.get, self._watchdog, time.monotonic()
        self._seen = first + len(numbers) - 1
        if self._seen > _MAX_REQUEST:
            raise errors.ArgumentError(f"{len(numbers)} calls from request {first} on: numbers end at {_MAX_REQUEST}")
        for position in range(at, len(numbers)):
            number, request = numbers[position], first + position
            failure: errors.Error | None
            try:
                if self._cancelled[1] >= request:
                    self._check_cancelled(request)
                call = get(number)
            except KeyError:
                failure = self._why_no_call(number)
            except errors.Cancelled as cancelled:
                failure = cancelled
            else:
                watchdog.enter(now, call.limit, call.what)
                failure = self._attempt(call)
                watchdog.leave()
            if failure is None:
                out.done(request)
            else:
                out.fail(request, failure)
            now = time.monotonic()
            if now > out.flush_at:
                return position + 1
        return len(numbers)

    def _attempt(self, call: _Call) -> errors.Error | None:
        """Runs it; what it failed with."""
        try:
            call.run()
        except MemoryError:
            return errors.LimitExceeded(f"{call.what} ran out of memory on the device")
        except errors.Error as failure:
            return failure
        return None

    def _why_no_call(self, number: int) -> errors.Error:
        try:
            self._calls[number]
        except errors.Error as failure:
            return failure
        raise AssertionError("a call that exists was not found")

    def _check_cancelled(self, request: int) -> None:
        first, last = self._cancelled
        if request and first <= request <= last:
            raise errors.Cancelled("the request was cancelled before it began")

    # --- modules ---

    def _load(self, frame: RequestFrame, part: memoryview) -> Reply:
        body = frame.load
        self._modules.check_new(body.module)
        digest = body.sha256.hex()
        if body.carried:
            data, source = self._artifacts.check(bytes(part), digest, "the client"), "frame"
        elif body.tensor:
            held = self._tensor(body.tensor)
            if held.bytes != body.size or held.arrived < held.bytes:
                raise errors.ArgumentError(f"tensor {body.tensor} does not hold the artifact of {body.size} bytes")
            data = self._artifacts.check(bytes(held.memory.read(0, held.bytes)), digest, "the client")
            source = "tensor"
        else:
            data, source = self._artifacts.find(digest, body.size)
        self._watchdog.enter(time.monotonic(), self.limits.call_seconds, f"loading artifact {digest[:12]}")
        try:
            program, variant, index = self._load_artifact(data)
        finally:
            self._watchdog.leave()
        signatures = {entry.name: Signature(entry) for entry in variant.entry_points}
        self._modules.add(body.module, _Module(digest[:12], program, signatures))
        if source not in ("cache", "frame"):  # what fits into a frame is sent again faster than it is looked up
            self._artifacts.remember(data)
        return Reply(loaded=Reply.Loaded(variant=index, runtime=variant.runtime, source=source))

    def _unload(self, frame: RequestFrame) -> None:
        module = self._modules.drop(frame.unload.module)
        if module is not None:
            self._drop_calls(module)
            module.program.release()

    def _bind(self, frame: RequestFrame) -> None:
        body = frame.bind
        self._calls.check_new(body.call)
        module = self._modules[body.module]
        signature = module.signatures.get(body.function)
        if signature is None:
            known = ", ".join(module.signatures) or "none"
            raise errors.NoSuchFunction(f"the artifact has no function {body.function!r}; it has: {known}")
        if len(body.arguments) != len(signature.parameters):
            raise errors.ArgumentError(f"{body.function} has {len(signature.parameters)} parameters")
        given = [self._argument(a, p.dtype) for a, p in zip(body.arguments, signature.parameters)]
        binding = signature.bind(given)
        arguments: list[CallArgument] = [a.memory if isinstance(a, _Tensor) else a for a in given]
        self._budget.take(binding.workspace_bytes, f"the workspace of {body.function}")
        try:
            run = module.program.bind(signature, arguments, binding, placement_of(body, self._device.cpus))
        except BaseException:
            self._budget.give(binding.workspace_bytes)
            raise
        limit = body.limit_ms / 1000 if body.limit_ms else self.limits.call_seconds
        uses: list[_Module | _Tensor] = [module, *(a for a in given if isinstance(a, _Tensor))]
        self._calls.add(body.call, _Call(run, f"function {body.function!r}", limit, binding.workspace_bytes, uses))
        for user in uses:
            user.calls.add(body.call)

    def _argument(self, argument: RequestFrame.Argument, dtype: str) -> _Tensor | int | float:
        match argument.WhichOneof("value"):
            case "tensor":
                return self._tensor(argument.tensor)
            case "integer":
                wrapped = dtype == "uint64" and argument.integer < 0  # the upper half of its range
                return argument.integer + (1 << 64) if wrapped else argument.integer
            case "real":
                return argument.real
            case _:
                raise errors.ArgumentError("an argument without a value")

    def _unbind(self, frame: RequestFrame) -> None:
        self._drop_call(frame.unbind.call)

    def _drop_calls(self, used: _Module | _Tensor) -> None:
        for number in tuple(used.calls):
            self._drop_call(number)

    def _drop_call(self, number: int) -> None:
        call = self._calls.drop(number)
        if call is not None:
            self._budget.give(call.workspace)
            for used in call.uses:
                used.calls.discard(number)

    def _measure(self, frame: RequestFrame) -> Reply:
        """A benchmark or a profile of a bound call."""
        looks = frame.HasField("profile")
        call = self._calls[frame.profile.call if looks else frame.benchmark.call]
        guard = Guard(self._watchdog, call.limit, call.what, lambda: self._check_cancelled(frame.request))
        if looks:
            return Reply(profiled=profile.profile(call.run, frame.profile, guard, self._device.synchronize))
        return Reply(measured=measure.measure(call.run, frame.benchmark, guard, self._device.synchronize))

    # --- tensors ---

    def _tensor(self, number: int) -> _Tensor:
        return self._tensors[number]

    def _allocate(self, frame: RequestFrame) -> None:
        body = frame.allocate
        self._tensors.check_new(body.tensor)
        if not dtypes.is_valid(body.dtype) or dtypes.lanes_of(body.dtype) != 1 or body.dtype == "handle":
            raise errors.ArgumentError(f"a tensor cannot have dtype {body.dtype[:40]!r}")
        if len(body.shape) > MAX_RANK:
            raise errors.ArgumentError(f"a tensor of {len(body.shape)} dimensions; the most there may be is {MAX_RANK}")
        size = dtypes.itemsize(body.dtype)
        for extent in body.shape:
            size *= extent
        what = f"a tensor of shape {tuple(body.shape)}, dtype {body.dtype},"
        self._budget.take(size, what)
        try:
            memory = self._device.allocate(size)
        except MemoryError:
            self._budget.give(size)
            raise errors.LimitExceeded(
                f"{what} needs {size:,} bytes, which the device cannot give (limit {self.limits.memory_bytes:,})",
                hint="free tensors, or use smaller ones",
                details={"bytes": str(size), "limit": str(self.limits.memory_bytes)},
            ) from None
        self._tensors.add(body.tensor, _Tensor(memory, body.dtype, tuple(body.shape), size))

    def _upload(self, body: RequestFrame.Upload, part: memoryview) -> None:
        tensor = self._tensor(body.tensor)
        if len(part) != body.bytes or body.offset + body.bytes > tensor.bytes:
            raise errors.ArgumentError(
                f"an upload of bytes {body.offset} to {body.offset + body.bytes} ({len(part)} carried) does not fit "
                f"tensor {body.tensor} of {tensor.bytes} bytes"
            )
        tensor.memory.write(body.offset, part)
        tensor.arrived = body.offset + body.bytes

    def _progress(self, frame: RequestFrame) -> Reply:
        return Reply(progressed=Reply.Progressed(bytes=self._tensor(frame.progress.tensor).arrived))

    def _reuse(self, frame: RequestFrame) -> Reply:
        tensor = self._tensor(frame.reuse.tensor)
        if self._constants.copy(frame.reuse.sha256.hex(), tensor.bytes, tensor.memory.write):
            tensor.arrived = tensor.bytes
        return Reply(progressed=Reply.Progressed(bytes=tensor.arrived))

    def _keep(self, frame: RequestFrame) -> None:
        tensor = self._tensor(frame.keep.tensor)
        # piece by piece: a second copy of large constants may be more than the worker has memory for
        places = range(0, tensor.bytes, CHUNK_BYTES)
        parts = (tensor.memory.read(at, min(CHUNK_BYTES, tensor.bytes - at)) for at in places)
        try:
            self._constants.keep(check_digest(frame.keep.sha256.hex()), tensor.bytes, parts)
        except (errors.InvalidArtifact, errors.NotFound):
            raise errors.ArgumentError(
                f"the content of tensor {frame.keep.tensor} has not the digest given ({frame.keep.sha256.hex()[:12]})",
                hint="it was changed on the way or by a call; upload it again",
            ) from None

    def _fetch(self, frame: RequestFrame, out: Outbox) -> Packets:
        self._seen = max(self._seen, frame.request)
        try:
            self._check_cancelled(frame.request)
            tensor = self._tensor(frame.fetch.tensor)
            if frame.fetch.offset > tensor.bytes:
                raise errors.ArgumentError(f"tensor {frame.fetch.tensor} has {tensor.bytes} bytes, not more")
        except errors.Error as failure:
            out.fail(frame.request, failure)
            return
        at = frame.fetch.offset
        while True:
            size = min(CHUNK_BYTES, tensor.bytes - at)
            last = at + size == tensor.bytes
            chunk = Reply.Chunk(offset=at, bytes=size, last=last)
            out.add(Reply(request=frame.request, chunk=chunk))
            part = tensor.memory.read(at, size)
            # A view is good until the next thing happens on the device: either it leaves now, or it is copied.
            out.packet.add(part if size > _COPIED_BYTES else memoryview(bytes(part)))
            if size > _COPIED_BYTES or out.due():
                yield out.take()
            if last:
                return
            at += size

    def _free(self, frame: RequestFrame) -> None:
        tensor = self._tensors.drop(frame.free.tensor)
        if tensor is not None:
            self._drop_calls(tensor)
            tensor.memory.release()
            self._budget.give(tensor.bytes)

    def _read_logs(self, frame: RequestFrame) -> Reply:
        return Reply(logs=Reply.LogText(text=self._logs.text()))

    def _stick(self, frame: RequestFrame, kind: str | None, failure: errors.Error) -> None:
        match kind:
            case "load":
                self._modules.fail(frame.load.module, failure)
            case "allocate":
                self._tensors.fail(frame.allocate.tensor, failure)
            case "bind":
                self._calls.fail(frame.bind.call, failure)


_NOTHING = memoryview(b"")
_MAX_REQUEST = (1 << 64) - 1


def _payload_size(frame: RequestFrame, kind: str | None) -> int:
    """Bytes of the message's data that belong to this frame."""
    if kind == "upload":
        return frame.upload.bytes
    if kind == "load" and frame.load.carried:
        return frame.load.size
    return 0
