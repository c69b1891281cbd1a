"""Vulkan devices, through the ``vulkan`` package: GPUs of phones, boards and desktops, and CPUs by lavapipe."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

from crossfarm.artifact import DeviceCapabilities
from crossfarm.artifact.launches import LaunchOf, LaunchPlanner, ParameterOf, Place
from crossfarm.errors import Error, IncompatibleArtifact, LimitExceeded
from crossfarm.target import Target
from crossfarm.target.features import VULKAN_ATTRIBUTES
from device_agent.drivers.base import CallArgument, DeviceDescription, Placement
from device_agent.drivers.failures import refused
from device_agent.drivers.scalars import scalar_argument
from device_agent.drivers.vulkan_api import Instance, PhysicalDevice
from device_agent.drivers.vulkan_memory import VulkanMemory
from device_agent.drivers.vulkan_program import BoundBuffer, BoundLaunch, Pipelines, Recording
from device_agent.drivers.vulkan_queue import Queue

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact, Binding, Signature
    from crossfarm.wire.v1.artifact_pb2 import Variant

PROBE_APART = True
#: So much is behind the end of every workspace: where a temporary of no bytes begins.
_SLACK = 512


def probe() -> list[DeviceDescription]:
    """Every device that computes and speaks Vulkan 1.1; none where the package, the loader or a driver is missing."""
    try:
        instance = Instance()
    except Error:
        return []
    try:
        return [_describe(device) for device in instance.devices()]
    except Error:
        return []
    finally:
        instance.close()


def open_device(index: int) -> VulkanDevice:
    """The ``index``-th of ``probe``'s. Raises UsageError where it is gone, DeviceLost where it does not open."""
    return VulkanDevice(Queue(index))


def _describe(device: PhysicalDevice) -> DeviceDescription:
    host, limits, features = Target.detect(), device.limits, sorted(device.features)
    attributes = {
        "kind": "vulkan",
        "arch": str(host.attributes.get("arch", "")),
        "os": str(host.attributes.get("os", "")),
        "name": device.name,
        "memory": str(device.memory_bytes),
        "driver": "vulkan",
        "driver_version": device.driver_version,
        "driver_name": device.driver,
        "api": device.api_version,
        "vendor": f"{device.properties.vendorID:#06x}",
        "device_type": device.kind,
        "features": ",".join(features),
        "max_threads_per_group": str(limits.maxComputeWorkGroupInvocations),
        "shared_bytes": str(limits.maxComputeSharedMemorySize),
        "subgroup_size": str(device.subgroup_size),
        "os_version": platform.release(),
    }
    target = Target(
        {
            "kind": "vulkan",
            "model": device.name[:256],
            "driver": f"{device.driver} {device.driver_version}"[:256],
            "api": device.api_version,
            "device_type": "cpu" if device.kind == "cpu" else "gpu",
            "memory_bytes": device.memory_bytes,
            "max_threads_per_group": int(limits.maxComputeWorkGroupInvocations),
            "shared_bytes": int(limits.maxComputeSharedMemorySize),
            "loop_iterations": device.loop_iterations,
            "storage_buffer_bytes": int(limits.maxStorageBufferRange),
            "push_constant_bytes": int(limits.maxPushConstantsSize),
            "subgroup_size": device.subgroup_size,
            "warp_size": max(1, device.subgroup_size),
            **{attribute: feature in device.features for feature, attribute in VULKAN_ATTRIBUTES.items()},
            "host": host,
        }
    )
    return DeviceDescription(attributes, target)


class VulkanDevice:
    """One device with its queue, and a workspace that all calls share, as they run one after the other."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.cpus: tuple[int, ...] = ()
        limits = queue.physical.limits
        self.capabilities = (
            DeviceCapabilities(
                "vulkan",
                "",
                "",
                features=queue.physical.features,
                threads_per_group=int(limits.maxComputeWorkGroupInvocations),
                shared_bytes=int(limits.maxComputeSharedMemorySize),
                version=queue.physical.api_version,
            ),
        )
        self._workspace: VulkanMemory | None = None

    def allocate(self, size: int) -> VulkanMemory:
        return VulkanMemory(self.queue, size)

    def workspace(self, size: int) -> VulkanMemory:
        """Memory of at least that size, the same until somebody asks for more. Raises LimitExceeded."""
        size += _SLACK
        if self._workspace is None or self._workspace.size < size:
            self._release_workspace()
            try:
                self._workspace = self.allocate(size)
            except MemoryError:
                raise LimitExceeded(
                    f"the function needs a workspace of {size:,} bytes, which {self.queue.physical.name} cannot give",
                    hint="make its temporaries smaller, or free tensors",
                    details={"bytes": str(size)},
                ) from None
        return self._workspace

    def load(self, artifact: Artifact, variant: Variant) -> VulkanProgram:
        lacks = sorted(set(variant.requires.device_features) - self.queue.physical.features)
        if lacks:
            raise IncompatibleArtifact(
                f"artifact {artifact.name!r} needs {', '.join(lacks)}, which {self.queue.physical.name} does not have",
                hint="build it for this device: farm.build(module, target=device.target)",
            )
        return VulkanProgram(self, Pipelines(self.queue, artifact.code(variant), variant.kernels), variant)

    def synchronize(self) -> None:
        """Calls return when they are done."""

    def close(self) -> None:
        self._release_workspace()
        self.queue.close()

    def _release_workspace(self) -> None:
        if self._workspace is not None:
            self._workspace.release()
            self._workspace = None


class VulkanProgram:
    """Kernels that the device's driver has compiled, and the calls that were made of them."""

    def __init__(self, device: VulkanDevice, pipelines: Pipelines, variant: Variant) -> None:
        self._device = device
        self._pipelines = pipelines
        self._planners = {entry.name: LaunchPlanner(entry, variant) for entry in variant.entry_points}
        self._calls: WeakSet[VulkanCall] = WeakSet()

    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> VulkanCall:
        call = VulkanCall(self._device, self._pipelines, self._planners[signature.name], signature, arguments, binding)
        self._calls.add(call)
        return call

    def release(self) -> None:
        for call in tuple(self._calls):
            call.release()
        self._pipelines.release()


class VulkanCall:
    """A function with its arguments: commands that are recorded once, and again when the workspace moved.

    They are given back with the call: whoever drops its last reference has dropped the call.
    """

    loop = "queued"
    threads = 1

    def __init__(
        self,
        device: VulkanDevice,
        pipelines: Pipelines,
        planner: LaunchPlanner,
        signature: Signature,
        arguments: Sequence[CallArgument],
        binding: Binding,
    ) -> None:
        self._recorded: Recording | None = None
        self._device = device
        self._pipelines = pipelines
        self._signature = signature
        self._arguments = tuple(arguments)
        self._planner = planner
        self._launches = planner.launches(binding)
        self._status = planner.status(binding)
        self._workspace_bytes = binding.workspace_bytes
        self._failures = tuple(signature.entry.failures)
        self._workspace = device.workspace(binding.workspace_bytes)
        self._recording()

    def __call__(self) -> None:
        self.repeat(1)

    def repeat(self, number: int) -> None:
        self._recording().run(number)
        self._check_status()

    def profile(self) -> tuple[float, ...]:
        if not self._device.queue.physical.timestamp_bits:
            return ()
        self._recording()
        timed = Recording(self._device.queue, self._bound(), self._cleared(), timed=True)
        try:
            timed.run()
            times = timed.times()
        finally:
            timed.release()
        self._check_status()
        return self._planner.by_position(self._launches, times)

    def release(self) -> None:
        if self._recorded is not None:
            self._recorded.release()
            self._recorded = None

    def __del__(self) -> None:
        self.release()

    def _recording(self) -> Recording:
        """The commands, for the workspace as it is now."""
        workspace = self._device.workspace(self._workspace_bytes)
        if self._recorded is None or workspace is not self._workspace:
            self.release()
            self._workspace = workspace
            self._recorded = Recording(self._device.queue, self._bound(), self._cleared())
        return self._recorded

    def _bound(self) -> list[BoundLaunch]:
        return [self._launch(launch) for launch in self._launches]

    def _launch(self, launch: LaunchOf) -> BoundLaunch:
        buffers: list[BoundBuffer] = []
        scalars: list[int] = []
        for position, (value, parameter) in enumerate(zip(launch.values, launch.kernel.parameters)):
            if isinstance(value, Place):
                buffers.append(self._part(value))
            elif isinstance(value, ParameterOf) and parameter.buffer:
                memory = self._arguments[value.index]
                assert isinstance(memory, VulkanMemory)
                buffers.append(BoundBuffer(memory, 0, memory.size))
            else:
                scalars.append(int(scalar_argument(launch, position, self._signature, self._arguments)))
        return self._pipelines[launch.kernel.name].bound(launch.grid, buffers, scalars)

    def _part(self, place: Place) -> BoundBuffer:
        return BoundBuffer(self._workspace, place.offset, place.size)

    def _cleared(self) -> BoundBuffer | None:
        return None if self._status is None else self._part(self._status)

    def _check_status(self) -> None:
        if self._status is None:
            return
        code = int.from_bytes(self._workspace.read(self._status.offset, 4), "little", signed=True)
        if code:
            raise refused(self._signature.name, code, self._failures)
