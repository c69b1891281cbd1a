"""The farm that ``crossfarm up`` keeps running: programs that die come back on the same ports with the same state.

One supervisor per user and state directory. It notes where the farm is (``clients.sdk.runfile``), so that ``connect``
finds it, and ends on SIGTERM, SIGINT, or when a program keeps dying.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

from clients.sdk import places, processes, runfile
from clients.sdk.embedded import START_SECONDS
from clients.sdk.processes import Child, Program
from clients.sdk.programs import LocalFarm
from crossfarm.errors import InfrastructureError, PermissionDenied, UsageError
from crossfarm.wire.channels import is_loopback
from crossfarm.wire.serving import StopSignal

_WATCH_SECONDS = 0.1
#: A program that ends this often within this time will not stay up by being started again.
CRASH_LIMIT, CRASH_WINDOW_SECONDS = 5, 30.0
_LAST_PAUSE_SECONDS = 5.0
_DOWN_SECONDS = 15.0


class RestartPolicy:
    """When to start a program again: at once after a first end, later and later after more, not at all in the end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: deque[float] = deque()

    def ended(self) -> float | None:
        """The program ended: seconds to wait before starting it again, None to give up."""
        now = self._clock()
        self._ends.append(now)
        while self._ends[0] < now - CRASH_WINDOW_SECONDS:
            self._ends.popleft()
        if len(self._ends) >= CRASH_LIMIT:
            return None
        return min(0.1 * 4.0 ** (len(self._ends) - 1) - 0.1, _LAST_PAUSE_SECONDS)


class SupervisedFarm:
    """A farm whose programs are watched. ``run`` starts it and returns when it is told to stop."""

    def __init__(
        self,
        *,
        listen: str = "127.0.0.1:0",
        devices: str = "",
        insecure: bool = False,
        advertise: str = "",
        report: Callable[[str], None] = print,
    ) -> None:
        """
        Args:
            listen: the tracker's host:port; port 0 for any.
            devices: the agent's drivers, separated by commas.
            insecure: allow plaintext beyond loopback.
            advertise: the name by which other machines call this one, by default the host's.
            report: told of starts and restarts, in words.
        """
        self._listen = listen
        self._devices = devices
        self._insecure = insecure
        self._advertise = advertise
        self._report = report
        self._directory = places.state_dir() / "farm"
        self._policies: dict[str, RestartPolicy] = {}
        self._children: list[Child] = []

    def run(self, stop: StopSignal) -> None:
        """Runs the farm until ``stop`` is set.

        Raises:
            UsageError: a farm of this user runs already, or the address cannot be had.
            PermissionDenied: the address is beyond loopback, without ``insecure``.
            InfrastructureError: a program does not start, or keeps dying; the message ends with its log.
        """
        if not (self._insecure or is_loopback(self._listen)):
            raise PermissionDenied(
                f"refusing to serve {self._listen} in plaintext: it is not a loopback address",
                hint="with TLS start the programs one by one, see crossfarm tracker serve --help; "
                "in a network that you trust add --insecure",
            )
        places.make(self._directory, "CROSSFARM_STATE")
        with _Lock(self._directory / "lock"):
            plan = LocalFarm.plan(
                self._directory,
                places.make(places.cache_dir() / "artifacts", "CROSSFARM_CACHE"),
                listen=self._listen,
                devices=self._devices,
                insecure=self._insecure,
                advertise=self._advertise,
            )
            try:
                self._children = processes.start_all(plan.programs, self._directory)
                processes.wait_until_announced(self._children, START_SECONDS)
                runfile.write(
                    runfile.RunningFarm(
                        plan.tracker,
                        plan.compiler,
                        os.getpid(),
                        runfile.start_time(os.getpid()),
                        str(self._directory),
                        insecure=self._insecure,
                    )
                )
                self._report(f"the farm runs: tracker {plan.tracker}, logs in {self._directory}")
                self._watch(stop)
            finally:
                runfile.remove()
                processes.stop_all(self._children)
                plan.release_ports()

    def _watch(self, stop: StopSignal) -> None:
        due: dict[str, tuple[float, Program]] = {}
        while not stop.wait_for(_WATCH_SECONDS):
            for child in [c for c in self._children if not c.running]:
                self._children.remove(child)
                name = child.program.name
                pause = self._policies.setdefault(name, RestartPolicy()).ended()
                if pause is None:
                    raise child.failure(
                        f"the {name} ended {CRASH_LIMIT} times within {CRASH_WINDOW_SECONDS:g} s "
                        f"(last: {child.exit_status}); giving up"
                    )
                self._report(f"the {name} ended ({child.exit_status}); starting it again")
                due[name] = (time.monotonic() + pause, child.program)
            for name, (when, program) in list(due.items()):
                if time.monotonic() >= when:
                    del due[name]
                    self._children.append(Child(program, self._directory))


def start_detached(arguments: list[str]) -> runfile.RunningFarm:
    """Starts ``crossfarm up`` with ``arguments`` in the background and returns when its farm runs.

    Raises:
        UsageError: one runs already.
        InfrastructureError: it did not start; the message ends with its log.
    """
    refuse_second()
    log = places.make(places.state_dir(), "CROSSFARM_STATE") / "up.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "clients.cli.main", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **processes.package_environment()},
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        running = runfile.read()
        if running is not None and running.pid == process.pid:
            process.returncode = 0  # it lives on: this process does not wait for it
            return running
        if process.poll() is not None:
            break
        time.sleep(_WATCH_SECONDS)
    process.kill()
    process.wait()
    raise InfrastructureError(f"the farm did not start:\n{log.read_text(errors='replace').strip()}")


def refuse_second() -> None:
    """Raises UsageError if a farm of this user runs already."""
    running = runfile.read()
    if running is not None:
        raise UsageError(
            f"a farm runs already: tracker {running.tracker}, process {running.pid}",
            hint="stop it with crossfarm down",
        )


def stop_running() -> runfile.RunningFarm | None:
    """Stops the farm of ``crossfarm up`` and waits until it is gone; returns what ran, None if nothing did.

    Raises:
        InfrastructureError: it does not stop.
    """
    running = runfile.read()
    if running is None:
        return None
    process = psutil.Process(running.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_DOWN_SECONDS)
    except psutil.TimeoutExpired:
        raise InfrastructureError(
            f"the farm (process {running.pid}) did not stop within {_DOWN_SECONDS:g} s",
            hint=f"see its logs in {running.directory}",
        ) from None
    return running


class _Lock:
    """Holds a lock file that the system frees when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> None:
        self._file = self._path.open("ab")
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            refuse_second()
            raise UsageError("a farm of yours is just starting or stopping", hint="try again in a moment") from None

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
