"""The error tree of ``crossfarm.errors`` on gRPC: a status code for everybody, an ErrorDetail for ourselves.

``raise`` anything of the tree inside a servicer method wrapped by ``reports_errors`` and the client's
``error_of(rpc_error)`` is the same class with the same message, hint and details.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from crossfarm import errors
from crossfarm.wire.v1.capabilities_pb2 import ErrorDetail

log = logging.getLogger(__name__)

TRAILER = "crossfarm-error-bin"
#: gRPC refuses large trailers; a message longer than this is cut, keeping its beginning.
MAX_TEXT = 4000
#: The status' own text, for peers that do not read the trailer; gRPC writes each byte of another script as three.
MAX_SUMMARY = 500

#: The first class in an error's ancestry that is here gives its status code.
CODES: dict[type[errors.Error], grpc.StatusCode] = {
    errors.InvalidArtifact: grpc.StatusCode.INVALID_ARGUMENT,
    errors.IncompatibleArtifact: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnsupportedTarget: grpc.StatusCode.UNIMPLEMENTED,
    errors.BuildFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoSuchFunction: grpc.StatusCode.NOT_FOUND,
    errors.NoSuchDevice: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.LimitExceeded: grpc.StatusCode.OUT_OF_RANGE,
    errors.ProgramError: grpc.StatusCode.ABORTED,
    errors.RemoteCrash: grpc.StatusCode.ABORTED,
    errors.Mismatch: grpc.StatusCode.ABORTED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Timeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.LeaseLost: grpc.StatusCode.ABORTED,
    errors.DeviceLost: grpc.StatusCode.ABORTED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.InfrastructureError: grpc.StatusCode.UNAVAILABLE,
    errors.Error: grpc.StatusCode.INVALID_ARGUMENT,
}

_CLASSES = errors.all_errors()

#: What a bare gRPC status (from a proxy, a timeout, a dead peer) becomes.
_BARE: dict[grpc.StatusCode, type[errors.Error]] = {
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Timeout,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: errors.PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceeded,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnsupportedTarget,
}


def code_of(error: errors.Error) -> grpc.StatusCode:
    """The gRPC status code of an error of the tree."""
    return next(CODES[cls] for cls in type(error).__mro__ if cls in CODES)


def to_detail(error: errors.Error) -> ErrorDetail:
    """The error as a message; a class that users derived travels as its nearest ancestor in the tree."""
    name = next(cls.__name__ for cls in type(error).__mro__ if _CLASSES.get(cls.__name__) is cls)
    return ErrorDetail(
        type=name,
        message=error.message[:MAX_TEXT],
        hint=error.hint[:MAX_TEXT],
        details={k: v[:MAX_TEXT] for k, v in error.details.items()},
        retryable=error.retryable,
    )


def from_detail(detail: ErrorDetail) -> errors.Error:
    """The error that ``to_detail`` described; a type this release does not know becomes its nearest kind."""
    fallback = errors.RetryableError if detail.retryable else errors.UserError
    cls = _CLASSES.get(detail.type, fallback)
    return cls(detail.message, hint=detail.hint, details=dict(detail.details))


def error_of(rpc_error: grpc.RpcError, *, doing: str = "", peer: str = "") -> errors.Error:
    """The crossfarm error that a failed RPC stands for.

    Args:
        doing: what was being done, for a bare status ("asking the tracker for a device").
        peer: the address that was called.
    """
    trailing = getattr(rpc_error, "trailing_metadata", lambda: None)() or ()
    for key, value in trailing:
        if key == TRAILER and isinstance(value, bytes):
            return from_detail(ErrorDetail.FromString(value))
    code = rpc_error.code() if isinstance(rpc_error, grpc.Call) else grpc.StatusCode.UNKNOWN
    said = (rpc_error.details() if isinstance(rpc_error, grpc.Call) else str(rpc_error)) or code.name
    where = f" at {peer}" if peer else ""
    what = f"{doing}: " if doing else ""
    cls = _BARE.get(code, errors.InfrastructureError)
    if cls is errors.Unavailable:
        return cls(f"{what}no answer from the service{where} ({said})", hint="check the address and that it runs")
    return cls(f"{what}the service{where} answered {code.name}: {said}")


@contextmanager
def rpc_errors(*, doing: str = "", peer: str = "") -> Iterator[None]:
    """Client side: turns ``grpc.RpcError`` raised inside into the crossfarm error it stands for."""
    try:
        yield
    except grpc.RpcError as failure:
        raise error_of(failure, doing=doing, peer=peer) from failure


def abort(context: grpc.ServicerContext, error: errors.Error) -> NoReturn:
    """Server side: ends the RPC with the error's code and detail."""
    context.set_trailing_metadata(((TRAILER, to_detail(error).SerializeToString()),))
    context.abort(code_of(error), error.message[:MAX_SUMMARY])
    raise AssertionError("context.abort returned")


def garbage(failure: DecodeError) -> errors.Error:
    """What a peer is told whose bytes are no message: its own fault, and no reason for a traceback here."""
    return errors.UsageError(
        f"this is no message of the crossfarm protocol: {failure}", hint="is the port the right one?"
    )


F = TypeVar("F", bound=Callable[..., Any])


def reports_errors(method: F) -> F:
    """Wraps a servicer method (unary or streaming response): crossfarm errors end the RPC as ``abort`` does, anything
    else is logged with its traceback and reported as an InfrastructureError without internals."""

    def report(context: grpc.ServicerContext, failure: Exception) -> NoReturn:
        if isinstance(failure, errors.Error):
            abort(context, failure)
        if isinstance(failure, DecodeError):
            abort(context, garbage(failure))
        log.exception("%s failed", method.__qualname__)
        abort(context, errors.InfrastructureError(f"internal error in {method.__qualname__}: {type(failure).__name__}"))

    if inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def streaming(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from method(self, request, context)
            except Exception as failure:  # noqa: BLE001 - the boundary: everything becomes a status
                report(context, failure)

        return streaming  # type: ignore[return-value]

    @functools.wraps(method)
    def unary(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except Exception as failure:  # noqa: BLE001 - the boundary: everything becomes a status
            report(context, failure)

    return unary  # type: ignore[return-value]
