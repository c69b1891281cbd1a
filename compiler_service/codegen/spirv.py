"""Kernels → one SPIR-V 1.3 module for Vulkan 1.1, with an entry point for each.

How a kernel's arguments are bound, for whoever launches it:

- buffers: storage buffers of descriptor set 0, in the order of the kernel's buffers: a binding each, or as many as it
  has parts (``crossfarm/artifact/buffer_parts.py``);
- scalars: push constants, laid out by ``crossfarm/artifact/push_constants.py``;
- the group's size is in the code (``LocalSize``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compiler_service.codegen import spirv_memory as memory
from compiler_service.codegen.kernel import Kernel, elements
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_convert import low_bits
from compiler_service.codegen.spirv_functions import Library
from compiler_service.codegen.spirv_opcodes import BuiltIn, Glsl, Mode, Op, Storage
from compiler_service.codegen.spirv_statement import StatementEmitter
from compiler_service.codegen.spirv_types import Types
from compiler_service.codegen.spirv_words import ModuleWords
from crossfarm.artifact.buffer_parts import PART_BYTES, part_count
from crossfarm.artifact.push_constants import GROUPS_EVERYWHERE, push_constant_layout
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Interval, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Var
from crossfarm.ir.visitor import make_room, walk
from crossfarm.target import Target

_BUILT_INS = {"blockIdx": BuiltIn.WORKGROUP_ID, "threadIdx": BuiltIn.LOCAL_INVOCATION_ID}
_AXES = "xyz"
#: Thread groups along one axis: Vulkan promises 65535, no device has more than this.
_MOST_GROUPS = 2**31 - 1


@dataclass(frozen=True)
class SpirvModule:
    """What code generation gives.

    Attributes:
        code: the module's bytes, little-endian.
        features: names of ``crossfarm.target.features`` that a device needs for it, sorted.
        shared_bytes: by kernel, what a group's threads share; more than the sum of the buffers where the device has no
            small elements in shared memory.
        parts: by kernel, the names of buffers that take several bindings, and how many.
    """

    code: bytes
    features: tuple[str, ...]
    shared_bytes: Mapping[str, int]
    parts: Mapping[str, Mapping[str, int]]


def emit_module(kernels: Sequence[Kernel], target: Target) -> SpirvModule:
    """The kernels in one module. The same arguments give the same bytes.

    Raises:
        BuildFailed: a kernel uses what the target's device lacks, or what SPIR-V cannot express; the message names the
            kernel, what it uses, and what to do.
    """
    make_room()
    module = ModuleWords()
    types = Types(module, target)
    library = Library(types)
    shared, parts = {}, {}
    for kernel in kernels:
        emission = _Emission(kernel, types, library)
        shared[kernel.name] = emission.run()
        parts[kernel.name] = emission.parts
    if types.has("float_controls") and types.float_widths:
        types.need("float_controls", "floats")
        for function in library.entry_points:
            for width in sorted(types.float_widths):
                module.execution_mode(function, Mode.SIGNED_ZERO_INF_NAN_PRESERVE, width)
                module.execution_mode(function, Mode.ROUNDING_MODE_RTE, width)
    return SpirvModule(module.finish(), tuple(sorted(types.features)), shared, parts)


class _Emission:
    """One kernel's way into the module."""

    def __init__(self, kernel: Kernel, types: Types, library: Library) -> None:
        types.kernel = kernel.name
        self.kernel = kernel
        self.types, self.module, self.library = types, types.module, library
        self.e = StatementEmitter(kernel.name, types, library)
        self.interface: list[int] = []
        self.parts: dict[str, int] = {}
        self.block = 0
        self.in_parts = False
        self.first_group_member = 0

    def run(self) -> int:
        """Writes the kernel; the bytes that its threads share."""
        kernel, c = self.kernel, self.e.c
        shared = self._buffers()
        self._push_constants()
        self._threads()
        body = kernel.body
        if isinstance(most := self.types.target.attributes.get("loop_iterations"), int) and most:
            body = self.e.limit_iterations(body, most)
        self.e.statement(body)
        c.finish()
        self.module.entry_point(c.id, kernel.name, self.interface)
        self.module.execution_mode(c.id, Mode.LOCAL_SIZE, *kernel.group)
        self.library.entry_points.append(c.id)
        return shared

    def _buffers(self) -> int:
        kernel, types = self.kernel, self.types
        nodes = list(walk(kernel.body))
        loaded = {n.buffer for n in nodes if isinstance(n, BufferLoad)}
        waits = any(isinstance(n, Call) and n.op == "storage_sync" for n in nodes)
        binding = 0
        for buffer in kernel.buffers:
            written = buffer in kernel.written
            coherent = waits and written and buffer in loaded
            if parts := self._parts(buffer):
                self.parts[buffer.name] = parts
            self.e.places[buffer] = memory.storage_buffer(
                types, buffer, binding, parts=max(parts, 1), written=written, coherent=coherent, alone=kernel.noalias
            )
            binding += max(parts, 1)
        total = 0
        for buffer in kernel.shared:
            place = memory.shared_array(types, buffer, elements(buffer))
            self.e.places[buffer] = place
            total += -(-elements(buffer) * place.bits // 8 // 16) * 16
        most = types.target.attributes.get("shared_bytes")
        if isinstance(most, int) and total > most:
            raise BuildFailed(
                f"kernel {kernel.name!r} shares {total} bytes within a group, and target {types.target.label} has "
                f"room for {most}",
                hint="use smaller tiles; without int8 and int16 in the target, small elements take 4 bytes each",
            )
        return total

    def _parts(self, buffer: Buffer) -> int:
        """How many parts it is bound in; 0 for whole, as is what only the call knows the size of."""
        most = self.types.target.attributes.get("storage_buffer_bytes", PART_BYTES)
        if any(const_int(e) is None for e in (*buffer.shape, *buffer.strides)) or not isinstance(most, int):
            return 0
        return part_count(elements(buffer) * dt.itemsize(buffer.dtype), most)

    def _push_constants(self) -> None:
        """Scalars that are used become values at the start; of 64-bit integers the low word is enough for indices."""
        kernel, known = self.kernel, self.e.known
        offsets, end = push_constant_layout([s.dtype for s in kernel.scalars])
        room = self.types.target.attributes.get("push_constant_bytes", 128)
        if isinstance(room, int) and end + 4 > room:
            raise BuildFailed(
                f"kernel {kernel.name!r} has {end} bytes of scalar arguments, and target {self.types.target.label} has "
                f"room for {room - 4}",
                hint="pass them in a buffer, or split the function",
            )
        word = self.module.uint_type()
        block = self.module.block([(word, offset) for offset in range(0, end + 4, 4)], key=Storage.PUSH_CONSTANT)
        used = {n for n in walk(kernel.body) if isinstance(n, Var)}
        for buffer in kernel.buffers:
            # a buffer has less than 2**31 elements, and so has each of its axes
            sizes = {e for e in buffer.shape if isinstance(e, Var)}
            for size in sizes:
                known.bind(size, Interval.of("int32").meet(Interval(0, known.bounds(size).high)))
            used.update(sizes, (n for e in (*buffer.shape, *buffer.strides) for n in walk(e) if isinstance(n, Var)))
        scalars = [(s, offset) for s, offset in zip(kernel.scalars, offsets) if s in used]
        groups = const_int(kernel.grid[0])
        self.in_parts = groups is None or groups > GROUPS_EVERYWHERE
        if scalars or self.in_parts:
            self.block = self.module.variable(Storage.PUSH_CONSTANT, block, "arguments")
        for scalar, offset in scalars:
            self._scalar(scalar, offset // 4)
        self.first_group_member = end // 4

    def _word(self, member: int) -> Value:
        """A word of the push constants."""
        c, word = self.e.c, self.module.uint_type()
        pointer = c.element(self.block, Storage.PUSH_CONSTANT, word, self.module.uint(member))
        return Value(c.typed(Op.LOAD, word, pointer), "uint32")

    def _scalar(self, scalar: Var, member: int) -> None:
        e, c, dtype = self.e, self.e.c, scalar.dtype
        low = self._word(member)
        if dt.bits(dtype) == 64:
            high = self._word(member + 1)

            def whole() -> Value:
                pair = c.module.type_id(Op.TYPE_VECTOR, c.module.uint_type(), 2)
                both = c.typed(Op.COMPOSITE_CONSTRUCT, pair, low.id, high.id)
                return Value(c.typed(Op.BITCAST, self.types.register(dtype), both), dtype)

            if dt.is_int(dtype):
                e.low[scalar] = Value(low.id, "int32")
            e.wide[scalar] = whole
        elif dtype == "bool":
            e.vars[scalar] = c.compare("ne", low, c.constant("uint32", 0))
        elif dtype == "bfloat16":
            e.vars[scalar] = Value(c.float_of(c.binary("shl", low, c.constant("uint32", 16))).id, dtype)
        elif dtype == "float16":
            e.vars[scalar] = self._half(low)
        elif dtype == "float32":
            e.vars[scalar] = c.float_of(low)
        else:
            e.vars[scalar] = Value(low.id, dtype)

    def _half(self, word: Value) -> Value:
        """float16 in the low half of a word, without 16-bit integers."""
        c = self.e.c
        single = self.types.register("float32")
        pair = c.module.type_id(Op.TYPE_VECTOR, single, 2)
        both = c.typed(Op.EXT_INST, pair, c.module.glsl, Glsl.UNPACK_HALF_2X16, word.id)
        first = c.typed(Op.COMPOSITE_EXTRACT, single, both, 0)
        return c.value(Op.F_CONVERT, "float16", Value(first, "float32"))

    def _threads(self) -> None:
        kernel, e, c = self.kernel, self.e, self.e.c
        word = self.module.uint_type()
        triple = self.module.type_id(Op.TYPE_VECTOR, word, 3)
        loaded: dict[str, int] = {}
        for var, tag in kernel.threads.items():
            name, axis = tag.split(".")
            if name not in loaded:
                variable = self.library.built_in(_BUILT_INS[name], triple)
                self.interface.append(variable)
                loaded[name] = c.typed(Op.LOAD, triple, variable)
            position = _AXES.index(axis)
            index = Value(c.typed(Op.COMPOSITE_EXTRACT, word, loaded[name], position), "int32")
            if tag == "blockIdx.x" and self.in_parts:
                index = c.binary("add", index, Value(self._word(self.first_group_member).id, "int32"))
            most = kernel.group[position] if name == "threadIdx" else e.known.bounds(kernel.grid[position]).high
            e.known.bind(var, Interval(0, min(most, _MOST_GROUPS) - 1))
            if dt.bits(var.dtype) == 64:
                e.bind_low(var, index)
            else:
                e.vars[var] = low_bits(c, index, var.dtype)
