"""Runs kernels built for CUDA on this machine's CPU: their CUDA C, compiled as C++, or their PTX, translated to it.

What is exercised are the kernels themselves, thread by thread with their barriers, and the launch plan with its
arguments, as a driver would use them. What is not: NVIDIA's compiler and hardware.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler_service.build import build_variant
from crossfarm.artifact import Signature
from crossfarm.artifact.launches import LaunchOf, LaunchPlanner, ParameterOf, Place
from crossfarm.errors import ProgramError
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2
from device_agent.drivers.scalars import scalar_argument
from tests.compiler.native import aligned
from tests.compiler.ptx_as_cpp import translate

HEADERS = Path(__file__).parent / "emulated_gpu"
_FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv", "-w", "-shared", "-fPIC")
Array = np.ndarray[Any, Any]


def tool(name: str) -> str:
    """The path of a program that a test needs. Skips the test where it is missing, but never in CI."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class GpuOnCpu:
    """A module built for CUDA, its kernels compiled for this machine.

    Args:
        form: ``cuda_c`` or ``ptx``: which of the two texts is run.
        backward: a group's threads run from the last to the first, not from the first.
        options: of the build.
    """

    def __init__(
        self, module: IRModule, form: str, target: Target | str = "cuda", *, backward: bool = False, **options: Any
    ) -> None:
        self.built = build_variant(module, Target(target), compiler_pb2.BuildOptions(keep_sources=True, **options))
        self.entries = {e.name: e for e in self.built.variant.entry_points}
        self.backward = backward
        kernels = self.built.variant.kernels
        if form == "ptx":
            source = translate(self.built.code.decode())
        else:
            source = f'#include "cuda.h"\n{self.built.sources["kernels.cu"]}'
            source += "".join(f"CROSSFARM_RUN({kernel.name})\n" for kernel in kernels)
        with tempfile.TemporaryDirectory() as folder:
            path, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
            path.write_text(source)
            command = [tool("g++"), *_FLAGS, f"-I{HEADERS}", str(path), "-o", str(library)]
            compiled = subprocess.run(command, capture_output=True, text=True)
            assert compiled.returncode == 0, compiled.stderr
            self.library = ctypes.CDLL(str(library))

    def __call__(self, name: str, *args: Any) -> None:
        """Calls in place, like the interpreter. Raises ProgramError with the message of a nonzero status."""
        entry = self.entries[name]
        signature = Signature(entry)
        binding = signature.bind(args)
        planner = LaunchPlanner(entry, self.built.variant)
        workspace = aligned(binding.workspace_bytes)
        buffers = [_aligned_copy(a) if isinstance(a, np.ndarray) else a for a in args]
        status = planner.status(binding)
        if status is not None:
            workspace[status.offset : status.offset + 4] = 0
        for launch in planner.launches(binding):
            self._launch(launch, signature, buffers, workspace)
        for given, used in zip(args, buffers):
            if isinstance(given, np.ndarray):
                given[...] = used
        code = 0 if status is None else int(workspace[status.offset : status.offset + 4].view(np.int32)[0])
        if code:
            raise ProgramError(entry.failures[code - 1])

    def _launch(self, launch: LaunchOf, signature: Signature, arguments: list[Any], workspace: Array) -> None:
        kept: list[Any] = []
        for position, value in enumerate(launch.values):
            if isinstance(value, Place):
                kept.append(ctypes.c_uint64(workspace.ctypes.data + value.offset))
            elif isinstance(value, ParameterOf) and launch.kernel.parameters[position].buffer:
                kept.append(ctypes.c_uint64(arguments[value.index].ctypes.data))
            else:
                kept.append(np.array(scalar_argument(launch, position, signature, arguments)))
        addresses = [v.ctypes.data if isinstance(v, np.ndarray) else ctypes.addressof(v) for v in kept]
        grid, group = (ctypes.c_uint * 3)(*launch.grid), (ctypes.c_uint * 3)(*launch.kernel.group)
        run = getattr(self.library, f"run_{launch.kernel.name}")
        failed = run(grid, group, (ctypes.c_void_p * max(1, len(addresses)))(*addresses), int(self.backward))
        assert not failed, f"not all threads of a group of {launch.kernel.name} reach a barrier"


def _aligned_copy(array: Array) -> Array:
    """With the alignment that agents give tensors; there are 64 bytes even where it is empty."""
    memory = aligned(max(array.nbytes, 64))[: array.nbytes]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
