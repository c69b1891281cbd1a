"""Elements of buffers in SPIR-V: where they are, and how they become values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compiler_service.codegen.spirv_arith import Arithmetic
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_opcodes import Decoration, Op, Storage
from compiler_service.codegen.spirv_types import Types
from crossfarm.artifact.buffer_parts import PART_BYTES
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer


@dataclass(frozen=True)
class Place:
    """A buffer's memory.

    Attributes:
        variable: the id of the variable that holds it.
        element: the type of an element there.
        bits: of that type.
        others: the ids of the variables that hold the parts after the first, where one cannot reach the whole buffer.
    """

    variable: int
    storage: Storage
    element: int
    bits: int
    dtype: str
    others: tuple[int, ...] = ()

    def part(self, number: int) -> Place:
        """One of the parts, as a buffer of its own."""
        return replace(self, variable=(self.variable, *self.others)[number], others=())


def storage_buffer(
    types: Types, buffer: Buffer, binding: int, *, parts: int, written: bool, coherent: bool, alone: bool
) -> Place:
    """Global memory: a runtime array in a block, at descriptor set 0.

    Args:
        binding: of the first part.
        parts: how many bindings it takes.
        written: the kernel stores to it.
        coherent: what one thread of a group stores there, another one loads after a barrier.
        alone: it overlaps with no other buffer, which SPIR-V takes for granted unless told.
    """
    module, storage = types.module, Storage.STORAGE_BUFFER
    element = types.element(buffer.dtype, storage)
    array = module.type_id(Op.TYPE_RUNTIME_ARRAY, element)
    module.decorate(array, Decoration.ARRAY_STRIDE, dt.itemsize(buffer.dtype))
    variables = []
    for part in range(parts):
        variable = module.variable(storage, module.block([(array, 0)], key=storage), buffer.name)
        module.decorate(variable, Decoration.DESCRIPTOR_SET, 0)
        module.decorate(variable, Decoration.BINDING, binding + part)
        module.decorate(variable, Decoration.RESTRICT if alone else Decoration.ALIASED)
        if not written:
            module.decorate(variable, Decoration.NON_WRITABLE)
        elif coherent:
            module.decorate(variable, Decoration.COHERENT)
        variables.append(variable)
    first, *others = variables
    return Place(first, storage, element, dt.bits(buffer.dtype), buffer.dtype, tuple(others))


def shared_array(types: Types, buffer: Buffer, count: int) -> Place:
    """Memory of a thread group."""
    storage = Storage.WORKGROUP
    element = types.element(buffer.dtype, storage)
    variable = types.module.variable(storage, types.module.array(element, count), buffer.name)
    return Place(variable, storage, element, types.memory_bits(buffer.dtype, storage), buffer.dtype)


def local_array(c: Arithmetic, buffer: Buffer, count: int) -> Place:
    """Memory of one thread."""
    element = c.types.element(buffer.dtype, Storage.FUNCTION)
    variable = c.local(c.module.array(element, count), buffer.name)
    return Place(variable, Storage.FUNCTION, element, c.types.memory_bits(buffer.dtype, Storage.FUNCTION), buffer.dtype)


def load(c: Arithmetic, place: Place, offset: Value) -> Value:
    """The element that is ``offset`` elements behind the first."""
    if place.others:
        return _load_from_parts(c, place, offset, 0)
    raw = c.typed(Op.LOAD, place.element, _pointer(c, place, offset))
    dtype = place.dtype
    if dt.bits(dtype) >= 32 or place.bits == 32 or dtype == "float16":
        return Value(raw, dtype)
    if dtype == "bfloat16":
        word = Value(c.typed(Op.U_CONVERT, c.module.uint_type(), raw), "uint32")
        return Value(c.float_of(c.binary("shl", word, c.constant("uint32", 16))).id, dtype)
    extend = Op.S_CONVERT if dt.is_signed(dtype) else Op.U_CONVERT
    value = Value(c.typed(extend, c.module.uint_type(), raw), "uint32" if dtype == "bool" else dtype)
    return c.compare("ne", value, c.constant("uint32", 0)) if dtype == "bool" else value


def store(c: Arithmetic, place: Place, offset: Value, value: Value) -> None:
    """Sets the element that is ``offset`` elements behind the first."""
    if place.others:
        _store_to_parts(c, place, offset, value, 0)
        return
    pointer = _pointer(c, place, offset)
    if dt.bits(place.dtype) >= 32 or place.bits == 32 or place.dtype == "float16":
        c.do(Op.STORE, pointer, value.id)
        return
    if value.dtype == "bool":
        value = c.select(value, c.constant("uint32", 1), c.constant("uint32", 0))
    elif value.dtype == "bfloat16":
        bits = Value(c.bits_of(value).id, "uint32")
        value = c.binary("shr", bits, c.constant("uint32", 16))
    c.do(Op.STORE, pointer, c.typed(Op.U_CONVERT, place.element, value.id))


def _load_from_parts(c: Arithmetic, place: Place, offset: Value, number: int) -> Value:
    """The element of the part that has it, which is ``number`` or one after it."""
    part, within, ends = _part(c, place, offset, number)
    if number == len(place.others):
        return load(c, part, within)
    return c.chosen(ends, lambda: load(c, part, within), lambda: _load_from_parts(c, place, offset, number + 1))


def _store_to_parts(c: Arithmetic, place: Place, offset: Value, value: Value, number: int) -> None:
    part, within, ends = _part(c, place, offset, number)
    if number == len(place.others):
        store(c, part, within, value)
        return
    c.choose(ends, lambda: store(c, part, within, value), lambda: _store_to_parts(c, place, offset, value, number + 1))


def _part(c: Arithmetic, place: Place, offset: Value, number: int) -> tuple[Place, Value, Value]:
    """A part, how many elements behind its first one ``offset`` is, and whether it is before the part's end."""
    each = PART_BYTES // dt.itemsize(place.dtype)
    within = c.binary("sub", offset, c.constant(offset.dtype, number * each)) if number else offset
    return place.part(number), within, c.compare("lt", within, c.constant(offset.dtype, each))


def _pointer(c: Arithmetic, place: Place, offset: Value) -> int:
    if place.storage == Storage.STORAGE_BUFFER:
        return c.element(place.variable, place.storage, place.element, c.module.uint(0), offset.id)
    return c.element(place.variable, place.storage, place.element, offset.id)
