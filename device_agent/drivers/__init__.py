"""Drivers by name, one file each; see ``base`` for what one is."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

from crossfarm.errors import UsageError
from device_agent.drivers.base import Device, DeviceDescription

#: Modules of this package that help drivers and are none.
_HELPERS = (
    "base", "failures", "hostmemory", "nativeloop", "nativesteps", "nativethreads", "scalars", "vulkan_allocation",
    "vulkan_api", "vulkan_memory", "vulkan_program", "vulkan_queue",
)  # fmt: skip


class Driver(Protocol):
    """A driver module."""

    def probe(self) -> list[DeviceDescription]: ...

    def open_device(self, index: int) -> Device: ...


def probes_apart(driver: Driver) -> bool:
    """True where probing calls a vendor's code, which may crash or hang."""
    return bool(getattr(driver, "PROBE_APART", False))


def names() -> list[str]:
    """All drivers, alphabetically."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _HELPERS)


def get(name: str) -> Driver:
    """The driver ``name``. Raises UsageError listing those there are."""
    if name not in names():
        raise UsageError(f"there is no driver {name!r}", hint=f"drivers are: {', '.join(names())}")
    return cast(Driver, importlib.import_module(f"{__name__}.{name}"))
