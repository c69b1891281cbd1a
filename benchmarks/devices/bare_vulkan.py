"""A kernel of an artifact launched by the ``vulkan`` package alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.devices.one_launch import OneLaunch
from benchmarks.peers.serving import Array

_FOREVER = (1 << 64) - 1
#: Bytes of push constants that kernels of artifacts without scalars have: the first group's number.
_PUSHED = 4
#: Command buffers of one submission where many calls are queued.
_TOGETHER = 64


class BareVulkan:
    """As a person writes it who knows Vulkan: commands recorded once, a submission a call, or for several of them at
    once where there are many, all structures made beforehand."""

    def __init__(self, launch: OneLaunch, device: str) -> None:
        import vulkan as vk

        self._vk = vk
        application = vk.VkApplicationInfo(apiVersion=1 << 22 | 1 << 12)
        self._instance = vk.vkCreateInstance(vk.VkInstanceCreateInfo(pApplicationInfo=application), None)
        self._physical = next(
            p
            for p in vk.vkEnumeratePhysicalDevices(self._instance)
            if str(vk.vkGetPhysicalDeviceProperties(p).deviceName) == device
        )
        families = vk.vkGetPhysicalDeviceQueueFamilyProperties(self._physical)
        family = next(k for k, f in enumerate(families) if f.queueFlags & vk.VK_QUEUE_COMPUTE_BIT)
        queue = vk.VkDeviceQueueCreateInfo(queueFamilyIndex=family, queueCount=1, pQueuePriorities=[1.0])
        self._device = vk.vkCreateDevice(self._physical, vk.VkDeviceCreateInfo(pQueueCreateInfos=[queue]), None)
        self._queue = vk.vkGetDeviceQueue(self._device, family, 0)
        self._buffers = [self._buffer(array) for array in launch.arrays]
        self._result = launch.arrays[-1]
        commands = self._recorded(launch, family)
        self._fence = vk.vkCreateFence(self._device, vk.VkFenceCreateInfo(), None)
        self._one, self._many = (vk.VkSubmitInfo(pCommandBuffers=[commands] * count) for count in (1, _TOGETHER))

    def run(self, number: int) -> None:
        """So many calls in the queue, and their end."""
        vk, queue = self._vk, self._queue
        submissions = [self._many] * (number // _TOGETHER) + [self._one] * (number % _TOGETHER)
        for submission in submissions[:-1]:
            vk.vkQueueSubmit(queue, 1, [submission], vk.VK_NULL_HANDLE)
        vk.vkQueueSubmit(queue, 1, [submissions[-1]], self._fence)
        vk.vkWaitForFences(self._device, 1, [self._fence], True, _FOREVER)
        vk.vkResetFences(self._device, 1, [self._fence])

    def output(self) -> Array:
        """What the last call gave."""
        _, memory = self._buffers[-1]
        mapped = self._vk.vkMapMemory(self._device, memory, 0, self._result.nbytes, 0)
        result = np.frombuffer(bytes(mapped), np.float32).reshape(self._result.shape)
        self._vk.vkUnmapMemory(self._device, memory)
        return result

    def _buffer(self, array: Array) -> tuple[Any, Any]:
        """A buffer with the array's bytes, in memory that the host sees."""
        vk = self._vk
        usage = vk.VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
        buffer = vk.vkCreateBuffer(self._device, vk.VkBufferCreateInfo(size=array.nbytes, usage=usage), None)
        needs = vk.vkGetBufferMemoryRequirements(self._device, buffer)
        wanted = vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
        types = vk.vkGetPhysicalDeviceMemoryProperties(self._physical)
        kind = next(
            k
            for k in range(types.memoryTypeCount)
            if needs.memoryTypeBits >> k & 1 and types.memoryTypes[k].propertyFlags & wanted == wanted
        )
        allocation = vk.VkMemoryAllocateInfo(allocationSize=needs.size, memoryTypeIndex=kind)
        memory = vk.vkAllocateMemory(self._device, allocation, None)
        vk.vkBindBufferMemory(self._device, buffer, memory, 0)
        mapped = vk.vkMapMemory(self._device, memory, 0, array.nbytes, 0)
        memoryview(mapped)[:] = array.tobytes()
        vk.vkUnmapMemory(self._device, memory)
        return buffer, memory

    def _recorded(self, launch: OneLaunch, family: int) -> Any:
        """A command buffer that runs the kernel once, after everything before it."""
        vk, device = self._vk, self._device
        layout, set_layout = self._layouts(len(launch.order))
        module = vk.vkCreateShaderModule(
            device, vk.VkShaderModuleCreateInfo(codeSize=len(launch.code), pCode=launch.code), None
        )
        stage = vk.VkPipelineShaderStageCreateInfo(
            stage=vk.VK_SHADER_STAGE_COMPUTE_BIT, module=module, pName=launch.name
        )
        create = vk.VkComputePipelineCreateInfo(stage=stage, layout=layout)
        (pipeline,) = vk.vkCreateComputePipelines(device, vk.VK_NULL_HANDLE, 1, [create], None)
        descriptors = self._descriptors(set_layout, launch)
        pool = vk.vkCreateCommandPool(device, vk.VkCommandPoolCreateInfo(queueFamilyIndex=family), None)
        info = vk.VkCommandBufferAllocateInfo(
            commandPool=pool, level=vk.VK_COMMAND_BUFFER_LEVEL_PRIMARY, commandBufferCount=1
        )
        commands = vk.vkAllocateCommandBuffers(device, info)[0]
        flags = vk.VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT
        point, compute = vk.VK_PIPELINE_BIND_POINT_COMPUTE, vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT
        written = vk.VK_ACCESS_SHADER_WRITE_BIT
        barrier = vk.VkMemoryBarrier(srcAccessMask=written, dstAccessMask=written | vk.VK_ACCESS_SHADER_READ_BIT)
        vk.vkBeginCommandBuffer(commands, vk.VkCommandBufferBeginInfo(flags=flags))
        vk.vkCmdPipelineBarrier(commands, compute, compute, 0, 1, [barrier], 0, None, 0, None)
        vk.vkCmdBindPipeline(commands, point, pipeline)
        vk.vkCmdBindDescriptorSets(commands, point, layout, 0, 1, [descriptors], 0, None)
        first = vk.ffi.from_buffer(bytearray(_PUSHED))
        vk.vkCmdPushConstants(commands, layout, vk.VK_SHADER_STAGE_COMPUTE_BIT, 0, _PUSHED, first)
        vk.vkCmdDispatch(commands, *launch.grid)
        vk.vkEndCommandBuffer(commands)
        return commands

    def _layouts(self, count: int) -> tuple[Any, Any]:
        """Of the pipeline and of its ``count`` buffers."""
        vk = self._vk
        bindings = [
            vk.VkDescriptorSetLayoutBinding(
                binding=k, descriptorType=vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, descriptorCount=1,
                stageFlags=vk.VK_SHADER_STAGE_COMPUTE_BIT,
            )
            for k in range(count)
        ]  # fmt: skip
        info = vk.VkDescriptorSetLayoutCreateInfo(bindingCount=count, pBindings=bindings)
        set_layout = vk.vkCreateDescriptorSetLayout(self._device, info, None)
        pushed = vk.VkPushConstantRange(vk.VK_SHADER_STAGE_COMPUTE_BIT, 0, _PUSHED)
        create = vk.VkPipelineLayoutCreateInfo(pSetLayouts=[set_layout], pPushConstantRanges=[pushed])
        return vk.vkCreatePipelineLayout(self._device, create, None), set_layout

    def _descriptors(self, set_layout: Any, launch: OneLaunch) -> Any:
        """A set with the buffers."""
        vk, kind = self._vk, self._vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
        sizes = [vk.VkDescriptorPoolSize(type=kind, descriptorCount=len(launch.order))]
        pool = vk.vkCreateDescriptorPool(self._device, vk.VkDescriptorPoolCreateInfo(maxSets=1, pPoolSizes=sizes), None)
        info = vk.VkDescriptorSetAllocateInfo(descriptorPool=pool, pSetLayouts=[set_layout])
        descriptors = vk.vkAllocateDescriptorSets(self._device, info)[0]
        for k, index in enumerate(launch.order):
            part = vk.VkDescriptorBufferInfo(
                buffer=self._buffers[index][0], offset=0, range=launch.arrays[index].nbytes
            )
            write = vk.VkWriteDescriptorSet(
                dstSet=descriptors, dstBinding=k, descriptorCount=1, descriptorType=kind, pBufferInfo=[part]
            )
            vk.vkUpdateDescriptorSets(self._device, 1, [write], 0, None)
        return descriptors
