"""Values of graph functions: names, numbers, tuples and their items, and calls."""

from __future__ import annotations

import ast

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.graph import calls
from crossfarm.frontends.tvmscript.graph.constants import refuse_metadata
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.ir import ops
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph.expr import GraphExpr, PrimValue, TupleExpr, TupleItem


def parse_value(ctx: GraphContext, node: ast.expr) -> GraphExpr:
    """The value of an expression; calls inside it are bound to variables. Raises ScriptError outside the subset."""
    if isinstance(node, ast.Name) and (found := ctx.find(node.id)) is not None:
        return found
    if isinstance(node, (ast.Tuple, ast.List)):
        return TupleExpr(tuple(ctx.atom(item) for item in args.elements(ctx, node)))
    if isinstance(node, ast.Subscript):
        refuse_metadata(ctx, node)
        index = args.integer(ctx, node.slice, "the index of a tuple")
        return TupleItem(ctx.atom(node.value), index)
    if isinstance(node, ast.Call):
        name = ctx.resolve(node.func)
        if name is None or not name.startswith("tir."):
            return calls.parse_call(ctx, node, name)
    return PrimValue(number(ctx, node))


def number(ctx: GraphContext, node: ast.expr) -> Expr:
    """A number that is no tensor; without a dtype bool, int64 or float64, as TVM has it."""
    value = args.number(ctx, node)
    if isinstance(value, Expr):
        return value
    return ops.const(value, {bool: "bool", int: "int64", float: "float64"}[type(value)])
