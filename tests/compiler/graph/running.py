"""Builds graph functions and runs them by a driver in this process: on the CPU, by OpenCL and by Vulkan."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from compiler_service.build import BuiltVariant, build_variant
from crossfarm.artifact import Signature, write_artifact
from crossfarm.errors import Error
from crossfarm.ir import dtype as dt
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import EntryPoint
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from device_agent import drivers
from device_agent.drivers.base import ANYWHERE, Device

Array = np.ndarray[Any, Any]
KINDS = ("cpu", "opencl", "vulkan")


def open_device(kind: str) -> Device:
    """The machine's first device of a kind; skips (never in CI) where there is none."""
    try:
        return drivers.get(kind).open_device(0)
    except Error as failure:
        if os.environ.get("CI"):
            pytest.fail(str(failure))
        pytest.skip(str(failure))


class Running:
    """A module on a device."""

    def __init__(self, kind: str, device: Device, module: IRModule) -> None:
        target: Target = drivers.get(kind).probe()[0].target
        self.built: BuiltVariant = build_variant(module, target, BuildOptions())
        self.device = device
        self.artifact = write_artifact("graph", [self.built.variant], [self.built.code])

    @cached_property
    def program(self) -> Any:
        return self.device.load(self.artifact, self.artifact.variants[0])

    @property
    def entries(self) -> Mapping[str, EntryPoint]:
        return {entry.name: entry for entry in self.artifact.variants[0].entry_points}

    def __call__(self, *args: Array, name: str = "main", constants: Sequence[Array] = ()) -> list[Array]:
        """The outputs. Raises ProgramError with the message of a failure."""
        signature = Signature(self.entries[name])
        placed = signature.arrange(args)
        for index, constant in zip(signature.constants, constants, strict=True):
            placed[index] = constant
        binding = signature.bind(placed)
        memories = []
        for array, size in zip(placed, binding.nbytes):
            memory = self.device.allocate(size)
            content = array if array is not None else np.full(size, 0xA5, np.uint8)
            memory.write(0, np.ascontiguousarray(content).reshape(-1).view(np.uint8).data)
            memories.append(memory)
        call = self.program.bind(signature, memories, binding, ANYWHERE)
        call()
        call()  # what a call leaves in the workspace is no matter to the next
        results = []
        for index in signature.outputs:
            parameter = signature.parameters[index]
            raw = np.frombuffer(memories[index].read(0, binding.nbytes[index]), np.uint8)
            results.append(raw.view(dt.to_numpy(parameter.dtype)).reshape(binding.shapes[index] or ()).copy())
        for memory in memories:
            memory.release()
        return results

    def workspace_bytes(self, *args: Array, name: str = "main", constants: Sequence[Array] = ()) -> int:
        """What a call of these sizes needs."""
        signature = Signature(self.entries[name])
        placed = signature.arrange(args)
        for index, constant in zip(signature.constants, constants, strict=True):
            placed[index] = constant
        return signature.bind(placed).workspace_bytes


Runner = Callable[[IRModule], Running]
