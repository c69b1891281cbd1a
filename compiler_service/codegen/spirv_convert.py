"""Conversions between dtypes as SPIR-V: C's rules; a float to an integer saturates, and NaN gives 0."""

from __future__ import annotations

from compiler_service.codegen.spirv_arith import Arithmetic
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_opcodes import Glsl, Op
from crossfarm.ir import dtype as dt


def convert(c: Arithmetic, value: Value, dtype: str) -> Value:
    """``value`` in ``dtype``."""
    source = value.dtype
    if source == dtype:
        return value
    if dtype == "bool":
        return c.compare("ne", value, c.constant(source, 0))
    if source == "bool":
        return c.select(value, c.constant(dtype, 1), c.constant(dtype, 0))
    if dt.is_float(source):
        return _float_to_float(c, value, dtype) if dt.is_float(dtype) else _float_to_int(c, value, dtype)
    if dt.is_float(dtype):
        return _int_to_float(c, value, dtype)
    return low_bits(c, value, dtype)


def low_bits(c: Arithmetic, value: Value, dtype: str) -> Value:
    """An integer in another integer dtype: the value where it fits, else its low bits."""
    have, want = (64 if dt.bits(d) == 64 else 32 for d in (value.dtype, dtype))
    if value.number is not None:
        low, high = dt.int_range(dtype)
        return c.constant(dtype, (int(value.number) - low) % (high - low + 1) + low)
    if have < want:
        return c.value(Op.S_CONVERT if dt.is_signed(value.dtype) else Op.U_CONVERT, dtype, value)
    if have > want:
        return c.wrapped(c.value(Op.U_CONVERT, dtype, value))
    same = Value(value.id, dtype)
    (low, high), (smallest, largest) = dt.int_range(value.dtype), dt.int_range(dtype)
    return same if smallest <= low and high <= largest else c.wrapped(same)


def _float_to_float(c: Arithmetic, value: Value, dtype: str) -> Value:
    source = value.dtype
    if source == "bfloat16":
        return convert(c, Value(value.id, "float32"), dtype)
    if source == "float64" and dtype in ("float16", "bfloat16"):
        value = _rounded_to_odd(c, value)
    if dtype == "bfloat16":
        return c.rounded_bfloat16(convert(c, value, "float32"))
    return c.value(Op.F_CONVERT, dtype, value) if value.dtype != dtype else value


def _float_to_int(c: Arithmetic, value: Value, dtype: str) -> Value:
    if value.dtype in ("float16", "bfloat16"):
        value = convert(c, value, "float32")
    source = value.dtype
    low, high = dt.int_range(dtype)
    whole = c.glsl(Glsl.TRUNC, source, value)
    # the power of two above the largest integer is a float of every width, that integer itself is not
    above = c.compare("ge", whole, c.constant(source, float(high + 1)))
    below = c.compare("lt", whole, c.constant(source, float(low)))
    number = c.compare("eq", value, value)
    inside = c.both(number, c.negated(c.value(Op.LOGICAL_OR, "bool", above, below)))
    safe = c.select(inside, whole, c.constant(source, 0.0))
    result = c.value(Op.CONVERT_F_TO_S if dt.is_signed(dtype) else Op.CONVERT_F_TO_U, dtype, safe)
    result = c.select(above, c.constant(dtype, high), result)
    return c.select(below, c.constant(dtype, low), result)


def _int_to_float(c: Arithmetic, value: Value, dtype: str) -> Value:
    if dtype in ("float32", "float64"):
        return c.value(Op.CONVERT_S_TO_F if dt.is_signed(value.dtype) else Op.CONVERT_U_TO_F, dtype, value)
    if dtype == "bfloat16":
        return c.rounded_bfloat16(_single_rounded_to_odd(c, value))
    # float32 holds every integer below float16's infinity
    return convert(c, convert(c, value, "float32"), dtype)


def _single_rounded_to_odd(c: Arithmetic, value: Value) -> Value:
    """An integer as a float32 that rounds to bfloat16's 8 digits as the integer itself does.

    Of large ones the last bits only say whether there is a remainder: they go into the bit above them, which is
    rounding to odd. That bit lies below the half of bfloat16's last digit, and the 24 bits from it on hold the rest.
    """
    bits = dt.bits(value.dtype)
    if bits < 32:
        return convert(c, value, "float32")
    folded = _folded(c, value, 8 if bits == 32 else 40)
    for limit, count in ((62, 38), (47, 23), (32, 8), (24, 0)):
        if limit < bits:
            folded = c.select(_fits(c, value, limit), _folded(c, value, count), folded)
    return convert(c, folded, "float32")


def _fits(c: Arithmetic, value: Value, bits: int) -> Value:
    """Whether an integer's bits from that one on are all zeros, or copies of its sign."""
    high = c.binary("shr", value, c.constant(value.dtype, bits))
    fits = c.compare("eq", high, c.constant(value.dtype, 0))
    if dt.is_signed(value.dtype):
        negative = c.compare("eq", high, c.constant(value.dtype, -1))
        fits = c.value(Op.LOGICAL_OR, "bool", fits, negative)
    return fits


def _folded(c: Arithmetic, value: Value, bits: int) -> Value:
    """The last ``bits`` bits as zeros, and the one above them as 1 where one of them was."""
    if not bits:
        return value
    dtype, mask = value.dtype, (1 << bits) - 1
    low = c.binary("bitand", value, c.constant(dtype, mask))
    rest = c.compare("ne", low, c.constant(dtype, 0))
    sticky = c.select(rest, c.constant(dtype, mask + 1), c.constant(dtype, 0))
    return c.binary("bitor", c.binary("bitxor", value, low), sticky)


def _rounded_to_odd(c: Arithmetic, value: Value) -> Value:
    """float64 → float32 whose last digit is odd where inexact: a later rounding is as from the exact value.

    Source: S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using
    rounding to odd", IEEE Transactions on Computers 57(4), 2008.
    """
    near = c.value(Op.F_CONVERT, "float32", value)
    back = c.value(Op.F_CONVERT, "float64", near)
    bits = c.bits_of(near)
    one, zero = c.constant("int32", 1), c.constant("int32", 0)
    even = c.compare("eq", c.binary("bitand", bits, one), zero)
    size, near_size = (c.glsl(Glsl.F_ABS, "float64", x) for x in (value, back))
    short = c.compare("lt", near_size, size)
    long = c.compare("gt", near_size, size)
    moved = c.binary("add", bits, c.select(short, one, c.constant("int32", -1)))
    inexact = c.value(Op.LOGICAL_OR, "bool", short, long)
    return c.float_of(c.select(c.both(inexact, even), moved, bits))
