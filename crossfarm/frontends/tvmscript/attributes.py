"""Attributes and annotations: dictionaries of plain data. Typed literals in them become plain numbers."""

from __future__ import annotations

import ast

from crossfarm.frontends.tvmscript.arguments import elements
from crossfarm.frontends.tvmscript.context import FunctionContext
from crossfarm.frontends.tvmscript.dialect import attribute_key
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import FloatImm, IntImm
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


def attribute_value(ctx: FunctionContext, node: ast.expr, what: str) -> AttrValue:
    """Plain data: None, booleans, numbers, strings, buffer names, tuples and dictionaries of them, or an expression."""
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Dict):
        return attributes(ctx, node, what)
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(attribute_value(ctx, item, what) for item in elements(ctx, node))
    if isinstance(node, ast.Name) and isinstance(named := ctx.lookup(node.id), Buffer):
        return named.name  # a hint such as layout_free_placeholders: the name is what is left of it
    value = ctx.evaluate(node)
    if isinstance(value, IntImm):
        return bool(value.value) if dt.is_bool(value.dtype) else value.value
    return value.value if isinstance(value, FloatImm) else value
