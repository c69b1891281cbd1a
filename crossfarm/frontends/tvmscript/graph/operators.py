"""Operators in text: which argument is which input or attribute, and what attributes hold."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.attributes import attribute_value
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.frontends.tvmscript.graph.types import size
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir.expr import IntImm
from crossfarm.ir.graph.expr import GraphExpr, GraphVar, OperatorCall, TupleExpr
from crossfarm.ir.graph.operator import Attribute, Operator
from crossfarm.ir.graph.operators import OPERATORS
from crossfarm.ir.graph.types import ShapeType, TupleType

_LAYOUTS = ("NCW", "NCHW", "NCDHW")
#: What TVM writes beside our attributes, with the values that say what is so here anyway.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "data_layout": _LAYOUTS,
    "layout": _LAYOUTS,
    "out_layout": (*_LAYOUTS, "", None),
    "out_dtype": ("", "void", None),
    "center": (True,),
    "scale": (True,),
    "assume_inbound": (True, False),
    "mode": ("fast", "clip"),
}
#: Names of a first input that TVM and we do not share.
_FIRST = ("x", "data", "x1", "tensors")
#: The layout of weights is a convolution's own, and a transposed one's.
_KERNELS = ("OIW", "OIHW", "OIDHW")
_TRANSPOSED_KERNELS = ("IOW", "IOHW", "IODHW")


def parse_operator(ctx: GraphContext, call: ast.Call, name: str, others: Iterable[str]) -> OperatorCall:
    """``R.<name>(...)``: inputs, then attributes, by position or keyword.

    Args:
        others: what else there is in the dialect, for "nearest known".

    Raises:
        ScriptError: no such operator, or arguments that it does not take.
    """
    row = OPERATORS.get(name)
    if row is None:
        raise ctx.source.error(
            call, f"unknown operator R.{name}", construct=f"R.{name}",
            hint=nearest(name, [*OPERATORS, *others], "R.") or "see docs/operators.md for those there are",
        )  # fmt: skip
    bound = _bind(ctx, call, row)
    origin = bound.pop("origin", None)
    inputs = _inputs(ctx, call, row, bound)
    attrs = {a.name: _attribute(ctx, a, bound[a.name], name) for a in row.attributes if a.name in bound}
    with ctx.placed(call):
        row.check_inputs(len(inputs))
        explicit = row.explicit(attrs)
    return OperatorCall(name, inputs, explicit, args.string(ctx, origin, "origin") if origin is not None else "")


def _input_name(text: str) -> str:
    return text.rstrip("?*")


def _bind(ctx: GraphContext, call: ast.Call, row: Operator) -> dict[str, ast.expr]:
    """Name of an input or attribute → its argument; what says nothing here is dropped."""
    what = f"R.{row.name}"
    names = [*map(_input_name, row.inputs), *(a.name for a in row.attributes)]
    bound: dict[str, ast.expr] = {}
    position = 0
    for arg in call.args:
        if isinstance(arg, ast.Starred):
            raise ctx.source.error(arg, f"{what} does not take *arguments", construct="starred argument")
        if position < len(row.inputs) and row.inputs[position].endswith("?") and _is_plain(arg):
            position = len(row.inputs)  # what is no tensor is the first attribute: optional inputs are left out
        if position >= len(names):
            raise ctx.source.error(
                arg, f"{what} takes at most {len(names)} arguments: {', '.join(names)}", construct=what
            )
        bound[names[position]] = arg
        position += 1
    for keyword in call.keywords:
        name = keyword.arg
        if name is None:
            raise ctx.source.error(
                keyword.value, f"{what} does not take **arguments", construct="double-starred argument"
            )
        if name not in names and name in _FIRST and names and names[0] in _FIRST:
            name = names[0]
        if name in bound:
            raise ctx.source.error(keyword.value, f"{what} got {name!r} twice", construct=what)
        if name in (*names, "origin"):
            bound[name] = keyword.value
        else:
            _check_neutral(ctx, row, name, keyword.value, names)
    return bound


def _check_neutral(ctx: GraphContext, row: Operator, name: str, node: ast.expr, names: list[str]) -> None:
    """Raises ScriptError for a keyword that is neither ours nor one of TVM's that says what is so anyway."""
    known = _NEUTRAL.get(name)
    if name == "kernel_layout":
        known = _TRANSPOSED_KERNELS if row.name.endswith("transpose") else _KERNELS
    what = f"R.{row.name}"
    if known is None:
        raise ctx.source.error(
            node, f"{what} has no argument {name!r}", construct=what,
            hint=nearest(name, names) or f"it takes: {', '.join(names) or 'none'}",
        )  # fmt: skip
    value = node.value if isinstance(node, ast.Constant) else spelled(ctx, node)
    if value not in known:
        raise ctx.source.error(
            node, f"{what} with {name}={spelled(ctx, node)} is not supported", construct=f"{what} {name}",
            hint=f"it may be {', '.join(map(repr, known))}",
        )  # fmt: skip


def _is_plain(node: ast.expr) -> bool:
    """Certainly no tensor: a number, text, or a list of such."""
    if isinstance(node, ast.UnaryOp):
        return _is_plain(node.operand)
    if isinstance(node, (ast.List, ast.Tuple)):
        return all(map(_is_plain, node.elts))
    return isinstance(node, ast.Constant) and node.value is not None


def _inputs(ctx: GraphContext, call: ast.Call, row: Operator, bound: dict[str, ast.expr]) -> tuple[GraphExpr, ...]:
    what = f"R.{row.name}"
    found: list[GraphExpr] = []
    left_out = ""
    for declared in row.inputs:
        name = _input_name(declared)
        node = bound.get(name)
        if node is None or args.is_none(node):
            if name == declared:
                raise ctx.source.error(
                    node or call, f"{what} needs {name!r}", construct=what,
                    hint=f"it takes: {', '.join(map(_input_name, row.inputs))}",
                )  # fmt: skip
            left_out = left_out or name
            continue
        if left_out:
            raise ctx.source.error(
                node, f"{what} cannot have {name!r} where {left_out!r} is left out", construct=what,
                hint=f"give {left_out!r} too",
            )  # fmt: skip
        value = ctx.atom(node)
        if not declared.endswith("*"):
            found.append(value)
        elif isinstance(value, TupleExpr):
            found.extend(value.fields)
        elif isinstance(value, GraphVar) and isinstance(value.type, TupleType):
            found.extend(ctx.builder.items(value))
        else:
            raise ctx.source.error(
                node, f"{what} takes a tuple of tensors", construct=what, hint=f"write ({spelled(ctx, node)},)"
            )
    return tuple(found)


def _attribute(ctx: GraphContext, attribute: Attribute, node: ast.expr, operator: str) -> Any:
    """What an attribute holds, single numbers as lists of one where it is a list."""
    what = f"R.{operator} {attribute.name}"
    if args.is_none(node):
        return None
    kind = attribute.kind.removeprefix("optional ")
    if kind == "dims":
        return _dims(ctx, node, what)
    value = _plain(ctx, node, what)
    if kind in ("ints", "floats") and not isinstance(value, tuple):
        return (value,)
    return None if kind == "dtype" and kind != attribute.kind and value in ("", "void") else value


def _dims(ctx: GraphContext, node: ast.expr, what: str) -> tuple[Any, ...]:
    """``R.shape([n, 4])``, a tuple or list, a variable that is a shape, or one dimension."""
    named = ctx.find(node.id) if isinstance(node, ast.Name) else None
    if named is not None and isinstance(named.type, ShapeType):
        return named.type.values
    if isinstance(node, ast.Call) and ctx.resolve(node.func) == "relax.shape":
        (node,) = args.positional(ctx, node, "R.shape", 1)
    found = []
    for item in args.elements(ctx, node):
        value = size(ctx, _unwrapped(ctx, item, what), what)
        found.append(value.value if isinstance(value, IntImm) else value)
    return tuple(found)


def _plain(ctx: GraphContext, node: ast.expr, what: str) -> Any:
    node = _unwrapped(ctx, node, what)
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_plain(ctx, item, what) for item in args.elements(ctx, node))
    return attribute_value(ctx, node, what)


def _unwrapped(ctx: GraphContext, node: ast.expr, what: str) -> ast.expr:
    """What is inside ``R.prim_value(1)``, ``R.const(0.5, "float32")``, ``R.str("x")`` and ``R.shape([1, 2])``."""
    if isinstance(node, ast.Call):
        name = ctx.resolve(node.func) or ""
        if name == "relax.const":
            return args.bind_arguments(ctx, node, "R.const", ("value", "dtype"), 1)["value"]
        if name in ("relax.prim_value", "relax.str", "relax.dtype", "relax.shape"):
            return args.positional(ctx, node, "R." + name.removeprefix("relax."), 1)[0]
    return node
