"""Calls in graph functions: constants, shapes and numbers, operators, functions of the module and of the system."""

from __future__ import annotations

import ast
from collections.abc import Callable

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.graph import constants
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.frontends.tvmscript.graph.operators import parse_operator
from crossfarm.frontends.tvmscript.graph.types import annotation, sizes, whole
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph.expr import (
    CallPacked,
    CallTIR,
    FunctionCall,
    GraphExpr,
    GraphVar,
    PrimValue,
    ShapeExpr,
    TupleExpr,
)
from crossfarm.ir.graph.types import TensorType, TupleType

#: Known to TVM and deliberately not to us, with what to do instead.
_REFUSED = {
    "call_pure_packed": "R.call_dps_packed names a function of the system that fills its results",
    "call_packed": "R.call_dps_packed names a function of the system that fills its results",
    "call_tir_inplace": "write R.call_tir; the memory planner shares buffers",
    "call_inplace_packed": "write R.call_dps_packed; the memory planner shares buffers",
    "call_tir_with_grad": "write R.call_tir; there are no gradients",
    "dataflow": "it opens a block: with R.dataflow():",
    "output": "it ends a block of with R.dataflow():",
    "print": "functions have no effects: return the value, or fetch it from a session",
    "assert_op": "R.match_cast checks shapes when the program runs",
    "ExternFunc": "R.call_dps_packed names a function of the system that fills its results",
}


def parse_call(ctx: GraphContext, node: ast.Call, name: str | None) -> GraphExpr:
    """The value of a call; ``name``: what it resolves to. Raises ScriptError naming the nearest known construct."""
    function = ctx.function_of_module(node.func)
    if function is not None:
        return _function_call(ctx, node, function)
    if name is not None and name.startswith("relax."):
        short = name.removeprefix("relax.")
        handler = _HANDLERS.get(short)
        if handler is not None:
            return handler(ctx, node)
        if short in _REFUSED:
            raise ctx.source.error(
                node, f"R.{short} has no place in an expression", construct=f"R.{short}", hint=_REFUSED[short]
            )
        return parse_operator(ctx, node, short, _HANDLERS)
    text = spelled(ctx, node.func)
    hint = ""
    if isinstance(node.func, ast.Name) and node.func.id in ctx.module.graph_functions:
        hint = f"call it by the module: cls.{node.func.id}(...), with cls = {ctx.module.name or 'Module'} before"
    raise ctx.source.error(node, f"call of {text}, which is not part of the script language", construct=text, hint=hint)


def _function_call(ctx: GraphContext, node: ast.Call, function: str) -> GraphExpr:
    text = spelled(ctx, node.func)
    if function in ctx.module.tensor_programs:
        raise ctx.source.error(
            node, f"{text} is a tensor program, which a graph function does not call like this", construct=text,
            hint=f"write R.call_tir({text}, (args,), out_sinfo=R.Tensor(...))",
        )  # fmt: skip
    if function not in ctx.module.graph_functions:
        raise _no_function(ctx, node.func, function, ctx.module.graph_functions)
    return FunctionCall(function, tuple(ctx.atom(item) for item in args.positional(ctx, node, text)))


def _no_function(ctx: GraphContext, node: ast.expr, function: str, known: frozenset[str]) -> Exception:
    text = spelled(ctx, node)
    return ctx.source.error(
        node, f"the module has no function {function!r}", construct=text,
        hint=nearest(function, known, text.removesuffix(function)) or f"it has: {', '.join(sorted(known)) or 'none'}",
    )  # fmt: skip


def _call_tir(ctx: GraphContext, node: ast.Call) -> GraphExpr:
    names = ("gvar", "args", "out_sinfo", "tir_vars", "out_ty", "origin")
    bound = args.bind_arguments(ctx, node, "R.call_tir", names, 2)
    function = ctx.function_of_module(bound["gvar"])
    if function is None:
        raise ctx.source.error(
            bound["gvar"], f"R.call_tir calls a function of the module, not {spelled(ctx, bound['gvar'])}",
            construct="R.call_tir", hint="write cls.f, with cls = Module before; a function of the system is called "
            "by R.call_dps_packed",
        )  # fmt: skip
    if function not in ctx.module.tensor_programs:
        raise _no_function(ctx, bound["gvar"], function, ctx.module.tensor_programs)
    given = _arguments(ctx, bound["args"])
    out = _out(ctx, node, bound, "R.call_tir")
    scalars: tuple[Expr, ...] = ()
    if not args.is_none(bound.get("tir_vars")):
        scalars = tuple(args.expr(ctx, item, "int64") for item in _shape_items(ctx, bound["tir_vars"]))
    origin = args.string(ctx, bound["origin"], "origin") if "origin" in bound else ""
    return CallTIR(function, given, out, scalars, origin)


def _call_dps_packed(ctx: GraphContext, node: ast.Call) -> GraphExpr:
    bound = args.bind_arguments(ctx, node, "R.call_dps_packed", ("func", "args", "out_sinfo", "out_ty"), 2)
    function = args.string(ctx, bound["func"], "the function of R.call_dps_packed")
    return CallPacked(function, _arguments(ctx, bound["args"]), _out(ctx, node, bound, "R.call_dps_packed"))


def _arguments(ctx: GraphContext, node: ast.expr) -> tuple[GraphExpr, ...]:
    """A tuple of values, a variable that is one, or a single value."""
    value = ctx.atom(node)
    if isinstance(value, TupleExpr):
        return value.fields
    if isinstance(value, GraphVar) and isinstance(value.type, TupleType):
        return tuple(ctx.builder.items(value))
    return (value,)


def _out(ctx: GraphContext, call: ast.Call, bound: dict[str, ast.expr], what: str) -> tuple[TensorType, ...]:
    if ("out_sinfo" in bound) == ("out_ty" in bound):
        raise ctx.source.error(
            call, f"{what} needs the type of its result once", construct=what,
            hint='as in out_sinfo=R.Tensor((n, 64), dtype="float32")',
        )  # fmt: skip
    node = bound.get("out_sinfo", bound.get("out_ty"))
    assert node is not None
    found = []
    for item in args.elements(ctx, node):
        kind = whole(ctx, item, annotation(ctx, item))
        fields = kind.fields if isinstance(kind, TupleType) else (kind,)
        for field in fields:
            if not isinstance(field, TensorType):
                raise ctx.source.error(item, f"{what} gives tensors, not {spelled(ctx, item)}", construct=what)
            found.append(field)
    return tuple(found)


def _shape_items(ctx: GraphContext, node: ast.expr) -> list[ast.expr]:
    """The items of ``R.shape([n, m])``, or of a plain list or tuple."""
    if isinstance(node, ast.Call) and ctx.resolve(node.func) == "relax.shape":
        (node,) = args.positional(ctx, node, "R.shape", 1)
    return args.elements(ctx, node)


def _shape(ctx: GraphContext, node: ast.Call) -> GraphExpr:
    (items,) = args.positional(ctx, node, "R.shape", 1)
    return ShapeExpr(sizes(ctx, items, "R.shape"))


def _prim_value(ctx: GraphContext, node: ast.Call) -> GraphExpr:
    (item,) = args.positional(ctx, node, "R.prim_value", 1)
    value = ctx.value(item)
    if not isinstance(value, PrimValue):
        raise ctx.source.error(
            item, f"R.prim_value takes a number, not {spelled(ctx, item)}", construct="R.prim_value",
            hint="constant tensors are R.const(1.0, \"float32\")",
        )  # fmt: skip
    return value


def _tuple(ctx: GraphContext, node: ast.Call) -> GraphExpr:
    return TupleExpr(tuple(ctx.atom(item) for item in args.positional(ctx, node, "R.tuple")))


def _match_cast(ctx: GraphContext, node: ast.Call) -> GraphExpr:
    return match_cast(ctx, node, "lv")


def match_cast(ctx: GraphContext, node: ast.Call, label: str) -> GraphVar:
    """``R.match_cast(x, R.Tensor(("m", 4), dtype="float32"))``, bound; new names in quotes are sizes."""
    bound = args.bind_arguments(ctx, node, "R.match_cast", ("value", "struct_info", "ty"), 1)
    wanted = bound.get("struct_info", bound.get("ty"))
    if wanted is None:
        raise ctx.source.error(node, "R.match_cast needs a type", construct="R.match_cast")
    value = ctx.atom(bound["value"])
    kind = whole(ctx, wanted, annotation(ctx, wanted, defines=True))
    with ctx.placed(node):
        return ctx.builder.match_cast(value, kind, label)


_HANDLERS: dict[str, Callable[[GraphContext, ast.Call], GraphExpr]] = {
    "call_tir": _call_tir,
    "call_dps_packed": _call_dps_packed,
    "const": constants.constant,
    "constant": constants.named_constant,
    "shape": _shape,
    "prim_value": _prim_value,
    "tuple": _tuple,
    "match_cast": _match_cast,
}
