"""The pipe between a worker and its supervisor: JSON lines, events out on stdout, commands in on stdin.

Events: ``ready`` (address), ``bound``, ``client`` (connected), ``loaded`` (artifact: a program is in this process from
here on), ``outcome`` (kind, type, message, hint: why the worker is about to end itself).
Commands: ``bind`` (lease_id, session_token, fencing_token, limits), ``end``. End of file means that the supervisor is
gone, and ends the worker at once.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

#: Exit statuses of a worker that ends by itself, each after it has told the reason in an ``outcome`` event.
EXIT_OK = 0
EXIT_TIME_LIMIT = 40
EXIT_BAD_CONTROL = 41

#: Longest command line taken.
_MAX_LINE = 64 << 10


class Control:
    """The worker's end. Takes over descriptor 1 for itself: what anything prints from here on goes to stderr."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.set_inheritable(self._out, False)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        """Tells the supervisor; one that is gone is no error here, end of file on stdin ends the worker."""
        line = memoryview(json.dumps({"event": event, **fields}).encode() + b"\n")
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._out, line) :]
            except OSError:
                pass

    def listen(self, on_command: Callable[[str, Mapping[str, Any]], None]) -> None:
        """Reads commands until the end of file, in the calling thread."""
        with os.fdopen(os.dup(0), "rb") as stream:
            while line := stream.readline(_MAX_LINE):
                try:
                    command = json.loads(line)
                    name = command["command"]
                except (ValueError, TypeError, KeyError):
                    os._exit(EXIT_BAD_CONTROL)  # not the supervisor that this worker was made for
                on_command(str(name), command)
