"""How a process that used gRPC ends, and how it hears that it should. Both stand in the way of well-known deadlocks."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

#: How long the functions registered with ``atexit`` may take.
_EXIT_FUNCTIONS_SECONDS = 4.0


#: A signal that comes just before a thread begins to wait does not wake it, and Python runs the handler only when
#: something does: so nobody waits longer at a time.
_DEAF_SECONDS = 0.5


class Signalled:
    """An event that a signal handler may set.

    ``threading.Event.set`` takes a lock; a handler that runs while the interrupted thread holds it waits for itself.
    ``queue.SimpleQueue.put`` is reentrant.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Wakes everyone who waits, now and later."""
        self._queue.put(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits at most ``timeout`` seconds; True once it was set."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _DEAF_SECONDS if until is None else min(_DEAF_SECONDS, max(0.0, until - time.monotonic()))
            try:
                self._queue.get(timeout=left)
            except queue.Empty:
                if until is not None and time.monotonic() >= until:
                    return False
                continue
            self._queue.put(None)  # it stays set
            return True


def run_program(main: Callable[[], int]) -> NoReturn:
    """Runs ``main`` as the whole of this process and ends it with the status that it returns or leaves by.

    However ``main`` is left, a signal's exception included, the process ends by ``end_process``.
    """
    status = 1
    try:
        status = main()
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - what the interpreter would do with it
        sys.excepthook(*sys.exc_info())
    finally:
        end_process(status)


def end_process(status: int) -> NoReturn:
    """Ends this process with ``status``: what is registered with ``atexit`` runs, output is flushed, and that is all.

    The interpreter's own ending stops daemon threads wherever they are, also those of gRPC that hold one of its locks;
    taking the channels apart then waits for that lock for ever. So nothing is taken apart: the system does it.
    """
    try:
        last = threading.Timer(_EXIT_FUNCTIONS_SECONDS, os._exit, (status,))
        last.daemon = True
        last.start()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or its reader is gone
                stream.flush()
    finally:  # also when a signal's exception comes here
        os._exit(status)
