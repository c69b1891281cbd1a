"""What constructs are given: a call's arguments by parameter name, and each read as what it has to be.

That is an expression, a number, a condition, a constant integer, a string, a boolean or a dtype.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript.context import FunctionContext, Value, spelled
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.expr import Expr, IntImm


def bind_arguments(
    ctx: FunctionContext, call: ast.Call, what: str, names: Sequence[str], required: int = 0
) -> dict[str, ast.expr]:
    """Parameter name → argument. Raises ScriptError for too many, unknown, repeated or missing arguments."""
    bound: dict[str, ast.expr] = {}
    for position, arg in enumerate(call.args):
        if isinstance(arg, ast.Starred):
            raise ctx.source.error(arg, f"{what} does not take *arguments", construct="starred argument")
        if position >= len(names):
            raise ctx.source.error(
                arg, f"{what} takes at most {len(names)} arguments: {', '.join(names)}", construct=what
            )
        bound[names[position]] = arg
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ctx.source.error(
                keyword.value, f"{what} does not take **arguments", construct="double-starred argument"
            )
        if keyword.arg not in names:
            raise ctx.source.error(
                keyword.value, f"{what} has no argument {keyword.arg!r}", construct=what,
                hint=nearest(keyword.arg, names) or f"it takes: {', '.join(names) or 'none'}",
            )  # fmt: skip
        if keyword.arg in bound:
            raise ctx.source.error(keyword.value, f"{what} got {keyword.arg!r} twice", construct=what)
        bound[keyword.arg] = keyword.value
    for name in names[:required]:
        if name not in bound:
            raise ctx.source.error(call, f"{what} needs {name!r}", construct=what, hint=f"it takes: {', '.join(names)}")
    return bound


def positional(ctx: FunctionContext, call: ast.Call, what: str, count: int | None = None) -> list[ast.expr]:
    """The arguments of a call that takes no keywords. Raises ScriptError for another number than ``count``."""
    for arg in call.args:
        if isinstance(arg, ast.Starred):
            raise ctx.source.error(arg, f"{what} does not take *arguments", construct="starred argument")
    for keyword in call.keywords:
        raise ctx.source.error(
            keyword.value,
            f"{what} has no argument {keyword.arg or '**'!r}",
            construct=what,
            hint="it takes positional ones",
        )
    if count is not None and len(call.args) != count:
        raise ctx.source.error(call, f"{what} takes {count} arguments, not {len(call.args)}", construct=what)
    return list(call.args)


def expr(ctx: FunctionContext, node: ast.expr, dtype: str | None = None) -> Expr:
    """An expression with a dtype: Python numbers become literals of ``dtype``, or of their default."""
    return as_expr(ctx, node, ctx.evaluate(node), dtype)


def as_expr(ctx: FunctionContext, node: ast.expr, value: Value, dtype: str | None = None) -> Expr:
    """The same for a value already evaluated."""
    if isinstance(value, str):
        raise ctx.source.error(node, f"a string where a number is needed: {value[:40]!r}", construct="string")
    if isinstance(value, Expr):
        return value
    try:
        if dtype is not None and isinstance(value, float) and not dt.is_float(dtype):
            dtype = None
        return ops.const(value, dtype)
    except InvalidModule as error:
        raise ctx.source.wrap(node, error, "literal") from None


def number(ctx: FunctionContext, node: ast.expr) -> Expr | bool | int | float:
    """An operand: an expression, or a Python number that may still adopt a dtype."""
    value = ctx.evaluate(node)
    if isinstance(value, str):
        raise ctx.source.error(node, f"a string where a number is needed: {value[:40]!r}", construct="string")
    return value


def condition(ctx: FunctionContext, node: ast.expr, what: str) -> Expr:
    """A bool expression."""
    try:
        return ops.condition(number(ctx, node), what)
    except ScriptError:
        raise
    except InvalidModule as error:
        raise ctx.source.wrap(node, error, what) from None


def integer(ctx: FunctionContext, node: ast.expr, what: str, low: int = 0, high: int = 2**31 - 1) -> int:
    """A constant integer within bounds."""
    value = ctx.evaluate(node)
    if isinstance(value, IntImm):
        value = value.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ctx.source.error(node, f"{what} must be a constant integer, not {spelled(ctx, node)}", construct=what)
    if not low <= value <= high:
        raise ctx.source.error(node, f"{what} must lie between {low} and {high}, not be {value}", construct=what)
    return value


def string(ctx: FunctionContext, node: ast.expr, what: str) -> str:
    """A string literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        value = ctx.lookup(node.id)
        if isinstance(value, str):
            return value
    raise ctx.source.error(node, f"{what} must be a string, not {spelled(ctx, node)}", construct=what)


def boolean(ctx: FunctionContext, node: ast.expr, what: str) -> bool:
    """``True``, ``False`` or ``T.bool`` of one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.Call) and ctx.resolve(node.func) == "tir.bool" and len(node.args) == 1:
        return boolean(ctx, node.args[0], what)
    raise ctx.source.error(node, f"{what} must be True or False, not {spelled(ctx, node)}", construct=what)


def dtype(ctx: FunctionContext, node: ast.expr, what: str) -> str:
    """A dtype: ``"float32"`` or ``T.float32``."""
    resolved = ctx.resolve(node)
    name = resolved.removeprefix("tir.") if resolved is not None and resolved.startswith("tir.") else None
    if name is None:
        name = string(ctx, node, f"the dtype of {what}")
    if not dt.is_valid(name):
        raise ctx.source.error(
            node, f"unknown dtype {name!r}", construct=f"dtype {name}",
            hint=nearest(name, dt.SCALARS) or f"known are {', '.join(dt.SCALARS)}",
        )  # fmt: skip
    return name


def is_none(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def elements(ctx: FunctionContext, node: ast.expr) -> list[ast.expr]:
    """The items of a tuple or list; anything else is the one item."""
    if isinstance(node, (ast.Tuple, ast.List)):
        for item in node.elts:
            if isinstance(item, ast.Starred):
                raise ctx.source.error(item, "* has no place here", construct="starred expression")
        return list(node.elts)
    return [node]
