"""What a driver is. Drivers are the other modules of this package: adding a file adds a kind of device.

A driver module has::

    def probe() -> list[DeviceDescription]     # the devices there are, in a lasting order; never raises for "none"
    PROBE_APART = True                         # where probing calls a vendor's code: it is done in a process of its own
    def open_device(index: int) -> Device      # called in a worker process, once

The worker checks everything it can before a driver sees it: arguments fit the signature, requirements are met, tensors
exist. A driver only moves bytes and runs code, in one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact, Binding, DeviceCapabilities, Signature
    from crossfarm.target import Target
    from crossfarm.wire.v1.artifact_pb2 import Variant


@dataclass(frozen=True)
class DeviceDescription:
    """A device that was found.

    Attributes:
        attributes: what selectors see: kind, arch, os, name, memory (bytes), cores, driver, driver_version, ….
        target: the target that fits it best.
    """

    attributes: Mapping[str, str]
    target: Target


@dataclass(frozen=True)
class Placement:
    """Where a call's parallel loops run.

    Attributes:
        threads: how many, the calling one included; 0 for as many as ``cpus``, or else as the worker may use.
        cpus: a thread stays on one of these, in turn, the calling thread on the first; empty for any.
    """

    threads: int = 0
    cpus: tuple[int, ...] = ()


ANYWHERE = Placement()


class Memory(Protocol):
    """A piece of device memory. ``release`` ends its use at once; nothing waits for the garbage collector."""

    size: int

    def write(self, offset: int, data: memoryview) -> None:
        """Copies bytes in. The caller has checked the bounds."""

    def read(self, offset: int, size: int) -> memoryview:
        """Bytes of the memory, possibly a view of it that is used before anything else happens to the device."""

    def release(self) -> None: ...


#: An argument of a call, in the order of parameters: a tensor's memory, or a scalar.
CallArgument = Memory | int | float


class BoundCall(Protocol):
    """A function with its arguments, ready to run any number of times."""

    def __call__(self) -> None:
        """Runs it to its end. Raises ProgramError when the function reports a failure."""

    def repeat(self, number: int) -> None:
        """Runs it ``number`` times with as little between the runs as the driver can: for measurements."""

    @property
    def loop(self) -> str:
        """What ``repeat`` repeats with: "native" or "interpreted"; "queued" where runs wait for one another on the
        device."""

    @property
    def threads(self) -> int:
        """How many threads its parallel loops ran on, or will; 1 on devices that run kernels."""

    def profile(self) -> Sequence[float]:
        """Runs it once and takes the time of its parts in seconds: of each launch of the plan by the device's clock, 0
        for one of no groups, or of each step of the entry point. Empty where the driver cannot tell them apart, whether
        it ran or not. Raises ProgramError when the function reports a failure.
        """


class Program(Protocol):
    """A loaded artifact."""

    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> BoundCall:
        """A call of the function that ``signature`` describes.

        Args:
            arguments: one a parameter, checked against the signature.
            binding: the sizes that the arguments give.
            placement: its CPUs are among the device's.

        Raises:
            ArgumentError: the device cannot run a call in that many threads.
            LimitExceeded: its workspace does not fit into memory.
        """

    def release(self) -> None: ...


class Device(Protocol):
    """An open device."""

    #: What it brings to run an artifact, one for each runtime (``Variant.runtime``) whose variants it runs.
    capabilities: tuple[DeviceCapabilities, ...]
    #: CPUs that a ``Placement`` may name; empty where calls cannot choose their threads.
    cpus: tuple[int, ...]

    def allocate(self, size: int) -> Memory:
        """Memory of ``size`` bytes, 64-byte aligned, content undefined. Raises MemoryError."""

    def load(self, artifact: Artifact, variant: Variant) -> Program:
        """Raises IncompatibleArtifact when the code cannot be loaded, with what the device's compiler said."""

    def synchronize(self) -> None:
        """Returns when everything started before is done."""

    def close(self) -> None: ...
