"""A private farm on loopback: what ``connect()`` gives a person who has not configured anything.

Tracker, compiler service and agent run as child processes and are gone when the client is: ``stop`` ends them, and
if the client is killed they end by themselves. Their state is a private temporary directory; only the artifact store
is the user's cache, shared by all farms, so that what was built once is not built again.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path

from clients.sdk import places, processes, runfile
from clients.sdk.programs import LocalFarm, user_name

#: Starting takes about a second; a loaded machine or an emulated one takes longer.
START_SECONDS = 60.0

_OWNER_FILE = "owner.json"


class EmbeddedFarm:
    """A running private farm.

    Attributes:
        tracker, compiler: host:port of its services.
        directory: its state and its logs, until ``stop``.
    """

    def __init__(self, *, devices: str = "") -> None:
        """Starts the farm and returns when its devices are ready.

        Args:
            devices: the agent's drivers, separated by commas; "" for its default.
        Raises:
            InfrastructureError: a program did not start; the message ends with its log.
        """
        base = _base_directory()
        _remove_abandoned(base)
        self.directory = Path(tempfile.mkdtemp(prefix="farm-", dir=base))
        self._children: list[processes.Child] = []
        try:
            owner = {"pid": os.getpid(), "started": runfile.start_time(os.getpid())}
            (self.directory / _OWNER_FILE).write_text(json.dumps(owner))
            store = places.make(places.cache_dir() / "artifacts", "CROSSFARM_CACHE")
            plan = LocalFarm.plan(self.directory, store, devices=devices, agent_name="local")
            self.tracker, self.compiler = plan.tracker, plan.compiler
            try:
                self._children = processes.start_all(plan.programs, self.directory)
                processes.wait_until_announced(self._children, START_SECONDS)
            finally:
                plan.release_ports()
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self) -> dict[str, int]:
        """The process of each program, by its name."""
        return {child.program.name: child.pid for child in self._children}

    def stop(self) -> None:
        """Takes the farm down and removes its state; again is nothing."""
        children, self._children = self._children, []
        processes.stop_all(children)
        shutil.rmtree(self.directory, ignore_errors=True)


def _base_directory() -> Path:
    """The user's own directory for private farms; nobody else may look into it."""
    base = Path(tempfile.gettempdir()) / f"crossfarm-{user_name()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        return Path(tempfile.mkdtemp(prefix="crossfarm-"))  # somebody else took the name: use an unguessable one
    return base


def _remove_abandoned(base: Path) -> None:
    """Removes what farms of killed clients left."""
    for directory in base.glob("farm-*"):
        try:
            owner = json.loads((directory / _OWNER_FILE).read_text())
            gone = not runfile.process_is(owner["pid"], owner["started"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # just being made, or not ours
        if gone:
            shutil.rmtree(directory, ignore_errors=True)
