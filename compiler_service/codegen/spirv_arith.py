"""Operators on SPIR-V values, as ``crossfarm/ir/interpreter/arithmetic.py`` defines them.

Small integers are 32-bit registers that hold their value: what may leave the dtype's range is wrapped. Floats are exact
instructions (NoContraction: neither combined nor reordered), but a product that is added, which becomes an ``Fma``.
"""

from __future__ import annotations

from compiler_service.codegen.spirv_code import Code, Value
from compiler_service.codegen.spirv_opcodes import Decoration, Glsl, Op
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import COMPARISONS

_FLOAT = {"add": Op.F_ADD, "sub": Op.F_SUB, "mul": Op.F_MUL, "div": Op.F_DIV}
_INT = {"add": Op.I_ADD, "sub": Op.I_SUB, "mul": Op.I_MUL}
_BITS = {"bitand": Op.BITWISE_AND, "bitor": Op.BITWISE_OR, "bitxor": Op.BITWISE_XOR}
_BOOL = {
    "bitand": Op.LOGICAL_AND, "bitor": Op.LOGICAL_OR, "bitxor": Op.LOGICAL_NOT_EQUAL, "and": Op.LOGICAL_AND,
    "or": Op.LOGICAL_OR, "min": Op.LOGICAL_AND, "max": Op.LOGICAL_OR, "eq": Op.LOGICAL_EQUAL,
    "ne": Op.LOGICAL_NOT_EQUAL,
}  # fmt: skip
_COMPARE_FLOAT = {
    "eq": Op.F_ORD_EQUAL, "ne": Op.F_UNORD_NOT_EQUAL, "lt": Op.F_ORD_LESS_THAN, "le": Op.F_ORD_LESS_THAN_EQUAL,
    "gt": Op.F_ORD_GREATER_THAN, "ge": Op.F_ORD_GREATER_THAN_EQUAL,
}  # fmt: skip
_COMPARE_SIGNED = {
    "eq": Op.I_EQUAL, "ne": Op.I_NOT_EQUAL, "lt": Op.S_LESS_THAN, "le": Op.S_LESS_THAN_EQUAL,
    "gt": Op.S_GREATER_THAN, "ge": Op.S_GREATER_THAN_EQUAL,
}  # fmt: skip
_COMPARE_UNSIGNED = {
    "eq": Op.I_EQUAL, "ne": Op.I_NOT_EQUAL, "lt": Op.U_LESS_THAN, "le": Op.U_LESS_THAN_EQUAL,
    "gt": Op.U_GREATER_THAN, "ge": Op.U_GREATER_THAN_EQUAL,
}  # fmt: skip
DIVISIONS = ("div", "mod", "floordiv", "floormod")


class Arithmetic(Code):
    """A function that is being written, with operators."""

    def binary(self, op: str, a: Value, b: Value) -> Value:
        """``a op b`` on values of one dtype; op is one of BINARY_OPS."""
        dtype = a.dtype
        if op in COMPARISONS:
            return self.compare(op, a, b)
        if dtype == "bool":
            return self.value(_BOOL[op], dtype, a, b)
        if op in ("min", "max"):
            return self._min_max(op, a, b)
        if dt.is_float(dtype):
            return self._float(op, a, b)
        if op in DIVISIONS:
            return self._divide(op, a, b)
        if op in ("shl", "shr"):
            return self._shift(op, a, b)
        if op in _BITS:
            return self.value(_BITS[op], dtype, a, b)
        return self.wrapped(self.value(_INT[op], dtype, a, b))

    def compare(self, op: str, a: Value, b: Value) -> Value:
        """A bool."""
        dtype = a.dtype
        if dtype == "bool":
            if op in ("eq", "ne"):
                return self.value(_BOOL[op], dtype, a, b)
            if op in ("gt", "ge"):
                op, a, b = {"gt": "lt", "ge": "le"}[op], b, a
            return self.value(Op.LOGICAL_AND if op == "lt" else Op.LOGICAL_OR, dtype, self.negated(a), b)
        table = _COMPARE_FLOAT if dt.is_float(dtype) else _COMPARE_SIGNED if dt.is_signed(dtype) else _COMPARE_UNSIGNED
        return self.value(table[op], "bool", a, b)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``a`` where the condition holds, else ``b``."""
        return self.value(Op.SELECT, a.dtype, condition, a, b)

    def negated(self, a: Value) -> Value:
        """Of a bool: the other."""
        return self.value(Op.LOGICAL_NOT, "bool", a)

    def both(self, a: Value, b: Value) -> Value:
        """Of two bools."""
        return self.value(Op.LOGICAL_AND, "bool", a, b)

    def negative(self, a: Value) -> Value:
        """``-a``; of floats with the sign of zero."""
        if dt.is_float(a.dtype):
            return self.value(Op.F_NEGATE, a.dtype, a)
        return self.wrapped(self.value(Op.S_NEGATE, a.dtype, a))

    def wrapped(self, a: Value) -> Value:
        """A small integer whose register may hold more than its dtype does: its low bits."""
        bits = dt.bits(a.dtype)
        if bits >= 32:
            return a
        if dt.is_signed(a.dtype):
            zero, count = self.constant("uint32", 0), self.constant("uint32", bits)
            return self.value(Op.BIT_FIELD_S_EXTRACT, a.dtype, a, zero, count)
        return self.value(Op.BITWISE_AND, a.dtype, a, self.constant(a.dtype, (1 << bits) - 1))

    def bits_of(self, a: Value) -> Value:
        """The bits of a float32 or float64 as a signed integer."""
        bits = 64 if a.dtype == "float64" else 32  # bfloat16 is a float32 here
        return self.value(Op.BITCAST, f"int{bits}", a)

    def float_of(self, a: Value) -> Value:
        """The float with the bits of a 32- or 64-bit integer."""
        return self.value(Op.BITCAST, f"float{dt.bits(a.dtype)}", a)

    def rounded_bfloat16(self, a: Value) -> Value:
        """A float32 rounded to the nearest bfloat16, ties to even; a NaN becomes the quiet NaN of its sign."""
        bits = Value(self.bits_of(a).id, "uint32")
        sixteen = self.constant("uint32", 16)
        odd = self.binary("bitand", self.binary("shr", bits, sixteen), self.constant("uint32", 1))
        moved = self.binary("add", bits, self.binary("add", odd, self.constant("uint32", 0x7FFF)))
        kept = self.binary("bitand", moved, self.constant("uint32", 0xFFFF0000))
        sign = self.binary("bitand", bits, self.constant("uint32", 0x80000000))
        nan = self.binary("bitor", sign, self.constant("uint32", 0x7FC00000))
        size = self.binary("bitand", bits, self.constant("uint32", 0x7FFFFFFF))
        is_nan = self.compare("gt", size, self.constant("uint32", 0x7F800000))
        return Value(self.float_of(self.select(is_nan, nan, kept)).id, "bfloat16")

    def fused(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once or twice, as is faster on the device."""
        result = self.glsl(Glsl.FMA, a.dtype, a, b, c)
        self.module.decorate(result.id, Decoration.NO_CONTRACTION)
        return result

    def product(self, a: Value, b: Value) -> Value:
        """``a * b`` of floats, rounded, whatever it goes into."""
        return self.exact(Op.F_MUL, a.dtype, a, b)

    def _float(self, op: str, a: Value, b: Value) -> Value:
        dtype = a.dtype
        if dtype == "bfloat16":
            single = self.exact(_FLOAT[op], "float32", a, b)
            return self.rounded_bfloat16(single)
        if op == "mul":
            product = self.exact(Op.F_MUL, dtype, a, b)
            return Value(product.id, dtype, factors=(a, b))
        if op in ("add", "sub") and a.factors is not None:
            return self.fused(*a.factors, b if op == "add" else self.negative(b))
        if op in ("add", "sub") and b.factors is not None:
            x, y = b.factors
            return self.fused(x if op == "add" else self.negative(x), y, a)
        return self.exact(_FLOAT[op], dtype, a, b)

    def _min_max(self, op: str, a: Value, b: Value) -> Value:
        if dt.is_float(a.dtype):  # with a NaN the result is b
            return self.select(self.compare("lt" if op == "min" else "gt", a, b), a, b)
        signed = dt.is_signed(a.dtype)
        if op == "min":
            return self.glsl(Glsl.S_MIN if signed else Glsl.U_MIN, a.dtype, a, b)
        return self.glsl(Glsl.S_MAX if signed else Glsl.U_MAX, a.dtype, a, b)

    def _shift(self, op: str, a: Value, b: Value) -> Value:
        """By the amount modulo the number of bits."""
        most = dt.bits(b.dtype) - 1
        if b.number is None or not 0 <= b.number <= most:
            b = self.value(Op.BITWISE_AND, b.dtype, b, self.constant(b.dtype, most))
        if op == "shl":
            return self.wrapped(self.value(Op.SHIFT_LEFT_LOGICAL, a.dtype, a, b))
        keeps_sign = dt.is_signed(a.dtype)
        return self.value(Op.SHIFT_RIGHT_ARITHMETIC if keeps_sign else Op.SHIFT_RIGHT_LOGICAL, a.dtype, a, b)

    def _divide(self, op: str, a: Value, b: Value) -> Value:
        """A zero divisor counts as 1; the smallest value over -1 wraps as in two's complement."""
        dtype = a.dtype
        number = int(b.number) if b.number is not None else None
        if number is not None and number > 0 and number & (number - 1) == 0:
            exact = self._by_power_of_two(op, a, number)
            if exact is not None:
                return exact
        if number is None or number == 0:
            is_zero = self.compare("eq", b, self.constant(dtype, 0))
            b = self.select(is_zero, self.constant(dtype, 1), b)
        if dt.is_unsigned(dtype):
            return self.unsigned_quotient(op, a, b)
        quotient = self._signed_quotient(a, b, number)
        if op == "div":
            return quotient
        product = self.value(Op.I_MUL, dtype, quotient, b)
        rest = self.wrapped(self.value(Op.I_SUB, dtype, a, product))
        if op == "mod":
            return rest
        zero = self.constant(dtype, 0)
        signs_differ = self.compare("lt", self.value(Op.BITWISE_XOR, dtype, rest, b), zero)
        adjust = self.both(self.compare("ne", rest, zero), signs_differ)
        if op == "floormod":
            return self.select(adjust, self.value(Op.I_ADD, dtype, rest, b), rest)
        return self.select(adjust, self.value(Op.I_SUB, dtype, quotient, self.constant(dtype, 1)), quotient)

    def unsigned_quotient(self, op: str, a: Value, b: Value) -> Value:
        """One of DIVISIONS on unsigned integers, of which the divisor is not 0."""
        number = int(b.number) if b.number is not None else 0
        if number > 0 and number & (number - 1) == 0:
            return self._by_power_of_two(op, a, number) or a
        return self.value(Op.U_DIV if "div" in op else Op.U_MOD, a.dtype, a, b)

    def _signed_quotient(self, a: Value, b: Value, number: int | None) -> Value:
        dtype = a.dtype
        if number is not None and number not in (0, -1):
            return self.value(Op.S_DIV, dtype, a, b)
        minus_one = self.compare("eq", b, self.constant(dtype, -1))
        divisor = self.select(minus_one, self.constant(dtype, 1), b)
        return self.select(minus_one, self.negative(a), self.value(Op.S_DIV, dtype, a, divisor))

    def _by_power_of_two(self, op: str, a: Value, divisor: int) -> Value | None:
        """Flooring division is a shift and a mask; truncating one only where nothing is negative."""
        if op in ("div", "mod") and dt.is_signed(a.dtype):
            return None
        if "mod" in op:
            return self.value(Op.BITWISE_AND, a.dtype, a, self.constant(a.dtype, divisor - 1))
        return self.binary("shr", a, self.constant(a.dtype, divisor.bit_length() - 1))
