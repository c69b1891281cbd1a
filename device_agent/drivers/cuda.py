"""CUDA devices, through pycuda and the driver's own interface: NVIDIA GPUs, from Jetson Nano on.

Kernels arrive as PTX, which the GPU's driver compiles when they are loaded; no CUDA toolkit is needed on the device but
for building pycuda once. The lease's frames come from changing threads, and a CUDA context belongs to a thread while it
is pushed there: each piece of work pushes it and pops it again.
"""

from __future__ import annotations

import itertools
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfarm.artifact import DeviceCapabilities
from crossfarm.artifact.launches import LaunchOf, LaunchPlanner, ParameterOf, Place
from crossfarm.errors import (
    ArgumentError,
    DeviceLost,
    Error,
    IncompatibleArtifact,
    LimitExceeded,
    UsageError,
)
from crossfarm.target import Target
from device_agent.drivers.base import CallArgument, DeviceDescription, Placement
from device_agent.drivers.failures import refused
from device_agent.drivers.scalars import scalar_argument

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact, Binding, Signature
    from crossfarm.wire.v1.artifact_pb2 import Variant

PROBE_APART = True
#: Every GPU since sm_53 computes in all dtypes.
FEATURES = ("float16", "float64", "int16", "int64", "int8", "storage16", "storage8")
#: What is said of a compiler's log at most.
_LOG_CHARACTERS = 4000
#: Half of the launches that wait on the device at most. A full queue (of about a thousand) blocks the launching thread
#: within the driver, where it holds Python's lock and nobody could end a call that overruns its time.
_IN_FLIGHT = 256
#: What every GPU allows along y and z; along x it is what a launch plan allows.
_MAX_GRID_YZ = 65535
#: What the driver's compiler and loader say of code that they do not take.
_REFUSALS = ("PTX", "kernel image", "named symbol not found", "no binary", "invalid image")
#: What the driver says where a kernel did what it must not.
_CRASHES = ("illegal memory access", "misaligned address", "illegal instruction", "launch failure", "illegal address")
_KERNEL_DRIVER = Path("/proc/driver/nvidia/version")

#: A kernel with its arguments packed: function, grid, group, argument bytes.
_Launch = tuple[Any, tuple[int, int, int], tuple[int, int, int], bytes]


def _cuda() -> Any:
    """pycuda's driver module, initialized; None where it is not installed or there is no driver or no GPU."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # a lasting order
    try:
        import pycuda.driver as cuda
    except (ImportError, OSError):
        return None
    try:
        cuda.init()
    except cuda.Error:
        return None
    return cuda


def probe() -> list[DeviceDescription]:
    """Every GPU that kernels can be built for; none where pycuda, the driver or a GPU is missing."""
    cuda = _cuda()
    if cuda is None:
        return []
    try:
        return [_describe(cuda, cuda.Device(index)) for index in _indices(cuda)]
    except cuda.Error:
        return []


def open_device(index: int) -> CudaDevice:
    """The ``index``-th of ``probe``'s. Raises UsageError where it is gone, DeviceLost where it gives no context."""
    cuda = _cuda()
    indices = [] if cuda is None else _indices(cuda)
    if index >= len(indices):
        raise UsageError(
            f"CUDA device {index} is not there any more; there are {len(indices)}",
            hint="look at the driver (nvidia-smi), and start the agent again",
        )
    return CudaDevice(cuda, cuda.Device(indices[index]))


def _indices(cuda: Any) -> list[int]:
    """Of the GPUs new enough for what is built."""
    return [index for index in range(cuda.Device.count()) if _sm(cuda.Device(index)) >= 53]


def _sm(device: Any) -> int:
    """Compute capability: 87 for 8.7."""
    major, minor = device.compute_capability()
    return int(major) * 10 + int(minor)


def _driver_version(cuda: Any) -> str:
    """The kernel driver's, ``580.159.04``; where it does not tell, the CUDA version it brings."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)*\b", _KERNEL_DRIVER.read_text())
    except OSError:
        found = None
    return found.group() if found else _api(cuda)


def _api(cuda: Any) -> str:
    """The newest CUDA that the driver speaks: ``13.0``."""
    version = int(cuda.get_driver_version())
    return f"{version // 1000}.{version % 1000 // 10}"


def _describe(cuda: Any, device: Any) -> DeviceDescription:
    host = Target.detect()
    about = cuda.device_attribute

    def number(attribute: Any) -> int:
        return int(device.get_attribute(attribute))

    name, sm, units = str(device.name()).strip(), _sm(device), number(about.MULTIPROCESSOR_COUNT)
    threads, shared = number(about.MAX_THREADS_PER_BLOCK), number(about.MAX_SHARED_MEMORY_PER_BLOCK)
    memory, version = int(device.total_memory()), _driver_version(cuda)
    attributes = {
        "kind": "cuda",
        "arch": str(host.attributes.get("arch", "")),
        "os": str(host.attributes.get("os", "")),
        "name": name,
        "vendor": "NVIDIA",
        "memory": str(memory),
        "cores": str(units),
        "sm": str(sm),
        "driver": "cuda",
        "driver_version": version,
        "api": f"CUDA {_api(cuda)}",
        "device_type": "gpu",
        "features": ",".join(FEATURES),
        "max_threads_per_group": str(threads),
        "shared_bytes": str(shared),
        "os_version": platform.release(),
    }
    target = Target(
        {
            "kind": "cuda",
            "model": name[:256],
            "driver": version[:256],
            "sm": sm,
            "memory_bytes": memory,
            "compute_units": units,
            "max_threads_per_group": threads,
            "shared_bytes": shared,
            "warp_size": number(about.WARP_SIZE),
            "registers_per_group": number(about.MAX_REGISTERS_PER_BLOCK),
            "fp16": True,
            "fp64": True,
            "host": host,
        }
    )
    return DeviceDescription(attributes, target)


class CudaDevice:
    """One GPU with a context and a stream that runs what it is given in order.

    Raises:
        DeviceLost: the driver gives no context.
    """

    def __init__(self, cuda: Any, device: Any) -> None:
        self.cuda = cuda
        self.cpus: tuple[int, ...] = ()
        self.name = str(device.name()).strip()
        about = cuda.device_attribute
        self.capabilities = (
            DeviceCapabilities(
                "cuda",
                "",
                "",
                features=frozenset(FEATURES),
                threads_per_group=int(device.get_attribute(about.MAX_THREADS_PER_BLOCK)),
                shared_bytes=int(device.get_attribute(about.MAX_SHARED_MEMORY_PER_BLOCK)),
                version=str(_sm(device)),
            ),
        )
        self._workspace: CudaMemory | None = None
        try:
            self.context = device.make_context()
            try:
                self.stream = cuda.Stream()
                # made once: what is made in a call would have to end before its context is popped
                self.marks = tuple(cuda.Event(cuda.event_flags.DISABLE_TIMING) for _ in range(2))
                self.start, self.end = cuda.Event(), cuda.Event()
            finally:
                cuda.Context.pop()
        except cuda.Error as failure:
            raise DeviceLost(
                f"the CUDA driver of {self.name} gives no context: {failure}",
                hint="look at nvidia-smi: another program may hold the GPU or its memory; else restart the driver",
            ) from failure

    @contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """The context is this thread's inside; errors of the driver become ours.

        Raises:
            MemoryError: the GPU has no memory left.
            DeviceLost: anything else. CUDA gives up a context in which a kernel failed, and with it all that the lease
                has on the device.
        """
        cuda = self.cuda
        try:
            self.context.push()
            try:
                yield
            finally:
                cuda.Context.pop()
        except cuda.MemoryError as failure:
            raise MemoryError(f"{self.name} has no memory left, {doing}") from failure
        except cuda.Error as failure:
            raise DeviceLost(
                f"the CUDA driver of {self.name} failed, {doing}: {failure}", hint=_hint(failure)
            ) from failure

    def allocate(self, size: int) -> CudaMemory:
        return CudaMemory(self, size)

    def workspace(self, size: int) -> CudaMemory:
        """Memory that all calls share, as they run one after the other. Raises LimitExceeded."""
        if self._workspace is None or self._workspace.size < size:
            try:
                grown = self.allocate(size)
            except MemoryError:
                raise LimitExceeded(
                    f"the function needs a workspace of {size:,} bytes, which {self.name} cannot give",
                    hint="make its temporaries smaller, or free tensors",
                    details={"bytes": str(size)},
                ) from None
            self._workspace = grown  # calls that were bound before keep the one they have
        return self._workspace

    def load(self, artifact: Artifact, variant: Variant) -> CudaProgram:
        code = artifact.code(variant)
        try:
            with self.working("loading kernels"):
                # the driver wants text that ends with a zero
                module = self.cuda.module_from_buffer(code + b"\0")
                functions = {kernel.name: module.get_function(kernel.name) for kernel in variant.kernels}
        except DeviceLost as failure:
            said = str(failure.__cause__)
            if not any(words in said for words in _REFUSALS):
                raise
            raise IncompatibleArtifact(
                f"the CUDA driver of {self.name} refuses the kernels of artifact {artifact.name!r}:\n"
                f"{said if len(said) <= _LOG_CHARACTERS else said[:_LOG_CHARACTERS] + ' …'}",
                hint="build it for this device: farm.build(module, target=device.target); a driver of before 2020 "
                "needs an update",
            ) from failure.__cause__
        return CudaProgram(self, functions, variant)

    def synchronize(self) -> None:
        """Calls return when they are done."""

    def close(self) -> None:
        with self.working("closing"):
            self.stream.synchronize()
        if self._workspace is not None:
            self._workspace.release()


class CudaMemory:
    """A piece of the GPU's memory, 256-byte aligned as CUDA gives it. Raises MemoryError."""

    _allocation: Any = None

    def __init__(self, device: CudaDevice, size: int) -> None:
        self.size = size
        self._device = device
        with device.working(f"allocating {size:,} bytes"):
            self._allocation = device.cuda.mem_alloc(max(size, 1))
        self.address = int(self._allocation)

    def write(self, offset: int, data: memoryview) -> None:
        if len(data):
            with self._device.working("copying to it"):
                self._device.cuda.memcpy_htod(self.address + offset, data)

    def read(self, offset: int, size: int) -> memoryview:
        received = np.empty(size, np.uint8)
        if size:
            with self._device.working("copying from it"):
                self._device.cuda.memcpy_dtoh(received, self.address + offset)
        return received.data

    def release(self) -> None:
        if self._allocation is None:
            return
        try:
            with self._device.working("freeing memory"):
                self._allocation.free()
        finally:
            self._allocation, self.size = None, 0

    def __del__(self) -> None:
        """A workspace ends with the last call that was bound to it; pycuda itself frees only where a context is."""
        with suppress(Error, MemoryError):
            self.release()


class CudaProgram:
    """Kernels that the driver has compiled."""

    def __init__(self, device: CudaDevice, functions: dict[str, Any], variant: Variant) -> None:
        self._device = device
        self._functions = functions
        self._planners = {entry.name: LaunchPlanner(entry, variant) for entry in variant.entry_points}

    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> CudaCall:
        planner = self._planners[signature.name]
        workspace = self._device.workspace(binding.workspace_bytes) if binding.workspace_bytes else None
        launches, planned = [], planner.launches(binding)
        for launch in planned:
            check_grid(launch, signature.name)
            values = launch_values(launch, signature, arguments, 0 if workspace is None else workspace.address)
            x, y, z = launch.kernel.group
            function = self._functions[launch.kernel.name]
            launches.append((function, launch.grid, (x, y, z), packed(values)))
        status = planner.status(binding)
        place = None if status is None or workspace is None else workspace.address + status.offset
        by_position = partial(planner.by_position, planned)
        return CudaCall(self._device, signature, launches, by_position, place, workspace)

    def release(self) -> None:
        with self._device.working("unloading kernels"):
            self._functions = {}


class CudaCall:
    """Kernels with their arguments packed, in order.

    Args:
        by_position: makes times of the launches those of all in the plan.
        status: address of the int32 that kernels write a failure to; None where nothing can fail.
        workspace: what the arguments point into, kept while this is.
    """

    loop = "queued"
    threads = 1

    def __init__(
        self,
        device: CudaDevice,
        signature: Signature,
        launches: list[_Launch],
        by_position: Callable[[Sequence[float]], tuple[float, ...]],
        status: int | None,
        workspace: CudaMemory | None,
    ) -> None:
        self._device = device
        self._name = signature.name
        self._failures = tuple(signature.entry.failures)
        self._launches = launches
        self._by_position = by_position
        self._status = status
        self._workspace = workspace

    def __call__(self) -> None:
        self.repeat(1)

    def repeat(self, number: int) -> None:
        device = self._device
        stream, marks = device.stream, itertools.cycle(device.marks)
        with device.working(f"running {self._name}"):
            self._clear_status()
            left = _IN_FLIGHT
            for _ in range(number):
                for function, grid, group, arguments in self._launches:
                    # what pycuda's public calls end in, less their work of packing the arguments each time
                    function._launch_kernel(grid, group, arguments, 0, stream)
                    left -= 1
                    if not left:
                        mark, left = next(marks), _IN_FLIGHT
                        mark.synchronize()  # with where it was before, if anywhere
                        mark.record(stream)
            stream.synchronize()
            code = self._read_status()
        if code:
            raise refused(self._name, code, self._failures)

    def profile(self) -> tuple[float, ...]:
        stream, start, end = self._device.stream, self._device.start, self._device.end
        times: list[float] = []
        with self._device.working(f"measuring the kernels of {self._name}"):
            self._clear_status()
            for function, grid, group, arguments in self._launches:
                start.record(stream)
                function._launch_kernel(grid, group, arguments, 0, stream)
                end.record(stream)
                end.synchronize()
                times.append(float(end.time_since(start)) * 1e-3)
            code = self._read_status()
        if code:
            raise refused(self._name, code, self._failures)
        return self._by_position(times)

    def _clear_status(self) -> None:
        if self._status is not None:
            self._device.cuda.memset_d32_async(self._status, 0, 1, self._device.stream)

    def _read_status(self) -> int:
        if self._status is None:
            return 0
        status = np.zeros(1, np.int32)
        self._device.cuda.memcpy_dtoh(status, self._status)
        return int(status[0])


def launch_values(
    launch: LaunchOf, signature: Signature, arguments: Sequence[CallArgument], workspace: int
) -> list[np.generic]:
    """A kernel's arguments: addresses of buffers as uint64, scalars as their bits.

    Args:
        workspace: the workspace's address.
    """
    values: list[np.generic] = []
    for position, value in enumerate(launch.values):
        if isinstance(value, Place):
            values.append(np.uint64(workspace + value.offset))
        elif isinstance(value, ParameterOf) and launch.kernel.parameters[position].buffer:
            memory = arguments[value.index]
            assert isinstance(memory, CudaMemory)
            values.append(np.uint64(memory.address))
        else:
            values.append(scalar_argument(launch, position, signature, arguments))
    return values


def packed(values: Sequence[np.generic]) -> bytes:
    """As a kernel's parameters lie in memory: each at a multiple of its size."""
    laid = bytearray()
    for value in values:
        laid += bytes(-len(laid) % value.itemsize) + value.tobytes()
    return bytes(laid)


def check_grid(launch: LaunchOf, function: str) -> None:
    """Raises ArgumentError for a grid that no GPU has."""
    x, y, z = launch.grid
    if max(y, z) > _MAX_GRID_YZ:
        raise ArgumentError(
            f"{function} would launch {launch.kernel.name} with a grid of {x} × {y} × {z}; CUDA allows {_MAX_GRID_YZ} "
            "groups along y and z",
            hint="bind the longest loop to blockIdx.x",
        )


def _hint(failure: Exception) -> str:
    """Who is to blame, as far as the driver's words tell."""
    if any(words in str(failure) for words in _CRASHES):
        return "a kernel may access elements out of bounds: run it on the reference device, and lease this one anew"
    return "try again; if it stays, look at nvidia-smi and the machine's logs, and restart the driver"
