"""Terms that are values of SPIR-V: the algorithms of ``vector_math``, for devices."""

from __future__ import annotations

from dataclasses import dataclass

from compiler_service.codegen.spirv_arith import Arithmetic
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_convert import convert
from compiler_service.codegen.spirv_opcodes import Glsl
from compiler_service.codegen.vector_math.term import Number, Term
from crossfarm.ir import dtype as dt

_BITWISE = {"and": "bitand", "or": "bitor", "xor": "bitxor", "shl": "shl", "ashr": "shr"}


@dataclass(frozen=True, eq=False)
class SpirvTerm(Term):
    """A value in the function that ``c`` writes."""

    c: Arithmetic
    value: Value

    @property
    def dtype(self) -> str:
        return self.value.dtype

    def __neg__(self) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.negative(self.value))

    def where(self, if_true: SpirvTerm | Number, if_false: SpirvTerm | Number) -> SpirvTerm:
        like = if_true if isinstance(if_true, SpirvTerm) else if_false
        assert isinstance(like, SpirvTerm)
        return SpirvTerm(self.c, self.c.select(self.value, like.operand(if_true), like.operand(if_false)))

    def bits(self) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.bits_of(self.value))

    def as_float(self) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.float_of(self.value))

    def to(self, scalar: str) -> SpirvTerm:
        return SpirvTerm(self.c, convert(self.c, self.value, scalar))

    def times(self, other: SpirvTerm | Number) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.product(self.value, self.operand(other)))

    def square_root(self) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.glsl(Glsl.SQRT, self.dtype, self.value))

    def filled(self, number: Number) -> SpirvTerm:
        return SpirvTerm(self.c, self.operand(number))

    def magnitude(self) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.glsl(Glsl.F_ABS, self.dtype, self.value))

    def operand(self, number: SpirvTerm | Number) -> Value:
        """``number`` in this dtype."""
        return number.value if isinstance(number, SpirvTerm) else self.c.constant(self.dtype, number)

    def _arithmetic(self, op: str, a: SpirvTerm | Number, b: SpirvTerm | Number) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.binary(op, self.operand(a), self.operand(b)))

    def _bitwise(self, op: str, other: SpirvTerm | int) -> SpirvTerm:
        if dt.is_bool(self.dtype) and not isinstance(other, SpirvTerm):
            other = int(other) & 1
        return SpirvTerm(self.c, self.c.binary(_BITWISE[op], self.value, self.operand(other)))

    def _compare(self, op: str, other: SpirvTerm | Number) -> SpirvTerm:
        return SpirvTerm(self.c, self.c.compare(op, self.value, self.operand(other)))
