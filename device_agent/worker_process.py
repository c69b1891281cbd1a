"""One worker process as its supervisor holds it: start, control pipe, log, end.

Control is JSON lines: the worker's events on its stdout, commands on its stdin (``device_agent/worker/__main__.py``
has the list). What programs print goes to the worker's stderr, of which the end is kept for crash reports.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from device_agent.spawn import Spawner

log = logging.getLogger(__name__)

#: Longest control line and longest log kept, in bytes: a worker runs foreign code and may write anything.
MAX_LINE = 64 << 10
MAX_LOG = 16 << 10

Event = Mapping[str, Any]


class WorkerProcess:
    """A worker from start to end.

    Args:
        arguments: of ``python -m device_agent.worker``.
        spawner: starts it.
        on_event: called with (worker, event) for each control line, from a thread of this worker.
        on_exit: called once with (worker, returncode) when the process is gone and its output is read.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        spawner: Spawner,
        on_event: Callable[[WorkerProcess, Event], None],
        on_exit: Callable[[WorkerProcess, int], None],
    ) -> None:
        self.address = ""
        self.retired = False
        self._gone = False
        self._on_event = on_event
        self._on_exit = on_exit
        self._log: deque[bytes] = deque()
        self._log_bytes = 0
        self._write_lock = threading.Lock()
        self._process = spawner.spawn(arguments)
        self._stderr_reader = threading.Thread(target=self._read_log, name=f"log-{self.pid}", daemon=True)
        self._stdout_reader = threading.Thread(target=self._read_events, name=f"worker-{self.pid}", daemon=True)
        self._stderr_reader.start()
        self._stdout_reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log_tail(self) -> str:
        """The end of what the worker and its program wrote."""
        return b"".join(self._log).decode(errors="replace")

    def command(self, name: str, **fields: Any) -> None:
        """Sends one command. A worker that is gone already is no error here: its exit is reported by ``on_exit``."""
        line = json.dumps({"command": name, **fields}).encode() + b"\n"
        with self._write_lock:
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError, OSError):
                log.debug("worker %d is gone, %s not delivered", self.pid, name)

    def retire(self) -> None:
        """Asks a worker that holds no lease to make room; it may still become ready, and ends then."""
        self.retired = True
        self.command("end")

    def kill(self) -> None:
        """Ends the worker and everything it started, at once."""
        if self._gone:
            return
        try:
            if hasattr(os, "killpg"):
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM)  # Windows: TerminateProcess
        except (ProcessLookupError, PermissionError):
            log.debug("worker %d is gone already", self.pid)

    def join(self, timeout: float | None = None) -> None:
        """Waits (seconds) until the process is gone and ``on_exit`` has returned."""
        self._stdout_reader.join(timeout)

    def _read_events(self) -> None:
        with self._process.stdout as stream:
            while line := stream.readline(MAX_LINE):
                try:
                    event = json.loads(line)
                except ValueError:
                    log.warning("worker %d wrote a control line that is not JSON", self.pid)
                    continue
                if isinstance(event, dict):
                    if event.get("event") == "ready":
                        self.address = str(event.get("address", ""))
                    self._on_event(self, event)
        returncode = self._process.wait()
        self.kill()  # what the program started goes with it
        self._gone = True
        self._stderr_reader.join(timeout=2)  # a grandchild may hold the pipe open: what is there must do
        with self._write_lock:
            try:
                self._process.stdin.close()
            except OSError:
                pass
        self._on_exit(self, returncode)

    def _read_log(self) -> None:
        stream = self._process.stderr
        with stream:
            while chunk := os.read(stream.fileno(), 4096):
                self._log.append(chunk)
                self._log_bytes += len(chunk)
                while self._log_bytes > MAX_LOG and len(self._log) > 1:
                    self._log_bytes -= len(self._log.popleft())
