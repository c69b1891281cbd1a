"""Writing LLVM IR as text: values, types, constants, basic blocks.

Text, not a library of objects: it is twice as fast to make, and has every type and flag of the LLVM at hand.

How dtypes live in registers: bool is ``i1`` (``i8`` in memory), float16 and bfloat16 are their bits in ``i16`` (see
``llvm_half``), handle is ``ptr``; the rest is what one expects. Vectors are ``<N x T>``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

from crossfarm.ir import dtype as dt

_SCALAR_TYPES = {"bool": "i1", "float16": "i16", "bfloat16": "i16", "float32": "float", "float64": "double"}


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA value: what stands for it in text, and its dtype."""

    text: str
    dtype: str

    @property
    def typed(self) -> str:
        """``float %v3``: as an operand with its type."""
        return f"{register_type(self.dtype)} {self.text}"


@cache
def register_type(dtype: str) -> str:
    """LLVM's type of a value of ``dtype`` in a register."""
    scalar, lanes = dt.split(dtype)
    if scalar == "handle":
        return "ptr"
    text = _SCALAR_TYPES.get(scalar) or f"i{dt.bits(scalar)}"
    return text if lanes == 1 else f"<{lanes} x {text}>"


@cache
def memory_type(dtype: str) -> str:
    """LLVM's type of an element of ``dtype`` in memory."""
    scalar, lanes = dt.split(dtype)
    if scalar != "bool":
        return register_type(dtype)
    return "i8" if lanes == 1 else f"<{lanes} x i8>"


def int_constant(dtype: str, value: int) -> Value:
    """An integer or bool constant, in every lane."""
    if dt.is_bool(dtype):
        text = "true" if value else "false"
    else:
        low, high = dt.int_range(dtype)
        text = str(value - (high - low + 1) if not dt.is_signed(dtype) and value > high // 2 else value)
    return _splat(dtype, text)


def float_constant(dtype: str, value: float) -> Value:
    """A float constant in every lane, rounded once from ``value``."""
    scalar = dt.scalar_of(dtype)
    if scalar in ("float16", "bfloat16"):
        return _splat(dtype, str(half_bits(scalar, value)))
    if scalar == "float32":
        value = _to_float32(value)
    return _splat(dtype, f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}")


def zero(dtype: str) -> Value:
    return Value("null" if dtype == "handle" else "zeroinitializer", dtype)


def _splat(dtype: str, text: str) -> Value:
    scalar, lanes = dt.split(dtype)
    return Value(text if lanes == 1 else f"splat ({register_type(scalar)} {text})", dtype)


def _to_float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def half_bits(dtype: str, value: float) -> int:
    """Bits of ``value`` in float16 or bfloat16, rounded once to nearest even, as an unsigned 16-bit integer."""
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    sign, exponent, mantissa = bits >> 63 << 15, (bits >> 52) & 0x7FF, bits & ((1 << 52) - 1)
    exponent_bits, mantissa_bits = (5, 10) if dtype == "float16" else (8, 7)
    top = ((1 << exponent_bits) - 1) << mantissa_bits
    if exponent == 0x7FF:
        return sign | top | ((1 << (mantissa_bits - 1)) if mantissa else 0)
    if exponent == 0:
        return sign  # a float64 denormal is far below half the smallest value of either
    bias = (1 << (exponent_bits - 1)) - 1
    biased = exponent - 1023 + bias
    shift = 52 - mantissa_bits + max(0, 1 - biased)
    significand = mantissa | 1 << 52
    if shift > 54:
        return sign
    kept, rest = significand >> shift, significand & ((1 << shift) - 1)
    kept += rest > 1 << (shift - 1) or (rest == 1 << (shift - 1) and kept & 1 == 1)
    # the hidden bit of a normal number carries the exponent up by one, hence biased - 1
    result = kept + (max(biased - 1, 0) << mantissa_bits)
    return sign | min(result, top)


class Builder:
    """The body of one LLVM function under construction. Instructions go to the block opened last."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.block = "entry"
        self.terminated = False
        self._names = 0

    def name(self, hint: str = "v") -> str:
        """A fresh name, for a value or a block."""
        self._names += 1
        return f"{hint}{self._names}"

    def value(self, dtype: str, instruction: str) -> Value:
        """Appends an instruction that yields a value of ``dtype``."""
        name = f"%{self.name()}"
        self.lines.append(f"  {name} = {instruction}")
        return Value(name, dtype)

    def do(self, instruction: str) -> None:
        """Appends an instruction that yields nothing."""
        self.lines.append(f"  {instruction}")

    def open(self, block: str) -> None:
        """Starts ``block``; falls through to it from an unterminated block."""
        if not self.terminated:
            self.jump(block)
        self.lines.append(f"{block}:")
        self.block, self.terminated = block, False

    def jump(self, block: str) -> None:
        self.terminate(f"br label %{block}")

    def branch(self, condition: Value, if_true: str, if_false: str, metadata: str = "") -> None:
        self.terminate(f"br i1 {condition.text}, label %{if_true}, label %{if_false}{metadata}")

    def terminate(self, instruction: str) -> None:
        """Ends the block; what would follow in a terminated block is unreachable and not written."""
        if not self.terminated:
            self.do(instruction)
        self.terminated = True

    def alloca(self, type_: str, count: int, align: int) -> Value:
        """Stack memory of the function; made in its entry block."""
        name = f"%{self.name('stack')}"
        self.allocas.append(f"  {name} = alloca [{count} x {type_}], align {align}")
        return Value(name, "handle")

    def text(self) -> str:
        return "\n".join(["entry:", *self.allocas, *self.lines])
