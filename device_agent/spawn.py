"""Two ways to start a worker process: a fresh interpreter, or a fork of a template that has imported everything.

A fresh worker costs a quarter of a second of CPU (seconds under emulation), spent while somebody's benchmark may run on
the same machine; a fork costs milliseconds. The template never starts a thread and never touches gRPC's core, which
does not survive a fork. Where there is no fork (Windows) workers are fresh ones.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Protocol

log = logging.getLogger(__name__)

_READY_SECONDS = 60.0
_MAX_REPLY = 4096


def python_command() -> list[str]:
    """The command that starts a Python for workers: ``CROSSFARM_PYTHON`` (shell words), else this interpreter.

    An agent whose interpreter cannot be executed directly (one under user-mode emulation) sets it.
    """
    prefix = os.environ.get("CROSSFARM_PYTHON")
    return shlex.split(prefix) if prefix else [sys.executable]


def worker_environment() -> dict[str, str]:
    """This process' environment with libraries' thread pools at one thread: a worker computes with its own code."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Handle(Protocol):
    """A started process: pipes of bytes, and its end."""

    pid: int
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def wait(self) -> int:
        """Blocks until it has ended; exit status, negative for a signal."""
        ...


class Spawner(Protocol):
    """Starts ``python -m device_agent.worker ARGUMENTS`` in a process group of its own. Raises OSError."""

    def spawn(self, arguments: list[str]) -> Handle: ...

    def close(self) -> None:
        """Ends what the spawner itself keeps running."""
        ...


class _Process:
    """A subprocess as a Handle."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self.wait = process.wait


class FreshSpawner:
    """Starts an interpreter for each worker."""

    def spawn(self, arguments: list[str]) -> Handle:
        process = subprocess.Popen(
            [*python_command(), "-m", "device_agent.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=worker_environment(),
            # Its own group: a Ctrl-C at the agent's terminal reaches the agent alone, which ends its workers in order,
            # and a kill of the group takes along whatever the program started.
            start_new_session=True,
        )
        return _Process(process)

    def close(self) -> None:
        """Nothing is kept."""


class _Fork:
    """A fork of the template as a Handle; its exit status comes from the template, its parent."""

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self.pid = 0
        self.stdin: IO[bytes] = os.fdopen(stdin, "wb")
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb")
        self.stderr: IO[bytes] = os.fdopen(stderr, "rb")
        self.returncode: int | None = None
        self.started = threading.Event()
        self.ended = threading.Event()

    def wait(self) -> int:
        self.ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, returncode: int) -> None:
        self.returncode = returncode
        self.started.set()
        self.ended.set()


class ForkSpawner:
    """Keeps one template (``python -m device_agent.template DRIVER …``) and forks workers from it.

    A template that dies takes its workers with it (they ask the kernel for that), and the next spawn starts another.

    Args:
        drivers: whose modules the template imports beforehand.
    """

    def __init__(self, drivers: list[str]) -> None:
        self._drivers = drivers
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._unanswered: list[_Fork] = []
        self._forks: dict[int, _Fork] = {}

    def spawn(self, arguments: list[str]) -> Handle:
        pipes = [os.pipe() for _ in range(3)]
        (child_in, to_child), (from_child, child_out), (errors_from_child, child_err) = pipes
        fork = _Fork(to_child, from_child, errors_from_child)
        try:
            with self._lock:
                connection = self._ensure_template()
                self._unanswered.append(fork)
                socket.send_fds(connection, [json.dumps(arguments).encode()], [child_in, child_out, child_err])
        except OSError:
            for stream in (fork.stdin, fork.stdout, fork.stderr):
                stream.close()
            raise
        finally:
            for fd in (child_in, child_out, child_err):
                os.close(fd)
        if not fork.started.wait(_READY_SECONDS) or fork.pid == 0:
            for stream in (fork.stdin, fork.stdout, fork.stderr):
                stream.close()
            raise OSError("the worker template did not fork a worker")
        return fork

    def close(self) -> None:
        with self._lock:
            connection, self._socket = self._socket, None
            process, self._process = self._process, None
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
        if process is not None:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._reader is not None:
            self._reader.join()

    def _ensure_template(self) -> socket.socket:
        """The connection to a living template. Caller holds the lock."""
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*python_command(), "-m", "device_agent.template", *self._drivers],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=worker_environment(),
                start_new_session=True,
            )
        self._socket = ours
        self._reader = threading.Thread(
            target=self._read, args=(ours, self._process), name=f"template-{self._process.pid}", daemon=True
        )
        self._reader.start()
        return ours

    def _read(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Takes the template's replies: ``["started", pid]`` in order of the requests, ``["ended", pid, status]``."""
        mine: dict[int, _Fork] = {}
        with connection:
            while True:
                try:
                    reply = connection.recv(_MAX_REPLY)
                except OSError:
                    break
                if not reply:
                    break
                kind, pid, *rest = json.loads(reply)
                if kind == "started":
                    with self._lock:
                        fork = self._unanswered.pop(0)
                    fork.pid = pid
                    mine[pid] = fork
                    fork.started.set()
                elif kind == "ended" and pid in mine:
                    mine.pop(pid).end(rest[0])
        with self._lock:
            if self._socket is connection:
                self._socket = None
            lost, self._unanswered = self._unanswered, []
        process.wait()
        # The kernel has killed what was left of them, see template.py.
        for fork in [*mine.values(), *lost]:
            fork.end(-signal.SIGKILL)


def best_spawner(drivers: list[str]) -> Spawner:
    """Forks where the system can, else fresh interpreters."""
    can_fork = hasattr(os, "fork") and hasattr(socket, "send_fds") and Path("/proc/self").exists()
    return ForkSpawner(drivers) if can_fork else FreshSpawner()
