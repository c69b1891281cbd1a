"""Vulkan instances and what is known of their devices; errors of Vulkan as crossfarm's.

The ``vulkan`` package loads the machine's Vulkan loader when it is imported, so it is imported when it is needed: an
agent without either starts all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crossfarm.errors import DeviceLost, Error, IncompatibleArtifact, LimitExceeded, UsageError

_API_1_1 = 1 << 22 | 1 << 12
_TYPES = {1: "gpu", 2: "gpu", 3: "gpu", 4: "cpu"}
_INTEGRATED, _CPU = 1, 4
#: Extensions that are switched on where a device has them: what kernels need beyond Vulkan 1.1.
_EXTENSIONS = ("VK_KHR_8bit_storage", "VK_KHR_shader_float16_int8", "VK_KHR_shader_float_controls")


def load() -> Any:
    """The ``vulkan`` package. Raises UsageError naming what is missing."""
    try:
        import vulkan
    except (ImportError, OSError, AttributeError) as failure:
        what = "the Python package vulkan" if isinstance(failure, ImportError) else "a Vulkan loader (libvulkan.so.1)"
        raise UsageError(
            f"this machine cannot drive Vulkan devices: {what} is missing: {failure}",
            hint="install crossfarm[vulkan], and the device's Vulkan driver with the loader (Debian: libvulkan1)",
        ) from failure
    return vulkan


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Vulkan's errors in the block as crossfarm's.

    Args:
        doing: what it was about, for the message: "while making a pipeline".
    """
    vk = load()
    try:
        yield
    except (vk.VkError, vk.VkException) as failure:
        raise _error(vk, failure, doing) from failure


def _error(vk: Any, failure: Exception, doing: str) -> Error:
    name = type(failure).__name__
    if isinstance(failure, (vk.VkErrorOutOfDeviceMemory, vk.VkErrorOutOfHostMemory, vk.VkErrorOutOfPoolMemory)):
        return LimitExceeded(
            f"the device's memory ran out {doing} ({name})",
            hint="release tensors and programs that are no longer needed, or use a device with more memory",
        )
    if isinstance(failure, (vk.VkErrorFeatureNotPresent, vk.VkErrorExtensionNotPresent)):
        return IncompatibleArtifact(
            f"the device lacks what was asked of it {doing} ({name})",
            hint="build it for this device: farm.build(module, target=device.target)",
        )
    if isinstance(failure, vk.VkErrorDeviceLost):
        return DeviceLost(
            f"the device was lost {doing}: a kernel ran too long, or did what its driver does not survive ({name})",
            hint="look for loops without end and accesses out of bounds; if there are none, restart the driver",
        )
    return DeviceLost(
        f"the Vulkan driver failed {doing} ({name})",
        hint="try again; if it stays, look at the driver's installation (VK_DRIVER_FILES, vulkaninfo)",
    )


@dataclass(frozen=True)
class MemoryKind:
    """One of a device's memory types."""

    index: int
    flags: int
    heap_bytes: int


class PhysicalDevice:
    """What there is to know of a device without opening it.

    Attributes:
        handle: Vulkan's.
        queue_family: the family of queues that compute; dedicated to it where there is one.
        timestamp_bits: valid bits of the family's timestamps, 0 for none.
        extensions: of ``_EXTENSIONS``, those it has.
    """

    def __init__(self, vk: Any, handle: Any) -> None:
        self._vk = vk
        self.handle = handle
        self.properties = vk.vkGetPhysicalDeviceProperties(handle)
        self.limits = self.properties.limits
        self.queue_family, self.timestamp_bits = self._compute_family()
        self._available = {e.extensionName for e in vk.vkEnumerateDeviceExtensionProperties(handle, None)}
        self.extensions = tuple(name for name in _EXTENSIONS if name in self._available)

    def _compute_family(self) -> tuple[int, int]:
        vk, found = self._vk, []
        for index, family in enumerate(vk.vkGetPhysicalDeviceQueueFamilyProperties(self.handle)):
            if family.queueFlags & vk.VK_QUEUE_COMPUTE_BIT and family.queueCount:
                found.append((bool(family.queueFlags & vk.VK_QUEUE_GRAPHICS_BIT), index, family.timestampValidBits))
        if not found:
            return -1, 0
        _, index, bits = min(found)
        return index, bits

    @property
    def usable(self) -> bool:
        """Whether it computes, and speaks Vulkan 1.1."""
        return self.queue_family >= 0 and self.properties.apiVersion >= _API_1_1

    @property
    def name(self) -> str:
        return str(self.properties.deviceName)

    @property
    def kind(self) -> str:
        """``gpu``, ``cpu``, or ``other``."""
        return _TYPES.get(self.properties.deviceType, "other")

    @property
    def shares_memory(self) -> bool:
        """Whether its memory is the host's."""
        return self.properties.deviceType in (_INTEGRATED, _CPU)

    @property
    def driver(self) -> str:
        """The driver's name, as ``llvmpipe``; the vendor's number where it does not say."""
        return self._driver_text("driverName") or f"vendor {self.properties.vendorID:#06x}"

    @property
    def driver_version(self) -> str:
        """As the driver writes it, else its number."""
        return self._driver_text("driverInfo") or str(self.properties.driverVersion)

    @property
    def loop_iterations(self) -> int:
        """After how many iterations of all its loops a thread leaves them, without an error; 0 for never.

        Mesa's llvmpipe counts them (LP_MAX_TGSI_LOOP_ITERATIONS), so that no shader hangs it.
        """
        return 65535 if self.driver == "llvmpipe" else 0

    def _driver_text(self, field: str) -> str:
        structs = self._chained[1]
        if "driver" not in structs:
            return ""
        text = self._vk.ffi.string(getattr(structs["driver"], field))
        return bytes(text).decode(errors="replace").strip()

    @property
    def api_version(self) -> str:
        version = self.properties.apiVersion
        return f"{version >> 22 & 0x7F}.{version >> 12 & 0x3FF}"

    @cached_property
    def memory_kinds(self) -> list[MemoryKind]:
        found = self._vk.vkGetPhysicalDeviceMemoryProperties(self.handle)
        return [
            MemoryKind(k, found.memoryTypes[k].propertyFlags, found.memoryHeaps[found.memoryTypes[k].heapIndex].size)
            for k in range(found.memoryTypeCount)
        ]

    @property
    def memory_bytes(self) -> int:
        """Of the largest heap that is the device's own."""
        local = self._vk.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
        return max((k.heap_bytes for k in self.memory_kinds if k.flags & local), default=0)

    @cached_property
    def _chained(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Structures of features and of properties, filled, by name."""
        vk = self._vk
        features: dict[str, Any] = {"storage16": vk.VkPhysicalDevice16BitStorageFeatures()}
        if "VK_KHR_8bit_storage" in self.extensions:
            features["storage8"] = vk.VkPhysicalDevice8BitStorageFeatures(pNext=features["storage16"])
        if "VK_KHR_shader_float16_int8" in self.extensions:
            last = list(features.values())[-1]
            features["float16_int8"] = vk.VkPhysicalDeviceShaderFloat16Int8Features(pNext=last)
        features["core"] = vk.VkPhysicalDeviceFeatures2(pNext=list(features.values())[-1])
        vk.vkGetPhysicalDeviceFeatures2(self.handle, features["core"])
        properties: dict[str, Any] = {"subgroup": vk.VkPhysicalDeviceSubgroupProperties()}
        if "VK_KHR_shader_float_controls" in self.extensions:
            properties["floats"] = vk.VkPhysicalDeviceFloatControlsProperties(pNext=properties["subgroup"])
        if "VK_KHR_driver_properties" in self._available:
            properties["driver"] = vk.VkPhysicalDeviceDriverProperties(pNext=list(properties.values())[-1])
        properties["core"] = vk.VkPhysicalDeviceProperties2(pNext=list(properties.values())[-1])
        vk.vkGetPhysicalDeviceProperties2(self.handle, properties["core"])
        return features, properties

    @property
    def subgroup_size(self) -> int:
        return int(self._chained[1]["subgroup"].subgroupSize)

    @cached_property
    def features(self) -> frozenset[str]:
        """Names of ``crossfarm.target.features`` that it has."""
        chain, properties = self._chained
        core, small = chain["core"].features, chain.get("float16_int8")
        has = {
            "float64": core.shaderFloat64,
            "int64": core.shaderInt64,
            "int16": core.shaderInt16,
            "storage16": chain["storage16"].storageBuffer16BitAccess,
            "storage8": "storage8" in chain and chain["storage8"].storageBuffer8BitAccess,
            "float16": small is not None and small.shaderFloat16,
            "int8": small is not None and small.shaderInt8,
        }
        floats = properties.get("floats")
        widths = [16 * bool(has["float16"]), 32, 64 * bool(has["float64"])]
        has["float_controls"] = floats is not None and all(
            getattr(floats, f"{what}Float{width}")
            for what in ("shaderSignedZeroInfNanPreserve", "shaderRoundingModeRTE")
            for width in widths
            if width
        )
        return frozenset(name for name, there in has.items() if there)

    def enabled(self) -> tuple[Any, list[Any]]:
        """The features that kernels may need, to open the device with: the chain's head, and what must stay alive."""
        vk, has = self._vk, self.features
        keep: list[Any] = [vk.VkPhysicalDevice16BitStorageFeatures(storageBuffer16BitAccess="storage16" in has)]
        if "storage8" in has:
            keep.append(vk.VkPhysicalDevice8BitStorageFeatures(pNext=keep[-1], storageBuffer8BitAccess=True))
        if "VK_KHR_shader_float16_int8" in self.extensions:
            keep.append(
                vk.VkPhysicalDeviceShaderFloat16Int8Features(
                    pNext=keep[-1], shaderFloat16="float16" in has, shaderInt8="int8" in has
                )
            )
        core = vk.VkPhysicalDeviceFeatures(
            shaderFloat64="float64" in has, shaderInt64="int64" in has, shaderInt16="int16" in has
        )
        keep.append(vk.VkPhysicalDeviceFeatures2(pNext=keep[-1], features=core))
        return keep[-1], keep


class Instance:
    """A connection to the machine's Vulkan drivers. Raises UsageError or DeviceLost where there is none."""

    def __init__(self) -> None:
        self.vk = load()
        app = self.vk.VkApplicationInfo(pApplicationName="crossfarm", pEngineName="crossfarm", apiVersion=_API_1_1)
        with translated("while it was looked for"):
            self.handle = self.vk.vkCreateInstance(self.vk.VkInstanceCreateInfo(pApplicationInfo=app), None)

    def devices(self) -> list[PhysicalDevice]:
        """Those that compute and speak Vulkan 1.1, in the drivers' order."""
        with translated("while its devices were listed"):
            found = [PhysicalDevice(self.vk, handle) for handle in self.vk.vkEnumeratePhysicalDevices(self.handle)]
        return [device for device in found if device.usable]

    def close(self) -> None:
        self.vk.vkDestroyInstance(self.handle, None)
