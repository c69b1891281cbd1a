"""A device that accepts every program and computes nothing: what is left is the cost of everything around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossfarm import _version
from crossfarm.artifact import DeviceCapabilities
from crossfarm.target import Target
from device_agent.drivers.base import CallArgument, DeviceDescription, Placement
from device_agent.drivers.hostmemory import HostMemory

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact, Binding, Signature
    from crossfarm.wire.v1.artifact_pb2 import Variant


def probe() -> list[DeviceDescription]:
    """One device, always."""
    target = Target.detect()
    attributes = {
        "kind": "null",
        "name": "computes nothing",
        "arch": str(target.attributes.get("arch", "")),
        "os": str(target.attributes.get("os", "")),
        "driver": "null",
        "driver_version": _version.__version__,
    }
    return [DeviceDescription(attributes, target)]


def open_device(index: int) -> NullDevice:
    """The device; ``index`` is 0."""
    return NullDevice()


class NullDevice:
    cpus: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.capabilities = tuple(DeviceCapabilities.of_host(name) for name in ("null", "cpu", "reference"))

    def allocate(self, size: int) -> HostMemory:
        """Zeros: what its programs "compute"."""
        memory = HostMemory(size)
        memory.array[:] = 0
        return memory

    def load(self, artifact: Artifact, variant: Variant) -> NullProgram:
        return NullProgram()

    def synchronize(self) -> None:
        """Nothing ever runs."""

    def close(self) -> None:
        """Nothing is held."""


class NullProgram:
    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> NullCall:
        return NullCall()

    def release(self) -> None:
        """Nothing is held."""


class NullCall:
    loop = "interpreted"
    threads = 1

    def __call__(self) -> None:
        """Returns at once."""

    def profile(self) -> tuple[float, ...]:
        return ()

    def repeat(self, number: int) -> None:
        for _ in range(number):
            self()
