"""Expressions → LLVM IR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from compiler_service.codegen.llvm_abilities import Abilities
from compiler_service.codegen.llvm_half import is_half
from compiler_service.codegen.llvm_math import emit_call
from compiler_service.codegen.llvm_picked import picked_load, picked_places
from compiler_service.codegen.llvm_strided import small_stride, strided_load
from compiler_service.codegen.llvm_text import (
    Builder,
    Value,
    float_constant,
    int_constant,
    memory_type,
    register_type,
    zero,
)
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
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

_PREDICATES = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
_INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "bitand": "and", "bitor": "or", "bitxor": "xor"}
_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
DIVISIONS = ("div", "mod", "floordiv", "floormod")
_UNLIKELY = ", !prof !0"


@dataclass
class Failures:
    """Messages of a function's nonzero statuses; the status is the message's position, from 1."""

    messages: list[str] = field(default_factory=list)
    blocks: dict[int, str] = field(default_factory=dict)

    def block(self, b: Builder, message: str) -> str:
        """Name of the block that returns ``message``'s status; ``ExprEmitter.finish`` writes it."""
        if message not in self.messages:
            self.messages.append(message)
        code = self.messages.index(message) + 1
        return self.blocks.setdefault(code, b.name("fail"))


class ExprEmitter:
    """Emits expressions of one function into a Builder.

    Attributes:
        vars: values of the variables in scope.
        pointers: address of each buffer's first element.
        strides: in elements, for each buffer.
        streamed: buffers whose vectors are stored around the caches, and lie at multiples of their size.
    """

    def __init__(self, function: str, can: Abilities) -> None:
        self.function = function
        self.can = can
        self.half = can.half
        self.b = Builder()
        self.vars: dict[Var, Value] = {}
        self.pointers: dict[Buffer, Value] = {}
        self.strides: dict[Buffer, tuple[Expr, ...]] = {}
        self.streamed: frozenset[Buffer] = frozenset()
        self.failures = Failures()
        self.externs: dict[str, str] = {}
        self._unsafe: dict[Expr, bool] = {}

    def emit(self, node: Expr) -> Value:
        """The value of ``node``, computed in the current block."""
        method: Callable[[Expr], Value] = getattr(self, f"emit_{type(node).__name__}")
        return method(node)

    def index(self, node: Expr) -> Value:
        """``node`` as an int64 index (with the lanes it has).

        Sums and products are computed in 64 bits and may be assumed not to overflow: an index that does is out of
        bounds anyway. This is what lets loops over int32 variables vectorize.
        """
        lanes = dt.lanes_of(node.dtype)
        wide = dt.with_lanes("int64", lanes)
        if isinstance(node, IntImm):
            return int_constant("int64", node.value)
        if isinstance(node, Binary) and node.op in ("add", "sub", "mul") and dt.is_signed(node.dtype):
            a, b = self.index(node.a), self.index(node.b)
            return self.b.value(wide, f"{node.op} nsw {a.typed}, {b.text}")
        if isinstance(node, Broadcast):
            return self._splat(self.index(node.value), node.lanes)
        if isinstance(node, Ramp):
            return self._ramp(self.index(node.base), self.index(node.stride), node.lanes)
        return self.convert(self.emit(node), wide)

    # --- leaves and structure

    def emit_Var(self, node: Var) -> Value:
        try:
            return self.vars[node]
        except KeyError:
            raise BuildFailed(
                f"function {self.function!r}: variable {node.name!r} is used where it is not defined"
            ) from None

    def emit_IntImm(self, node: IntImm) -> Value:
        return int_constant(node.dtype, node.value)

    def emit_FloatImm(self, node: FloatImm) -> Value:
        return float_constant(node.dtype, node.value)

    def emit_StringImm(self, node: StringImm) -> Value:
        raise BuildFailed(
            f"function {self.function!r}: a string ({node.value!r}) is not a value that code can compute with"
        )

    def emit_Let(self, node: Let) -> Value:
        self.vars[node.var] = self.emit(node.value)
        return self.emit(node.body)

    def emit_Ramp(self, node: Ramp) -> Value:
        return self._ramp(self.emit(node.base), self.emit(node.stride), node.lanes)

    def emit_Broadcast(self, node: Broadcast) -> Value:
        return self._splat(self.emit(node.value), node.lanes)

    def emit_Not(self, node: Not) -> Value:
        a = self.emit(node.a)
        return self.b.value(node.dtype, f"xor {a.typed}, {int_constant(node.dtype, 1).text}")

    def emit_Cast(self, node: Cast) -> Value:
        return self.convert(self.emit(node.value), node.dtype)

    def emit_Select(self, node: Select) -> Value:
        """A branch where an arm that is not taken could fail or read out of bounds, as a guard is what was meant."""
        scalar_condition = dt.lanes_of(node.condition.dtype) == 1
        if scalar_condition and (self.is_unsafe(node.true_value) or self.is_unsafe(node.false_value)):
            return self.choose(node.condition, node.true_value, node.false_value)
        condition, a, b = self.emit(node.condition), self.emit(node.true_value), self.emit(node.false_value)
        return self.b.value(node.dtype, f"select {condition.typed}, {a.typed}, {b.typed}")

    def emit_Call(self, node: Call) -> Value:
        return emit_call(self, node)

    def choose(self, condition: Expr, if_true: Expr, if_false: Expr) -> Value:
        """Evaluates one of two expressions."""
        then, other, end = self.b.name("then"), self.b.name("else"), self.b.name("end")
        self.b.branch(self.emit(condition), then, other)
        arms = []
        for block, arm in ((then, if_true), (other, if_false)):
            self.b.open(block)
            value = self.emit(arm)
            arms.append(f"[ {value.text}, %{self.b.block} ]")
            self.b.jump(end)
        self.b.open(end)
        return self.b.value(if_true.dtype, f"phi {register_type(if_true.dtype)} {', '.join(arms)}")

    def is_unsafe(self, node: Expr) -> bool:
        """True when evaluating ``node`` where the program would not could fail: a load, a division, an effect."""
        known = self._unsafe.get(node)
        if known is None:
            known = (
                isinstance(node, BufferLoad)
                or (isinstance(node, Call) and (not INTRINSICS[node.op].pure or node.op == "call_pure_extern"))
                or (isinstance(node, Binary) and node.op in DIVISIONS and _may_be_zero(node.b))
                or any(isinstance(c, Expr) and self.is_unsafe(c) for c in children(node))
            )
            self._unsafe[node] = known
        return known

    # --- operators

    def emit_Binary(self, node: Binary) -> Value:
        if node.op in ("and", "or"):
            return self._logical(node)
        a, b = self.emit(node.a), self.emit(node.b)
        return self.binary(node.op, a, b, divisor_may_be_zero=node.op in DIVISIONS and _may_be_zero(node.b))

    def binary(self, op: str, a: Value, b: Value, *, divisor_may_be_zero: bool = True) -> Value:
        """``a op b`` on values of one dtype."""
        if op in COMPARISONS:
            return self._compare(op, a, b)
        if op in ("min", "max"):
            return self._min_max(op, a, b)
        if is_half(a.dtype):
            wide = self.binary(op, self.half.widen(self.b, a), self.half.widen(self.b, b))
            return self.half.narrow(self.b, wide, a.dtype)
        if dt.is_float(a.dtype):
            flags = "contract " if op in ("add", "sub", "mul") else ""
            return self.b.value(a.dtype, f"{_FLOAT_OPS[op]} {flags}{a.typed}, {b.text}")
        if op in DIVISIONS:
            return self._divide(op, a, b, divisor_may_be_zero)
        if op in ("shl", "shr"):
            return self._shift(op, a, b)
        return self.b.value(a.dtype, f"{_INT_OPS[op]} {a.typed}, {b.text}")

    def _logical(self, node: Binary) -> Value:
        if self.is_unsafe(node.b) and dt.lanes_of(node.dtype) == 1:
            constant = IntImm(int(node.op == "or"), "bool")
            return self.choose(node.a, *((node.b, constant) if node.op == "and" else (constant, node.b)))
        a, b = self.emit(node.a), self.emit(node.b)
        return self.b.value(node.dtype, f"{node.op} {a.typed}, {b.text}")

    def _compare(self, op: str, a: Value, b: Value) -> Value:
        result = dt.with_lanes("bool", dt.lanes_of(a.dtype))
        if is_half(a.dtype):
            a, b = self.half.widen(self.b, a), self.half.widen(self.b, b)
        if dt.is_float(a.dtype):
            return self.b.value(result, f"fcmp {'u' if op == 'ne' else 'o'}{op} {a.typed}, {b.text}")
        sign = "" if op in ("eq", "ne") else "s" if dt.is_signed(a.dtype) else "u"
        return self.b.value(result, f"icmp {sign}{op} {a.typed}, {b.text}")

    def _min_max(self, op: str, a: Value, b: Value) -> Value:
        keep = self._compare("lt" if op == "min" else "gt", a, b)
        return self.b.value(a.dtype, f"select {keep.typed}, {a.typed}, {b.typed}")

    def _shift(self, op: str, a: Value, b: Value) -> Value:
        """By the amount modulo the number of bits."""
        name = "shl" if op == "shl" else "ashr" if dt.is_signed(a.dtype) else "lshr"
        mask = int_constant(b.dtype, dt.bits(b.dtype) - 1)
        amount = self.b.value(b.dtype, f"and {b.typed}, {mask.text}")
        return self.b.value(a.dtype, f"{name} {a.typed}, {amount.text}")

    def _divide(self, op: str, a: Value, b: Value, may_be_zero: bool) -> Value:
        """Never traps: zero divisors fail the call, and the smallest value over -1 wraps as in two's complement."""
        if may_be_zero:
            self.fail_if(
                self._compare("eq", b, zero(b.dtype)), f"integer division by zero in function {self.function!r}"
            )
        if dt.is_unsigned(a.dtype):
            return self.b.value(a.dtype, f"{'udiv' if 'div' in op else 'urem'} {a.typed}, {b.text}")
        divisor, overflows = b, None
        if may_be_zero or not _is_positive_constant(b):
            minus_one, one = int_constant(b.dtype, -1), int_constant(b.dtype, 1)
            overflows = self._compare("eq", b, minus_one)
            divisor = self.b.value(b.dtype, f"select {overflows.typed}, {one.typed}, {b.typed}")
        quotient = self.b.value(a.dtype, f"sdiv {a.typed}, {divisor.text}")
        if overflows is not None:
            negated = self.b.value(a.dtype, f"sub {zero(a.dtype).typed}, {a.text}")
            quotient = self.b.value(a.dtype, f"select {overflows.typed}, {negated.typed}, {quotient.typed}")
        if op == "div":
            return quotient
        product = self.b.value(a.dtype, f"mul {quotient.typed}, {b.text}")
        remainder = self.b.value(a.dtype, f"sub {a.typed}, {product.text}")
        if op == "mod":
            return remainder
        nonzero = self._compare("ne", remainder, zero(a.dtype))
        signs = self.b.value(a.dtype, f"xor {remainder.typed}, {b.text}")
        differ = self._compare("lt", signs, zero(a.dtype))
        adjust = self.b.value(differ.dtype, f"and {nonzero.typed}, {differ.text}")
        if op == "floormod":
            moved = self.b.value(a.dtype, f"add {remainder.typed}, {b.text}")
            return self.b.value(a.dtype, f"select {adjust.typed}, {moved.typed}, {remainder.typed}")
        lower = self.b.value(a.dtype, f"sub {quotient.typed}, {int_constant(a.dtype, 1).text}")
        return self.b.value(a.dtype, f"select {adjust.typed}, {lower.typed}, {quotient.typed}")

    def fail_if(self, condition: Value, message: str) -> None:
        """Returns the status of ``message`` where ``condition`` holds in any lane."""
        lanes = dt.lanes_of(condition.dtype)
        if lanes > 1:
            condition = self.b.value("bool", f"call i1 @llvm.vector.reduce.or.v{lanes}i1({condition.typed})")
        after = self.b.name("ok")
        self.b.branch(condition, self.failures.block(self.b, message), after, _UNLIKELY)
        self.b.open(after)

    # --- conversion

    def convert(self, value: Value, dtype: str) -> Value:
        """``value`` in ``dtype``, C rules; float → int saturates, NaN gives 0."""
        source, target = dt.scalar_of(value.dtype), dt.scalar_of(dtype)
        if source == target:
            return value
        type_ = register_type(dtype)
        if target == "bool":
            return self._compare("ne", value, zero(value.dtype))
        if is_half(value.dtype):
            return self.convert(self.half.widen(self.b, value), dtype)
        if is_half(dtype):
            return self._to_half(value, dtype)
        if dt.is_float(source):
            return self._from_float(value, dtype)
        signed = dt.is_signed(source)
        if dt.is_float(target):
            return self.b.value(dtype, f"{'sitofp' if signed else 'uitofp'} {value.typed} to {type_}")
        source_bits = 1 if source == "bool" else dt.bits(source)
        if source_bits == dt.bits(target):
            return Value(value.text, dtype)
        op = "trunc" if source_bits > dt.bits(target) else "sext" if signed else "zext"
        return self.b.value(dtype, f"{op} {value.typed} to {type_}")

    def _to_half(self, value: Value, dtype: str) -> Value:
        """Through float32 where that is exact, else float64, so that the result is rounded once."""
        if not dt.is_float(value.dtype):
            small = dt.is_bool(value.dtype) or dt.bits(value.dtype) <= 16
            if dt.bits(value.dtype) == 64 and dt.scalar_of(dtype) == "bfloat16":
                value = self._in_53_bits(value)
            value = self.convert(value, dt.with_lanes("float32" if small else "float64", dt.lanes_of(dtype)))
        return self.half.narrow(self.b, value, dtype)

    def _in_53_bits(self, value: Value) -> Value:
        """A 64-bit integer that float64 holds and that rounds to fewer digits as ``value`` does.

        The last 11 bits of a large one only say whether there is a remainder: they go into the bit above, which is
        rounding to odd.
        """
        low = self.binary("bitand", value, int_constant(value.dtype, 0x7FF))
        carried = self.binary("add", low, int_constant(value.dtype, 0x7FF))
        sticky = self.binary("bitand", carried, int_constant(value.dtype, 0x800))
        odd = self.binary("bitor", self.binary("sub", value, low), sticky)
        # what has no bits above the 53rd, but for copies of the sign, is exact already
        shifted = self.binary("shr", value, int_constant(value.dtype, 53))
        large = self._compare("ne", shifted, zero(value.dtype))
        if dt.is_signed(value.dtype):
            large_negative = self._compare("ne", shifted, int_constant(value.dtype, -1))
            large = self.b.value(large.dtype, f"and {large.typed}, {large_negative.text}")
        return self.b.value(value.dtype, f"select {large.typed}, {odd.typed}, {value.typed}")

    def _from_float(self, value: Value, dtype: str) -> Value:
        lanes, target = dt.lanes_of(dtype), dt.scalar_of(dtype)
        if dt.is_float(target):
            op = "fpext" if target == "float64" else "fptrunc"
            return self.b.value(dtype, f"{op} {value.typed} to {register_type(dtype)}")
        prefix = f"v{lanes}" if lanes > 1 else ""
        op = "fptosi" if dt.is_signed(target) else "fptoui"
        suffix = f"{prefix}i{dt.bits(target)}.{prefix}f{dt.bits(value.dtype)}"
        return self.b.value(dtype, f"call {register_type(dtype)} @llvm.{op}.sat.{suffix}({value.typed})")

    # --- memory

    def emit_BufferLoad(self, node: BufferLoad) -> Value:
        buffer, lanes = node.buffer, dt.lanes_of(node.dtype)
        if lanes == 1 or self._is_contiguous(buffer, node.indices):
            pointer = self.address(buffer, tuple(_first_lane(i) for i in node.indices))
            return self.load(pointer, node.dtype)
        picked = picked_places(buffer, node.indices, lanes)
        if picked is not None:
            load = partial(self._load_behind, buffer, int_constant("int64", 0))
            return picked_load(self.b, load, node.dtype, picked)
        stride = small_stride(buffer, node.indices, self.strides[buffer][-1])
        if stride is not None:
            first = self._offset(buffer, tuple(_first_lane(i) for i in node.indices))
            return strided_load(self.b, partial(self._load_behind, buffer, first), node.dtype, stride)
        offsets = self._lane_offsets(buffer, node.indices, lanes)
        vector = Value("poison", node.dtype)
        for lane in range(lanes):
            element = self.load(self._element(buffer, self.extract(offsets, lane)), buffer.dtype)
            vector = self.insert(vector, element, lane)
        return vector

    def _load_behind(self, buffer: Buffer, first: Value, behind: int, dtype: str) -> Value:
        """A vector from the element that is ``behind`` elements after the one at offset ``first``."""
        offset = self.b.value(first.dtype, f"add nsw {first.typed}, {behind}")
        return self.load(self._element(buffer, offset), dtype)

    def store(self, buffer: Buffer, indices: tuple[Expr, ...], value: Value) -> None:
        """Stores a scalar, or each lane in order."""
        lanes = max(dt.lanes_of(value.dtype), *(dt.lanes_of(i.dtype) for i in indices), 1)
        if lanes == 1 or self._is_contiguous(buffer, indices):
            pointer = self.address(buffer, tuple(_first_lane(i) for i in indices))
            self._store(pointer, self._widen_lanes(value, lanes), around_caches=lanes > 1 and buffer in self.streamed)
            return
        offsets = self._lane_offsets(buffer, indices, lanes)
        value = self._widen_lanes(value, lanes)
        for lane in range(lanes):
            self._store(self._element(buffer, self.extract(offsets, lane)), self.extract(value, lane))

    def load(self, pointer: Value, dtype: str) -> Value:
        """A value of ``dtype`` from memory, aligned to its element."""
        align = dt.bits(dtype) // 8
        if not dt.is_bool(dtype):
            return self.b.value(dtype, f"load {register_type(dtype)}, ptr {pointer.text}, align {align}")
        raw = self.b.value(dtype, f"load {memory_type(dtype)}, ptr {pointer.text}, align 1")
        return self.b.value(dtype, f"icmp ne {memory_type(dtype)} {raw.text}, zeroinitializer")

    def _store(self, pointer: Value, value: Value, *, around_caches: bool = False) -> None:
        text = value.typed
        if dt.is_bool(value.dtype):
            byte = memory_type(value.dtype)
            text = f"{byte} {self.b.value(value.dtype, f'zext {value.typed} to {byte}').text}"
        if around_caches:
            text, suffix = f"{text}, ptr {pointer.text}, align {dt.itemsize(value.dtype)}", ", !nontemporal !1"
        else:
            text, suffix = f"{text}, ptr {pointer.text}, align {dt.bits(value.dtype) // 8}", ""
        self.b.do(f"store {text}{suffix}")

    def address(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Value:
        """Pointer to an element."""
        return self._element(buffer, self._offset(buffer, indices))

    def _offset(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Value:
        total: Value | None = None
        for index, stride in zip(indices, self.strides[buffer]):
            term = self.index(index)
            if isinstance(index, IntImm) and index.value == 0:
                continue
            if not (isinstance(stride, IntImm) and stride.value == 1):
                factor = self.index(stride)
                lanes = dt.lanes_of(term.dtype)
                factor = self._splat(factor, lanes) if lanes > 1 else factor
                term = self.b.value(term.dtype, f"mul nsw {term.typed}, {factor.text}")
            if total is None:
                total = term
                continue
            lanes = max(dt.lanes_of(total.dtype), dt.lanes_of(term.dtype))
            total, term = self._widen_lanes(total, lanes), self._widen_lanes(term, lanes)
            total = self.b.value(total.dtype, f"add nsw {total.typed}, {term.text}")
        return total or int_constant("int64", 0)

    def _element(self, buffer: Buffer, offset: Value) -> Value:
        if buffer not in self.pointers:
            raise BuildFailed(f"function {self.function!r}: buffer {buffer.name!r} is used where it does not exist")
        base = self.pointers[buffer]
        if offset.text == "0":
            return base
        return self.b.value(
            "handle", f"getelementptr inbounds {memory_type(buffer.dtype)}, ptr {base.text}, {offset.typed}"
        )

    def _lane_offsets(self, buffer: Buffer, indices: tuple[Expr, ...], lanes: int) -> Value:
        return self._widen_lanes(self._offset(buffer, indices), lanes)

    def _is_contiguous(self, buffer: Buffer, indices: tuple[Expr, ...]) -> bool:
        if not indices or any(dt.lanes_of(i.dtype) > 1 for i in indices[:-1]):
            return False
        last, stride = indices[-1], self.strides[buffer][-1]
        ramp = isinstance(last, Ramp) and isinstance(last.stride, IntImm) and last.stride.value == 1
        return ramp and isinstance(stride, IntImm) and stride.value == 1

    # --- vectors

    def extract(self, vector: Value, lane: int) -> Value:
        return self.b.value(dt.scalar_of(vector.dtype), f"extractelement {vector.typed}, i32 {lane}")

    def insert(self, vector: Value, element: Value, lane: int) -> Value:
        return self.b.value(vector.dtype, f"insertelement {vector.typed}, {element.typed}, i32 {lane}")

    def _widen_lanes(self, value: Value, lanes: int) -> Value:
        return value if dt.lanes_of(value.dtype) == lanes else self._splat(value, lanes)

    def _splat(self, value: Value, lanes: int) -> Value:
        dtype = dt.with_lanes(value.dtype, lanes)
        if not value.text.startswith("%"):
            return Value(f"splat ({value.typed})", dtype)
        first = self.insert(Value("poison", dtype), value, 0)
        mask = f"<{lanes} x i32> zeroinitializer"
        return self.b.value(dtype, f"shufflevector {first.typed}, {register_type(dtype)} poison, {mask}")

    def _ramp(self, base: Value, stride: Value, lanes: int) -> Value:
        dtype = dt.with_lanes(base.dtype, lanes)
        type_, element = register_type(dtype), register_type(base.dtype)
        steps = ", ".join(f"{element} {lane}" for lane in range(lanes))
        scaled = self.b.value(dtype, f"mul {type_} {self._splat(stride, lanes).text}, <{steps}>")
        return self.b.value(dtype, f"add {self._splat(base, lanes).typed}, {scaled.text}")


def _first_lane(index: Expr) -> Expr:
    return index.base if isinstance(index, Ramp) else index


def _may_be_zero(divisor: Expr) -> bool:
    if isinstance(divisor, Broadcast):
        return _may_be_zero(divisor.value)
    return dt.is_int(divisor.dtype) and not (isinstance(divisor, IntImm) and divisor.value != 0)


def _is_positive_constant(value: Value) -> bool:
    text = value.text.removeprefix("splat (").rstrip(")").split()[-1]
    return text.isdigit() and int(text) > 0
