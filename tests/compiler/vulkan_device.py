"""Kernels generated as SPIR-V, checked by ``spirv-val``, and run on the machine's Vulkan device."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from compiler_service.codegen.kernel import Kernel
from compiler_service.codegen.spirv import SpirvModule, emit_module
from compiler_service.launch_plan import kernel_message
from crossfarm.errors import Error
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Expr, IntImm, Var
from crossfarm.ir.stmt import BufferStore, IfThenElse, Stmt
from crossfarm.ir.visitor import seq, walk
from crossfarm.target import Target
from device_agent.drivers.vulkan_memory import VulkanMemory
from device_agent.drivers.vulkan_program import BoundBuffer, Pipelines, Recording
from device_agent.drivers.vulkan_queue import Queue
from tests.compiler.programs import Make

#: A device that has everything.
FULL = Target(
    "vulkan fp16=true int8=true int16=true int64=true fp64=true storage8=true storage16=true float_controls=true "
    "shared_bytes=32768"
)
#: A device that has nothing but what each Vulkan device has.
BARE = Target("vulkan")
Array = np.ndarray[Any, Any]


def valid(module: SpirvModule) -> SpirvModule:
    """The module, after ``spirv-val`` has looked at it; it must be there in CI."""
    tool = shutil.which("spirv-val")
    if tool is None:
        if os.environ.get("CI"):
            pytest.fail("spirv-val is missing: make system-packages")
        pytest.skip("spirv-val is missing: make system-packages")
    ran = subprocess.run([tool, "--target-env", "vulkan1.1", "-"], input=module.code, capture_output=True)
    assert ran.returncode == 0, f"{ran.stdout.decode()}{ran.stderr.decode()}\n{disassembled(module)}"
    return module


def disassembled(module: SpirvModule, *options: str) -> str:
    """The module as text, for messages and tests that look at it."""
    ran = subprocess.run(
        ["spirv-dis", "--no-header", *options, "-"], input=module.code, capture_output=True, check=True
    )
    return ran.stdout.decode()


def generated(*kernels: Kernel, target: Target = FULL) -> SpirvModule:
    """The kernels' valid module."""
    return valid(emit_module(kernels, target))


def open_queue() -> Queue:
    """The machine's first Vulkan device; skips (never in CI) where there is none."""
    try:
        return Queue(0)
    except Error as failure:
        if os.environ.get("CI"):
            pytest.fail(str(failure))
        pytest.skip(str(failure))


def launch(
    queue: Queue,
    kernel: Kernel,
    arrays: Sequence[Array],
    scalars: Sequence[int | float] = (),
    grid: tuple[int, int, int] = (1, 1, 1),
    target: Target = FULL,
) -> SpirvModule:
    """Runs a kernel once on arrays, one a buffer, which it reads and writes in place."""
    module = generated(kernel, target=target)
    message = kernel_message(kernel, "f", module.shared_bytes[kernel.name], module.parts[kernel.name])
    pipelines = Pipelines(queue, module.code, [message])
    memories: list[VulkanMemory] = []
    recording = None
    try:
        for array in arrays:
            memories.append(VulkanMemory(queue, array.nbytes))
            memories[-1].write(0, memoryview(array.view(np.uint8).reshape(-1)))
        buffers = [BoundBuffer(m, 0, m.size) for m in memories]
        given = [_bits(p.dtype, value) for p, value in zip(kernel.scalars, scalars)]
        recording = Recording(queue, [pipelines[kernel.name].bound(grid, buffers, given)])
        recording.run()
        for array, memory in zip(arrays, memories):
            array.view(np.uint8).reshape(-1)[:] = np.frombuffer(memory.read(0, array.nbytes), np.uint8)
    finally:
        if recording is not None:
            recording.release()
        for memory in memories:
            memory.release()
        pipelines.release()
    return module


def _bits(dtype: str, value: int | float) -> int:
    with np.errstate(all="ignore"):
        scalar = np.array([value]).astype(dt.to_numpy(dtype))
    return int(scalar.view(f"u{scalar.itemsize}")[0])


def one_thread(
    body: Stmt,
    params: Sequence[Buffer | Var],
    *,
    name: str = "kernel",
    group: int = 1,
    threads: Mapping[Var, str] | None = None,
    shared: Sequence[Buffer] = (),
    groups: int = 1,
) -> Kernel:
    """A kernel of that body; what it writes is found."""
    written = {n.buffer for n in _stores(body)}
    grid = (IntImm(groups, "int32"), IntImm(1, "int32"), IntImm(1, "int32"))
    ordered = tuple(sorted(params, key=lambda p: isinstance(p, Var)))
    buffers = frozenset(b for b in written if any(b is p for p in params))
    return Kernel(name, ordered, buffers, threads or {}, grid, (group, 1, 1), tuple(shared), body)


def _stores(body: Stmt) -> list[BufferStore]:
    return [n for n in walk(body) if isinstance(n, BufferStore)]


GROUP = 64


@dataclass(frozen=True)
class ElementKernel:
    """``out_name[i] = make(in_0[i], …)`` for i below the scalar n, by groups of GROUP threads."""

    kernel: Kernel
    inputs: int

    def run(self, queue: Queue, *inputs: Array, target: Target = FULL) -> dict[str, Array]:
        """The results by name."""
        n = len(inputs[0])
        outs = self.kernel.buffers[self.inputs :]
        results = [np.zeros(n, dt.to_numpy(b.dtype)) for b in outs]
        grid = (-(-n // GROUP), 1, 1)
        launch(queue, self.kernel, [*(x.copy() for x in inputs), *results], [n], grid, target)
        return {b.name.removeprefix("out_"): r for b, r in zip(outs, results)}


def element_kernel(inputs: Sequence[str], results: Mapping[str, Make], name: str = "kernel") -> ElementKernel:
    """The kernel that ``tests/compiler/programs.py: elementwise`` is for one thread."""
    n = Var("n", "int32")
    block, thread = Var("block", "int32"), Var("thread", "int32")
    index = Binary("add", Binary("mul", block, IntImm(GROUP, "int32")), thread)
    buffers = [Buffer(f"in_{k}", (n,), dtype) for k, dtype in enumerate(inputs)]
    loads: list[Expr] = [BufferLoad(b, (index,)) for b in buffers]
    stores: list[Stmt] = []
    for key, make in results.items():
        value = make(*loads)
        out = Buffer(f"out_{key}", (n,), value.dtype)
        buffers.append(out)
        stores.append(BufferStore(out, value, (index,)))
    body = IfThenElse(Binary("lt", index, n), seq(*stores))
    written = frozenset(buffers[len(inputs) :])
    threads = {block: "blockIdx.x", thread: "threadIdx.x"}
    one = IntImm(1, "int32")
    groups = Binary("floordiv", Binary("add", n, IntImm(GROUP - 1, "int32")), IntImm(GROUP, "int32"))
    kernel = Kernel(name, (*buffers, n), written, threads, (groups, one, one), (GROUP, 1, 1), (), body)
    return ElementKernel(kernel, len(inputs))
