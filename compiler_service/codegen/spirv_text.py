"""SPIR-V as text, for people: the assembly that ``spirv-dis`` prints, of what the generator writes."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from compiler_service.codegen.spirv_opcodes import BuiltIn, Capability, Decoration, Glsl, Mode, Op, Storage

_HEADER_WORDS = 5
#: Operands of each instruction: t type, r result, i id, l number, s text, K constant, * the last one again; other
#: capitals are names of enumerants. What is not here has a type, a result, and ids.
_PATTERNS: dict[Op, str] = {
    Op.NAME: "is", Op.EXTENSION: "s", Op.EXT_INST_IMPORT: "rs", Op.EXT_INST: "triGi*", Op.MEMORY_MODEL: "AY",
    Op.ENTRY_POINT: "Eisi*", Op.EXECUTION_MODE: "iMl*", Op.CAPABILITY: "C", Op.TYPE_VOID: "r", Op.TYPE_BOOL: "r",
    Op.TYPE_INT: "rll", Op.TYPE_FLOAT: "rl", Op.TYPE_VECTOR: "ril", Op.TYPE_ARRAY: "rii", Op.TYPE_RUNTIME_ARRAY: "ri",
    Op.TYPE_STRUCT: "ri*", Op.TYPE_POINTER: "rSi", Op.TYPE_FUNCTION: "ri*", Op.CONSTANT: "trK", Op.FUNCTION: "trNi",
    Op.FUNCTION_END: "", Op.VARIABLE: "trS", Op.STORE: "ii", Op.DECORATE: "iD", Op.MEMBER_DECORATE: "ilD",
    Op.COMPOSITE_EXTRACT: "tril*", Op.CONTROL_BARRIER: "iii", Op.LOOP_MERGE: "iiU", Op.SELECTION_MERGE: "iN",
    Op.LABEL: "r", Op.BRANCH: "i", Op.BRANCH_CONDITIONAL: "iii", Op.RETURN: "", Op.RETURN_VALUE: "i",
}  # fmt: skip
_TABLES: dict[str, type[IntEnum]] = {"C": Capability, "S": Storage, "M": Mode, "G": Glsl}
_FIXED = {
    "A": {0: "Logical"},
    "Y": {1: "GLSL450"},
    "E": {5: "GLCompute"},
    "N": {0: "None"},
    "U": {0: "None", 1: "Unroll"},
}
_UNUSUAL = {"ROUNDING_MODE_RTE": "RoundingModeRTE", "UNPACK_HALF_2X16": "UnpackHalf2x16"}


def assembly(code: bytes, *, names: bool = True) -> str:
    """The module as text.

    Args:
        code: made by ``spirv.emit_module``.
        names: variables and functions by their names rather than by number.
    """
    words = struct.unpack(f"<{len(code) // 4}I", code)
    return "".join(f"{line}\n" for line in _Text(words, names=names).lines())


class _Text:
    def __init__(self, words: tuple[int, ...], *, names: bool) -> None:
        self.words = words
        self.types: dict[int, tuple[Op, int]] = {}
        self.names: dict[int, str] = {}
        if names:
            for op, operands in self._instructions():
                if op == Op.NAME:
                    plain = re.sub(r"\W", "_", _string(operands[1:])[0])
                    taken = plain in self.names.values()
                    self.names[operands[0]] = f"{plain}_{operands[0]}" if taken else plain

    def lines(self) -> Iterator[str]:
        for op, operands in self._instructions():
            if op in (Op.TYPE_INT, Op.TYPE_FLOAT):
                self.types[operands[0]] = (op, operands[1])
            yield self._line(op, operands)

    def _instructions(self) -> Iterator[tuple[Op, tuple[int, ...]]]:
        at = _HEADER_WORDS
        while at < len(self.words):
            count, op = self.words[at] >> 16, Op(self.words[at] & 0xFFFF)
            yield op, self.words[at + 1 : at + count]
            at += count

    def _line(self, op: Op, operands: tuple[int, ...]) -> str:
        pattern = _PATTERNS.get(op, "tri*")
        result, parts, rest = "", [f"Op{_name(op)}"], operands
        for kind in _stretched(pattern, len(operands)):
            if not rest:
                break
            if kind == "r":
                result, rest = f"{self._id(rest[0])} = ", rest[1:]
            elif kind == "s":
                text, used = _string(rest)
                parts.append(f'"{text}"')
                rest = rest[used:]
            elif kind == "K":
                parts.append(self._constant(operands[0], rest))
                rest = ()
            elif kind == "D":
                parts.extend(_decoration(rest))
                rest = ()
            else:
                parts.append(self._operand(kind, rest[0]))
                rest = rest[1:]
        assert not rest, f"Op{_name(op)} has more operands than its pattern"
        return result + " ".join(parts)

    def _operand(self, kind: str, word: int) -> str:
        if kind in "ti":
            return self._id(word)
        if kind in _TABLES:
            return _name(_TABLES[kind](word))
        return _FIXED[kind][word] if kind in _FIXED else str(word)

    def _id(self, number: int) -> str:
        return f"%{self.names.get(number, number)}"

    def _constant(self, type_id: int, words: tuple[int, ...]) -> str:
        op, bits = self.types[type_id]
        raw = struct.pack(f"<{len(words)}I", *words)
        if op == Op.TYPE_INT:
            return str(int.from_bytes(raw, "little"))
        return str(np.frombuffer(raw[: bits // 8], f"<f{bits // 8}")[0]).removesuffix(".0")


def _stretched(pattern: str, count: int) -> str:
    """The pattern with its last operand as often as there may be operands."""
    return pattern[:-1] + pattern[-2] * count if pattern.endswith("*") else pattern


def _decoration(words: tuple[int, ...]) -> list[str]:
    kind = Decoration(words[0])
    if kind == Decoration.BUILT_IN:
        return [_name(kind), _name(BuiltIn(words[1]))]
    return [_name(kind), *map(str, words[1:])]


def _string(words: tuple[int, ...]) -> tuple[str, int]:
    """A literal string, and how many words it takes."""
    raw = struct.pack(f"<{len(words)}I", *words)
    end = raw.index(b"\0")
    return raw[:end].decode(), end // 4 + 1


def _name(member: IntEnum) -> str:
    """``F_ORD_EQUAL`` → ``FOrdEqual``."""
    words = (re.sub(r"(?<=\d)b", "B", part.capitalize()) for part in member.name.split("_"))
    return _UNUSUAL.get(member.name) or "".join(words)
