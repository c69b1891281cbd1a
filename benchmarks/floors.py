"""Bare gRPC on the same machine: what Python's grpcio alone makes possible, with nothing of crossfarm in it.

The server is a process of its own. A call is one message each way on an open bidirectional stream; a tensor is a stream
of raw chunks, copied into one buffer where it arrives, as any use of it needs::

    python -m benchmarks.floors      # the server: prints its address, ends with its input
"""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from benchmarks.processes import NEAR, child

#: The chunk size at which bare gRPC is fastest here.
CHUNK = 1 << 19
_SERVICE = "benchmarks.Floor"
_OPTIONS = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]


class GrpcFloor:
    """A client of the bare server; the methods return seconds, one value for each repetition."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._echo = channel.stream_stream(f"/{_SERVICE}/Echo", None, None)
        self._up = channel.stream_unary(f"/{_SERVICE}/Up", None, None)
        self._down = channel.unary_stream(f"/{_SERVICE}/Down", None, None)

    def ping_pong(self, count: int) -> list[float]:
        """``count`` round trips of a small message on one stream, each timed."""
        outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        incoming = iter(self._echo(iter(outgoing.get, None)))
        found = []
        for turn in range(50 + count):
            began = time.perf_counter()
            outgoing.put(b"0123456789abcdef")
            next(incoming)
            if turn >= 50:
                found.append(time.perf_counter() - began)
        outgoing.put(None)
        for _ in incoming:
            pass
        return found

    def tensor(self, megabytes: int, up: bool) -> list[float]:
        """Moves ``megabytes`` MB (10^6 bytes) to the server, or from it."""
        size = megabytes * 1_000_000
        if up:
            data = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
            began = time.perf_counter()
            self._up(_chunks(data.data))
            return [time.perf_counter() - began]
        began = time.perf_counter()
        _gather(iter(self._down(str(size).encode())), size)
        return [time.perf_counter() - began]


@contextmanager
def grpc_floor(*, log: Path) -> Iterator[GrpcFloor]:
    """Starts the bare server and connects to it."""
    with child([sys.executable, "-m", "benchmarks.floors"], log=log) as server:
        address = server.stdout.readline().strip() if server.stdout else ""
        if not address:
            raise RuntimeError(f"the bare gRPC server did not start: see {log}")
        with grpc.insecure_channel(address, options=_OPTIONS) as channel:
            yield GrpcFloor(channel)


class _Handlers(grpc.GenericRpcHandler):
    """The three methods over raw bytes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            f"/{_SERVICE}/Echo": grpc.stream_stream_rpc_method_handler(lambda requests, _: requests),
            f"/{_SERVICE}/Up": grpc.stream_unary_rpc_method_handler(_receive),
            f"/{_SERVICE}/Down": grpc.unary_stream_rpc_method_handler(_send),
        }.get(handler_call_details.method)


#: What the server has in memory, as a device has a tensor: made before it is asked for, so that no time goes into it.
_held = np.random.default_rng(0).integers(0, 255, 64_000_000, dtype=np.uint8)


def _receive(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
    _gather(requests, len(_held))
    return b""


def _send(size: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    return _chunks(_held[: int(size)].data)


def _chunks(data: memoryview) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield bytes(data[start : start + CHUNK])


def _gather(chunks: Iterator[bytes], size: int) -> np.ndarray:
    buffer = np.empty(size, np.uint8)
    view, filled = buffer.data, 0
    for chunk in chunks:
        view[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    return buffer


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[_Handlers()], options=_OPTIONS)
    port = server.add_insecure_port(f"{NEAR}:0")
    server.start()
    print(f"{NEAR}:{port}", flush=True)
    sys.stdin.read()  # until whoever started it closes the pipe or is gone
    server.stop(None)


if __name__ == "__main__":
    main()
