"""A lease's limits in its worker: time of a call, memory, counts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from crossfarm.errors import LimitExceeded

#: Of one call, where neither the lease nor the call says.
DEFAULT_CALL_SECONDS = 120.0
#: Of a worker's memory, where the lease does not say: this part of the machine's.
DEFAULT_MEMORY_PART = 0.8
MAX_TENSORS = 1 << 16
MAX_CALLS = 1 << 16
MAX_MODULES = 1 << 10
#: Of a call, the most that the runtime of parallel loops takes.
MAX_THREADS = 1 << 10
#: Dimensions of a tensor, as in numpy.
MAX_RANK = 64
#: Memory that the worker itself may need on top of what its tensors take: stacks, buffers of messages, libraries.
_OVERHEAD_BYTES = 256 << 20
#: How often a running call is looked at.
_WATCH_SECONDS = 0.05
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """What a lease may use.

    Attributes:
        call_seconds: one call, unless it is bound with a limit of its own.
        session_seconds: the whole lease, kept by the supervisor; 0 for none.
        memory_bytes: tensors, workspaces and what the program allocates itself.
    """

    call_seconds: float
    session_seconds: float
    memory_bytes: int

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Limits:
        """From a bind command's ``limits``, whose zeros and gaps mean this machine's defaults."""
        machine = psutil.virtual_memory().total
        return cls(
            call_seconds=float(given.get("call_ms") or 0) / 1000 or DEFAULT_CALL_SECONDS,
            session_seconds=float(given.get("session_ms") or 0) / 1000,
            memory_bytes=min(int(given.get("memory_bytes") or machine * DEFAULT_MEMORY_PART), machine),
        )


def confine_memory(limit: int) -> None:
    """Lets this process' private memory grow by ``limit`` bytes (and some for its own work) and no further, where the
    system can. An allocation beyond fails; code that does not check it crashes this worker and nothing else."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if not status.exists():
        return
    used = next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmData:"))
    wanted = used + limit + _OVERHEAD_BYTES
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))


class MemoryBudget:
    """Counts what the session has allocated, so that the limit is met with a clear error before it is met hard."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int, what: str) -> None:
        """Raises LimitExceeded with the size and the limit."""
        if self.used + size > self.limit:
            raise LimitExceeded(
                f"{what} needs {size:,} bytes of device memory; {self.used:,} of the lease's {self.limit:,} are taken",
                hint="free tensors, use smaller ones, or acquire the device with a larger memory limit",
                details={"bytes": str(size), "used": str(self.used), "limit": str(self.limit)},
            )
        self.used += size

    def give(self, size: int) -> None:
        self.used -= size


class Watchdog:
    """Ends the process when a call overruns its limit: native code cannot be stopped in any other way.

    ``enter`` and ``leave`` are two assignments each, cheap enough for every call; a thread looks at them.

    Args:
        on_overrun: called with (limit in seconds, what ran) from the watchdog's thread; must not return.
    """

    def __init__(self, on_overrun: Callable[[float, str], None]) -> None:
        self._on_overrun = on_overrun
        self._until = 0.0
        self._limit = 0.0
        self._what = ""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def enter(self, now: float, limit: float, what: str) -> None:
        """Something that may take ``limit`` seconds from ``now`` (``time.monotonic``) begins."""
        self._limit = limit
        self._what = what
        self._until = now + limit

    def leave(self) -> None:
        """It came back."""
        self._until = 0.0

    def _watch(self) -> None:
        while True:
            time.sleep(_WATCH_SECONDS)
            until = self._until
            if until and time.monotonic() > until:
                self._on_overrun(self._limit, self._what)
                os._exit(1)


@dataclass(frozen=True)
class Guard:
    """What keeps runs of one call, made for a measurement, within its limits.

    Attributes:
        watchdog: ends the process where they overrun.
        limit: seconds that one run may take.
        what: names the call in an overrun.
        check_cancelled: called before runs; raises to stop.
    """

    watchdog: Watchdog
    limit: float
    what: str
    check_cancelled: Callable[[], None]

    def run(self, work: Callable[[], _T], runs: int = 1) -> _T:
        """What ``work`` gives, which runs the call so often."""
        self.check_cancelled()
        self.watchdog.enter(time.monotonic(), self.limit * max(1, runs), self.what)
        try:
            return work()
        finally:
            self.watchdog.leave()
