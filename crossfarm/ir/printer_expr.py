"""Expressions as text that reads back exactly: as few parentheses as Python needs, every dtype beyond int32 written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import BufferRegion
from crossfarm.ir.expr import (
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
    Range,
    Select,
    StringImm,
    Var,
)
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.placement import TARGET
from crossfarm.ir.printer_names import Names

#: Operator → (symbol, Python's precedence). The rest print as calls.
INFIX = {
    "or": ("or", 1), "and": ("and", 2),
    "eq": ("==", 4), "ne": ("!=", 4), "lt": ("<", 4), "le": ("<=", 4), "gt": (">", 4), "ge": (">=", 4),
    "bitor": ("|", 5), "bitxor": ("^", 6), "bitand": ("&", 7), "shl": ("<<", 8), "shr": (">>", 8),
    "add": ("+", 9), "sub": ("-", 9), "mul": ("*", 10), "div": ("/", 10), "floordiv": ("//", 10),
    "floormod": ("%", 10),
}  # fmt: skip
_NOT = 3
_UNARY = 11
_ATOM = 12
_COMPARISON = 4
#: By name, where infix would mean something else: on integers (``/``), or between two bare numbers (folded on reading).
_BY_NAME = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "mod": "truncmod", "floordiv": "FloorDiv",
    "floormod": "FloorMod", "min": "min", "max": "max", "eq": "EQ", "ne": "NE", "lt": "LT", "le": "LE", "gt": "GT",
    "ge": "GE", "and": "And", "or": "Or", "bitand": "bitwise_and", "bitor": "bitwise_or", "bitxor": "bitwise_xor",
    "shl": "shift_left", "shr": "shift_right",
}  # fmt: skip


class ExprPrinter:
    """Prints expressions with the names of one function."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def expr(self, node: Expr, precedence: int = 0) -> str:
        """``node`` as text, in parentheses where it binds less tightly than ``precedence``."""
        text, own = self._print(node)
        return f"({text})" if own < precedence else text

    def typed(self, node: Expr) -> str:
        """The same with its dtype visible even for int32: where a bare number would adopt another."""
        return f"T.int32({node.value})" if isinstance(node, IntImm) and node.dtype == "int32" else self.expr(node)

    def exprs(self, nodes: tuple[Expr, ...]) -> str:
        return ", ".join(self.expr(node) for node in nodes)

    def tuple_of(self, nodes: tuple[Expr, ...]) -> str:
        """``(a,)``, ``(a, b)``, ``()``"""
        return f"({self.exprs(nodes)},)" if len(nodes) == 1 else f"({self.exprs(nodes)})"

    def indices(self, nodes: tuple[Expr, ...]) -> str:
        return self.exprs(nodes) or "()"

    def region(self, region: BufferRegion) -> str:
        """``A[i, 0:4]``"""
        return f"{self.names[region.buffer]}[{', '.join(map(self.range, region.region)) or '()'}]"

    def range(self, node: Range) -> str:
        """One dimension of a region: an index where the extent is 1, else ``min:min + extent``."""
        if isinstance(node.extent, IntImm) and node.extent.value == 1 and node.extent.dtype == node.min.dtype:
            return self.expr(node.min)
        return f"{self.expr(node.min)}:{self.stop(node)}"

    def stop(self, node: Range) -> str:
        """The end of a range, such that reading ``min`` and it gives exactly ``extent`` again."""
        if isinstance(node.min, IntImm) and node.min.value == 0:
            return self.expr(node.extent)
        if isinstance(node.min, IntImm) and isinstance(node.extent, IntImm):
            return self.expr(ops.const(node.min.value + node.extent.value, node.min.dtype))
        return self.expr(Binary("add", node.min, node.extent))

    def value(self, value: Any) -> str:
        """An attribute's value."""
        if isinstance(value, (IntImm, FloatImm)):
            return self.value(bool(value.value) if dt.is_bool(value.dtype) else value.value)
        if isinstance(value, Expr):
            return self.expr(value)
        if isinstance(value, Mapping):
            return self.mapping(value)
        if isinstance(value, (tuple, list)):
            items = ", ".join(self.value(item) for item in value)
            return f"[{items}]"
        if isinstance(value, str):
            return quote(value)
        if isinstance(value, float) and not math.isfinite(value):
            return f'T.float64("{value}")'
        return repr(value)

    def mapping(self, values: Mapping[str, Any]) -> str:
        """A dictionary of attributes."""
        return "{" + ", ".join(f"{quote(k)}: {self.value(v)}" for k, v in values.items()) + "}"

    def function_attributes(self, values: Mapping[str, Any]) -> str:
        """A dictionary of a function's attributes: its target is written as TVM writes it."""
        target = values.get(TARGET)
        if not isinstance(target, Mapping):
            return self.mapping(values)
        texts = {k: f"T.target({self.mapping(target)})" if k == TARGET else self.value(v) for k, v in values.items()}
        return "{" + ", ".join(f"{quote(k)}: {text}" for k, text in texts.items()) + "}"

    def _print(self, node: Expr) -> tuple[str, int]:
        method = getattr(self, f"_print_{type(node).__name__}", None)
        if method is None:
            raise InvalidModule(f"{type(node).__name__} has no printed form")
        result: str | tuple[str, int] = method(node)
        return result if isinstance(result, tuple) else (result, _ATOM)

    def _print_Var(self, node: Var) -> str:
        return self.names[node]

    def _print_IntImm(self, node: IntImm) -> tuple[str, int]:
        if node.dtype == "int32":
            return str(node.value), _ATOM if node.value >= 0 else _UNARY
        return f"T.{node.dtype}({bool(node.value) if dt.is_bool(node.dtype) else node.value})", _ATOM

    def _print_FloatImm(self, node: FloatImm) -> str:
        value = node.value
        return f"T.{node.dtype}({value!r})" if math.isfinite(value) else f'T.{node.dtype}("{value}")'

    def _print_StringImm(self, node: StringImm) -> str:
        return quote(node.value)

    def _print_Binary(self, node: Binary) -> tuple[str, int]:
        ambiguous = node.op == "div" and not dt.is_float(node.a.dtype)
        if node.op not in INFIX or ambiguous or (_is_bare(node.a) and _is_bare(node.b)):
            return f"T.{_BY_NAME[node.op]}({self.expr(node.a)}, {self.expr(node.b)})", _ATOM
        symbol, own = INFIX[node.op]
        left = own + 1 if own == _COMPARISON else own  # a < b < c means something else in Python
        return f"{self.expr(node.a, left)} {symbol} {self.expr(node.b, own + 1)}", own

    def _print_Not(self, node: Not) -> tuple[str, int]:
        return f"not {self.expr(node.a, _NOT)}", _NOT

    def _print_Cast(self, node: Cast) -> str:
        return f"T.Cast({quote(node.dtype)}, {self.expr(node.value)})"

    def _print_Select(self, node: Select) -> str:
        return f"T.Select({self.exprs((node.condition, node.true_value, node.false_value))})"

    def _print_Let(self, node: Let) -> str:
        value = self.expr(node.value)
        self.names.push()
        name = self.names.define(node.var)
        body = self.expr(node.body)
        self.names.pop()
        return f"T.Let({body}, where={{{name}: {value}}})"

    def _print_BufferLoad(self, node: BufferLoad) -> str:
        return f"{self.names[node.buffer]}[{self.indices(node.indices)}]"

    def _print_Ramp(self, node: Ramp) -> str:
        return f"T.Ramp({self.expr(node.base)}, {self.expr(node.stride)}, {node.lanes})"

    def _print_Broadcast(self, node: Broadcast) -> str:
        return f"T.Broadcast({self.expr(node.value)}, {node.lanes})"

    def _print_Call(self, node: Call) -> str:
        row = INTRINSICS.get(node.op)
        if row is None:
            raise InvalidModule(f"unknown intrinsic {node.op!r} has no printed form")
        name = row.script[0] if row.script else row.name
        if node.op in ("call_extern", "call_pure_extern", "reinterpret"):
            return f"T.{name}({quote(node.dtype)}, {self.exprs(node.args)})"
        return f"T.{name}({self.exprs(node.args)}{self._dtype_argument(node)})"

    def _dtype_argument(self, node: Call) -> str:
        """``, dtype=…`` where the call's dtype is not the one that reading it would infer."""
        try:
            inferred = ops.result_dtype(INTRINSICS[node.op], node.args)
        except (InvalidModule, IndexError):
            inferred = ""
        return "" if inferred == node.dtype else f", dtype={quote(node.dtype)}"


def quote(text: str) -> str:
    """A Python string literal in ASCII."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


def _is_bare(node: Expr) -> bool:
    """Prints as a bare number: two of them around an operator would be computed on reading."""
    return isinstance(node, IntImm) and node.dtype == "int32"
