"""The note that ``crossfarm up`` leaves for the user's other programs: where its farm is, and which process keeps it.

A note whose process is gone is stale and counts as absent; a process is known by its id and its start time, so that
an id the system gave out again is not taken for the farm.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from clients.sdk import places


@dataclass(frozen=True)
class RunningFarm:
    """A farm that ``crossfarm up`` keeps.

    Attributes:
        tracker, compiler: host:port of its services.
        pid, started: the supervising process, and when it started (seconds since 1970, as the system tells it).
        directory: its state and logs.
        insecure: it was started to be reached beyond loopback in plaintext.
    """

    tracker: str
    compiler: str
    pid: int
    started: float
    directory: str
    insecure: bool = False

    @property
    def alive(self) -> bool:
        """True while the process that keeps the farm runs."""
        return process_is(self.pid, self.started)


def path() -> Path:
    """Where the note is."""
    return places.state_dir() / "up.json"


def read() -> RunningFarm | None:
    """The farm that runs now, or None: a missing, unreadable or stale note is no farm."""
    try:
        noted = RunningFarm(**json.loads(path().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return noted if noted.alive else None


def write(farm: RunningFarm) -> None:
    """Leaves the note, atomically."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(asdict(farm)), encoding="utf-8")
    os.replace(scratch, target)


def remove() -> None:
    """Takes the note away if this process left it."""
    noted = read()
    if noted is not None and noted.pid == os.getpid():
        path().unlink(missing_ok=True)


def start_time(pid: int) -> float:
    """When the process started, as the system tells it; 0 if there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def process_is(pid: int, started: float) -> bool:
    """True if ``pid`` runs and is the process that started then."""
    try:
        process = psutil.Process(pid)
        # the system computes the start from the boot time, which moves a little as the clock is set
        return abs(process.create_time() - started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
