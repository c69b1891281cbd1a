"""Traces as JSON and as Python text.

::

    {"trace_version": 1, "instructions": [
      {"primitive": "get_block", "args": ["C", "main"], "outputs": "b0"},
      {"primitive": "split", "args": [{"ref": "l1"}, [null, {"ref": "v4"}], true, false], "outputs": ["l5", "l6"]}, …]}

Plain data is itself, a sequence a list; anything else is an object with one key: ``ref`` for an earlier result, ``map``
for a mapping, ``expr`` for an expression, ``index_map`` for inputs and outputs of one. Expressions are lists that start
with an operator's name; operators and primitives are named as users write them, never by a class of this program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from crossfarm.compat.versions import TRACE_VERSION
from crossfarm.errors import InvalidModule, TraceError
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.expr import BINARY_OPS, Binary, Cast, Expr, FloatImm, IntImm, Not, Select, StringImm, Var
from crossfarm.ir.schedule.index_map import IndexMap
from crossfarm.ir.schedule.trace import Instruction, Output, Trace

#: A trace deeper or longer than this is refused: it comes from outside.
MAX_DEPTH, MAX_INSTRUCTIONS = 64, 100_000


def write(trace: Trace) -> str:
    """The trace as JSON. Raises TraceError for an argument without a form."""
    instructions = []
    for instruction in trace:
        entry: dict[str, Any] = {"primitive": instruction.primitive, "args": [_written(a) for a in instruction.args]}
        if instruction.options:
            entry["options"] = {k: _written(v) for k, v in sorted(instruction.options.items())}
        if instruction.outputs:
            entry["outputs"] = instruction.outputs
        if instruction.decision is not None:
            entry["decision"] = _written(instruction.decision)
        instructions.append(entry)
    return json.dumps({"trace_version": TRACE_VERSION, "instructions": instructions})


def read(text: str) -> Trace:
    """The trace that ``text`` holds. Raises TraceError naming what is wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise TraceError(f"a trace that is not JSON: {problem}") from None
    if not isinstance(data, dict) or not isinstance(data.get("trace_version"), int):
        raise TraceError("not a trace: there is no trace_version")
    version = data["trace_version"]
    if not 1 <= version <= TRACE_VERSION:
        raise TraceError(
            f"a trace of version {version}; this program reads 1 to {TRACE_VERSION}",
            hint="upgrade crossfarm to read it",
        )
    entries = data.get("instructions")
    if not isinstance(entries, list) or len(entries) > MAX_INSTRUCTIONS:
        raise TraceError(f"a trace has a list of at most {MAX_INSTRUCTIONS} instructions")
    return Trace(tuple(_instruction(position, entry) for position, entry in enumerate(entries)))


def python_text(instruction: Instruction, schedule: str = "sch") -> str:
    """One instruction as a Python statement."""
    given = [_python(a) for a in instruction.args]
    given += [f"{name}={_python(value)}" for name, value in instruction.options.items()]
    if instruction.decision is not None:
        given.append(f"decision={_python(instruction.decision)}")
    call = f"{schedule}.{instruction.primitive}({', '.join(given)})"
    if not instruction.outputs:
        return call
    outputs = instruction.outputs
    names = outputs if isinstance(outputs, str) else ", ".join(outputs) + ("," if len(outputs) == 1 else "")
    return f"{names} = {call}"


def _written(value: Any, depth: int = 0) -> Any:
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
            return [_written(item, depth + 1) for item in value]
        case Mapping():
            return {"map": {key: _written(item, depth + 1) for key, item in sorted(value.items())}}
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


def _instruction(position: int, entry: Any) -> Instruction:
    def refuse(problem: str) -> NoReturn:
        raise TraceError(f"instruction {position} of the trace {problem}")

    if not isinstance(entry, dict) or not isinstance(entry.get("primitive"), str):
        refuse("names no primitive")
    args, options, outputs = entry.get("args", []), entry.get("options", {}), entry.get("outputs", ())
    if not isinstance(args, list) or not isinstance(options, dict):
        refuse("has arguments that are not a list, or options that are not a mapping")
    names = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n.isidentifier() for n in names):
        refuse("has results without names")
    try:
        return Instruction(
            entry["primitive"],
            tuple(_value(a) for a in args),
            {str(k): _value(v) for k, v in options.items()},
            outputs if isinstance(outputs, str) else tuple(outputs),
            _value(entry.get("decision")),
        )
    except (InvalidModule, TraceError) as problem:
        refuse(f"({entry['primitive']}): {problem.message}")


def _value(data: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise TraceError(f"an argument nests deeper than {MAX_DEPTH}")
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return tuple(_value(item, depth + 1) for item in data)
    match data:
        case {"ref": str(name)}:
            return Output(name)
        case {"float": str(text)}:
            return _float(text)
        case {"map": dict(items)}:
            return {str(key): _value(item, depth + 1) for key, item in items.items()}
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


def _python(value: Any) -> str:
    match value:
        case Output(name):
            return name
        case float() if value != value or abs(value) == float("inf"):
            return f"float({str(value)!r})"
        case tuple() | list():
            return f"({', '.join(_python(v) for v in value)}{',' if len(value) == 1 else ''})"
        case Mapping():
            return f"{{{', '.join(f'{key!r}: {_python(item)}' for key, item in value.items())}}}"
        case IndexMap(inputs, outputs):
            names = ", ".join(v.name for v in inputs)
            return f"lambda {names}: [{', '.join(_python_expr(o) for o in outputs)}]"
        case Expr():
            return _python_expr(value)
    return repr(int(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _python_expr(value: Expr) -> str:
    """An expression over variables of the same names, as calls of ``crossfarm.ir.ops`` and ``crossfarm.ir.expr``."""
    match value:
        case Var(name):
            return name
        case IntImm(number, dtype) | FloatImm(number, dtype):
            return f"ops.const({_python(number)}, {dtype!r})"
        case Binary(op, a, b):
            return f"ops.binary({op!r}, {_python_expr(a)}, {_python_expr(b)})"
        case Cast(a, dtype):
            return f"ops.cast({_python_expr(a)}, {dtype!r})"
        case Not(a):
            return f"ops.logical_not({_python_expr(a)})"
        case Select(condition, a, b):
            return f"ops.select({', '.join(_python_expr(e) for e in (condition, a, b))})"
        case StringImm(text):
            return f"StringImm({text!r})"
    return f"<{type(value).__name__}>"
