"""Device memory of Vulkan: mapped where the device shares the host's, else copied through a staging buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossfarm.errors import LimitExceeded
from device_agent.drivers.vulkan_api import translated

if TYPE_CHECKING:
    from device_agent.drivers.vulkan_queue import Queue

#: Bytes that one copy through the staging buffer moves at most.
STAGING_BYTES = 16 << 20


class Allocation:
    """A buffer with memory of its own.

    Args:
        host: memory that the host sees, cached where there is such; else the device's.

    Raises:
        MemoryError: there is not so much.
    """

    def __init__(self, queue: Queue, size: int, *, host: bool) -> None:
        vk = self._vk = queue.vk
        self._queue, self._device = queue, queue.device
        self.size = max(-(-size // 4) * 4, 4)  # descriptors and copies are of whole words
        # drivers that share the host's memory give what is not there, and fail where it is first used
        if queue.allocated + self.size > queue.physical.memory_bytes:
            raise MemoryError(f"the device has no {size:,} bytes left")
        self.buffer: Any = None
        self.memory: Any = None
        usage = (
            vk.VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
            | vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT
            | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
        )
        info = vk.VkBufferCreateInfo(size=self.size, usage=usage, sharingMode=vk.VK_SHARING_MODE_EXCLUSIVE)
        try:
            self.buffer = vk.vkCreateBuffer(self._device, info, None)
            needs = vk.vkGetBufferMemoryRequirements(self._device, self.buffer)
            kind = queue.memory_type(needs.memoryTypeBits, host=host)
            allocation = vk.VkMemoryAllocateInfo(allocationSize=needs.size, memoryTypeIndex=kind)
            self.memory = vk.vkAllocateMemory(self._device, allocation, None)
            queue.allocated += self.size
            vk.vkBindBufferMemory(self._device, self.buffer, self.memory, 0)
            self.view = memoryview(b"")
            if host:
                self.view = memoryview(vk.vkMapMemory(self._device, self.memory, 0, self.size, 0))
        except (vk.VkErrorOutOfDeviceMemory, vk.VkErrorOutOfHostMemory, vk.VkErrorTooManyObjects) as failure:
            self.release()
            raise MemoryError(f"the device has no {size:,} bytes left ({type(failure).__name__})") from failure
        except (vk.VkError, vk.VkException):
            self.release()
            with translated(f"while {size:,} bytes were allocated"):
                raise

    def release(self) -> None:
        self.view = memoryview(b"")
        buffer, memory, self.buffer, self.memory = self.buffer, self.memory, None, None
        if buffer is not None:
            self._vk.vkDestroyBuffer(self._device, buffer, None)
        if memory is not None:
            self._vk.vkFreeMemory(self._device, memory, None)
            self._queue.allocated -= self.size


class VulkanMemory:
    """A tensor's memory, or a workspace. Raises MemoryError."""

    def __init__(self, queue: Queue, size: int) -> None:
        self.size = size
        self._queue = queue
        self._allocation = Allocation(queue, size, host=queue.physical.shares_memory)

    @property
    def buffer(self) -> Any:
        """Vulkan's handle, for descriptors."""
        if self._allocation.buffer is None:
            raise LimitExceeded("the memory was released", hint="a call uses a tensor that is gone; bind it again")
        return self._allocation.buffer

    def write(self, offset: int, data: memoryview) -> None:
        if self._queue.physical.shares_memory:
            self._allocation.view[offset : offset + len(data)] = data
            return
        staging = self._queue.staging()
        for start in range(0, len(data), staging.size):
            part = data[start : start + staging.size]
            staging.view[: len(part)] = part
            self._queue.copy(staging.buffer, 0, self.buffer, offset + start, len(part))

    def read(self, offset: int, size: int) -> memoryview:
        if self._queue.physical.shares_memory:
            return self._allocation.view[offset : offset + size]
        staging = self._queue.staging()
        result = bytearray(size)
        for start in range(0, size, staging.size):
            count = min(staging.size, size - start)
            self._queue.copy(self.buffer, offset + start, staging.buffer, 0, count)
            result[start : start + count] = staging.view[:count]
        return memoryview(result)

    def release(self) -> None:
        self._allocation.release()
