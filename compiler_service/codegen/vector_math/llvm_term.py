"""Terms that are values of LLVM IR, for one lane or many."""

from __future__ import annotations

from dataclasses import dataclass

from compiler_service.codegen.llvm_text import Builder, Value, float_constant, int_constant, register_type
from compiler_service.codegen.vector_math.term import Number, Term
from crossfarm.ir import dtype as dt


@dataclass(frozen=True, eq=False)
class LlvmTerm(Term):
    """A value of ``dtype`` (lanes included) in the function that ``b`` builds. Numbers are the same in every lane.

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

    def __neg__(self) -> LlvmTerm:
        return self._new(self.dtype, f"fneg {self.value.typed}")

    def where(self, if_true: LlvmTerm | Number, if_false: LlvmTerm | Number) -> LlvmTerm:
        like = if_true if isinstance(if_true, LlvmTerm) else if_false
        assert isinstance(like, LlvmTerm)
        a, b = like.constant(if_true), like.constant(if_false)
        return self._new(like.dtype, f"select {self.value.typed}, {a.typed}, {b.typed}")

    def bits(self) -> LlvmTerm:
        return self._cast("bitcast", f"int{dt.bits(self.dtype)}")

    def as_float(self) -> LlvmTerm:
        return self._cast("bitcast", f"float{dt.bits(self.dtype)}")

    def to(self, scalar: str) -> LlvmTerm:
        old = dt.scalar_of(self.dtype)
        if dt.is_float(old) and dt.is_float(scalar):
            return self._cast("fpext" if dt.bits(scalar) > dt.bits(old) else "fptrunc", scalar)
        if dt.is_float(old):
            return self._cast("fptosi", scalar)
        if dt.is_float(scalar):
            return self._cast("sitofp", scalar)
        return self._cast("sext" if dt.bits(scalar) > dt.bits(old) else "trunc", scalar)

    def times(self, other: LlvmTerm | Number) -> LlvmTerm:
        return self._new(self.dtype, f"fmul {self.value.typed}, {self.constant(other).text}")

    def square_root(self) -> LlvmTerm:
        """Correctly rounded: every CPU has the instruction."""
        return self.intrinsic("sqrt")

    def intrinsic(self, name: str) -> LlvmTerm:
        """LLVM's function of this float."""
        suffix = f"{'' if self.lanes == 1 else f'v{self.lanes}'}f{dt.bits(self.dtype)}"
        return self._new(self.dtype, f"call {register_type(self.dtype)} @llvm.{name}.{suffix}({self.value.typed})")

    def scaled(self, power: LlvmTerm) -> LlvmTerm:
        if self.scales:
            kind = f"{'' if self.lanes == 1 else f'v{self.lanes}'}"
            call = f"@llvm.ldexp.{kind}f{dt.bits(self.dtype)}.{kind}i32({self.value.typed}, {power.value.typed})"
            return self._new(self.dtype, f"call {register_type(self.dtype)} {call}")
        return super().scaled(power)

    def filled(self, number: Number) -> LlvmTerm:
        return LlvmTerm(self.b, self.constant(number), self.scales)

    def constant(self, number: LlvmTerm | Number) -> Value:
        """``number`` in this dtype."""
        if isinstance(number, LlvmTerm):
            return number.value
        if dt.is_float(self.dtype):
            return float_constant(self.dtype, float(number))
        return int_constant(self.dtype, int(number))

    def _arithmetic(self, op: str, a: LlvmTerm | Number, b: LlvmTerm | Number) -> LlvmTerm:
        x, y = self.constant(a), self.constant(b)
        prefix = ("f" + op + (" contract" if op != "div" else "")) if dt.is_float(self.dtype) else op
        return self._new(self.dtype, f"{prefix} {x.typed}, {y.text}")

    def _bitwise(self, op: str, other: LlvmTerm | int) -> LlvmTerm:
        return self._new(self.dtype, f"{op} {self.value.typed}, {self.constant(other).text}")

    def _compare(self, op: str, other: LlvmTerm | Number) -> LlvmTerm:
        is_float = dt.is_float(self.dtype)
        kind, sign = ("fcmp", "o") if is_float else ("icmp", "" if op == "eq" else "s")
        return self._new(
            dt.with_lanes("bool", self.lanes), f"{kind} {sign}{op} {self.value.typed}, {self.constant(other).text}"
        )

    def _cast(self, op: str, scalar: str) -> LlvmTerm:
        dtype = dt.with_lanes(scalar, self.lanes)
        return self._new(dtype, f"{op} {self.value.typed} to {register_type(dtype)}")

    def _new(self, dtype: str, instruction: str) -> LlvmTerm:
        return LlvmTerm(self.b, self.b.value(dtype, instruction), self.scales)
