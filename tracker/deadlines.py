"""When something is due next, over thousands of records whose times move all the time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

Key = tuple[str, str]  # (kind of record, id)


class Deadlines:
    """A heap of (time, key) with at most one live entry a key, which is never later than the key's real time.

    A renewal moves a time later and costs nothing here: the old entry comes up early, whoever takes it sees that the
    record is not due yet, and puts it back with its real time.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, Key]] = []
        self._live: dict[Key, int] = {}

    def at(self, key: Key, time: int) -> None:
        """Makes sure that ``key`` comes up no later than ``time``."""
        if time < self._live.get(key, time + 1):
            self._live[key] = time
            heapq.heappush(self._heap, (time, key))

    def next(self) -> int | None:
        """The time at which to look again."""
        while self._heap and self._live.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: int) -> Iterator[Key]:
        """Takes out, one by one and in order of time, the keys that may be due."""
        while (time := self.next()) is not None and time <= now:
            key = heapq.heappop(self._heap)[1]
            del self._live[key]
            yield key
