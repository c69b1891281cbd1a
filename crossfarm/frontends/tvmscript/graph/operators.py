"""Operators in text: which argument is which input or attribute, and what attributes hold."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.attributes import attribute_value
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.graph import tvm
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.frontends.tvmscript.graph.types import size
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir.expr import IntImm
from crossfarm.ir.graph.expr import GraphExpr, GraphVar, OperatorCall, TupleExpr
from crossfarm.ir.graph.operator import Attribute, Operator
from crossfarm.ir.graph.operators import OPERATORS
from crossfarm.ir.graph.types import ShapeType, TupleType


def parse_operator(ctx: GraphContext, call: ast.Call, name: str, others: Iterable[str]) -> GraphExpr:
    """``R.<name>(...)``: inputs, then attributes, by position or keyword.

    Args:
        others: what else there is in the dialect, for "nearest known".

    Raises:
        ScriptError: no such operator, or arguments that it does not take.
    """
    rewrite = tvm.REWRITES.get(name)
    row = OPERATORS.get(name if rewrite is None else rewrite.op)
    if row is None:
        raise ctx.source.error(
            call, f"unknown operator R.{name}", construct=f"R.{name}",
            hint=nearest(name, [*OPERATORS, *tvm.REWRITES, *others], "R.") or "see docs/operators.md for all there are",
        )  # fmt: skip
    what = f"R.{name}"
    bound, extra = _bind(ctx, call, row, what, rewrite)
    origin = bound.pop("origin", None)
    inputs = _inputs(ctx, call, row, bound)
    attrs = {}
    for attribute in row.attributes:
        node = bound.get(attribute.name)
        if node is not None and not (args.is_none(node) and not attribute.kind.startswith("optional ")):
            attrs[attribute.name] = _attribute(ctx, attribute, node, what)
    if "indices_or_sections" in bound:
        given = _plain(ctx, bound["indices_or_sections"], f"{what} indices_or_sections")
        attrs["sizes"] = tvm.part_sizes(ctx, call, inputs[0], given, attrs.get("axis", 0))
    if name == "full" and "dtype" not in attrs:
        attrs.update(_dtype_of_constant(ctx, bound["value"]))
    with ctx.placed(call):
        row.check_inputs(len(inputs))
        explicit = row.explicit(attrs)
    text = args.string(ctx, origin, "origin") if origin is not None else ""
    return tvm.as_tvm_has_it(ctx, call, OperatorCall(row.name, inputs, explicit, text), extra)


def _input_name(text: str) -> str:
    return text.rstrip("?*")


def _bind(
    ctx: GraphContext, call: ast.Call, row: Operator, what: str, rewrite: tvm.Rewrite | None
) -> tuple[dict[str, ast.expr], dict[str, ast.expr]]:
    """Name of an input or attribute → its argument, and the same for what only TVM has."""
    names = [*map(_input_name, row.inputs), *(a.name for a in row.attributes)]
    order = tvm.positions(row, names)
    bound: dict[str, ast.expr] = {}
    extra: dict[str, ast.expr] = {}
    if rewrite is not None:
        order = (*(n for n in order if n not in rewrite.attrs), *rewrite.given)
        bound = {k: ast.copy_location(ast.parse(v, mode="eval").body, call) for k, v in rewrite.attrs.items()}
    position = 0
    for arg in call.args:
        if isinstance(arg, ast.Starred):
            raise ctx.source.error(arg, f"{what} does not take *arguments", construct="starred argument")
        if position < len(row.inputs) and row.inputs[position].endswith("?") and _is_plain(arg):
            position = len(row.inputs)  # what is no tensor is the first attribute: optional inputs are left out
        if position >= len(order):
            raise ctx.source.error(
                arg, f"{what} takes at most {len(order)} arguments: {', '.join(order)}", construct=what
            )
        bound[order[position]] = arg
        position += 1
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ctx.source.error(
                keyword.value, f"{what} does not take **arguments", construct="double-starred argument"
            )
        name = tvm.our_name(row, keyword.arg, names)
        if name in bound:
            raise ctx.source.error(keyword.value, f"{what} got {name!r} twice", construct=what)
        if name in (*names, *order, "origin"):
            bound[name] = keyword.value
        else:
            tvm.check_neutral(ctx, row, name, keyword.value, names)
            extra[name] = keyword.value
    for name, known in rewrite.given.items() if rewrite is not None else ():
        node = bound.pop(name, None)
        if node is None or ast.unparse(node) not in known:
            raise ctx.source.error(
                node or call, f"{what} is known with {name}={known[0]} only", construct=what,
                hint="see docs/operators.md for those there are",
            )  # fmt: skip
    return bound, extra


def _dtype_of_constant(ctx: GraphContext, node: ast.expr) -> dict[str, str]:
    """The dtype that ``R.const(0.5, "float16")`` says."""
    if isinstance(node, ast.Call) and ctx.resolve(node.func) == "relax.const":
        bound = args.bind_arguments(ctx, node, "R.const", ("value", "dtype"), 1)
        if not args.is_none(bound.get("dtype")):
            return {"dtype": args.dtype(ctx, bound["dtype"], "R.const")}
    return {}


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
    what = f"{operator} {attribute.name}"
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
