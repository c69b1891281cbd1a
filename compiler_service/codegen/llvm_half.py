"""float16 and bfloat16: values are their bits in ``i16``; arithmetic is float32, rounded after each operation.

float32 has more than twice the digits of either, so an operation done in it and then rounded gives what rounding the
exact result would. Conversions use the CPU's instructions where the target has them, else integer code written
in place: nothing is left to compiler-rt, which a device need not have.
"""

from __future__ import annotations

from compiler_service.codegen.llvm_text import Builder, Value, float_constant, int_constant, register_type
from crossfarm.ir import dtype as dt


def is_half(dtype: str) -> bool:
    return dt.scalar_of(dtype) in ("float16", "bfloat16")


class HalfConversions:
    """Conversions for one target.

    Args:
        from_single: the CPU converts float32 ↔ float16 (x86 F16C, every aarch64).
        from_double: the CPU converts float64 → float16 with one rounding (every aarch64).
    """

    def __init__(self, *, from_single: bool, from_double: bool) -> None:
        self.from_single = from_single
        self.from_double = from_double

    def widen(self, b: Builder, value: Value) -> Value:
        """float16 or bfloat16 → float32, exact."""
        lanes = dt.lanes_of(value.dtype)
        single, word = dt.with_lanes("float32", lanes), dt.with_lanes("uint32", lanes)
        if dt.scalar_of(value.dtype) == "bfloat16":
            wide = b.value(word, f"zext {value.typed} to {register_type(word)}")
            shifted = b.value(word, f"shl {wide.typed}, {int_constant(word, 16).text}")
            return b.value(single, f"bitcast {shifted.typed} to {register_type(single)}")
        if self.from_single:
            half = _half_type(lanes)
            native = b.value(value.dtype, f"bitcast {value.typed} to {half}")
            return b.value(single, f"fpext {half} {native.text} to {register_type(single)}")
        return _widen_float16(b, value)

    def narrow(self, b: Builder, value: Value, dtype: str) -> Value:
        """float32 or float64 → float16 or bfloat16, rounded once to nearest even."""
        scalar, lanes = dt.split(dtype)
        if dt.scalar_of(value.dtype) == "float64":
            if scalar == "float16" and self.from_double:
                return self._truncate(b, value, dtype)
            value = _round_to_odd(b, value)
        if scalar == "float16" and self.from_single:
            return self._truncate(b, value, dtype)
        word = dt.with_lanes("uint32", lanes)
        bits = b.value(word, f"bitcast {value.typed} to {register_type(word)}")
        rounded = _narrow_bfloat16(b, bits) if scalar == "bfloat16" else _narrow_float16(b, bits)
        return b.value(dtype, f"trunc {rounded.typed} to {register_type(dtype)}")

    def _truncate(self, b: Builder, value: Value, dtype: str) -> Value:
        half = _half_type(dt.lanes_of(dtype))
        native = b.value(dtype, f"fptrunc {value.typed} to {half}")
        return b.value(dtype, f"bitcast {half} {native.text} to {register_type(dtype)}")


def _half_type(lanes: int) -> str:
    return "half" if lanes == 1 else f"<{lanes} x half>"


class _Words:
    """uint32 arithmetic in as many lanes as the first operand has; ints stand for constants."""

    def __init__(self, b: Builder, like: Value) -> None:
        self.b, self.dtype = b, like.dtype
        self.bool_dtype = dt.with_lanes("bool", dt.lanes_of(like.dtype))
        self.single = dt.with_lanes("float32", dt.lanes_of(like.dtype))

    def _text(self, operand: Value | int) -> str:
        return operand.text if isinstance(operand, Value) else int_constant(self.dtype, operand).text

    def op(self, name: str, x: Value | int, y: Value | int) -> Value:
        return self.b.value(self.dtype, f"{name} {register_type(self.dtype)} {self._text(x)}, {self._text(y)}")

    def compare(self, predicate: str, x: Value, y: Value | int) -> Value:
        return self.b.value(self.bool_dtype, f"icmp {predicate} {x.typed}, {self._text(y)}")

    def select(self, condition: Value, x: Value | int, y: Value | int) -> Value:
        type_ = register_type(self.dtype)
        return self.b.value(self.dtype, f"select {condition.typed}, {type_} {self._text(x)}, {type_} {self._text(y)}")

    def as_single(self, x: Value) -> Value:
        return self.b.value(self.single, f"bitcast {x.typed} to {register_type(self.single)}")

    def as_word(self, x: Value) -> Value:
        return self.b.value(self.dtype, f"bitcast {x.typed} to {register_type(self.dtype)}")


def _narrow_bfloat16(b: Builder, bits: Value) -> Value:
    """Adds half an ulp, ties to even; a NaN becomes the quiet NaN of its sign."""
    w = _Words(b, bits)
    odd = w.op("and", w.op("lshr", bits, 16), 1)
    rounded = w.op("lshr", w.op("add", bits, w.op("add", odd, 0x7FFF)), 16)
    nan = w.op("or", w.op("and", w.op("lshr", bits, 16), 0x8000), 0x7FC0)
    return w.select(w.compare("ugt", w.op("and", bits, 0x7FFFFFFF), 0x7F800000), nan, rounded)


def _narrow_float16(b: Builder, bits: Value) -> Value:
    """Normal results are rounded on the bits; denormal ones by adding 0.5, whose ulp is float16's smallest value."""
    w = _Words(b, bits)
    sign = w.op("lshr", w.op("and", bits, 0x80000000), 16)
    magnitude = w.op("and", bits, 0x7FFFFFFF)
    odd = w.op("and", w.op("lshr", magnitude, 13), 1)
    rebased = w.op("add", magnitude, w.op("add", odd, (-(112 << 23) + 0xFFF) & 0xFFFFFFFF))
    normal = w.op("lshr", rebased, 13)
    half = float_constant(w.single, 0.5)
    shifted = w.b.value(w.single, f"fadd {w.as_single(magnitude).typed}, {half.text}")
    denormal = w.op("sub", w.as_word(shifted), 0x3F000000)
    small = w.select(w.compare("ult", magnitude, 113 << 23), denormal, normal)
    special = w.select(w.compare("ugt", magnitude, 0x7F800000), 0x7E00, 0x7C00)
    # 65520 is where rounding to nearest reaches infinity
    result = w.select(w.compare("uge", magnitude, 0x477FF000), special, small)
    return w.op("or", result, sign)


def _widen_float16(b: Builder, value: Value) -> Value:
    """Moves the bits; a denormal is normalized by a subtraction that is exact."""
    lanes = dt.lanes_of(value.dtype)
    word = dt.with_lanes("uint32", lanes)
    bits = b.value(word, f"zext {value.typed} to {register_type(word)}")
    w = _Words(b, bits)
    sign = w.op("shl", w.op("and", bits, 0x8000), 16)
    magnitude = w.op("shl", w.op("and", bits, 0x7FFF), 13)
    normal = w.op("add", magnitude, 112 << 23)
    special = w.op("or", magnitude, 0x7F800000)
    base = 113 << 23
    offset = w.as_single(w.op("add", magnitude, base))
    denormal = w.as_word(w.b.value(w.single, f"fsub {offset.typed}, {float_constant(w.single, 2.0**-14).text}"))
    result = w.select(w.compare("ult", magnitude, 1 << 23), denormal, normal)
    result = w.select(w.compare("uge", magnitude, 31 << 23), special, result)
    return w.as_single(w.op("or", result, sign))


def _round_to_odd(b: Builder, value: Value) -> Value:
    """float64 → float32 whose last digit is odd when inexact, so that the next rounding is as from the exact value.

    Source: S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using
    rounding to odd", IEEE Transactions on Computers 57(4), 2008.
    """
    lanes = dt.lanes_of(value.dtype)
    single, word, flag = (dt.with_lanes(s, lanes) for s in ("float32", "uint32", "bool"))
    double = register_type(value.dtype)
    near = b.value(single, f"fptrunc {value.typed} to {register_type(single)}")
    back = b.value(value.dtype, f"fpext {near.typed} to {double}")
    bits = b.value(word, f"bitcast {near.typed} to {register_type(word)}")
    w = _Words(b, bits)
    suffix = "f64" if lanes == 1 else f"v{lanes}f64"
    size = b.value(value.dtype, f"call {double} @llvm.fabs.{suffix}({value.typed})")
    near_size = b.value(value.dtype, f"call {double} @llvm.fabs.{suffix}({back.typed})")
    inexact = b.value(flag, f"fcmp one {value.typed}, {back.text}")
    even = w.compare("eq", w.op("and", bits, 1), 0)
    short = b.value(flag, f"fcmp olt {near_size.typed}, {size.text}")
    moved = w.op("add", bits, w.select(short, 1, 0xFFFFFFFF))
    change = b.value(flag, f"and {inexact.typed}, {even.text}")
    return w.as_single(w.select(change, moved, bits))
