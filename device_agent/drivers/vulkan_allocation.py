"""Buffers with memory of their own, from the kinds of memory that a Vulkan device has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crossfarm.errors import DeviceLost
from device_agent.drivers.vulkan_api import PhysicalDevice, translated


@dataclass
class Heap:
    """All memory of an open device.

    Attributes:
        vk: the package; device: Vulkan's handle.
        allocated: bytes, of memory that is still there.
    """

    vk: Any
    device: Any
    physical: PhysicalDevice
    allocated: int = 0

    def memory_type(self, allowed: int, *, host: bool) -> int:
        """The memory type to take, of those in the bit mask ``allowed``."""
        vk = self.vk
        local, cached = vk.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, vk.VK_MEMORY_PROPERTY_HOST_CACHED_BIT
        needed = vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT if host else 0
        fitting = [k for k in self.physical.memory_kinds if allowed >> k.index & 1 and k.flags & needed == needed]
        if not fitting:
            raise DeviceLost(
                f"{self.physical.name} has no memory that both the host and the device see",
                hint="its driver is not conformant; use another device",
            )

        def rank(kind: Any) -> tuple[bool, bool, int]:
            if host and not self.physical.shares_memory:  # staging: the host's side is what counts
                return bool(kind.flags & cached), not kind.flags & local, kind.heap_bytes
            return bool(kind.flags & local), bool(kind.flags & cached), kind.heap_bytes

        return max(fitting, key=rank).index


class Allocation:
    """A buffer with memory of its own.

    Args:
        host: memory that the host sees, cached where there is such; else the device's.

    Raises:
        MemoryError: there is not so much.
    """

    def __init__(self, heap: Heap, size: int, *, host: bool) -> None:
        vk = self._vk = heap.vk
        self._heap, self._device = heap, heap.device
        self.size = max(-(-size // 4) * 4, 4)  # descriptors and copies are of whole words
        # drivers that share the host's memory give what is not there, and fail where it is first used
        if heap.allocated + self.size > heap.physical.memory_bytes:
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
            kind = heap.memory_type(needs.memoryTypeBits, host=host)
            allocation = vk.VkMemoryAllocateInfo(allocationSize=needs.size, memoryTypeIndex=kind)
            self.memory = vk.vkAllocateMemory(self._device, allocation, None)
            heap.allocated += self.size
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
            self._heap.allocated -= self.size
