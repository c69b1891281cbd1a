"""How a command hears Ctrl-C and SIGTERM: it unwinds and gives its device back, and it ends, whatever it was doing."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from types import FrameType

#: How long an interrupted command may take to give back what it holds.
_UNWIND_SECONDS = 4.0
#: How long after a signal its exception is expected to be on its way.
_NOTICE_SECONDS = 0.3


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as exceptions in the main thread: a cancelled CI job gives its device back.

    An exception raised by a signal can get lost: Python drops it in a destructor, in a callback from C and under a bare
    ``except``. And unwinding can meet a service that hangs. So a thread watches: a signal that left no trace is sent
    once more, and ``_UNWIND_SECONDS`` after the first the process ends, upon which the tracker releases what it held.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread()
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put is reentrant: a handler may call it
        self._over = False

    def install(self) -> None:
        """Takes over those of the signals that nobody ignores or handles; nothing where this is not the main thread."""
        if threading.current_thread() is not self._main:
            return
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()
        usual = {signal.SIG_DFL, signal.default_int_handler}  # nohup ignores SIGHUP: so it stays
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in usual:
                signal.signal(number, self._handle)

    def over(self) -> None:
        """The command is done: from now on a signal is not sent again."""
        self._over = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._asked.put(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _watch(self) -> None:
        number = self._asked.get()
        last = time.monotonic() + _UNWIND_SECONDS
        while time.monotonic() < last:
            time.sleep(_NOTICE_SECONDS)
            if not self._over and not self._is_unwinding() and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(self._main.ident or 0, number)
        os._exit(128 + number)

    def _is_unwinding(self) -> bool:
        current = sys._current_exceptions().get(self._main.ident or 0)
        raised = current[1] if isinstance(current, tuple) else current  # Python 3.12 gives the exception alone
        while raised is not None and not isinstance(raised, (KeyboardInterrupt, SystemExit)):
            raised = raised.__context__
        return raised is not None
