"""The meaning of programs as a device: interprets the IRModule that an artifact carries, checking every access.

A graph function is evaluated as it was written, not as it was compiled. Its larger constants come as arguments of the
functions that the compiler made of it; they are kept here by digest, and what prepares others of them does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

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
        self._contents: dict[str, np.ndarray] = {}  # of constants, as bytes, by digest

    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> ReferenceCall | GraphCall:
        views: list[np.ndarray | int | float] = []
        for index, (argument, shape) in enumerate(zip(arguments, binding.shapes)):
            if isinstance(argument, HostMemory):
                assert shape is not None
                dtype = dtypes.to_numpy(signature.parameters[index].dtype)
                views.append(argument.array.view(dtype).reshape(shape))
            else:
                assert isinstance(argument, (int, float))
                views.append(argument)
        if signature.name in self._module.prim_funcs:
            return ReferenceCall(self._module, signature.name, views)
        return GraphCall(self._module, signature, views, self._contents)

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

    def profile(self) -> tuple[float, ...]:
        return ()

    def repeat(self, number: int) -> None:
        for _ in range(number):
            self()


class GraphCall(ReferenceCall):
    """A call of a graph function, or of what prepares constants for one."""

    def __init__(
        self,
        module: IRModule,
        signature: Signature,
        arguments: list[np.ndarray | int | float],
        contents: dict[str, np.ndarray],
    ) -> None:
        super().__init__(module, signature.name, arguments)
        self._signature = signature
        self._contents = contents

    def __call__(self) -> None:
        from crossfarm.artifact.constants import origin_of
        from crossfarm.ir.graph.visit import with_contents
        from crossfarm.ir.interpreter import evaluate

        for index in self._signature.constants:
            origin = origin_of(self._signature.parameters[index])
            if origin is not None and origin.digest:
                self._contents[origin.digest] = np.asarray(self._arguments[index]).reshape(-1).view(np.uint8)
        if self._name not in self._module.functions:
            return  # the compiler's: what it prepares is not used here
        module = with_contents(self._module, self._contents)
        found = evaluate(module, self._name, [self._arguments[i] for i in self._signature.inputs])
        for index, value in zip(self._signature.outputs, _flat(found), strict=True):
            np.copyto(np.asarray(self._arguments[index]), value)


def _flat(value: Any) -> Iterator[Any]:
    """The arrays of a value, tuples opened."""
    if isinstance(value, tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value
