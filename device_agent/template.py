"""``python -m device_agent.template DRIVER …``: imports what a worker needs, then forks one for each request.

Stdin is a SOCK_SEQPACKET socket from the agent. A request is the worker's arguments as a JSON list with three file
descriptors: its stdin, stdout and stderr. Replies: ``["started", pid]`` and ``["ended", pid, status]`` (negative for a
signal). The template stays single-threaded and never initializes gRPC's core. It ends when the socket closes.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import NoReturn

_MAX_REQUEST = 64 << 10
_PR_SET_PDEATHSIG = 1


def _preload(drivers: list[str]) -> None:
    from device_agent import drivers as available

    for name in drivers:
        available.get(name)
    importlib.import_module("device_agent.worker.__main__")


def _become_worker(arguments: list[str], fds: list[int], connection: socket.socket, template: int) -> NoReturn:
    """The forked child: its own session, stdio and signals, then the worker's main."""
    status = 1
    try:
        os.setsid()
        connection.close()
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != template:  # it died between the fork and here
            os._exit(1)
        gc.unfreeze()
        sys.stdin = os.fdopen(0, "r")
        sys.stdout = os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", buffering=1)
        from device_agent.worker.__main__ import main

        status = main(arguments)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the outermost frame of a process
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap(connection: socket.socket) -> None:
    while True:
        try:
            pid, waited = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        connection.send(json.dumps(["ended", pid, os.waitstatus_to_exitcode(waited)]).encode())


def main(drivers: list[str]) -> int:
    """Serves fork requests until the agent closes the socket."""
    connection = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _preload(drivers)
    gc.collect()
    gc.freeze()  # shared pages stay shared
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    template = os.getpid()
    while True:
        readable, _, _ = select.select([connection.fileno(), wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            _reap(connection)
        if connection.fileno() in readable:
            request, fds, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 3)
            if not request:
                return 0
            pid = os.fork()
            if pid == 0:
                os.close(wake_read)
                os.close(wake_write)
                _become_worker(json.loads(request), fds, connection, template)
            for fd in fds:
                os.close(fd)
            connection.send(json.dumps(["started", pid]).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
