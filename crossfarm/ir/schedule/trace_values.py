"""The arguments of traces as JSON and as Python text.

Plain data is itself, a sequence a list; anything else is an object with one key: ``ref`` for an earlier result, ``map``
for a mapping, ``expr`` for an expression, ``index_map`` for inputs and outputs of one. Expressions are lists that start
with an operator's name; operators are named as everywhere in the IR, never by a class of this program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossfarm.errors import TraceError
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.expr import BINARY_OPS, Binary, Cast, Expr, FloatImm, IntImm, Not, Select, StringImm, Var
from crossfarm.ir.schedule.index_map import IndexMap
from crossfarm.ir.schedule.python_text import python_expr
from crossfarm.ir.schedule.references import Output

#: An argument nested deeper is refused: traces come from outside.
MAX_DEPTH = 64


def write_value(value: Any, depth: int = 0) -> Any:
    """An argument as JSON data. Raises TraceError for one without a form."""
    if depth > MAX_DEPTH:
        raise TraceError(f"an argument nests deeper than {MAX_DEPTH}")
    match value:
        case Output(name):
            return {"ref": name}
        case bool() | str() | None:
            return value
        case int():
            return int(value)
        case float():
            return value if value == value and abs(value) != float("inf") else {"float": repr(value)}
        case tuple() | list():
            return [write_value(item, depth + 1) for item in value]
        case Mapping():
            return {"map": {key: write_value(item, depth + 1) for key, item in sorted(value.items())}}
        case IndexMap(inputs, outputs):
            names = [[v.name, v.dtype] for v in inputs]
            return {"index_map": {"inputs": names, "outputs": [_expr(o, depth + 1) for o in outputs]}}
        case Expr():
            return {"expr": _expr(value, depth + 1)}
    raise TraceError(f"a {type(value).__name__} cannot be written into a trace")


def _expr(value: Expr, depth: int) -> list[Any]:
    if depth > MAX_DEPTH:
        raise TraceError(f"an argument nests deeper than {MAX_DEPTH}")
    match value:
        case Var(name, dtype):
            return ["var", name, dtype]
        case IntImm(number, dtype):
            return ["int", number, dtype]
        case FloatImm(number, dtype):
            return ["float", repr(number), dtype]
        case StringImm(text):
            return ["string", text]
        case Binary(op, a, b):
            return [op, _expr(a, depth + 1), _expr(b, depth + 1)]
        case Not(a):
            return ["not", _expr(a, depth + 1)]
        case Cast(a, dtype):
            return ["cast", _expr(a, depth + 1), dtype]
        case Select(condition, a, b):
            return ["select", *(_expr(e, depth + 1) for e in (condition, a, b))]
    raise TraceError(f"a {type(value).__name__} cannot be written into a trace")


def read_value(data: Any, depth: int = 0) -> Any:
    """The argument that JSON data means. Raises TraceError, or InvalidModule for an expression that cannot be."""
    if depth > MAX_DEPTH:
        raise TraceError(f"an argument nests deeper than {MAX_DEPTH}")
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return tuple(read_value(item, depth + 1) for item in data)
    match data:
        case {"ref": str(name)}:
            return Output(name)
        case {"float": str(text)}:
            return _float(text)
        case {"map": dict(items)}:
            return {str(key): read_value(item, depth + 1) for key, item in items.items()}
        case {"expr": list(parts)}:
            return _parsed(parts, {}, depth + 1)
        case {"index_map": {"inputs": list(names), "outputs": list(outputs)}}:
            inputs = tuple(_variable(n) for n in names)
            scope = {v.name: v for v in inputs}
            return IndexMap(inputs, tuple(_parsed(o, scope, depth + 1) for o in outputs))
    raise TraceError(f"cannot read the argument {str(data)[:80]!r}")


def _parsed(parts: Any, scope: Mapping[str, Var], depth: int) -> Expr:
    def inner(part: Any) -> Expr:
        return _parsed(part, scope, depth + 1)

    if depth > MAX_DEPTH:
        raise TraceError(f"an argument nests deeper than {MAX_DEPTH}")
    match parts:
        case ["var", str(name), str(dtype)]:
            return scope.get(name) or _variable([name, dtype])
        case ["int", int(number), str(dtype)]:
            return ops.const(number, _dtype(dtype))
        case ["float", str(text), str(dtype)]:
            return ops.const(_float(text), _dtype(dtype))
        case ["string", str(text)]:
            return StringImm(text)
        case [str(op), a, b] if op in BINARY_OPS:
            return ops.binary(op, inner(a), inner(b))
        case ["not", a]:
            return ops.logical_not(inner(a))
        case ["cast", a, str(dtype)]:
            return ops.cast(inner(a), _dtype(dtype))
        case ["select", condition, a, b]:
            return ops.select(inner(condition), inner(a), inner(b))
    raise TraceError(f"cannot read the expression {str(parts)[:80]!r}")


def _variable(parts: Any) -> Var:
    match parts:
        case [str(name), str(dtype)] if name.isidentifier():
            return Var(name, _dtype(dtype))
    raise TraceError(f"cannot read the variable {str(parts)[:80]!r}")


def _dtype(name: str) -> str:
    if not dt.is_valid(name):
        raise TraceError(f"there is no dtype {name[:40]!r}")
    return name


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TraceError(f"{text[:40]!r} is not a number") from None


def python_value(value: Any) -> str:
    """An argument as a Python expression, with earlier results as variables."""
    match value:
        case Output(name):
            return name
        case float() if value != value or abs(value) == float("inf"):
            return f"float({_quoted(str(value))})"
        case str():
            return _quoted(value)
        case tuple() | list():
            return f"({', '.join(python_value(v) for v in value)}{',' if len(value) == 1 else ''})"
        case Mapping():
            return f"{{{', '.join(f'{_quoted(key)}: {python_value(item)}' for key, item in value.items())}}}"
        case IndexMap():
            return str(value)
        case Expr():
            return f"({python_expr(value, ())}).expr"
    return repr(int(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _quoted(text: str) -> str:
    written = repr(text)
    return written if '"' in written or "\\'" in written else f'"{written[1:-1]}"'
