"""Expressions → C-like text, and the helper functions that it needs.

Integers wrap around: sums and products of values are computed in unsigned types, as signed overflow is undefined in
these languages. Offsets of elements are computed plainly, as one that overflows is out of bounds anyway. Narrow floats
without arithmetic of their own are carried as 16 bits and computed in float32, each operation rounded.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from compiler_service.codegen.c_dialect import C_EXTERN, Dialect
from compiler_service.codegen.c_names import Names
from compiler_service.codegen.kernel import elements
from compiler_service.passes.lower_blocks import compact_strides
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, const_int
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
from crossfarm.ir.intrinsics import EXTERN_ALLOWED

_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=", "and": "&&", "or": "||", "bitand": "&", "bitor": "|", "bitxor": "^",
}  # fmt: skip
_APPLY: dict[str, Callable[[int, int], int]] = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}
DIVISIONS = ("div", "mod", "floordiv", "floormod")


class ExprRenderer:
    """Renders the expressions of one kernel.

    Attributes:
        helpers: definitions of helper functions that were used, by name, in the order of their use.
        declared: variables of let expressions, to be declared at the kernel's head: type and identifier.
    """

    def __init__(self, kernel: str, dialect: Dialect, names: Names, helpers: dict[str, str]) -> None:
        self.kernel = kernel
        self.dialect = dialect
        self.names = names
        self.helpers = helpers
        self.declared: list[tuple[str, str]] = []
        self.analyzer = Analyzer()
        self.wide: set[Buffer] = set()  # buffers whose offsets may need 64 bits
        self.dtypes: set[str] = set()

    # --- types

    def is_emulated(self, dtype: str) -> bool:
        """True for floats that are carried as 16 bits."""
        return dtype == "bfloat16" or (dtype == "float16" and not self.dialect.native_half)

    def type(self, dtype: str) -> str:
        """Of a value in registers."""
        if (lanes := dt.lanes_of(dtype)) != 1:
            if self.dialect.vectors is None:
                raise BuildFailed(f"kernel {self.kernel!r}: a vector of {dtype} was left for {self.dialect.name}")
            return self.dialect.vectors.type(self.type(dt.scalar_of(dtype)), lanes)
        self.dtypes.add(dtype)
        if self.is_emulated(dtype):
            return self.dialect.types["uint16"]
        if dtype not in self.dialect.types:
            raise BuildFailed(f"kernel {self.kernel!r}: {self.dialect.name} has no {dtype}")
        return self.dialect.types[dtype]

    def memory_type(self, dtype: str) -> str:
        """Of an element in memory."""
        return self.dialect.types["uint8"] if dt.is_bool(dtype) else self.type(dtype)

    # --- expressions

    def emit(self, node: Expr) -> str:
        """An expression of ``type(node.dtype)``; parenthesized where it is made of several."""
        method: Callable[[Expr], str] | None = getattr(self, f"_{type(node).__name__}", None)
        if method is None:
            raise BuildFailed(f"kernel {self.kernel!r}: no {self.dialect.name} for a {type(node).__name__}")
        return method(node)

    def condition(self, node: Expr) -> str:
        """For ``if`` and its kin, without outer parentheses."""
        return bare(self.emit(node))

    def index(self, node: Expr, wide: bool = False) -> str:
        """An offset or extent: plain signed arithmetic, in parentheses where it is a sum."""
        if isinstance(node, IntImm):
            return str(node.value)
        if isinstance(node, Binary) and node.op == "mul" and dt.is_signed(node.dtype):
            return f"{self.index(node.a, wide)} * {self.index(node.b, wide)}"
        if isinstance(node, Binary) and node.op in ("add", "sub") and dt.is_signed(node.dtype):
            first, second = bare(self.index(node.a, wide)), self.index(node.b, wide)
            return f"({first} {_SIGNS[node.op]} {bare(second) if node.op == 'add' else second})"
        if isinstance(node, Cast) and dt.is_int(node.value.dtype) and dt.bits(node.dtype) >= dt.bits(node.value.dtype):
            return self.index(node.value, wide)
        text = self.emit(node)
        return f"({self.dialect.types['int64']}){text}" if wide and dt.bits(node.dtype) < 64 else text

    def element(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str:
        """``A[i * 64 + j]``, an lvalue of ``memory_type``."""
        return f"{self.names.of(buffer)}[{self.offset(buffer, indices)}]"

    def pointer(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str:
        """``A + (i * 64 + j)``, of the first lane's element."""
        *outer, last = indices
        first = last.base if isinstance(last, Ramp) else last
        return f"{self.names.of(buffer)} + ({self.offset(buffer, (*outer, first))})"

    def offset(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str:
        """Of an element, in elements."""
        wide = buffer in self.wide
        terms = []
        for index, stride in zip(indices, buffer.strides or compact_strides(buffer.shape)):
            if const_int(index) == 0:
                continue
            text = self.index(index, wide)
            # one sum, the innermost loop's variable last: then compilers see that elements are neighbours
            terms.append(bare(text) if const_int(stride) == 1 else f"{text} * {self.index(stride, wide)}")
        if buffer.elem_offset is not None and const_int(buffer.elem_offset) != 0:
            terms.append(self.index(buffer.elem_offset, wide))
        return bare(" + ".join(terms) or "0")

    def _Var(self, node: Var) -> str:
        self.type(node.dtype)
        return self.names.of(node)

    def _IntImm(self, node: IntImm) -> str:
        return self.int_constant(node.value, node.dtype)

    def int_constant(self, value: int, dtype: str) -> str:
        if dt.is_bool(dtype):
            return "true" if value else "false"
        if dtype == "int64":
            return f"(-{-(value + 1)}L - 1)" if value == -(1 << 63) else f"{value}L" if value >= 0 else f"({value}L)"
        if dtype == "uint64":
            return f"{value}UL"
        if dtype == "uint32":
            return f"{value}u"
        if dtype == "int32":
            return "(-2147483647 - 1)" if value == -(1 << 31) else str(value) if value >= 0 else f"({value})"
        return f"(({self.type(dtype)}){value})"

    def _FloatImm(self, node: FloatImm) -> str:
        dtype = node.dtype
        if self.is_emulated(dtype):
            return self.narrow(self.float_constant(node.value, "float32"), dtype)
        text = self.float_constant(node.value, "float32" if dtype == "float16" else dtype)
        return f"(({self.type(dtype)}){text})" if dtype == "float16" else text

    def float_constant(self, value: float, dtype: str) -> str:
        self.type(dtype)
        suffix = "f" if dtype == "float32" else ""
        cast = f"({self.type(dtype)})" if dtype != "float32" else ""
        if math.isnan(value):
            return f"({cast}{self.dialect.nan})"
        if math.isinf(value):
            return f"({cast}{'-' if value < 0 else ''}{self.dialect.infinity})"
        if value == int(value) and abs(value) < 1e6:
            text = f"{value:.1f}{suffix}"
        else:
            if dtype == "float32":
                import numpy as np

                with np.errstate(over="ignore"):
                    rounded = float(np.float32(value))
                if math.isinf(rounded):
                    return self.float_constant(rounded, dtype)
                value = rounded
            text = f"{value.hex()}{suffix}"
        return f"({text})" if text.startswith("-") else text

    def _StringImm(self, node: StringImm) -> str:
        raise BuildFailed(
            f"kernel {self.kernel!r}: a string ({node.value!r}) is not a value that code can compute with"
        )

    def _Let(self, node: Let) -> str:
        name = self.names.of(node.var)
        self.declared.append((self.type(node.var.dtype), name))
        return f"({name} = {bare(self.emit(node.value))}, {self.emit(node.body)})"

    def _Not(self, node: Not) -> str:
        return f"!{self.emit(node.a)}"

    def _Cast(self, node: Cast) -> str:
        return self.convert(self.emit(node.value), node.value.dtype, node.dtype)

    def _Select(self, node: Select) -> str:
        return self.choose(node.condition, node.true_value, node.false_value)

    def choose(self, condition: Expr, if_true: Expr, if_false: Expr) -> str:
        """One of two is evaluated."""
        return f"({self.emit(condition)} ? {self.emit(if_true)} : {self.emit(if_false)})"

    def _BufferLoad(self, node: BufferLoad) -> str:
        self.memory_type(node.buffer.dtype)
        if (lanes := dt.lanes_of(node.dtype)) > 1:
            self.type(node.dtype)
            assert self.dialect.vectors is not None
            return self.dialect.vectors.load(lanes, self.pointer(node.buffer, node.indices))
        text = self.element(node.buffer, node.indices)
        return f"({text} != 0)" if dt.is_bool(node.dtype) else text

    def _Broadcast(self, node: Broadcast) -> str:
        return f"(({self.type(node.dtype)})({bare(self.emit(node.value))}))"

    # --- operators

    def _Binary(self, node: Binary) -> str:
        if node.op in DIVISIONS and dt.is_int(node.dtype):
            return self._divide(node)
        if node.op in ("add", "sub", "mul") and dt.is_signed(node.dtype) and self._stays_inside(node):
            return f"({self.emit(node.a)} {_SIGNS[node.op]} {self.emit(node.b)})"
        return self.binary(node.op, self.emit(node.a), self.emit(node.b), node.a.dtype)

    def binary(self, op: str, a: str, b: str, dtype: str) -> str:
        """``a op b`` on values of one dtype; any operator but integer division."""
        if self.is_emulated(dtype):
            result = self.binary(op, self.widen(a, dtype), self.widen(b, dtype), "float32")
            return result if op in COMPARISONS else self.narrow(result, dtype)
        if op in ("min", "max"):
            return f"{self._extreme(op, dtype)}({bare(a)}, {bare(b)})"
        if op in ("shl", "shr"):
            return self._shift(op, a, b, dtype)
        if op in ("bitand", "bitor", "bitxor") and dt.is_bool(dtype):
            return f"({a} {'!=' if op == 'bitxor' else _SIGNS[op] * 2} {b})"
        if op in ("add", "sub", "mul") and dt.is_int(dtype):
            return self._wrapping(op, a, b, dtype)
        return f"({a} {_SIGNS[op]} {b})"

    def _stays_inside(self, node: Binary) -> bool:
        """True when a sum or product of signed integers surely does not wrap around, as those of indices."""
        if dt.bits(node.dtype) < 32:
            return False
        a, b = self.analyzer.bounds(node.a), self.analyzer.bounds(node.b)
        low, high = dt.int_range(node.dtype)
        ends = [_APPLY[node.op](x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        return low <= min(ends) and max(ends) <= high

    def _wrapping(self, op: str, a: str, b: str, dtype: str) -> str:
        type_, bits = self.type(dtype), dt.bits(dtype)
        if bits < 32:  # promoted to int, which holds any sum and the product of 16-bit values as unsigned ones
            unsigned = self.dialect.types["uint32"]
            return f"({type_})(({unsigned}){a} {_SIGNS[op]} ({unsigned}){b})"
        if dt.is_unsigned(dtype):
            return f"({a} {_SIGNS[op]} {b})"
        unsigned = self.dialect.types[f"uint{bits}"]
        return f"({type_})(({unsigned}){a} {_SIGNS[op]} ({unsigned}){b})"

    def _extreme(self, op: str, dtype: str) -> str:
        """The second operand where one is NaN."""
        type_ = self.type(dtype)
        sign = "<" if op == "min" else ">"
        return self.helper(
            f"cf_{op}_{dtype}", f"{type_} {{name}}({type_} a, {type_} b) {{ return a {sign} b ? a : b; }}"
        )

    def _shift(self, op: str, a: str, b: str, dtype: str) -> str:
        """By the amount modulo the number of bits."""
        type_, bits = self.type(dtype), dt.bits(dtype)
        amount = f"({b} & {bits - 1})"
        if op == "shr":
            return f"({type_})({a} >> {amount})"
        return f"({type_})(({self.dialect.types[f'uint{bits}']}){a} << {amount})"

    def _divide(self, node: Binary) -> str:
        """Never traps: a zero divisor is taken for 1, and the smallest value over -1 wraps around."""
        a, b, dtype = node.a, node.b, node.dtype
        divisor = const_int(b)
        if dt.is_unsigned(dtype) or (divisor or 0) > 0:
            low = 0 if dt.is_unsigned(dtype) else self.analyzer.bounds(a).low
            plain = node.op in ("div", "mod") or low >= 0
            if plain and divisor:
                return f"({self.emit(a)} {'/' if 'div' in node.op else '%'} {self.emit(b)})"
        return f"{self._division(node.op, dtype)}({bare(self.emit(a))}, {bare(self.emit(b))})"

    def _division(self, op: str, dtype: str) -> str:
        type_ = self.type(dtype)
        sign = "/" if "div" in op else "%"
        zero_safe = "b = b == 0 ? 1 : b;"
        if dt.is_unsigned(dtype):
            return self.helper(
                f"cf_{op}_{dtype}", f"{type_} {{name}}({type_} a, {type_} b) {{ {zero_safe} return a {sign} b; }}"
            )
        unsigned = self.dialect.types[f"uint{dt.bits(dtype)}"]
        over = f"({type_})(0 - ({unsigned})a)" if sign == "/" else "0"
        body = f"{zero_safe} if (b == -1) return {over}; {type_} q = a / b, r = a % b; "
        if op in ("div", "mod"):
            body += "return q;" if op == "div" else "return r;"
        elif op == "floordiv":
            body += "return r != 0 && (r < 0) != (b < 0) ? q - 1 : q;"
        else:
            body += "return r != 0 && (r < 0) != (b < 0) ? r + b : r;"
        return self.helper(f"cf_{op}_{dtype}", f"{type_} {{name}}({type_} a, {type_} b) {{ {body} }}")

    # --- conversion

    def convert(self, value: str, source: str, dtype: str) -> str:
        """``value`` in ``dtype``; float → int saturates, NaN gives 0."""
        if source == dtype:
            return value
        if dt.is_bool(dtype):
            if self.is_emulated(source):
                value, source = self.widen(value, source), "float32"
            return f"({value} != 0)"
        if self.is_emulated(source):
            return self.convert(self.widen(value, source), "float32", dtype)
        if self.is_emulated(dtype):
            if dt.is_float(source) or dt.is_bool(source) or dt.bits(source) <= 16:
                if source == "float64":
                    return self._narrow_double(value, dtype)
                return self.narrow(self.convert(value, source, "float32"), dtype)
            return (
                self._narrow_double(self.convert(self._odd(value, source), source, "float64"), dtype)
                if (dt.bits(source) == 64)
                else self._narrow_double(self.convert(value, source, "float64"), dtype)
            )
        if dt.is_float(source) and dt.is_int(dtype):
            if source == "float16":
                value, source = f"(float){value}", "float32"
            self.type(dtype)
            return self.dialect.saturated(dtype, value)
        return f"({self.type(dtype)}){value}"

    def widen(self, value: str, dtype: str) -> str:
        """16 bits as float32."""
        name = "cf_half_to_float" if dtype == "float16" else "cf_bfloat16_to_float"
        self._half_helpers(dtype)
        return f"{name}({bare(value)})"

    def narrow(self, value: str, dtype: str) -> str:
        """float32 as 16 bits, rounded to nearest even."""
        name = "cf_float_to_half" if dtype == "float16" else "cf_float_to_bfloat16"
        self._half_helpers(dtype)
        return f"{name}({bare(value)})"

    def _half_helpers(self, dtype: str) -> None:
        if dtype == "float16":
            self.helpers.setdefault("cf_half", self.dialect.half_helpers)
            return
        u16, u32 = self.dialect.types["uint16"], self.dialect.types["uint32"]
        function = self.dialect.function
        as_float, as_uint = self.dialect.bits("float32", f"({u32})x << 16"), self.dialect.bits("uint32", "x")
        self.helpers.setdefault(
            "cf_bfloat16",
            f"{function} float cf_bfloat16_to_float({u16} x) {{ return {as_float}; }}\n"
            f"{function} {u16} cf_float_to_bfloat16(float x) {{\n"
            f"  {u32} u = {as_uint};\n"
            f"  if ((u & 0x7fffffffu) > 0x7f800000u) return ({u16})((u >> 16) | 0x40u);\n"
            f"  return ({u16})((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);\n}}\n",
        )

    def _narrow_double(self, value: str, dtype: str) -> str:
        """float64 as 16 bits with one rounding: through a float32 that was rounded to odd."""
        self.type("float64")
        u32, f64 = self.dialect.types["uint32"], self.dialect.types["float64"]
        bits, back = self.dialect.bits("uint32", "f"), self.dialect.bits("float32", "u")
        odd = self.helper(
            "cf_double_to_odd_float",
            f"float {{name}}({f64} x) {{ float f = (float)x; {u32} u = {bits};\n"
            f"  if (({f64})f != x && x == x && (u & 0x7f800000u) != 0x7f800000u) {{\n"
            f"    if ((({f64})f > x) == (x > 0)) u -= 1; u |= 1u; }}\n  return {back}; }}",
        )
        return self.narrow(f"{odd}({bare(value)})", dtype)

    def _odd(self, value: str, source: str) -> str:
        """A 64-bit integer in 53 bits, rounded to odd."""
        type_ = self.type(source)
        u64 = self.dialect.types["uint64"]
        large = "x >> 53 != 0" + (" && x >> 53 != -1" if dt.is_signed(source) else "")
        return (
            self.helper(
                f"cf_odd_{source}",
                f"{type_} {{name}}({type_} x) {{ {u64} low = ({u64})x & 0x7ffUL;\n"
                f"  return {large} ? ({type_})((({u64})x - low) | ((low + 0x7ffUL) & 0x800UL)) : x; }}",
            )
            + f"({bare(value)})"
        )

    def helper(self, name: str, definition: str) -> str:
        """Makes sure of a helper function; its name."""
        if name not in self.helpers:
            self.helpers[name] = f"{self.dialect.function} {definition.replace('{name}', name)}\n"
        return name

    # --- intrinsics

    def _Call(self, node: Call) -> str:
        from compiler_service.codegen.c_calls import render_call

        return render_call(self, node)

    def extern_name(self, node: Call) -> tuple[str, str]:
        """libm's function that a call names, without suffix, and the dtype it takes. Raises BuildFailed."""
        name = node.args[0].value if node.args and isinstance(node.args[0], StringImm) else ""
        plain = name[:-1] if name.endswith("f") and name not in ("erf",) else name
        known = plain in self.dialect.functions or plain in C_EXTERN
        if name not in EXTERN_ALLOWED or not known or len(node.args) - 1 != EXTERN_ALLOWED[name]:
            raise BuildFailed(
                f"kernel {self.kernel!r}: {node.op} of {name!r} cannot be made in {self.dialect.name}",
                hint="write it with the intrinsics of crossfarm/ir/intrinsics.py, or build for a CPU",
            )
        return plain, "float64" if plain == name else "float32"


def may_be_wide(buffer: Buffer) -> bool:
    """True when offsets into a buffer may not fit 32 bits: its size is symbolic, or too large."""
    if any(const_int(e) is None for e in (*buffer.shape, *buffer.strides)):
        return True
    return elements(buffer) >= 1 << 31


def bare(text: str) -> str:
    """Without parentheses around all of it; those of a comma's operands stay, as it binds less than an assignment."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for position, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 1 and c == ",":
            return text
        if depth == 0 and position < len(text) - 1:
            return text
    return text[1:-1]
