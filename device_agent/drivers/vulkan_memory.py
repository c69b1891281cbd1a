"""Device memory of Vulkan: mapped where the device shares the host's, else copied through a staging buffer."""

from __future__ import annotations

from typing import Any

from crossfarm.errors import LimitExceeded
from device_agent.drivers.vulkan_allocation import Allocation
from device_agent.drivers.vulkan_queue import Queue


class VulkanMemory:
    """A tensor's memory, or a workspace. Raises MemoryError."""

    def __init__(self, queue: Queue, size: int) -> None:
        self.size = size
        self._queue = queue
        self._allocation = Allocation(queue.heap, size, host=queue.physical.shares_memory)

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
