"""Arithmetic on values of generated code written as Python operators: what the algorithms of this package are made of.

A ``Term`` is one value; an operator on it appends an instruction. ``LlvmTerm`` is one in LLVM IR, for one lane or many,
``SpirvTerm`` one in SPIR-V. Python numbers become constants. Floats follow IEEE 754 with one freedom: a product that is
added may be rounded once with the sum. So an algorithm here may rely on a product being exact, never on its being
rounded, unless it is made by ``times``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from crossfarm.ir import dtype as dt

Number = int | float
T = TypeVar("T", bound="Term")


class Term(ABC):
    """A value in the function that is being written. Operands of one operator have one dtype."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Lanes included."""

    # --- what a kind of code must have

    @abstractmethod
    def _arithmetic(self: T, op: str, a: T | Number, b: T | Number) -> T:
        """``add``, ``sub``, ``mul`` or ``div``: floats by value, integers modulo 2**bits."""

    @abstractmethod
    def _bitwise(self: T, op: str, other: T | int) -> T:
        """``and``, ``or``, ``xor``, of integers and truth values; ``shl``, and ``ashr``, which keeps the sign."""

    @abstractmethod
    def _compare(self: T, op: str, other: T | Number) -> T:
        """A truth value, false where an operand is NaN; integers are signed."""

    @abstractmethod
    def __neg__(self: T) -> T:
        """Of a float."""

    @abstractmethod
    def where(self: T, if_true: T | Number, if_false: T | Number) -> T:
        """Of a truth value: one of two others, of which at least one is a Term."""

    @abstractmethod
    def bits(self: T) -> T:
        """A float's bits as a signed integer."""

    @abstractmethod
    def as_float(self: T) -> T:
        """The float with these bits."""

    @abstractmethod
    def to(self: T, scalar: str) -> T:
        """The same number in another dtype; a float to an integer must fit it."""

    @abstractmethod
    def times(self: T, other: T | Number) -> T:
        """The product of floats, rounded whatever is done with it."""

    @abstractmethod
    def square_root(self: T) -> T: ...

    @abstractmethod
    def filled(self: T, number: Number) -> T:
        """A number in this dtype."""

    # --- operators

    def __add__(self: T, other: T | Number) -> T:
        return self._arithmetic("add", self, other)

    def __radd__(self: T, other: Number) -> T:
        return self._arithmetic("add", other, self)

    def __sub__(self: T, other: T | Number) -> T:
        return self._arithmetic("sub", self, other)

    def __rsub__(self: T, other: Number) -> T:
        return self._arithmetic("sub", other, self)

    def __mul__(self: T, other: T | Number) -> T:
        return self._arithmetic("mul", self, other)

    def __rmul__(self: T, other: Number) -> T:
        return self._arithmetic("mul", other, self)

    def __truediv__(self: T, other: T | Number) -> T:
        return self._arithmetic("div", self, other)

    def __rtruediv__(self: T, other: Number) -> T:
        return self._arithmetic("div", other, self)

    def __and__(self: T, other: T | int) -> T:
        return self._bitwise("and", other)

    def __or__(self: T, other: T | int) -> T:
        return self._bitwise("or", other)

    def __xor__(self: T, other: T | int) -> T:
        return self._bitwise("xor", other)

    def __lshift__(self: T, count: int) -> T:
        return self._bitwise("shl", count)

    def __rshift__(self: T, count: int) -> T:
        """Keeps the sign."""
        return self._bitwise("ashr", count)

    def __lt__(self: T, other: T | Number) -> T:
        return self._compare("lt", other)

    def __le__(self: T, other: T | Number) -> T:
        return self._compare("le", other)

    def __gt__(self: T, other: T | Number) -> T:
        return self._compare("gt", other)

    def __ge__(self: T, other: T | Number) -> T:
        return self._compare("ge", other)

    def equals(self: T, other: T | Number) -> T:
        return self._compare("eq", other)

    # --- composed

    def magnitude(self: T) -> T:
        """The absolute value of a float."""
        scalar = dt.scalar_of(self.dtype)
        largest = (1 << (dt.bits(scalar) - 1)) - 1
        return (self.bits() & largest).as_float()

    def with_sign_of(self: T, other: T) -> T:
        """This magnitude with another's sign."""
        lowest = -(1 << (dt.bits(self.dtype) - 1))
        return (self.magnitude().bits() | (other.bits() & lowest)).as_float()

    def clamped(self: T, low: float, high: float) -> T:
        """Within the bounds; NaN stays."""
        above = (self < low).where(low, self)
        return (above > high).where(high, above)

    def scaled(self: T, power: T) -> T:
        """Times ``2**power`` for an int32 power from -252 to 254, rounded once."""
        first = power >> 1
        return self * first.power_of_two() * (power - first).power_of_two()

    def power_of_two(self: T) -> T:
        """``2**self`` in float32, for an int32 from -126 to 127."""
        return ((self + 127) << 23).as_float()

    def rounded(self: T) -> tuple[T, T]:
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


def polynomial(coefficients: Sequence[float], x: T) -> T:
    """``coefficients[0] + coefficients[1] * x + …`` by Horner's rule."""
    result: T | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    assert isinstance(result, Term)
    return result
