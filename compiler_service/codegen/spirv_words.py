"""A SPIR-V module as it grows: sections of words, and types and constants made once each."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from compiler_service.codegen import spirv_opcodes as spv
from compiler_service.codegen.spirv_opcodes import Capability, Decoration, Op

#: Registered with nobody: the specification's number for tools without one.
_GENERATOR = 0


class Words:
    """A sequence of instructions."""

    def __init__(self) -> None:
        self.words: list[int] = []

    def add(self, op: Op, *operands: int) -> None:
        """Appends an instruction; operands are ids and literals as they stand in it."""
        self.words.append((len(operands) + 1) << 16 | op)
        self.words.extend(operands)


class ModuleWords:
    """One SPIR-V 1.3 module. Ids are given in the order of their making: the same calls give the same bytes."""

    def __init__(self) -> None:
        self._next = 1
        self._capabilities: set[Capability] = {Capability.SHADER}
        self._extensions: set[str] = set()
        self._made: dict[tuple[int, ...], int] = {}
        self._decorated: set[tuple[int, ...]] = set()
        self._entries, self._modes, self._names = Words(), Words(), Words()
        self._decorations, self._globals, self._functions = Words(), Words(), Words()
        self.glsl = self.new_id()

    def new_id(self) -> int:
        self._next += 1
        return self._next - 1

    def capability(self, capability: Capability, extension: str = "") -> None:
        """Declares what the code needs, and the extension that it is part of where SPIR-V 1.3 has it not."""
        self._capabilities.add(capability)
        if extension:
            self._extensions.add(extension)

    def type_id(self, op: Op, *operands: int) -> int:
        """The one type of these operands."""
        key = (op, *operands)
        if key not in self._made:
            self._made[key] = self.new_id()
            self._globals.add(op, self._made[key], *operands)
        return self._made[key]

    def constant(self, op: Op, type_id: int, *operands: int) -> int:
        """The one constant of this type with these words or parts."""
        key = (op, type_id, *operands)
        if key not in self._made:
            self._made[key] = self.new_id()
            self._globals.add(op, type_id, self._made[key], *operands)
        return self._made[key]

    def uint(self, value: int) -> int:
        """A 32-bit constant."""
        return self.constant(Op.CONSTANT, self.uint_type(), value & 0xFFFFFFFF)

    def uint_type(self) -> int:
        return self.type_id(Op.TYPE_INT, 32, 0)

    def pointer(self, storage: int, type_id: int) -> int:
        return self.type_id(Op.TYPE_POINTER, storage, type_id)

    def array(self, type_id: int, elements: int) -> int:
        """An array of constant length, at least 1, without a layout: for memory that is no buffer."""
        return self.type_id(Op.TYPE_ARRAY, type_id, self.uint(max(elements, 1)))

    def block(self, members: Iterable[tuple[int, int]], key: int) -> int:
        """A struct that is an interface: types and byte offsets of its members; one for each ``key`` and members."""
        parts = tuple(members)
        made = (-1, key, *(word for part in parts for word in part))
        if made not in self._made:
            struct_id = self._made[made] = self.new_id()
            self._globals.add(Op.TYPE_STRUCT, struct_id, *(type_id for type_id, _ in parts))
            self.decorate(struct_id, Decoration.BLOCK)
            for position, (_, offset) in enumerate(parts):
                self._decorations.add(Op.MEMBER_DECORATE, struct_id, position, Decoration.OFFSET, offset)
        return self._made[made]

    def variable(self, storage: int, type_id: int, name: str = "") -> int:
        """A new variable of ``type_id`` outside functions."""
        pointer, variable = self.pointer(storage, type_id), self.new_id()
        self._globals.add(Op.VARIABLE, pointer, variable, storage)
        if name:
            self.name(variable, name)
        return variable

    def decorate(self, target: int, decoration: Decoration, *literals: int) -> None:
        """Once, however often it is asked for."""
        key = (target, decoration, *literals)
        if key not in self._decorated:
            self._decorated.add(key)
            self._decorations.add(Op.DECORATE, target, decoration, *literals)

    def name(self, target: int, text: str) -> None:
        """For people who read the code."""
        self._names.add(Op.NAME, target, *text_words(text))

    def entry_point(self, function: int, name: str, interface: Iterable[int]) -> None:
        self._entries.add(Op.ENTRY_POINT, spv.EXECUTION_GL_COMPUTE, function, *text_words(name), *interface)

    def execution_mode(self, function: int, mode: int, *literals: int) -> None:
        self._modes.add(Op.EXECUTION_MODE, function, mode, *literals)

    def function(self, words: Words) -> None:
        """A finished function, from OpFunction to OpFunctionEnd."""
        self._functions.words.extend(words.words)

    def finish(self) -> bytes:
        """The module, little-endian."""
        head = Words()
        head.words.extend((spv.MAGIC, spv.VERSION_1_3, _GENERATOR, self._next, 0))
        for capability in sorted(self._capabilities):
            head.add(Op.CAPABILITY, capability)
        for extension in sorted(self._extensions):
            head.add(Op.EXTENSION, *text_words(extension))
        head.add(Op.EXT_INST_IMPORT, self.glsl, *text_words("GLSL.std.450"))
        head.add(Op.MEMORY_MODEL, spv.ADDRESSING_LOGICAL, spv.MEMORY_GLSL450)
        parts = (head, self._entries, self._modes, self._names, self._decorations, self._globals, self._functions)
        words = [word for part in parts for word in part.words]
        return struct.pack(f"<{len(words)}I", *words)


def text_words(text: str) -> tuple[int, ...]:
    """A literal string: UTF-8, ended by a zero, filled up to whole words."""
    data = text.encode() + b"\0"
    data += b"\0" * (-len(data) % 4)
    return struct.unpack(f"<{len(data) // 4}I", data)
