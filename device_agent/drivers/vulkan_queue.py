"""An open Vulkan device with its one queue: what is submitted runs in order, and is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crossfarm.errors import UsageError
from device_agent.drivers.vulkan_allocation import Allocation, Heap
from device_agent.drivers.vulkan_api import Instance, PhysicalDevice, translated

#: Command buffers in one submission: enough to be quick, few enough that no driver takes it for a hang.
_BATCH = 64
#: Submissions that may wait at a time.
_BATCHES = 64
_FOREVER = (1 << 64) - 1
#: Bytes that one copy through the staging buffer moves at most.
STAGING_BYTES = 16 << 20


class Commands:
    """A command buffer, with the structures that submit it: made once, as that takes as long as a short kernel.

    Attributes:
        handle: Vulkan's.
    """

    def __init__(self, vk: Any, handle: Any) -> None:
        self.handle = handle
        self._vk = vk
        self._submissions: dict[int, tuple[Any, Any]] = {}

    def submission(self, count: int) -> Any:
        """An array of one ``VkSubmitInfo``: the commands, ``count`` times."""
        if count not in self._submissions:
            info = self._vk.VkSubmitInfo(pCommandBuffers=[self.handle] * count)
            # what the array points to is kept by the structure that it is made of
            self._submissions[count] = self._vk.ffi.new("VkSubmitInfo[1]", [info]), info
        return self._submissions[count][0]


class Queue:
    """The device ``index`` of ``Instance.devices``.

    Raises:
        UsageError: there is none of that number, or no Vulkan.
        DeviceLost: it does not open.
    """

    def __init__(self, index: int) -> None:
        self._instance: Instance | None = None
        self.device: Any = None
        self._pool: Any = None
        self._fence: Any = None
        self._staging: Allocation | None = None
        self._instance = Instance()
        self.vk = self._instance.vk
        try:
            devices = self._instance.devices()
            if index >= len(devices):
                raise UsageError(
                    f"Vulkan device {index} is not there any more; there are {len(devices)}",
                    hint="look at the driver (vulkaninfo), and start the agent again",
                )
            self.physical: PhysicalDevice = devices[index]
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        vk, physical = self.vk, self.physical
        family = physical.queue_family
        queues = [vk.VkDeviceQueueCreateInfo(queueFamilyIndex=family, queueCount=1, pQueuePriorities=[1.0])]
        features, keep = physical.enabled()
        info = vk.VkDeviceCreateInfo(
            pNext=features, pQueueCreateInfos=queues, ppEnabledExtensionNames=list(physical.extensions)
        )
        with translated(f"while {physical.name} was opened"):
            self.device = vk.vkCreateDevice(physical.handle, info, None)
            self.heap = Heap(vk, self.device, physical)
            self._queue = vk.vkGetDeviceQueue(self.device, family, 0)
            flags = vk.VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT
            self._pool = vk.vkCreateCommandPool(
                self.device, vk.VkCommandPoolCreateInfo(flags=flags, queueFamilyIndex=family), None
            )
            self._fence = vk.vkCreateFence(self.device, vk.VkFenceCreateInfo(), None)
            self._fences = vk.ffi.new("VkFence[1]", [self._fence])
            self._copies = self.commands()
        del keep

    # --- memory

    def staging(self) -> Allocation:
        """Memory that the host sees, to copy through."""
        if self._staging is None:
            self._staging = Allocation(self.heap, STAGING_BYTES, host=True)
        return self._staging

    def copy(self, source: Any, source_offset: int, target: Any, target_offset: int, size: int) -> None:
        """Copies between buffers, and waits for it."""
        vk = self.vk
        region = vk.VkBufferCopy(srcOffset=source_offset, dstOffset=target_offset, size=size)
        self.record(self._copies, lambda c: vk.vkCmdCopyBuffer(c, source, target, 1, [region]))
        self.run(self._copies, "while memory was copied")

    # --- commands

    def commands(self) -> Commands:
        """A new command buffer."""
        vk = self.vk
        info = vk.VkCommandBufferAllocateInfo(
            commandPool=self._pool, level=vk.VK_COMMAND_BUFFER_LEVEL_PRIMARY, commandBufferCount=1
        )
        with translated("while commands were recorded"):
            return Commands(vk, vk.vkAllocateCommandBuffers(self.device, info)[0])

    def free(self, commands: Commands) -> None:
        self.vk.vkFreeCommandBuffers(self.device, self._pool, 1, [commands.handle])

    def record(self, commands: Commands, write: Callable[[Any], None]) -> None:
        """Fills a command buffer anew: ``write``, with all memory in order after it.

        What is submitted later comes after that, and what the host wrote before a submission is seen by it anyway: one
        barrier a buffer is enough, and each is time that a short call takes.
        """
        vk, handle = self.vk, commands.handle
        flags = vk.VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT
        with translated("while commands were recorded"):
            vk.vkBeginCommandBuffer(handle, vk.VkCommandBufferBeginInfo(flags=flags))
            write(handle)
            self.order(handle)
            vk.vkEndCommandBuffer(handle)

    def order(self, commands: Any) -> None:
        """Everything recorded before happens before everything after, in all memory, the host's view included."""
        vk = self.vk
        written = vk.VK_ACCESS_SHADER_WRITE_BIT | vk.VK_ACCESS_TRANSFER_WRITE_BIT | vk.VK_ACCESS_HOST_WRITE_BIT
        read = vk.VK_ACCESS_SHADER_READ_BIT | vk.VK_ACCESS_TRANSFER_READ_BIT | vk.VK_ACCESS_HOST_READ_BIT
        stages = (
            vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | vk.VK_PIPELINE_STAGE_TRANSFER_BIT | vk.VK_PIPELINE_STAGE_HOST_BIT
        )
        barrier = vk.VkMemoryBarrier(srcAccessMask=written, dstAccessMask=written | read)
        vk.vkCmdPipelineBarrier(commands, stages, stages, 0, 1, [barrier], 0, None, 0, None)

    def run(self, commands: Commands, doing: str, times: int = 1) -> None:
        """Submits commands that many times, one run after the other, and waits for the last."""
        vk = self.vk
        with translated(doing):
            while times > 0:
                # waiting now and then keeps what drivers hold of waiting commands within bounds
                ahead = min(times, _BATCH * _BATCHES)
                for start in range(0, ahead, _BATCH):
                    count = min(_BATCH, ahead - start)
                    fence = self._fence if start + count == ahead else vk.VK_NULL_HANDLE
                    vk.vkQueueSubmit(self._queue, 1, commands.submission(count), fence)
                vk.vkWaitForFences(self.device, 1, self._fences, True, _FOREVER)
                vk.vkResetFences(self.device, 1, self._fences)
                times -= ahead

    def close(self) -> None:
        """Gives everything back. What was made with this queue is gone with it."""
        device, instance, self.device, self._instance = self.device, self._instance, None, None
        if device is not None:
            if self._staging is not None:
                self._staging.release()
                self._staging = None
            if self._fence is not None:
                self.vk.vkDestroyFence(device, self._fence, None)
            if self._pool is not None:
                self.vk.vkDestroyCommandPool(device, self._pool, None)
            self.vk.vkDestroyDevice(device, None)
        if instance is not None:
            instance.close()
