"""OpenCL devices, through pyopencl: GPUs of phones and desktops, and CPUs by PoCL."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfarm.artifact import DeviceCapabilities
from crossfarm.artifact.launches import LaunchOf, LaunchPlanner, ParameterOf, Place
from crossfarm.errors import DeviceLost, IncompatibleArtifact, LimitExceeded, UsageError
from crossfarm.target import Target
from device_agent.drivers.base import CallArgument, DeviceDescription, Placement
from device_agent.drivers.failures import refused
from device_agent.drivers.scalars import scalar_argument

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact, Binding, Signature
    from crossfarm.wire.v1.artifact_pb2 import Variant

PROBE_APART = True
#: What is said of a compiler's log at most.
_LOG_CHARACTERS = 4000
#: Runs that are queued before the device is told to begin with them.
_FLUSH_EVERY = 64
_WAIT_EVERY = 4096
#: A kernel with its arguments set: kernel, threads along x, y, z, group.
_Launch = tuple[Any, tuple[int, int, int], tuple[int, int, int]]
#: So much is behind the end of every workspace: where a temporary of no bytes begins.
_SLACK = 512


def _opencl() -> Any:
    """The module, or None where it is not installed or finds no loader."""
    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")  # kernels are built once a load; nothing is left behind
    try:
        import pyopencl
    except (ImportError, OSError):
        return None
    return pyopencl


def _devices(cl: Any) -> list[Any]:
    """All devices, platforms in the order of their names."""
    try:
        platforms = cl.get_platforms()
    except cl.Error:
        return []
    found = []
    for each in sorted(platforms, key=lambda p: str(p.name)):
        try:
            found.extend(each.get_devices())
        except cl.Error:
            continue
    return found


def probe() -> list[DeviceDescription]:
    """Every device of every platform; none where pyopencl, the loader or a driver is missing."""
    cl = _opencl()
    return [] if cl is None else [_describe(cl, device) for device in _devices(cl)]


def open_device(index: int) -> OpenClDevice:
    """The ``index``-th of ``probe``'s. Raises UsageError where it is gone."""
    cl = _opencl()
    devices = [] if cl is None else _devices(cl)
    if index >= len(devices):
        raise UsageError(
            f"OpenCL device {index} is not there any more; there are {len(devices)}",
            hint="look at the driver (clinfo), and start the agent again",
        )
    return OpenClDevice(cl, devices[index])


def _features(device: Any) -> list[str]:
    extensions = str(device.extensions).split()
    features = ["int8", "int16", "int64", "storage8", "storage16"]
    if "cl_khr_fp64" in extensions:
        features.append("float64")
    if "cl_khr_fp16" in extensions:
        features.append("float16")
    return sorted(features)


def _describe(cl: Any, device: Any) -> DeviceDescription:
    host = Target.detect()
    features = _features(device)
    kinds = {cl.device_type.CPU: "cpu", cl.device_type.GPU: "gpu", cl.device_type.ACCELERATOR: "accelerator"}
    kind = next((word for bit, word in kinds.items() if device.type & bit), "other")
    words = str(device.opencl_c_version).split()
    version = words[2] if len(words) > 2 else "1.2"
    attributes = {
        "kind": "opencl",
        "arch": str(host.attributes.get("arch", "")),
        "os": str(host.attributes.get("os", "")),
        "name": str(device.name).strip(),
        "vendor": str(device.vendor).strip(),
        "memory": str(device.global_mem_size),
        "cores": str(device.max_compute_units),
        "driver": "opencl",
        "driver_version": str(device.driver_version).strip(),
        "api": str(device.version).strip(),
        "platform": str(device.platform.name).strip(),
        "device_type": kind,
        "features": ",".join(features),
        "max_threads_per_group": str(device.max_work_group_size),
        "shared_bytes": str(device.local_mem_size),
        "os_version": platform.release(),
    }
    target = Target(
        {
            "kind": "opencl",
            "model": attributes["name"][:256],
            "driver": attributes["driver_version"][:256],
            "version": version,
            "memory_bytes": int(device.global_mem_size),
            "compute_units": int(device.max_compute_units),
            "device_type": "cpu" if kind == "cpu" else "gpu",
            "max_threads_per_group": int(device.max_work_group_size),
            "shared_bytes": int(device.local_mem_size),
            "fp16": "float16" in features,
            "fp64": "float64" in features,
            "extensions": [e[:256] for e in str(device.extensions).split()][:256],
            "host": host,
        }
    )
    return DeviceDescription(attributes, target)


class OpenClDevice:
    """One device with a context and a queue that runs what it is given in order."""

    def __init__(self, cl: Any, device: Any) -> None:
        self.cl = cl
        self.cpus: tuple[int, ...] = ()
        self._device = device
        try:
            self.context = cl.Context([device])
            self.queue = cl.CommandQueue(self.context)
        except cl.Error as failure:
            raise DeviceLost(
                f"the OpenCL driver of {device.name} gives no context: {failure}",
                hint="restart the driver or the machine",
            ) from failure
        words = str(device.opencl_c_version).split()
        self.capabilities = (
            DeviceCapabilities(
                "opencl",
                "",
                "",
                features=frozenset(_features(device)),
                threads_per_group=int(device.max_work_group_size),
                shared_bytes=int(device.local_mem_size),
                version=words[2] if len(words) > 2 else "1.2",
            ),
        )
        self.allocated = 0
        self._workspace: OpenClMemory | None = None

    @property
    def name(self) -> str:
        return str(self._device.name).strip()

    @cached_property
    def timing_queue(self) -> Any:
        """A queue whose events have times, which costs where nobody asks for them."""
        return self.cl.CommandQueue(self.context, properties=self.cl.command_queue_properties.PROFILING_ENABLE)

    def allocate(self, size: int) -> OpenClMemory:
        if size > self._device.max_mem_alloc_size or self.allocated + size > self._device.global_mem_size:
            raise MemoryError(f"{size} bytes on {self.name}")
        return OpenClMemory(self, size)

    def workspace(self, size: int) -> OpenClMemory:
        """Memory that all calls share, as they run one after the other. Raises LimitExceeded."""
        size += _SLACK
        if self._workspace is None or self._workspace.size < size:
            if self._workspace is not None:
                self._workspace.release()
                self._workspace = None
            try:
                self._workspace = self.allocate(size)
            except MemoryError:
                raise LimitExceeded(
                    f"the function needs a workspace of {size:,} bytes, which {self.name} cannot give",
                    hint="make its temporaries smaller, or free tensors",
                    details={"bytes": str(size)},
                ) from None
        return self._workspace

    def load(self, artifact: Artifact, variant: Variant) -> OpenClProgram:
        source = artifact.code(variant).decode("utf-8")
        program = self.cl.Program(self.context, source)
        try:
            program.build(options=["-cl-std=CL1.2"], devices=[self._device])
        except self.cl.Error as failure:
            raise IncompatibleArtifact(
                f"the OpenCL compiler of {self.name} refuses the kernels of artifact {artifact.name!r}:\n"
                f"{_log(failure)}",
                hint="build it for this device: farm.build(module, target=device.target)",
            ) from failure
        return OpenClProgram(self, program, variant)

    def failure(self, failure: Exception, doing: str) -> Exception:
        """What an error of the driver means."""
        code = getattr(failure, "code", None)
        status = self.cl.status_code
        if code in (status.MEM_OBJECT_ALLOCATION_FAILURE, status.OUT_OF_RESOURCES, status.OUT_OF_HOST_MEMORY):
            return MemoryError(f"{self.name} has no memory left, {doing}")
        return DeviceLost(
            f"the OpenCL driver of {self.name} failed, {doing}: {failure}",
            hint="try again; if it stays, look at the device's logs and restart its driver",
        )

    def synchronize(self) -> None:
        """Calls return when they are done."""

    def close(self) -> None:
        self.queue.finish()
        if self._workspace is not None:
            self._workspace.release()


class OpenClMemory:
    """A buffer. Raises MemoryError where the device gives none."""

    def __init__(self, device: OpenClDevice, size: int) -> None:
        self.size = size
        self._device = device
        cl = device.cl
        try:
            self.buffer = cl.Buffer(device.context, cl.mem_flags.READ_WRITE, max(size, 1))
        except cl.Error as failure:
            raise device.failure(failure, f"allocating {size:,} bytes") from failure
        device.allocated += size

    def write(self, offset: int, data: memoryview) -> None:
        if len(data):
            self._copy(self.buffer, np.frombuffer(data, np.uint8), dst_offset=offset)

    def read(self, offset: int, size: int) -> memoryview:
        received = np.empty(size, np.uint8)
        if size:
            self._copy(received, self.buffer, src_offset=offset)
        return received.data

    def _copy(self, target: Any, source: Any, **places: int) -> None:
        try:
            self._device.cl.enqueue_copy(self._device.queue, target, source, is_blocking=True, **places)
        except self._device.cl.Error as failure:
            raise self._device.failure(failure, "copying") from failure

    def part(self, place: Place) -> Any:
        """A buffer of part of it."""
        return self.buffer.get_sub_region(place.offset, max(place.size, 1))

    def release(self) -> None:
        self._device.allocated -= self.size
        self.size = 0
        self.buffer.release()


class OpenClProgram:
    """Kernels that the device's compiler has built."""

    def __init__(self, device: OpenClDevice, program: Any, variant: Variant) -> None:
        self._device = device
        self._program = program
        self._planners = {entry.name: LaunchPlanner(entry, variant) for entry in variant.entry_points}

    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> OpenClCall:
        planner = self._planners[signature.name]
        workspace = self._device.workspace(binding.workspace_bytes)
        parts: dict[Place, Any] = {}

        def part(place: Place) -> Any:
            if place not in parts:
                parts[place] = workspace.part(place)
            return parts[place]

        planned = planner.launches(binding)
        try:
            launches = [self._launch(launch, signature, arguments, part) for launch in planned]
            status = planner.status(binding)
            place = None if status is None else part(status)
        except self._device.cl.Error as failure:
            raise self._device.failure(failure, f"preparing {signature.name}") from failure
        kept = (*parts.values(), *arguments)
        by_position = partial(planner.by_position, planned)
        return OpenClCall(self._device, signature, launches, by_position, place, kept)

    def _launch(
        self,
        launch: LaunchOf,
        signature: Signature,
        arguments: Sequence[CallArgument],
        part: Callable[[Place], Any],
    ) -> _Launch:
        kernel = self._device.cl.Kernel(self._program, launch.kernel.name)
        for position, value in enumerate(launch.values):
            given: Any
            if isinstance(value, Place):
                given = part(value)
            elif isinstance(value, ParameterOf) and launch.kernel.parameters[position].buffer:
                memory = arguments[value.index]
                assert isinstance(memory, OpenClMemory)
                given = memory.buffer
            else:
                given = scalar_argument(launch, position, signature, arguments)
            kernel.set_arg(position, given)
        gx, gy, gz = launch.grid
        x, y, z = launch.kernel.group
        return kernel, (gx * x, gy * y, gz * z), (x, y, z)

    def release(self) -> None:
        self._program = None


class OpenClCall:
    """Kernels with their arguments set, in order.

    Args:
        by_position: makes times of the launches those of all in the plan.
        status: where kernels say what failed; None where nothing can.
        kept: the arguments, and the parts of the workspace: kernels do not keep alive what they are given. A part keeps
            the whole, also after the device has given later calls a larger one.
    """

    loop = "queued"
    threads = 1

    def __init__(
        self,
        device: OpenClDevice,
        signature: Signature,
        launches: list[_Launch],
        by_position: Callable[[Sequence[float]], tuple[float, ...]],
        status: Any,
        kept: Sequence[Any],
    ) -> None:
        self._device = device
        self._name = signature.name
        self._failures = tuple(signature.entry.failures)
        self._launches = launches
        self._by_position = by_position
        self._status = status
        self._kept = kept

    def __call__(self) -> None:
        self.repeat(1)

    def repeat(self, number: int) -> None:
        device = self._device
        enqueue, queue = device.cl.enqueue_nd_range_kernel, device.queue
        try:
            self._clear_status()
            for done in range(1, number + 1):
                for kernel, size, group in self._launches:
                    enqueue(queue, kernel, size, group)
                if done % _FLUSH_EVERY == 0:
                    queue.flush()
                if done % _WAIT_EVERY == 0:
                    queue.finish()  # so that what waits stays within bounds
            queue.finish()
            self._check_status()
        except device.cl.Error as failure:
            raise device.failure(failure, f"running {self._name}") from failure

    def profile(self) -> tuple[float, ...]:
        cl, device = self._device.cl, self._device
        times: list[float] = []
        try:
            self._clear_status()
            device.queue.finish()
            for kernel, size, group in self._launches:
                event = cl.enqueue_nd_range_kernel(device.timing_queue, kernel, size, group)
                event.wait()
                times.append((event.profile.end - event.profile.start) * 1e-9)
            self._check_status()
        except cl.Error as failure:
            raise device.failure(failure, f"measuring the kernels of {self._name}") from failure
        return self._by_position(times)

    def _clear_status(self) -> None:
        if self._status is not None:
            self._device.cl.enqueue_fill_buffer(self._device.queue, self._status, np.zeros(1, np.uint8), 0, 4)

    def _check_status(self) -> None:
        if self._status is None:
            return
        status = np.zeros(1, np.int32)
        self._device.cl.enqueue_copy(self._device.queue, status, self._status, is_blocking=True)
        if status[0]:
            raise refused(self._name, int(status[0]), self._failures)


def _log(failure: Exception) -> str:
    """What the compiler said, within bounds."""
    text = str(failure).strip()
    return text if len(text) <= _LOG_CHARACTERS else f"{text[:_LOG_CHARACTERS]} …"
