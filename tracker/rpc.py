"""What grpc.aio needs beyond ``crossfarm.wire``: errors as statuses, peers' hosts, health and reflection."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from crossfarm import errors
from crossfarm.wire.status import MAX_SUMMARY, TRAILER, code_of, garbage, to_detail

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


def reports_errors(method: F) -> F:
    """As ``crossfarm.wire.status.reports_errors``, for coroutine methods of a grpc.aio servicer."""

    @functools.wraps(method)
    async def wrapped(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(self, request, context)
        except (grpc.aio.AbortError, grpc.aio.UsageError, grpc.aio.InternalError):
            raise  # gRPC's own: the RPC is over already
        except errors.Error as error:
            known = error
        except DecodeError as failure:
            known = garbage(failure)
        except Exception as failure:  # the boundary: everything becomes a status
            log.exception("%s failed", method.__qualname__)
            known = errors.InfrastructureError(f"internal error in {method.__qualname__}: {type(failure).__name__}")
        trailer = ((TRAILER, to_detail(known).SerializeToString()),)
        await context.abort(code_of(known), known.message[:MAX_SUMMARY], trailing_metadata=trailer)

    return wrapped  # type: ignore[return-value]


def peer_host(peer: str) -> str:
    """The host of ``context.peer()``, as it is written in an address: ``"ipv6:%5B::1%5D:4711"`` → ``"[::1]"``.

    A peer on a Unix socket is this machine.
    """
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0] if kind in ("ipv4", "ipv6") else "127.0.0.1"


async def add_standard_services(server: grpc.aio.Server, names: list[str]) -> None:
    """gRPC health checking and reflection, where their packages are installed (the ``server`` extra)."""
    try:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from grpc_health.v1._async import HealthServicer
        from grpc_reflection.v1alpha import reflection
    except ImportError:
        return
    servicer = HealthServicer()
    for name in ["", *names]:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
