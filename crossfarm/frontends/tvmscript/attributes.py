"""Attributes and annotations: dictionaries of plain data. Typed literals in them become plain numbers."""

from __future__ import annotations

import ast

from crossfarm.frontends.tvmscript.arguments import bind_arguments, elements
from crossfarm.frontends.tvmscript.context import FunctionContext
from crossfarm.frontends.tvmscript.dialect import attribute_key
from crossfarm.frontends.tvmscript.targets import captured_target, plain_target
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import FloatImm, IntImm
from crossfarm.ir.placement import TARGET, target_data
from crossfarm.ir.stmt import AttrValue


def attributes(ctx: FunctionContext, node: ast.expr, what: str) -> dict[str, AttrValue]:
    """A dictionary with string keys, keys in the canonical dialect. Raises ScriptError for anything else."""
    if not isinstance(node, ast.Dict):
        raise ctx.source.error(node, f"{what} needs a dictionary", construct=what, hint='as in {"key": 1}')
    result: dict[str, AttrValue] = {}
    for key_node, value_node in zip(node.keys, node.values):
        if not isinstance(key_node, ast.Constant) or not isinstance(key_node.value, str):
            raise ctx.source.error(key_node or value_node, f"a key of {what} must be a string", construct=what)
        key = attribute_key(key_node.value)
        if key in result:
            raise ctx.source.error(key_node, f"{what} has {key!r} twice", construct=what)
        result[key] = attribute_value(ctx, value_node, f"{what} {key!r}")
    return result


def function_attributes(ctx: FunctionContext, node: ast.expr, what: str) -> dict[str, AttrValue]:
    """The same for a function, whose ``target`` is one, however it is written."""
    result = attributes(ctx, node, what)
    if TARGET in result:
        result[TARGET] = plain_target(ctx, node, result[TARGET])
    return result


def attribute_value(ctx: FunctionContext, node: ast.expr, what: str) -> AttrValue:
    """Plain data: None, booleans, numbers, strings, buffer names, tuples and dictionaries of them, targets as such, or
    an expression."""
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Dict):
        return attributes(ctx, node, what)
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(attribute_value(ctx, item, what) for item in elements(ctx, node))
    if isinstance(node, ast.Name) and isinstance(named := ctx.lookup(node.id), Buffer):
        return named.name  # a hint such as layout_free_placeholders: the name is what is left of it
    if isinstance(node, ast.Call) and ctx.resolve(node.func) == "tir.target":
        bound = bind_arguments(ctx, node, "T.target", ("target_config", "host"), 1)
        given = {name: attribute_value(ctx, each, "T.target") for name, each in bound.items()}
        return plain_target(ctx, node, given["target_config"], given.get("host"))
    if (target := captured_target(ctx, node)) is not None:
        return target_data(target)
    value = ctx.evaluate(node)
    if isinstance(value, IntImm):
        return bool(value.value) if dt.is_bool(value.dtype) else value.value
    return value.value if isinstance(value, FloatImm) else value
