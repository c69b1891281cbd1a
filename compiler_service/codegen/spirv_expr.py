"""Expressions → SPIR-V."""

from __future__ import annotations

from collections.abc import Callable

from compiler_service.codegen import spirv_memory as memory
from compiler_service.codegen.spirv_arith import DIVISIONS, Arithmetic
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_convert import convert, low_bits
from compiler_service.codegen.spirv_functions import Library
from compiler_service.codegen.spirv_math import emit_call
from compiler_service.codegen.spirv_opcodes import Op
from compiler_service.codegen.spirv_types import Types
from compiler_service.passes.lower_blocks import compact_strides
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, Interval
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import (
    COMPARISONS,
    Binary,
    Broadcast,
    BufferLoad,
    Call,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Let,
    Not,
    Ramp,
    Select,
    StringImm,
    Var,
)
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.visitor import children

#: Operators whose result's low bits need only the operands' low bits.
_OF_LOW_BITS = ("add", "sub", "mul", "bitand", "bitor", "bitxor")
_INT32 = Interval.of("int32")


class ExprEmitter:
    """Emits expressions of one kernel.

    Indices are computed in 32 bits, whatever their dtype: buffers have less than 2**31 elements. 64-bit values that are
    known to fit 32 bits are computed there too, as many devices emulate the wide ones, and division is the worst.

    Attributes:
        kernel: its name.
        c: the function that is being written.
        vars: values of the variables in scope.
        low: low 32 bits of 64-bit variables, where they are at hand.
        wide: how to make the whole of such a variable.
        places: memory of each buffer.
        known: what is known about integers here.
    """

    def __init__(self, kernel: str, types: Types, library: Library) -> None:
        self.kernel = kernel
        self.types = types
        self.library = library
        self.c = Arithmetic(types, kernel)
        self.vars: dict[Var, Value] = {}
        self.low: dict[Var, Value] = {}
        self.wide: dict[Var, Callable[[], Value]] = {}
        self.places: dict[Buffer, memory.Place] = {}
        self.known = Analyzer()
        self._unsafe: dict[Expr, bool] = {}

    def emit(self, node: Expr) -> Value:
        """The value of ``node``, computed in the current block."""
        method: Callable[[Expr], Value] = getattr(self, f"emit_{type(node).__name__}")
        return method(node)

    def low_word(self, node: Expr) -> Value:
        """The low 32 bits of an integer, as an int32."""
        if isinstance(node, IntImm):
            return low_bits(self.c, Value(0, node.dtype, node.value), "int32")
        if dt.bits(node.dtype) < 64:
            return Value(self.emit(node).id, "int32")
        if isinstance(node, Var) and node in self.low:
            return self.low[node]
        if isinstance(node, Binary) and (node.op in _OF_LOW_BITS or self._is_small(node)):
            return self._in_32_bits(node)
        if isinstance(node, Cast) and dt.is_int(node.value.dtype):
            return self.low_word(node.value)
        return low_bits(self.c, self.emit(node), "int32")

    # --- leaves and structure

    def emit_Var(self, node: Var) -> Value:
        if node in self.vars:
            return self.vars[node]
        if node in self.wide:
            return self.wide[node]()
        raise BuildFailed(
            f"kernel {self.kernel!r}: variable {node.name!r} is used where it is not defined",
            hint="what a kernel uses from outside is among its parameters",
        )

    def emit_IntImm(self, node: IntImm) -> Value:
        return self.c.constant(node.dtype, node.value)

    def emit_FloatImm(self, node: FloatImm) -> Value:
        return self.c.constant(node.dtype, node.value)

    def emit_StringImm(self, node: StringImm) -> Value:
        raise BuildFailed(
            f"kernel {self.kernel!r}: a string ({node.value!r}) is not a value that code can compute with",
            hint="strings are the names in call_extern and storage_sync",
        )

    def emit_Ramp(self, node: Ramp | Broadcast) -> Value:
        raise BuildFailed(
            f"kernel {self.kernel!r}: a vector of {node.dtype} reached the generator of SPIR-V",
            hint="the pass scalarize_vectors takes vectors apart and must run before",
        )

    emit_Broadcast = emit_Ramp

    def emit_Let(self, node: Let) -> Value:
        self.bind(node.var, node.value)
        return self.emit(node.body)

    def bind(self, var: Var, value: Expr) -> None:
        """Makes ``var`` stand for a value from here on."""
        if dt.is_int(var.dtype):
            self.known.bind(var, self.known.bounds(value))
            if dt.bits(var.dtype) == 64 and self._is_small(value):
                self.bind_low(var, self.low_word(value))
                return
        self.vars[var] = self.emit(value)

    def bind_low(self, var: Var, low: Value) -> None:
        """Makes a 64-bit ``var`` stand for a value that fits int32."""
        self.low[var] = low
        self.wide[var] = lambda: low_bits(self.c, low, var.dtype)

    def emit_Not(self, node: Not) -> Value:
        return self.c.negated(self.emit(node.a))

    def emit_Cast(self, node: Cast) -> Value:
        integers = dt.is_int(node.value.dtype) and dt.is_int(node.dtype)
        if integers and dt.bits(node.dtype) < 64 <= dt.bits(node.value.dtype):
            return low_bits(self.c, self.low_word(node.value), node.dtype)
        return convert(self.c, self.emit(node.value), node.dtype)

    def emit_Select(self, node: Select) -> Value:
        """A branch where an arm that is not taken could read out of bounds: the guard is what was meant."""
        if self.is_unsafe(node.true_value) or self.is_unsafe(node.false_value):
            return self.choose(node.condition, node.true_value, node.false_value)
        condition, a, b = self.emit(node.condition), self.emit(node.true_value), self.emit(node.false_value)
        return self.c.select(condition, a, b)

    def emit_Call(self, node: Call) -> Value:
        return emit_call(self, node)

    def choose(self, condition: Expr, if_true: Expr, if_false: Expr) -> Value:
        """Evaluates one of two expressions."""

        def arm(value: Expr, holds: bool) -> Callable[[], Value]:
            def write() -> Value:
                with self.known.scope():
                    self.assume(condition, holds)
                    return self.emit(value)

            return write

        return self.c.chosen(self.emit(condition), arm(if_true, True), arm(if_false, False))

    def assume(self, condition: Expr, holds: bool = True) -> None:
        """What is known from here on, in this scope; nothing of memory, which may change."""
        if not self.is_unsafe(condition):
            self.known.assume(condition, holds)

    def is_unsafe(self, node: Expr) -> bool:
        """True when ``node`` must not be evaluated where the program would not: a load, an effect."""
        known = self._unsafe.get(node)
        if known is None:
            known = (
                isinstance(node, BufferLoad)
                or (isinstance(node, Call) and not INTRINSICS[node.op].pure)
                or any(isinstance(c, Expr) and self.is_unsafe(c) for c in children(node))
            )
            self._unsafe[node] = known
        return known

    # --- operators

    def emit_Binary(self, node: Binary) -> Value:
        if node.op in ("and", "or"):
            return self._logical(node)
        if dt.is_int(node.a.dtype):
            return self._integers(node)
        return self.c.binary(node.op, self.emit(node.a), self.emit(node.b))

    def _integers(self, node: Binary) -> Value:
        wide = dt.bits(node.a.dtype) == 64
        if wide and node.op in COMPARISONS and self._fits(node.a) and self._fits(node.b):
            return self.c.compare(node.op, self.low_word(node.a), self.low_word(node.b))
        if wide and node.op not in COMPARISONS and self._is_small(node):
            return low_bits(self.c, self._in_32_bits(node), node.dtype)
        a, b = self.emit(node.a), self.emit(node.b)
        return self._operator(node, a, b)

    def _in_32_bits(self, node: Binary) -> Value:
        """The low word of a 64-bit operator that needs no more than its operands' low words."""
        a, b = self.low_word(node.a), self.low_word(node.b)
        return self._operator(node, a, b)

    def _operator(self, node: Binary, a: Value, b: Value) -> Value:
        """Division of what is not negative is unsigned, which is a shift or one instruction."""
        dtype = a.dtype
        divides = node.op in DIVISIONS and dt.is_signed(dtype)
        if divides and self.known.bounds(node.a).low >= 0 and self.known.bounds(node.b).low > 0:
            unsigned = f"u{dtype}"
            result = self.c.unsigned_quotient(node.op, *(Value(v.id, unsigned, v.number) for v in (a, b)))
            return Value(result.id, dtype)
        return self.c.binary(node.op, a, b)

    def _fits(self, node: Expr) -> bool:
        return _INT32.covers(self.known.bounds(node))

    def _is_small(self, node: Expr) -> bool:
        """True for a 64-bit operator whose operands and result certainly fit int32."""
        if isinstance(node, Binary) and node.op not in COMPARISONS:
            if node.op in ("shl", "shr"):
                return False
            return self._fits(node) and (node.op in _OF_LOW_BITS or (self._fits(node.a) and self._fits(node.b)))
        return isinstance(node, (Var, Cast, IntImm)) and dt.is_int(node.dtype) and self._fits(node)

    def _logical(self, node: Binary) -> Value:
        if self.is_unsafe(node.b):
            decided = IntImm(int(node.op == "or"), "bool")
            return self.choose(node.a, *((node.b, decided) if node.op == "and" else (decided, node.b)))
        return self.c.binary(node.op, self.emit(node.a), self.emit(node.b))

    # --- memory

    def emit_BufferLoad(self, node: BufferLoad) -> Value:
        place = self.place(node.buffer)
        return memory.load(self.c, place, self.offset(node.buffer, node.indices))

    def store(self, buffer: Buffer, indices: tuple[Expr, ...], value: Value) -> None:
        memory.store(self.c, self.place(buffer), self.offset(buffer, indices), value)

    def place(self, buffer: Buffer) -> memory.Place:
        if buffer not in self.places:
            raise BuildFailed(
                f"kernel {self.kernel!r}: buffer {buffer.name!r} is used where it does not exist",
                hint="it must be a parameter, shared, or allocated around its use",
            )
        return self.places[buffer]

    def offset(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Value:
        """How many elements behind the buffer's first, in 32 bits."""
        total: Value | None = None
        if buffer.elem_offset is not None:
            total = self.low_word(buffer.elem_offset)
        for index, stride in zip(indices, buffer.strides or compact_strides(buffer.shape)):
            term, factor = self.low_word(index), self.low_word(stride)
            if term.number == 0 or factor.number == 0:
                continue
            if factor.number != 1:
                term = self.c.value(Op.I_MUL, "int32", term, factor)
            total = term if total is None or total.number == 0 else self.c.value(Op.I_ADD, "int32", total, term)
        return total or self.c.constant("int32", 0)
