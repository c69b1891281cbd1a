"""Threads of native libraries: how many their parallel loops use, and where those and the caller run.

A library with parallel loops has a small runtime of its own, with ``crossfarmrt_set_threads``, ``crossfarmrt_threads``
and ``crossfarmrt_close``; one without needs none of this, and only its caller is placed.
"""

from __future__ import annotations

import ctypes
import os
import threading

from crossfarm.errors import ArgumentError
from device_agent.drivers.base import ANYWHERE, Placement


def usable_cpus() -> tuple[int, ...]:
    """CPUs that this process may run on; empty where the system does not let a thread be placed from Python."""
    return tuple(sorted(os.sched_getaffinity(os.getpid()))) if hasattr(os, "sched_getaffinity") else ()


class Caller(threading.local):
    """The CPUs that a thread which calls native code was placed on; empty for all of the process'."""

    def __init__(self) -> None:
        self.cpus: tuple[int, ...] = ()

    def place(self, cpus: tuple[int, ...], everywhere: tuple[int, ...]) -> None:
        """Puts the present thread where a call with ``cpus`` has it: on the first of them."""
        if everywhere and cpus != self.cpus:
            try:
                os.sched_setaffinity(0, cpus[:1] or everywhere)
            except OSError as failure:
                raise ArgumentError(f"a call cannot run on CPU {cpus[0] if cpus else everywhere}: {failure}") from None
        self.cpus = cpus


class LibraryThreads:
    """The runtime in a loaded library.

    Attributes:
        placement: how its loops run now.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._has_runtime = hasattr(library, "crossfarmrt_set_threads")
        self.placement = ANYWHERE

    def place(self, placement: Placement) -> None:
        """Lets later loops run so. Raises ArgumentError where the runtime refuses."""
        if self._has_runtime and placement != self.placement:
            cpus = (ctypes.c_int32 * len(placement.cpus))(*placement.cpus)
            if self._library.crossfarmrt_set_threads(placement.threads, cpus, len(placement.cpus)):
                raise ArgumentError(
                    f"a call cannot run on {placement.threads or 'all'} threads on CPUs {list(placement.cpus)}",
                    hint="the CPUs that this process may use have changed",
                )
        self.placement = placement

    @property
    def count(self) -> int:
        """How many threads its loops run on: fewer than asked for where the system gave no more; without loops 1."""
        return int(self._library.crossfarmrt_threads()) if self._has_runtime else 1

    def close(self) -> None:
        """Ends its threads: to be called before it is unloaded."""
        if self._has_runtime:
            self._library.crossfarmrt_close()
