"""The meaning of programs as a device: interprets the IRModule that an artifact carries, checking every access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import psutil

from crossfarm import _version
from crossfarm.artifact import DeviceCapabilities
from crossfarm.ir import dtype as dtypes
from crossfarm.target import Target
from device_agent.drivers.base import CallArgument, DeviceDescription, Placement
from device_agent.drivers.hostmemory import HostMemory

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact, Binding, Signature
    from crossfarm.ir.module import IRModule
    from crossfarm.wire.v1.artifact_pb2 import Variant


def probe() -> list[DeviceDescription]:
    """One device, always."""
    target = Target.detect()
    attributes = {
        "kind": "reference",
        "name": "interpreter",
        "arch": str(target.attributes.get("arch", "")),
        "os": str(target.attributes.get("os", "")),
        "memory": str(psutil.virtual_memory().total),
        "driver": "reference",
        "driver_version": _version.__version__,
    }
    return [DeviceDescription(attributes, target)]


def open_device(index: int) -> ReferenceDevice:
    """The device; ``index`` is 0."""
    return ReferenceDevice()


class ReferenceDevice:
    cpus: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.capabilities = tuple(DeviceCapabilities.of_host(name) for name in ("reference",))

    def allocate(self, size: int) -> HostMemory:
        return HostMemory(size)

    def load(self, artifact: Artifact, variant: Variant) -> ReferenceProgram:
        """Raises InvalidModule where the artifact's IRModule is damaged."""
        return ReferenceProgram(artifact.module())

    def synchronize(self) -> None:
        """Calls return when they are done."""

    def close(self) -> None:
        """Nothing is held."""


class ReferenceProgram:
    def __init__(self, module: IRModule) -> None:
        self._module = module

    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> ReferenceCall:
        views: list[np.ndarray | int | float] = []
        for index, (argument, shape) in enumerate(zip(arguments, binding.shapes)):
            if isinstance(argument, HostMemory):
                assert shape is not None
                dtype = dtypes.to_numpy(signature.parameters[index].dtype)
                views.append(argument.array.view(dtype).reshape(shape))
            else:
                assert isinstance(argument, (int, float))
                views.append(argument)
        return ReferenceCall(self._module, signature.name, views)

    def release(self) -> None:
        """Nothing is held."""


class ReferenceCall:
    loop = "interpreted"
    threads = 1

    def __init__(self, module: IRModule, name: str, arguments: list[np.ndarray | int | float]) -> None:
        self._module = module
        self._name = name
        self._arguments = arguments

    def __call__(self) -> None:
        from crossfarm.ir.interpreter import run  # workers of other devices need no interpreter

        run(self._module, self._name, self._arguments)

    def kernel_times(self) -> dict[str, float]:
        return {}

    def repeat(self, number: int) -> None:
        for _ in range(number):
            self()
