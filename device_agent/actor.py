"""A small event loop in one thread: posted callables and timers, in order. State that only it touches needs no lock."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Timer:
    """A callable that runs later unless cancelled."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Actor:
    """Runs what is posted to it, one at a time, in a thread of its own.

    Args:
        name: the thread's.
        clock: seconds, monotonic.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, action: Callable[[], None]) -> None:
        """Runs ``action`` soon; from any thread."""
        self._inbox.put(action)

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Runs ``action`` after ``seconds``; call it from the actor's own actions only."""
        timer = Timer(action)
        heapq.heappush(self._timers, (self._clock() + seconds, next(self._order), timer))
        return timer

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the thread after what is posted already; timers that are not due are dropped."""
        self._inbox.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            # Timers first: a busy inbox must not put off a time limit.
            action = self._due_timer()
            if action is None:
                try:
                    action = self._inbox.get(timeout=self._seconds_to_next())
                except queue.Empty:
                    continue
            if action is None:
                return
            try:
                action()
            except Exception:
                # One bad event must not end the agent: the others still have devices to hand back.
                log.exception("an event of the agent failed")

    def _seconds_to_next(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self._clock()) if self._timers else None

    def _due_timer(self) -> Callable[[], None] | None:
        if self._timers and self._timers[0][0] <= self._clock():
            return heapq.heappop(self._timers)[2].action
        return None
