"""Expressions: Python syntax → ``Expr``. Python numbers stay numbers until an expression gives them a dtype."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript import calls
from crossfarm.frontends.tvmscript.arguments import expr, integer, number
from crossfarm.frontends.tvmscript.context import Cell, FunctionContext, HandleParam, Value, View, spelled
from crossfarm.frontends.tvmscript.dialect import is_dialect_name
from crossfarm.frontends.tvmscript.views import element_of
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Ramp
from crossfarm.ir.regions import extent_between
from crossfarm.ir.visitor import MAX_DEPTH

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "floormod",
    ast.BitAnd: "bitand",
    ast.BitOr: "bitor",
    ast.BitXor: "bitxor",
    ast.LShift: "shl",
    ast.RShift: "shr",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}
#: The same on two Python numbers, which need no dtype to be known.
_FOLD: dict[str, Callable[[int | float, int | float], int | float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "floormod": operator.mod,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_FOLD_INTS: dict[str, Callable[[int, int], int]] = {
    "bitand": operator.and_,
    "bitor": operator.or_,
    "bitxor": operator.xor,
    "shl": operator.lshift,
    "shr": operator.rshift,
}
_LARGEST = 2**64
_REFUSED = {
    ast.Lambda: ("lambda", "write the expression itself"),
    ast.IfExp: ("conditional expression", "write T.if_then_else(condition, a, b)"),
    ast.ListComp: ("comprehension", "write the elements out"),
    ast.SetComp: ("comprehension", "write the elements out"),
    ast.DictComp: ("comprehension", "write the elements out"),
    ast.GeneratorExp: ("generator expression", "write the elements out"),
    ast.JoinedStr: ("f-string", "write a plain string"),
    ast.Await: ("await", ""),
    ast.Yield: ("yield", ""),
    ast.YieldFrom: ("yield", ""),
    ast.NamedExpr: ("assignment expression", "bind it in a statement of its own: x: T.int32 = value"),
    ast.Starred: ("starred expression", "write the elements out"),
    ast.Dict: ("dictionary", "a dictionary belongs in attributes and annotations"),
    ast.Set: ("set", ""),
    ast.List: ("list", ""),
    ast.Tuple: ("tuple", ""),
    ast.Slice: ("slice", "a slice belongs in the index of a buffer"),
}


def evaluate(ctx: FunctionContext, node: ast.expr) -> Value:
    """The value of an expression. Raises ScriptError for anything outside the subset."""
    if isinstance(node, ast.Constant):
        return _constant(ctx, node)
    if isinstance(node, ast.Name):
        return _name(ctx, node)
    if isinstance(node, ast.Call):
        return calls.evaluate_call(ctx, node)
    if isinstance(node, ast.Subscript):
        return _load(ctx, node)
    try:
        if isinstance(node, ast.BinOp):
            return _binary(ctx, node)
        if isinstance(node, ast.UnaryOp):
            return _unary(ctx, node)
        if isinstance(node, ast.Compare):
            return _compare(ctx, node)
        if isinstance(node, ast.BoolOp):
            return _bool_op(ctx, node)
    except ScriptError:
        raise
    except InvalidModule as error:
        raise ctx.source.wrap(node, error, spelled(ctx, node)) from None
    if isinstance(node, ast.Attribute):
        return _attribute(ctx, node)
    name, hint = _REFUSED.get(type(node), (type(node).__name__, ""))
    raise ctx.source.error(node, f"{name} is not part of the script language here", construct=name, hint=hint)


def indices(ctx: FunctionContext, node: ast.Subscript) -> tuple[Expr, ...]:
    """The indices of a load or store; ``a:b`` with a constant length is a vector."""
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return tuple(_index(ctx, item) for item in items)


def indexed(ctx: FunctionContext, node: ast.Subscript) -> tuple[Buffer, tuple[Expr, ...]]:
    """The buffer and the indices of ``buffer[...]``. Raises ScriptError for another number of them."""
    value = ctx.lookup(node.value.id) if isinstance(node.value, ast.Name) else None
    if isinstance(node.value, ast.Name) and value is None and not ctx.aliases.is_alias(node.value.id):
        raise ctx.undefined(node.value)
    if isinstance(value, HandleParam):
        raise ctx.source.error(
            node, f"{value.name} is a handle", construct="subscript",
            hint=f"match it to a buffer first: X = T.match_buffer({value.name}, shape, dtype)",
        )  # fmt: skip
    if not isinstance(value, (Buffer, View)):
        raise ctx.source.error(node, f"{spelled(ctx, node.value)} is not a buffer", construct="subscript")
    found = indices(ctx, node)
    if len(found) != len(value.shape):
        raise ctx.source.error(
            node, f"{spelled(ctx, node.value)} has {len(value.shape)} dimensions, and {len(found)} indices are given",
            construct="subscript",
        )  # fmt: skip
    for index in found:
        if not dt.is_int(index.dtype):
            raise ctx.source.error(node, f"an index of dtype {index.dtype}", construct="subscript", hint="use integers")
    if isinstance(value, Buffer):
        return value, found
    try:
        return value.buffer, element_of(value, found)
    except InvalidModule as error:
        raise ctx.source.wrap(node, error, "subscript") from None


def _constant(ctx: FunctionContext, node: ast.Constant) -> Value:
    value = node.value
    if isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return _bounded(ctx, node, value)
    raise ctx.source.error(node, f"{value!r:.40} is not a value of the script language", construct=type(value).__name__)


def _bounded(ctx: FunctionContext, node: ast.expr, value: int) -> int:
    if abs(value) > _LARGEST:
        raise ctx.source.error(node, "an integer of more than 64 bits", construct="integer")
    return value


def _name(ctx: FunctionContext, node: ast.Name) -> Value:
    value = ctx.lookup(node.id)
    if isinstance(value, (Buffer, View)):
        raise ctx.source.error(
            node, f"the buffer {node.id} is used as a value", construct=node.id, hint=f"index it: {node.id}[...]"
        )
    if isinstance(value, HandleParam):
        raise ctx.source.error(node, f"the handle {node.id} is used as a value", construct=node.id)
    if value is None:
        if ctx.aliases.is_alias(node.id):
            raise ctx.source.error(node, f"{node.id} is used as a value", construct=node.id)
        raise ctx.undefined(node)
    return BufferLoad(value.buffer, value.indices) if isinstance(value, Cell) else value


def _binary(ctx: FunctionContext, node: ast.BinOp) -> Value:
    op = _BINARY.get(type(node.op))
    if op is None:
        name, hint = ("**", "write T.pow(a, b)") if isinstance(node.op, ast.Pow) else ("@", "write the loops out")
        raise ctx.source.error(
            node, f"the operator {name} is not part of the script language", construct=name, hint=hint
        )
    a, b = number(ctx, node.left), number(ctx, node.right)
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return _fold(ctx, node, op, a, b)
    result = ops.binary(op, a, b)
    if op == "div" and dt.is_int(result.dtype):
        raise ctx.source.error(
            node, "/ between integers is ambiguous", construct="/", hint="write a // b to floor or T.truncdiv(a, b)"
        )
    return result


def _fold(ctx: FunctionContext, node: ast.expr, op: str, a: int | float, b: int | float) -> Value:
    """Two Python numbers: computed at once, as TVM's parser does."""
    try:
        if op in _FOLD_INTS:
            if not isinstance(a, int) or not isinstance(b, int):
                raise ctx.source.error(node, f"{op} needs integers", construct=op)
            if op in ("shl", "shr") and not 0 <= b <= 64:
                raise ctx.source.error(node, f"a shift by {b}", construct=op)
            return _bounded(ctx, node, _FOLD_INTS[op](a, b))
        if op == "div":
            if isinstance(a, int) and isinstance(b, int):
                raise ctx.source.error(node, "/ between integers is ambiguous", construct="/", hint="write a // b")
            return a / b
        result = _FOLD[op](a, b)
    except ZeroDivisionError:
        raise ctx.source.error(node, "division by zero", construct=op) from None
    except OverflowError:
        raise ctx.source.error(node, "a number beyond float64", construct=op) from None
    return _bounded(ctx, node, result) if isinstance(result, int) and not isinstance(result, bool) else result


def _unary(ctx: FunctionContext, node: ast.UnaryOp) -> Value:
    value = number(ctx, node.operand)
    if isinstance(node.op, ast.Not):
        return not value if isinstance(value, bool) else ops.logical_not(value)
    if isinstance(node.op, ast.UAdd):
        return value
    if isinstance(node.op, ast.USub):
        return ops.negative(value) if isinstance(value, Expr) else -value
    if isinstance(value, Expr):
        return ops.logical_not(value) if dt.is_bool(value.dtype) else ops.call_intrin("bitwise_not", value)
    if isinstance(value, float):
        raise ctx.source.error(node, "~ needs an integer", construct="~")
    return ~int(value)


def _compare(ctx: FunctionContext, node: ast.Compare) -> Value:
    _check_chain(ctx, node, len(node.comparators))
    operands = [number(ctx, item) for item in (node.left, *node.comparators)]
    results: list[Value] = []
    for op, a, b in zip(node.ops, operands, operands[1:]):
        name = _COMPARE.get(type(op))
        if name is None:
            word = {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}[type(op)]
            raise ctx.source.error(node, f"{word!r} is not part of the script language", construct=word, hint="use ==")
        if isinstance(a, Expr) or isinstance(b, Expr):
            results.append(ops.binary(name, a, b))
        else:
            results.append(_fold(ctx, node, name, a, b))
    return _join("and", results)


def _bool_op(ctx: FunctionContext, node: ast.BoolOp) -> Value:
    _check_chain(ctx, node, len(node.values))
    values: list[Value] = [number(ctx, item) for item in node.values]
    return _join("and" if isinstance(node.op, ast.And) else "or", values)


def _check_chain(ctx: FunctionContext, node: ast.expr, length: int) -> None:
    """A chain is flat in Python's tree and nested in ours."""
    if length > MAX_DEPTH:
        raise ctx.source.error(node, f"a chain of {length} operands nests deeper than {MAX_DEPTH}", construct="nesting")


def _join(op: str, values: list[Value]) -> Value:
    """``a and b and c`` is ``(a and b) and c``."""
    result = values[0]
    for value in values[1:]:
        if isinstance(result, bool) and isinstance(value, bool):
            result = (result and value) if op == "and" else (result or value)
        else:
            assert not isinstance(result, str)
            assert not isinstance(value, str)
            result = ops.binary(op, result, value)
    return result


def _load(ctx: FunctionContext, node: ast.Subscript) -> Value:
    root = node.value
    while isinstance(root, (ast.Subscript, ast.Attribute)):
        root = root.value
    if isinstance(root, ast.Name) and root.id == "metadata" and ctx.lookup("metadata") is None:
        raise ctx.source.error(
            node, "the text refers to metadata[...], an object that was printed without its contents",
            construct="metadata", hint="print the module with its metadata inlined (show_meta=True), or save it whole",
        )  # fmt: skip
    if isinstance(node.value, ast.Attribute) and node.value.attr == "shape" and isinstance(node.value.value, ast.Name):
        value = ctx.lookup(node.value.value.id)
        if isinstance(value, (Buffer, View)):
            return value.shape[integer(ctx, node.slice, "the dimension", 0, len(value.shape) - 1)]
    buffer, found = indexed(ctx, node)
    return BufferLoad(buffer, found)


def _index(ctx: FunctionContext, node: ast.expr) -> Expr:
    if not isinstance(node, ast.Slice):
        return expr(ctx, node)
    if node.lower is None or node.upper is None:
        raise ctx.source.error(node, "a vector index needs both bounds", construct="slice", hint="write a:a + lanes")
    start, stop = number(ctx, node.lower), number(ctx, node.upper)
    base, extent = extent_between(start, stop)
    step = 1 if node.step is None else integer(ctx, node.step, "the step of a vector index", -(2**31))
    if (
        not isinstance(extent, IntImm)
        or step == 0
        or extent.value % step
        or not 1 <= extent.value // step <= dt.MAX_LANES
    ):
        raise ctx.source.error(
            node, "a vector index must have a constant number of lanes", construct="slice",
            hint=f"write a:a + lanes with lanes a constant up to {dt.MAX_LANES}",
        )  # fmt: skip
    lanes = extent.value // step
    return base if lanes == 1 else Ramp(base, ops.const(step, base.dtype), lanes)


def _attribute(ctx: FunctionContext, node: ast.Attribute) -> Value:
    if isinstance(node.value, ast.Name):
        value = ctx.lookup(node.value.id)
        if isinstance(value, Buffer) and node.attr == "data":
            return calls.address_of(value)
        if isinstance(value, View) and node.attr == "data":
            return calls.address_of(value.buffer)
    name = spelled(ctx, node)
    resolved = ctx.resolve(node)
    if is_dialect_name(resolved):
        raise ctx.source.error(node, f"{name} is used as a value", construct=name, hint=f"call it: {name}(...)")
    raise ctx.source.error(node, f"attribute access {name} is not part of the script language", construct=name)
