"""What this machine offers: drivers found by name, their devices with identity and attributes."""

from __future__ import annotations

import os
import platform
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from crossfarm import _version, errors
from crossfarm.wire.v1.tracker_pb2 import DeviceInfo
from device_agent import drivers
from device_agent.probe import probe

#: Stands for every driver of real devices.
ALL = "all"
#: Drivers of devices that are none: offered by name only.
_UNREAL = ("null", "reference")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
_KEY = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$")


def default_agent_name() -> str:
    """The host's name, reduced to what an agent may be called."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node().split(".")[0]).strip("-._") or "agent"


def default_drivers() -> str:
    """What an agent offers that is not told: ``CROSSFARM_DEVICES``, else all that it finds."""
    return os.environ.get("CROSSFARM_DEVICES") or ALL


def parse_attributes(words: Iterable[str]) -> dict[str, str]:
    """``["rack=3", "usb"]`` → attributes; a bare word is a tag whose value is "true". Raises UsageError."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not _KEY.match(key):
            raise errors.UsageError(f"--attr {word!r}: {key!r} is not an attribute name", hint="write --attr rack=3")
        found[key] = value if equals else "true"
    return found


def find(names: Iterable[str], *, agent: str, extra: dict[str, str], host: str) -> list[tuple[DeviceInfo, str, int]]:
    """Asks each named driver for its devices, all at once.

    Args:
        names: drivers, or ``all``.
    Returns:
        (info, driver name, index within the driver) for each; ids are ``<agent>/<driver><index>`` and stay the same
        over restarts.

    Raises:
        UsageError: an unknown driver, a bad agent name, or no device at all.
    """
    if not _NAME.match(agent):
        raise errors.UsageError(
            f"{agent!r} cannot name an agent", hint="use up to 63 letters, digits, '.', '_' and '-'"
        )
    result = []
    wanted = dict.fromkeys(n.strip() for n in names if n.strip())
    if ALL in wanted:
        wanted = dict.fromkeys(n for n in (*wanted, *drivers.names()) if n != ALL and n not in _UNREAL)
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe") as pool:
        found = list(pool.map(probe, wanted))
    for name, descriptions in zip(wanted, found):
        for index, description in enumerate(descriptions):
            attributes = {**description.attributes, "agent": agent, "release": _version.__version__, **extra}
            info = DeviceInfo(id=f"{agent}/{name}{index}", attributes=attributes, target=description.target.to_proto())
            result.append((info, name, index))
    if not result:
        raise errors.UsageError(
            "this machine has no device for the drivers asked for", hint="see --devices; cpu is always there"
        )
    return result


class Readiness:
    """Calls back once the agent is registered and all its devices have proven themselves, in whatever order."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._missing = {"registered", "devices"}
        self._on_ready = on_ready
        self._lock = threading.Lock()

    def registered(self) -> None:
        self._arrived("registered")

    def devices_ready(self) -> None:
        self._arrived("devices")

    def _arrived(self, what: str) -> None:
        with self._lock:
            if what not in self._missing:
                return
            self._missing.discard(what)
            complete = not self._missing
        if complete:
            self._on_ready()
