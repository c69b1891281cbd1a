"""SPIR-V kernels as pipelines, and their launches as recorded commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossfarm.artifact.buffer_parts import PART_BYTES, parts_of
from crossfarm.artifact.push_constants import pack_push_constants, push_constant_layout
from crossfarm.errors import IncompatibleArtifact, LimitExceeded
from crossfarm.ir import dtype as dt
from device_agent.drivers.vulkan_api import translated
from device_agent.drivers.vulkan_memory import VulkanMemory

if TYPE_CHECKING:
    from crossfarm.wire.v1.artifact_pb2 import Kernel
    from device_agent.drivers.vulkan_queue import Commands, Queue

_SET = 0
#: Elements that a buffer may have: kernels compute places in 32 bits.
_MOST_ELEMENTS = 2**31 - 1
#: What SPIR-V begins with, little-endian.
_MAGIC = (0x07230203).to_bytes(4, "little")


@dataclass(frozen=True)
class BoundBuffer:
    """A buffer argument: part of a memory, in bytes."""

    memory: VulkanMemory
    offset: int
    size: int


@dataclass(frozen=True)
class BoundLaunch:
    """One launch with everything that it needs.

    Attributes:
        grid: thread groups along x, y, z.
        buffers: one a binding of the kernel, in order.
        scalars: bits of each, in order.
    """

    pipeline: Pipeline
    grid: tuple[int, int, int]
    buffers: tuple[BoundBuffer, ...]
    scalars: tuple[int, ...]


class Pipeline:
    """A kernel, compiled by the device's driver."""

    def __init__(self, queue: Queue, module: Any, kernel: Kernel) -> None:
        vk = self._vk = queue.vk
        self._queue = queue
        self.name = kernel.name
        self.buffers = tuple(p for p in kernel.parameters if p.buffer)
        self.dtypes = tuple(p.dtype for p in kernel.parameters if not p.buffer)
        self.set_layout: Any = None
        self.layout: Any = None
        self.handle: Any = None
        most = tuple(queue.physical.limits.maxComputeWorkGroupSize)
        if any(count > limit for count, limit in zip(kernel.group, most)):
            raise IncompatibleArtifact(
                f"kernel {kernel.name!r} has groups of {' × '.join(map(str, kernel.group))} threads, and "
                f"{queue.physical.name} allows {' × '.join(map(str, most))}",
                hint="build it for this device: farm.build(module, target=device.target)",
            )
        try:
            with translated(f"while kernel {kernel.name!r} was compiled"), _refused(vk, queue, kernel.name):
                self._make(vk, module)
        except BaseException:
            self.release()
            raise

    def _make(self, vk: Any, module: Any) -> None:
        device = self._queue.device
        bindings = [
            vk.VkDescriptorSetLayoutBinding(
                binding=k,
                descriptorType=vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                descriptorCount=1,
                stageFlags=vk.VK_SHADER_STAGE_COMPUTE_BIT,
            )
            for k in range(sum(max(1, p.parts) for p in self.buffers))
        ]
        info = vk.VkDescriptorSetLayoutCreateInfo(bindingCount=len(bindings), pBindings=bindings or None)
        self.set_layout = vk.vkCreateDescriptorSetLayout(device, info, None)
        _, size = push_constant_layout(self.dtypes)
        ranges = [vk.VkPushConstantRange(vk.VK_SHADER_STAGE_COMPUTE_BIT, 0, size + 4)]
        layout = vk.VkPipelineLayoutCreateInfo(pSetLayouts=[self.set_layout], pPushConstantRanges=ranges)
        self.layout = vk.vkCreatePipelineLayout(device, layout, None)
        stage = vk.VkPipelineShaderStageCreateInfo(stage=vk.VK_SHADER_STAGE_COMPUTE_BIT, module=module, pName=self.name)
        create = vk.VkComputePipelineCreateInfo(stage=stage, layout=self.layout)
        (self.handle,) = vk.vkCreateComputePipelines(device, vk.VK_NULL_HANDLE, 1, [create], None)

    def bound(self, grid: tuple[int, int, int], buffers: Sequence[BoundBuffer], scalars: Sequence[int]) -> BoundLaunch:
        """A launch. Raises LimitExceeded where the grid or a buffer is larger than the device's limits.

        Args:
            scalars: bits of each, in order.
        """
        device = self._queue.physical
        for axis, count, most in zip("yz", grid[1:], list(device.limits.maxComputeWorkGroupCount)[1:]):
            if count > most:
                raise LimitExceeded(
                    f"kernel {self.name!r} has {count:,} thread groups along {axis}, and {device.name} runs "
                    f"{most:,} at most",
                    hint="spread the grid over the axis x, which has no such limit, or let each thread do more",
                )
        bound = []
        for parameter, buffer in zip(self.buffers, buffers):
            reach = parameter.parts * PART_BYTES or int(device.limits.maxStorageBufferRange)
            most = min(reach, _MOST_ELEMENTS * dt.itemsize(parameter.dtype))
            if buffer.size > most:
                raise LimitExceeded(
                    f"argument {parameter.name!r} of kernel {self.name!r} has {buffer.size:,} bytes, and a buffer has "
                    f"{most:,} at most on {device.name}",
                    hint="split the tensor, or use another device",
                )
            for start, size in parts_of(buffer.size, parameter.parts):
                bound.append(BoundBuffer(buffer.memory, buffer.offset + start, size))
        return BoundLaunch(self, grid, tuple(bound), tuple(scalars))

    def release(self) -> None:
        vk, device = self._vk, self._queue.device
        if device is None:
            return
        if self.handle is not None:
            vk.vkDestroyPipeline(device, self.handle, None)
        if self.layout is not None:
            vk.vkDestroyPipelineLayout(device, self.layout, None)
        if self.set_layout is not None:
            vk.vkDestroyDescriptorSetLayout(device, self.set_layout, None)
        self.handle = self.layout = self.set_layout = None


@contextmanager
def _refused(vk: Any, queue: Queue, kernel: str) -> Iterator[None]:
    """What a driver's compiler may answer with where it does not take a kernel: Vulkan has no words for it."""
    try:
        yield
    except (vk.VkErrorUnknown, vk.VkErrorInvalidShaderNv, vk.VkErrorInitializationFailed) as failure:
        raise IncompatibleArtifact(
            f"the driver of {queue.physical.name} refuses kernel {kernel!r} ({type(failure).__name__})",
            hint="build it for this device: farm.build(module, target=device.target)",
        ) from failure


class Pipelines:
    """The kernels of a SPIR-V module, compiled. Raises IncompatibleArtifact where the driver does not take them."""

    def __init__(self, queue: Queue, code: bytes, kernels: Sequence[Kernel]) -> None:
        if len(code) % 4 or code[:4] != _MAGIC:
            raise IncompatibleArtifact("the artifact's code is not SPIR-V", hint="build the artifact again")
        self._queue = queue
        self._made: dict[str, Pipeline] = {}
        vk = queue.vk
        with translated("while SPIR-V code was loaded"):
            info = vk.VkShaderModuleCreateInfo(codeSize=len(code), pCode=code)
            module = vk.vkCreateShaderModule(queue.device, info, None)
        try:
            for kernel in kernels:
                self._made[kernel.name] = Pipeline(queue, module, kernel)
        except BaseException:
            self.release()
            raise
        finally:
            vk.vkDestroyShaderModule(queue.device, module, None)

    def __getitem__(self, name: str) -> Pipeline:
        return self._made[name]

    def release(self) -> None:
        for pipeline in self._made.values():
            pipeline.release()
        self._made = {}


class Recording:
    """Launches as a command buffer that can be run any number of times.

    Args:
        cleared: filled with zeros before them.
        timed: takes the device's time before and after each, see ``times``.
    """

    def __init__(
        self, queue: Queue, launches: Sequence[BoundLaunch], cleared: BoundBuffer | None = None, *, timed: bool = False
    ) -> None:
        self._queue, self._vk = queue, queue.vk
        self._launches = tuple(launches)
        self._descriptors: Any = None
        self._queries: Any = None
        self._commands: Commands | None = None
        try:
            with translated("while a call was prepared"):
                sets = self._sets()
                if timed:
                    self._queries = self._query_pool()
            self._commands = queue.commands()
            queue.record(self._commands, lambda c: self._write(c, sets, cleared))
        except BaseException:
            self.release()
            raise

    def run(self, number: int = 1) -> None:
        """Runs all launches ``number`` times, to their end."""
        assert self._commands is not None, "it was released"
        self._queue.run(self._commands, "while a function ran", number)

    def times(self) -> list[float]:
        """Seconds of each launch of the last run of a timed recording."""
        vk = self._vk
        count = 2 * len(self._launches)
        raw = bytearray(8 * count)
        flags = vk.VK_QUERY_RESULT_64_BIT | vk.VK_QUERY_RESULT_WAIT_BIT
        with translated("while times were read"):
            data = vk.ffi.from_buffer(raw)
            vk.vkGetQueryPoolResults(self._queue.device, self._queries, 0, count, len(raw), data, 8, flags)
        physical = self._queue.physical
        stamps = memoryview(raw).cast("Q")
        mask = (1 << physical.timestamp_bits) - 1
        ticks = [(stamps[2 * k + 1] - stamps[2 * k]) & mask for k in range(len(self._launches))]
        return [count * physical.limits.timestampPeriod * 1e-9 for count in ticks]

    def release(self) -> None:
        vk, queue = self._vk, self._queue
        if queue.device is None:
            return
        if self._commands is not None:
            queue.free(self._commands)
        if self._queries is not None:
            vk.vkDestroyQueryPool(queue.device, self._queries, None)
        if self._descriptors is not None:
            vk.vkDestroyDescriptorPool(queue.device, self._descriptors, None)
        self._commands = self._queries = self._descriptors = None

    def _sets(self) -> list[Any]:
        """A descriptor set for each launch."""
        vk, device = self._vk, self._queue.device
        if not self._launches:
            return []
        kind = vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
        count = max(1, sum(len(launch.buffers) for launch in self._launches))
        sizes = [vk.VkDescriptorPoolSize(type=kind, descriptorCount=count)]
        self._descriptors = vk.vkCreateDescriptorPool(
            device, vk.VkDescriptorPoolCreateInfo(maxSets=len(self._launches), pPoolSizes=sizes), None
        )
        layouts = [launch.pipeline.set_layout for launch in self._launches]
        info = vk.VkDescriptorSetAllocateInfo(descriptorPool=self._descriptors, pSetLayouts=layouts)
        allocated = vk.vkAllocateDescriptorSets(device, info)
        sets = [allocated[k] for k in range(len(layouts))]
        for launch, descriptor_set in zip(self._launches, sets):
            writes = []
            for binding, buffer in enumerate(launch.buffers):
                # whole words: a range that is none may end the last element early
                size = max(4, -(-buffer.size // 4) * 4)
                part = vk.VkDescriptorBufferInfo(buffer=buffer.memory.buffer, offset=buffer.offset, range=size)
                writes.append(
                    vk.VkWriteDescriptorSet(
                        dstSet=descriptor_set, dstBinding=binding, descriptorCount=1, descriptorType=kind,
                        pBufferInfo=[part],
                    )
                )  # fmt: skip
            if writes:
                vk.vkUpdateDescriptorSets(device, len(writes), writes, 0, None)
        return sets

    def _query_pool(self) -> Any:
        vk = self._vk
        count = 2 * max(1, len(self._launches))
        info = vk.VkQueryPoolCreateInfo(queryType=vk.VK_QUERY_TYPE_TIMESTAMP, queryCount=count)
        return vk.vkCreateQueryPool(self._queue.device, info, None)

    def _write(self, commands: Any, sets: Sequence[Any], cleared: BoundBuffer | None) -> None:
        vk = self._vk
        if self._queries is not None:
            vk.vkCmdResetQueryPool(commands, self._queries, 0, 2 * max(1, len(self._launches)))
        if cleared is not None:
            vk.vkCmdFillBuffer(commands, cleared.memory.buffer, cleared.offset, cleared.size, 0)
            self._queue.order(commands)
        for k, (launch, descriptor_set) in enumerate(zip(self._launches, sets)):
            if k:
                self._queue.order(commands)
            self._stamp(commands, 2 * k)
            self._launch(commands, launch, descriptor_set)
            self._stamp(commands, 2 * k + 1)

    def _stamp(self, commands: Any, query: int) -> None:
        vk = self._vk
        if self._queries is not None:
            # each after what is before it: launches wait for one another anyway
            stage = vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT
            vk.vkCmdWriteTimestamp(commands, stage, self._queries, query)

    def _launch(self, commands: Any, launch: BoundLaunch, descriptor_set: Any) -> None:
        vk, pipeline = self._vk, launch.pipeline
        point = vk.VK_PIPELINE_BIND_POINT_COMPUTE
        vk.vkCmdBindPipeline(commands, point, pipeline.handle)
        vk.vkCmdBindDescriptorSets(commands, point, pipeline.layout, _SET, 1, [descriptor_set], 0, None)
        x, y, z = launch.grid
        most = self._queue.physical.limits.maxComputeWorkGroupCount[0]
        for first in range(0, x, most):
            data = pack_push_constants(pipeline.dtypes, launch.scalars, first)
            stage = vk.VK_SHADER_STAGE_COMPUTE_BIT
            vk.vkCmdPushConstants(commands, pipeline.layout, stage, 0, len(data), vk.ffi.from_buffer(data))
            vk.vkCmdDispatch(commands, min(most, x - first), y, z)
