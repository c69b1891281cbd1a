"""Expressions as Python text which gives them again: over ``te`` values, with Python's operators.

``(m // 8) * 8 + m % 8`` is written as a person writes it. What has no operator is a call of ``te``, and so is a number
whose dtype its neighbour does not tell.
"""

from __future__ import annotations

from collections.abc import Collection

from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Binary, Cast, Expr, FloatImm, IntImm, Not, Select, Var
from crossfarm.ir.printer import print_node
from crossfarm.ir.printer_names import python_name

#: Python's operator and how tightly it binds.
_INFIX = {
    "mul": ("*", 6), "floordiv": ("//", 6), "floormod": ("%", 6), "add": ("+", 5), "sub": ("-", 5),
    "shl": ("<<", 4), "shr": (">>", 4), "bitand": ("&", 3), "and": ("&", 3), "bitxor": ("^", 2),
    "bitor": ("|", 1), "or": ("|", 1),
    "lt": ("<", 0), "le": ("<=", 0), "gt": (">", 0), "ge": (">=", 0), "eq": ("==", 0), "ne": ("!=", 0),
}  # fmt: skip
_TE_FUNCTIONS = {"min": "minimum", "max": "maximum"}
_CALL = 9


def python_expr(value: Expr, names: Collection[Var], dtype: str | None = None) -> str:
    """``value`` as text; evaluated with a te value for each of ``names``, it gives ``value`` again.

    Other variables are ``te.var`` of their name. Expressions that neither index maps nor sizes have (loads, calls) are
    written as in programs.

    Args:
        dtype: what a Python number gets where the text is used: a number of that dtype is written as one.
    """
    return str(value.value) if isinstance(value, IntImm) and value.dtype == dtype else _text(value, names)[0]


def _text(value: Expr, names: Collection[Var], beside: Expr | None = None) -> tuple[str, int]:
    """Text and how tightly it binds; ``beside`` is the other operand."""
    match value:
        case Var(name, dtype):
            return (python_name(name) if value in names else f"te.var({name!r}, {dtype!r})"), _CALL
        case IntImm(number, dtype) | FloatImm(number, dtype):
            if beside is not None and beside.dtype == dtype and not isinstance(beside, IntImm | FloatImm):
                return (str(number), _CALL) if number >= 0 else (f"({number})", _CALL)
            return f"te.const({bool(number) if dtype == 'bool' else number}, {dtype!r})", _CALL
        case Binary(op, a, b) if op in _INFIX and dt.lanes_of(a.dtype) == 1:
            sign, binds = _INFIX[op]
            left, right = _text(a, names, b), _text(b, names, a)
            loose = binds + (binds == 0)  # comparisons in one another would be a chain
            return f"{_grouped(left, loose)} {sign} {_grouped(right, binds + 1)}", binds
        case Binary(op, a, b) if op in _TE_FUNCTIONS:
            return f"te.{_TE_FUNCTIONS[op]}({_text(a, names, b)[0]}, {_text(b, names, a)[0]})", _CALL
        case Cast(a, dtype):
            return f"te.cast({_text(a, names)[0]}, {dtype!r})", _CALL
        case Not(a):
            return f"te.logical_not({_text(a, names)[0]})", _CALL
        case Select(condition, a, b):
            return f"te.select({', '.join(_text(e, names)[0] for e in (condition, a, b))})", _CALL
    return print_node(value).strip(), _CALL


def _grouped(part: tuple[str, int], binds: int) -> str:
    text, own = part
    return text if own >= binds else f"({text})"
