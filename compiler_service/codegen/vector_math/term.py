"""Arithmetic on values of LLVM IR written as Python operators, for one lane or many.

A ``Term`` is one SSA value; an operator on it appends an instruction. Python numbers become constants in every lane.
Floats follow IEEE 754 with one freedom, ``contract``: a product that is added may be rounded once with the sum. So an
algorithm here may rely on a product being exact, never on its being rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler_service.codegen.llvm_text import Builder, Value, float_constant, int_constant, register_type
from crossfarm.ir import dtype as dt

Number = int | float


@dataclass(frozen=True, eq=False)
class Term:
    """A value of ``dtype`` (lanes included) in the function that ``b`` builds.

    Attributes:
        scales: whether the target multiplies by powers of two in one instruction.
    """

    b: Builder
    value: Value
    scales: bool = False

    @property
    def dtype(self) -> str:
        return self.value.dtype

    @property
    def lanes(self) -> int:
        return dt.lanes_of(self.dtype)

    # --- arithmetic: floats by value, integers modulo 2**bits

    def __add__(self, other: Term | Number) -> Term:
        return self._arithmetic("add", self, other)

    def __radd__(self, other: Number) -> Term:
        return self._arithmetic("add", other, self)

    def __sub__(self, other: Term | Number) -> Term:
        return self._arithmetic("sub", self, other)

    def __rsub__(self, other: Number) -> Term:
        return self._arithmetic("sub", other, self)

    def __mul__(self, other: Term | Number) -> Term:
        return self._arithmetic("mul", self, other)

    def __rmul__(self, other: Number) -> Term:
        return self._arithmetic("mul", other, self)

    def __truediv__(self, other: Term | Number) -> Term:
        return self._arithmetic("div", self, other)

    def __rtruediv__(self, other: Number) -> Term:
        return self._arithmetic("div", other, self)

    def __neg__(self) -> Term:
        return self._new(self.dtype, f"fneg {self.value.typed}")

    # --- bits of integers and truth values

    def __and__(self, other: Term | int) -> Term:
        return self._instruction("and", other)

    def __or__(self, other: Term | int) -> Term:
        return self._instruction("or", other)

    def __xor__(self, other: Term | int) -> Term:
        return self._instruction("xor", other)

    def __lshift__(self, count: int) -> Term:
        return self._instruction("shl", count)

    def __rshift__(self, count: int) -> Term:
        """Keeps the sign."""
        return self._instruction("ashr", count)

    # --- comparisons: false where an operand is NaN, but for ``differs``

    def __lt__(self, other: Term | Number) -> Term:
        return self._compare("lt", other)

    def __le__(self, other: Term | Number) -> Term:
        return self._compare("le", other)

    def __gt__(self, other: Term | Number) -> Term:
        return self._compare("gt", other)

    def __ge__(self, other: Term | Number) -> Term:
        return self._compare("ge", other)

    def equals(self, other: Term | Number) -> Term:
        return self._compare("eq", other)

    def where(self, if_true: Term | Number, if_false: Term | Number) -> Term:
        """Of a truth value: one of two others, of which at least one is a Term."""
        like = if_true if isinstance(if_true, Term) else if_false
        assert isinstance(like, Term)
        a, b = like.constant(if_true), like.constant(if_false)
        return self._new(like.dtype, f"select {self.value.typed}, {a.typed}, {b.typed}")

    # --- conversion

    def bits(self) -> Term:
        """A float's bits as a signed integer."""
        return self._cast("bitcast", f"int{dt.bits(self.dtype)}")

    def as_float(self) -> Term:
        """The float with these bits."""
        return self._cast("bitcast", f"float{dt.bits(self.dtype)}")

    def to(self, scalar: str) -> Term:
        """The same number in another dtype; a float to an integer must fit it."""
        old = dt.scalar_of(self.dtype)
        if dt.is_float(old) and dt.is_float(scalar):
            return self._cast("fpext" if dt.bits(scalar) > dt.bits(old) else "fptrunc", scalar)
        if dt.is_float(old):
            return self._cast("fptosi", scalar)
        if dt.is_float(scalar):
            return self._cast("sitofp", scalar)
        return self._cast("sext" if dt.bits(scalar) > dt.bits(old) else "trunc", scalar)

    # --- composed

    def magnitude(self) -> Term:
        """The absolute value of a float."""
        scalar = dt.scalar_of(self.dtype)
        largest = (1 << (dt.bits(scalar) - 1)) - 1
        return (self.bits() & largest).as_float()

    def with_sign_of(self, other: Term) -> Term:
        """This magnitude with another's sign."""
        lowest = -(1 << (dt.bits(self.dtype) - 1))
        return (self.magnitude().bits() | (other.bits() & lowest)).as_float()

    def clamped(self, low: float, high: float) -> Term:
        """Within the bounds; NaN stays."""
        above = (self < low).where(low, self)
        return (above > high).where(high, above)

    def square_root(self) -> Term:
        """Correctly rounded: every CPU has the instruction."""
        suffix = f"{'' if self.lanes == 1 else f'v{self.lanes}'}f{dt.bits(self.dtype)}"
        return self._new(self.dtype, f"call {register_type(self.dtype)} @llvm.sqrt.{suffix}({self.value.typed})")

    def scaled(self, power: Term) -> Term:
        """Times ``2**power`` for an int32 power from -252 to 254, rounded once."""
        if self.scales:
            kind = f"{'' if self.lanes == 1 else f'v{self.lanes}'}"
            call = f"@llvm.ldexp.{kind}f{dt.bits(self.dtype)}.{kind}i32({self.value.typed}, {power.value.typed})"
            return self._new(self.dtype, f"call {register_type(self.dtype)} {call}")
        first = power >> 1
        return self * first.power_of_two() * (power - first).power_of_two()

    def power_of_two(self) -> Term:
        """``2**self`` in float32, for an int32 from -126 to 127."""
        return ((self + 127) << 23).as_float()

    def rounded(self) -> tuple[Term, Term]:
        """The nearest integer as float, and as int32; for magnitudes below 2**22 (float32) or 2**31 (float64).

        Adding 1.5 * 2**(digits - 1) leaves no bits behind the point, and the integer in the low bits: no instruction
        for rounding is needed, which not every CPU has. Whatever for NaN.
        """
        magic = 1.5 * 2.0 ** (23 if dt.scalar_of(self.dtype) == "float32" else 52)
        shifted = self + magic
        low = shifted.bits()
        if dt.bits(low.dtype) == 64:
            low = low.to("int32")  # the lowest 32 bits of the magic number are zeros
        else:
            low = low - 0x4B400000
        return shifted - magic, low

    def constant(self, number: Term | Number) -> Value:
        """``number`` in this dtype."""
        if isinstance(number, Term):
            return number.value
        if dt.is_float(self.dtype):
            return float_constant(self.dtype, float(number))
        return int_constant(self.dtype, int(number))

    def _arithmetic(self, op: str, a: Term | Number, b: Term | Number) -> Term:
        x, y = self.constant(a), self.constant(b)
        prefix = ("f" + op + (" contract" if op != "div" else "")) if dt.is_float(self.dtype) else op
        return self._new(self.dtype, f"{prefix} {x.typed}, {y.text}")

    def _instruction(self, op: str, other: Term | int) -> Term:
        return self._new(self.dtype, f"{op} {self.value.typed}, {self.constant(other).text}")

    def _compare(self, op: str, other: Term | Number) -> Term:
        is_float = dt.is_float(self.dtype)
        kind, sign = ("fcmp", "o") if is_float else ("icmp", "" if op == "eq" else "s")
        return self._new(
            dt.with_lanes("bool", self.lanes), f"{kind} {sign}{op} {self.value.typed}, {self.constant(other).text}"
        )

    def _cast(self, op: str, scalar: str) -> Term:
        dtype = dt.with_lanes(scalar, self.lanes)
        return self._new(dtype, f"{op} {self.value.typed} to {register_type(dtype)}")

    def _new(self, dtype: str, instruction: str) -> Term:
        return Term(self.b, self.b.value(dtype, instruction), self.scales)


def polynomial(coefficients: Sequence[float], x: Term) -> Term:
    """``coefficients[0] + coefficients[1] * x + …`` by Horner's rule."""
    result: Term | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    assert isinstance(result, Term)
    return result
