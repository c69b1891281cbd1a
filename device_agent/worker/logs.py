"""What a program and its worker say, kept for ``device.logs()``: the last part of it, in order.

Native code prints to descriptor 1, which becomes a pipe that a thread reads, keeps and hands on to stderr. Descriptor 2
goes straight to the supervisor, so that a runtime's last words before an abort are never lost in between.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import threading
from collections import deque

#: Bytes kept.
MAX_BYTES = 256 << 10


class LogRing(logging.Handler):
    """The last MAX_BYTES of output; also a handler for Python's logging."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._guard = threading.Lock()
        self._draining = threading.Lock()
        self._reading = -1

    def emit(self, record: logging.LogRecord) -> None:
        self.append(self.format(record).encode(errors="replace") + b"\n")

    def append(self, part: bytes) -> None:
        """Keeps ``part`` and drops what is too old for it."""
        with self._guard:
            self._parts.append(part[-MAX_BYTES:])
            self._size += len(self._parts[-1])
            while self._size > MAX_BYTES:
                self._size -= len(self._parts.popleft())

    def text(self) -> str:
        """Everything kept, with what the program has printed up to now."""
        if self._reading >= 0:
            ctypes.CDLL(None).fflush(None)  # the C library's buffers
            self._drain()
        with self._guard:
            return b"".join(self._parts).decode(errors="replace")

    def capture_stdout(self) -> None:
        """Turns descriptor 1 into a pipe into this ring."""
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.dup2(writing, 1)
        os.close(writing)
        threading.Thread(target=self._read, name="stdout", daemon=True).start()

    def _read(self) -> None:
        while True:
            select.select([self._reading], [], [])
            self._drain()

    def _drain(self) -> None:
        with self._draining:
            while True:
                try:
                    part = os.read(self._reading, 64 << 10)
                except BlockingIOError:
                    return
                self.append(part)
                try:
                    os.write(2, part)
                except OSError:
                    pass  # the supervisor reads no more: this process is about to end
