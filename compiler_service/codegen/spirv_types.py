"""How dtypes live in SPIR-V, and what a device must have for them.

===================  ===================  ==============================  =====================================
dtype                register             buffer                          shared by a group
===================  ===================  ==============================  =====================================
bool                 bool                 8 bits, 0 or 1                  bool
8- and 16-bit ints   32 bits, extended    8 or 16 bits                    8 or 16 bits with int8, int16, else 32
bfloat16             float32              16 bits                         16 bits with int16, else float32
the rest             itself               itself                          itself
===================  ===================  ==============================  =====================================

Small integers are computed in 32 bits: every device can, and buffers of them need no arithmetic on small integers,
only conversions, which come with access to such buffers. All integer types are unsigned ones; instructions say what is
meant. A thread's own arrays are made of registers.
"""

from __future__ import annotations

from compiler_service.codegen.spirv_opcodes import Capability, Op, Storage
from compiler_service.codegen.spirv_words import ModuleWords
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.target import Target
from crossfarm.target.features import FEATURES, VULKAN_ATTRIBUTES

_CAPABILITIES: dict[str, tuple[tuple[Capability, str], ...]] = {
    "float64": ((Capability.FLOAT64, ""),),
    "float16": ((Capability.FLOAT16, ""),),
    "int8": ((Capability.INT8, ""),),
    "int16": ((Capability.INT16, ""),),
    "int64": ((Capability.INT64, ""),),
    "storage8": ((Capability.STORAGE_BUFFER_8BIT_ACCESS, "SPV_KHR_8bit_storage"),),
    "storage16": ((Capability.STORAGE_BUFFER_16BIT_ACCESS, ""),),
    "float_controls": (
        (Capability.SIGNED_ZERO_INF_NAN_PRESERVE, "SPV_KHR_float_controls"),
        (Capability.ROUNDING_MODE_RTE, "SPV_KHR_float_controls"),
    ),
}
#: What to do where a feature is missing.
_INSTEAD = {
    "float64": "compute in float32",
    "float16": "compute in float32, and convert on the host",
    "int8": "share 32-bit elements within the group",
    "int16": "share 32-bit elements within the group, or reinterpret 32-bit values",
    "int64": "use int32 for loops, indices and sizes",
    "storage8": "store 32-bit elements",
    "storage16": "store 32-bit elements",
}


class Types:
    """The types of one module for one target.

    Attributes:
        kernel: which is being emitted, for messages.
        features: names of ``crossfarm.target.features`` that the module needs so far.
        float_widths: bits of the float types so far.
    """

    def __init__(self, module: ModuleWords, target: Target) -> None:
        self.module = module
        self.target = target
        self.kernel = ""
        self.features: set[str] = set()
        self.float_widths: set[int] = set()

    def has(self, feature: str) -> bool:
        """Whether the target promises ``feature``."""
        return bool(self.target.attributes.get(VULKAN_ATTRIBUTES[feature], False))

    def need(self, feature: str, what: str) -> None:
        """Declares that the code needs ``feature``. Raises BuildFailed where the target has it not, naming ``what``."""
        if feature in self.features:
            return
        if not self.has(feature):
            raise BuildFailed(
                f"kernel {self.kernel!r} uses {what}, and target {self.target.label} lacks {feature} "
                f"({FEATURES[feature].rstrip('.')})",
                hint=f"{_INSTEAD[feature]}; or, if the device can, say so in the target: "
                f"{VULKAN_ATTRIBUTES[feature]}=true",
            )
        self.features.add(feature)
        for capability, extension in _CAPABILITIES[feature]:
            self.module.capability(capability, extension)

    def register(self, dtype: str) -> int:
        """The type of a value."""
        if dtype == "bool":
            return self.module.type_id(Op.TYPE_BOOL)
        if dtype == "bfloat16":
            dtype = "float32"
        if dt.is_float(dtype):
            return self._float(dtype)
        if dt.lanes_of(dtype) > 1 or not dt.is_int(dtype):
            raise BuildFailed(
                f"kernel {self.kernel!r}: a value of {dtype} has no place in SPIR-V code",
                hint="vectors are taken apart by the pass scalarize_vectors; addresses exist on CPUs only",
            )
        if dt.bits(dtype) == 64:
            self.need("int64", dtype)
            return self.module.type_id(Op.TYPE_INT, 64, 0)
        return self.module.uint_type()

    def element(self, dtype: str, storage: Storage) -> int:
        """The type of an element in memory."""
        bits, small = self.memory_bits(dtype, storage), dt.bits(dtype) < 32 and dtype != "float16"
        if storage == Storage.STORAGE_BUFFER and bits < 32:
            self.need(f"storage{bits}", f"a buffer of {dtype}")
        if not small or bits == 32:
            return self.register(dtype)
        if storage != Storage.STORAGE_BUFFER:
            self.need(f"int{bits}", f"{dtype} shared by a group")
        return self.module.type_id(Op.TYPE_INT, bits, 0)

    def memory_bits(self, dtype: str, storage: Storage) -> int:
        """How many bits an element takes in memory."""
        bits = dt.bits(dtype)
        if storage == Storage.STORAGE_BUFFER or bits >= 32 or dtype == "float16":
            return bits
        if storage == Storage.WORKGROUP and dtype != "bool" and self.has(f"int{bits}"):
            return bits
        return 32

    def _float(self, dtype: str) -> int:
        bits = dt.bits(dtype)
        if bits != 32:
            self.need(dtype, dtype)
        self.float_widths.add(bits)
        return self.module.type_id(Op.TYPE_FLOAT, bits)
