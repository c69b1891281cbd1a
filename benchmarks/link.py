"""A slow link between two loopback addresses: a TCP proxy that delays and limits what passes through it.

Each direction is one pipe shared by all connections, as on a real line: a chunk waits until the pipe is free, takes
``bytes / rate`` to enter it and half the round-trip time to come out. A new connection costs its round trip too: the
client's first byte leaves one round trip after it connected. What TCP itself adds on a long line (slow start, loss)
is not there; every side of a benchmark has the same link.

Run it as a process of its own, so that it competes with nobody for Python's lock::

    python -m benchmarks.link --rtt-ms 20 --mbit 100 --forward 127.0.0.2:7461=127.0.0.1:7461
"""

from __future__ import annotations

import argparse
import queue
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

#: Bytes handled at once: at 100 Mbit/s this takes 0.33 ms to enter the pipe, well below any delay of interest.
CHUNK = 4096
#: Chunks that may be in a pipe for one connection; beyond that the sender is held back, as a full router would.
MAX_QUEUED = 256


@dataclass
class Pipe:
    """One direction of the link.

    Attributes:
        bytes_per_second: what enters it at most.
        delay: seconds from entering to leaving.
    """

    bytes_per_second: float
    delay: float
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def departure(self, size: int) -> float:
        """When (``time.monotonic``) ``size`` bytes handed over now have come out at the other end."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self.bytes_per_second
            return self._free_at + self.delay


class Link:
    """A link with its forwards.

    Args:
        rtt: round-trip time in seconds; half of it each way.
        bits_per_second: rate of each direction.
    """

    def __init__(self, rtt: float, bits_per_second: float) -> None:
        self._rtt = rtt
        self._up = Pipe(bits_per_second / 8, rtt / 2)
        self._down = Pipe(bits_per_second / 8, rtt / 2)

    def forward(self, listen: tuple[str, int], to: tuple[str, int]) -> None:
        """Accepts connections at ``listen`` for the life of the process and carries them to ``to``."""
        server = socket.create_server(listen)
        threading.Thread(target=self._accept, args=(server, to), daemon=True).start()

    def _accept(self, server: socket.socket, to: tuple[str, int]) -> None:
        while True:
            near, _ = server.accept()
            threading.Thread(target=self._connect, args=(near, to, time.monotonic()), daemon=True).start()

    def _connect(self, near: socket.socket, to: tuple[str, int], began: float) -> None:
        _sleep_until(began + self._rtt / 2)
        try:
            far = socket.create_connection(to)
        except OSError:
            near.close()
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _carry(far, near, self._down)
        _sleep_until(began + self._rtt)
        _carry(near, far, self._up)


def _carry(source: socket.socket, sink: socket.socket, pipe: Pipe) -> None:
    """Moves what ``source`` sends to ``sink`` through ``pipe`` until either ends, in two threads."""
    in_flight: queue.Queue[tuple[float, bytes]] = queue.Queue(MAX_QUEUED)

    def enter() -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = source.recv(CHUNK)
            except OSError:
                chunk = b""
            in_flight.put((pipe.departure(len(chunk)), chunk))

    def leave() -> None:
        open_ = True
        while True:
            due, chunk = in_flight.get()
            _sleep_until(due)
            try:
                if not chunk:
                    sink.shutdown(socket.SHUT_WR)
                elif open_:
                    sink.sendall(chunk)
            except OSError:
                open_ = False  # the receiver is gone: let the sender see that too, and drain what it still sends
                try:
                    source.shutdown(socket.SHUT_RD)
                except OSError:
                    pass
            if not chunk:
                return

    for half in (enter, leave):
        threading.Thread(target=half, daemon=True).start()


def _sleep_until(moment: float) -> None:
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="a slow link between loopback addresses")
    parser.add_argument("--rtt-ms", type=float, required=True)
    parser.add_argument("--mbit", type=float, required=True, help="megabits a second, each way")
    parser.add_argument("--forward", action="append", default=[], metavar="HOST:PORT=HOST:PORT", help="repeatable")
    options = parser.parse_args()
    link = Link(options.rtt_ms / 1000, options.mbit * 1e6)
    for forward in options.forward:
        listen, _, to = forward.partition("=")
        link.forward(_address(listen), _address(to))
    print("ready", flush=True)
    sys.stdin.read()  # until whoever started it closes the pipe or is gone


if __name__ == "__main__":
    main()
