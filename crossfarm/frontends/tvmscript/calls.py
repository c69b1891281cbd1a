"""Calls in expressions: literals and casts by dtype name, operators by name, intrinsics, selections, vectors."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.context import FunctionContext, Scope, Value, spelled
from crossfarm.frontends.tvmscript.dialect import STATEMENT_NAMES, is_dialect_name
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Broadcast, BufferLoad, Call, Cast, Expr, Let, Ramp, StringImm, Var
from crossfarm.ir.intrinsics import BY_SCRIPT, EXTERN_ALLOWED, INTRINSICS

#: Operators by name. Those with a capital are constructors in TVM: all the same here.
_OPERATORS = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Mod": "mod", "FloorDiv": "floordiv",
    "FloorMod": "floormod", "Min": "min", "Max": "max", "EQ": "eq", "NE": "ne", "LT": "lt", "LE": "le", "GT": "gt",
    "GE": "ge", "And": "and", "Or": "or", "add": "add", "subtract": "sub", "multiply": "mul", "min": "min",
    "max": "max", "div": "div", "truncdiv": "div", "truncmod": "mod", "floordiv": "floordiv", "floormod": "floormod",
    "indexdiv": "floordiv", "indexmod": "floormod", "bitwise_and": "bitand", "bitwise_or": "bitor",
    "bitwise_xor": "bitxor", "shift_left": "shl", "shift_right": "shr",
}  # fmt: skip
#: What older text adds to a call without changing its meaning.
_REPEATED = ("dtype", "span")
_LIMITS = ("min_value", "max_value", "infinity", "nan")
#: Known to TVM and deliberately not to us, with what to do instead.
_REFUSED = {
    "tvm_thread_allreduce": "reduce in a block with reduce axes and let a schedule bind them to threads",
    "call_intrin": "name the intrinsic itself, as T.exp(x)",
    "call_pure_intrin": "name the intrinsic itself, as T.exp(x)",
    "call_llvm_intrin": "name the intrinsic itself; target intrinsics are chosen by the compiler",
    "call_llvm_pure_intrin": "name the intrinsic itself; target intrinsics are chosen by the compiler",
    "call_packed": "only functions of the C library can be called: T.call_extern",
    "tvm_call_packed": "only functions of the C library can be called: T.call_extern",
    "tvm_access_ptr": "use T.address_of(buffer[indices])",
    "Shuffle": "store the lanes one by one",
    "comm_reducer": "write the reduction out: init, then combine, in a block with reduce axes",
}


def evaluate_call(ctx: FunctionContext, node: ast.Call) -> Value:
    """The value of a call. Raises ScriptError naming the nearest known construct for one outside the subset."""
    name = ctx.resolve(node.func)
    if name is not None and name.startswith("tir."):
        short = name.removeprefix("tir.")
        handler = _HANDLERS.get(short)
        if handler is None and dt.is_valid(short):
            handler = _typed
        if handler is not None:
            try:
                return handler(ctx, node, short)
            except ScriptError:
                raise
            except InvalidModule as error:
                raise ctx.source.wrap(node, error, f"T.{short}") from None
        raise unknown_construct(ctx, node.func, short)
    if isinstance(node.func, ast.Attribute) and name is None:
        if node.func.attr == "astype" and not _is_plain_name(ctx, node.func.value):
            return ops.cast(args.number(ctx, node.func.value), _dtype_argument(ctx, node, "astype"))
        if node.func.attr == "access_ptr":
            raise ctx.source.error(
                node, "access_ptr is not part of the subset", construct="access_ptr",
                hint="use T.address_of(buffer[indices])",
            )  # fmt: skip
    text = spelled(ctx, node.func)
    hint = ""
    if isinstance(node.func, ast.Name):
        hint = nearest(text, _HANDLERS, "T.")
    elif text.startswith(("cls.", "Module.")):
        hint = "a tensor program calls no other function; graph functions do, with R.call_tir"
    elif is_dialect_name(name):
        hint = "it has no place in a tensor program's expression"
    raise ctx.source.error(node, f"call of {text}, which is not part of the script language", construct=text, hint=hint)


def unknown_construct(ctx: FunctionContext, node: ast.AST, short: str) -> ScriptError:
    """The error for ``T.<short>``, with what to write instead or the nearest name."""
    if short in _REFUSED:
        return ctx.source.error(node, f"T.{short} is outside the subset", construct=f"T.{short}", hint=_REFUSED[short])
    known = [*_HANDLERS, *STATEMENT_NAMES, *dt.SCALARS]
    if short in STATEMENT_NAMES:
        return ctx.source.error(node, f"T.{short} has no place here", construct=f"T.{short}")
    return ctx.source.error(
        node, f"unknown construct T.{short}", construct=f"T.{short}", hint=nearest(short, known, "T.")
    )


def address_of(buffer: Buffer) -> Expr:
    """The address of a buffer's first element (``A.data``)."""
    first = tuple(ops.const(0, dim.dtype) for dim in buffer.shape)
    return Call("address_of", (BufferLoad(buffer, first),), "handle")


def _is_plain_name(ctx: FunctionContext, node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and ctx.aliases.is_alias(node.id) and not ctx.is_local(node.id)


def _dtype_argument(ctx: FunctionContext, node: ast.Call, what: str) -> str:
    bound = args.bind_arguments(ctx, node, what, ("dtype", "span"), 1)
    return args.dtype(ctx, bound["dtype"], what)


def _typed(ctx: FunctionContext, node: ast.Call, dtype: str) -> Value:
    """``T.float32(0.5)``, ``T.float32("inf")``, ``T.int64(x)``."""
    bound = args.bind_arguments(ctx, node, f"T.{dtype}", ("value", "is_size_var"))
    if "value" not in bound:
        raise ctx.source.error(
            node, f"T.{dtype}() declares a variable, and belongs in an assignment", construct=f"T.{dtype}",
            hint=f"n = T.{dtype}()",
        )  # fmt: skip
    value = ctx.evaluate(bound["value"])
    if not isinstance(value, str):
        return ops.cast(value, dtype)
    if value not in ("inf", "-inf", "nan"):
        raise ctx.source.error(
            bound["value"], f"T.{dtype} of the string {value[:40]!r}", construct=f"T.{dtype}",
            hint='strings are "inf", "-inf" and "nan"',
        )  # fmt: skip
    return ops.cast(float(value), dtype)


def _operator(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    bound = args.bind_arguments(ctx, node, f"T.{name}", ("a", "b", *_REPEATED), 2)
    a, b = ops.unify(args.number(ctx, bound["a"]), args.number(ctx, bound["b"]), name)
    if _OPERATORS[name] == "mod" and dt.is_float(a.dtype):
        return ops.call_intrin("fmod", a, b)  # TVM has one node for both remainders
    return ops.binary(_OPERATORS[name], a, b)


def _ceildiv(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    first, second = args.positional(ctx, node, f"T.{name}", 2)
    a, b = ops.unify(args.number(ctx, first), args.number(ctx, second), f"T.{name}")
    return ops.floordiv(ops.sub(ops.add(a, b), 1), b)


def _not(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    return ops.logical_not(args.number(ctx, args.positional(ctx, node, f"T.{name}", 1)[0]))


def _cast(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    bound = args.bind_arguments(ctx, node, "T.Cast", ("dtype", "value", "span"), 2)
    dtype = args.dtype(ctx, bound["dtype"], "T.Cast")
    value = args.expr(ctx, bound["value"])
    if dt.lanes_of(dtype) != dt.lanes_of(value.dtype) or "handle" in (dtype, value.dtype):
        raise ctx.source.error(node, f"{value.dtype} cannot be cast to {dtype}", construct="T.Cast")
    return Cast(value, dtype)


def _astype(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    bound = args.bind_arguments(ctx, node, "T.cast", ("value", "dtype", "span"), 2)
    return ops.cast(args.number(ctx, bound["value"]), args.dtype(ctx, bound["dtype"], "T.cast"))


def _select(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    bound = args.bind_arguments(ctx, node, f"T.{name}", ("condition", "true_value", "false_value", *_REPEATED), 3)
    values = [args.number(ctx, bound[key]) for key in ("condition", "true_value", "false_value")]
    return (ops.select if name == "Select" else ops.if_then_else)(*values)


def _ramp(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    bound = args.bind_arguments(ctx, node, "T.Ramp", ("base", "stride", "lanes", "span"), 3)
    base, stride = ops.unify(args.number(ctx, bound["base"]), args.number(ctx, bound["stride"]), "T.Ramp")
    if not dt.is_int(base.dtype) or dt.lanes_of(base.dtype) != 1:
        raise ctx.source.error(node, f"T.Ramp needs scalar integers, not {base.dtype}", construct="T.Ramp")
    return Ramp(base, stride, _lanes(ctx, bound["lanes"]))


def _broadcast(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    bound = args.bind_arguments(ctx, node, "T.Broadcast", ("value", "lanes", "span"), 2)
    value = args.expr(ctx, bound["value"])
    if dt.lanes_of(value.dtype) != 1 or value.dtype == "handle":
        raise ctx.source.error(node, f"T.Broadcast needs a scalar, not {value.dtype}", construct="T.Broadcast")
    return Broadcast(value, _lanes(ctx, bound["lanes"]))


def _lanes(ctx: FunctionContext, node: ast.expr) -> int:
    return args.integer(ctx, node, "the number of lanes", 2, dt.MAX_LANES)


def _let(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    """``T.Let(body, where={x: value})``, or the older ``T.let(x, value, body)``."""
    if len(node.args) == 3:
        target, value_node, body_node = node.args
    else:
        bound = args.bind_arguments(ctx, node, "T.Let", ("body", "where"), 2)
        where = bound["where"]
        if not isinstance(where, ast.Dict) or len(where.keys) != 1 or where.keys[0] is None:
            raise ctx.source.error(where, "where= binds one variable: {x: value}", construct="T.Let")
        target, value_node, body_node = where.keys[0], where.values[0], bound["body"]
    if not isinstance(target, ast.Name):
        raise ctx.source.error(target, f"T.Let binds a name, not {spelled(ctx, target)}", construct="T.Let")
    declared = ctx.lookup(target.id)
    value = args.expr(ctx, value_node, declared.dtype if isinstance(declared, Var) else None)
    var = Var(target.id, value.dtype)
    with Scope(ctx, "let"):
        ctx.bind(target.id, var)
        body = args.expr(ctx, body_node)
    return Let(var, value, body)


def _limit(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    dtype = _dtype_argument(ctx, node, f"T.{name}")
    if name in ("infinity", "nan"):
        if not dt.is_float(dtype):
            raise ctx.source.error(node, f"T.{name} of {dtype}", construct=f"T.{name}", hint="only floats have it")
        return ops.const(math.inf if name == "infinity" else math.nan, dtype)
    largest = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38,
               "float64": 1.7976931348623157e308}  # fmt: skip
    if dt.is_float(dtype):
        value = largest[dt.scalar_of(dtype)]
        return ops.const(value if name == "max_value" else -value, dtype)
    low, high = dt.int_range(dtype)
    return ops.const(high if name == "max_value" else low, dtype)


def _extern(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    """``T.call_extern("float32", "powf", x, y)``; older text gives ``dtype=`` instead of the first argument."""
    items = [a for a in node.args if not isinstance(a, ast.Starred)]
    if len(items) != len(node.args):
        raise ctx.source.error(node, f"T.{name} does not take *arguments", construct=f"T.{name}")
    keywords = {k.arg: k.value for k in node.keywords}
    if set(keywords) - {"dtype"} or len(keywords) != len(node.keywords):
        raise ctx.source.error(node, f"T.{name} takes no keyword but dtype", construct=f"T.{name}")
    if "dtype" not in keywords and items:
        keywords["dtype"] = items.pop(0)
    if not items:
        raise ctx.source.error(
            node, f"T.{name} needs a dtype and a function's name", construct=f"T.{name}",
            hint=f'as in T.{name}("float32", "powf", x, y)',
        )  # fmt: skip
    function = args.string(ctx, items[0], f"the function of T.{name}")
    if function not in EXTERN_ALLOWED:
        raise ctx.source.error(
            items[0], f"{function!r} is not a function that a program may call", construct=f"T.{name}",
            hint=nearest(function, EXTERN_ALLOWED) or "the C library's mathematical and memory functions may be called",
        )  # fmt: skip
    if len(items) - 1 != EXTERN_ALLOWED[function]:
        raise ctx.source.error(
            node, f"{function} takes {EXTERN_ALLOWED[function]} arguments, not {len(items) - 1}", construct=f"T.{name}"
        )
    dtype_node = keywords["dtype"]
    if isinstance(dtype_node, ast.Constant) and dtype_node.value in ("void", ""):
        dtype = "int32"
    else:
        dtype = args.dtype(ctx, dtype_node, f"T.{name}")
    return Call(name, (StringImm(function), *(_extern_argument(ctx, item, dtype) for item in items[1:])), dtype)


def _extern_argument(ctx: FunctionContext, node: ast.expr, dtype: str) -> Expr:
    value = args.number(ctx, node)
    return ops.const(value, dtype if dt.is_float(dtype) else None) if isinstance(value, float) else ops.as_expr(value)


def _address_of(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    item = args.positional(ctx, node, "T.address_of", 1)[0]
    if isinstance(item, ast.Name):
        value = ctx.lookup(item.id)
        if isinstance(value, Buffer):
            return address_of(value)
    load = args.expr(ctx, item)
    if not isinstance(load, BufferLoad):
        raise ctx.source.error(item, "only an element of a buffer has an address", construct="T.address_of")
    return Call("address_of", (load,), "handle")


def _reinterpret(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    """``T.reinterpret("int32", x)``; older text has the dtype last."""
    bound = args.bind_arguments(ctx, node, "T.reinterpret", ("first", "second", "dtype"), 1)
    if "dtype" in bound:
        dtype_node, value_node = bound["dtype"], bound["first"]
    elif "second" in bound:
        dtype_node, value_node = bound["first"], bound["second"]
        if isinstance(value_node, ast.Constant) and isinstance(value_node.value, str):
            dtype_node, value_node = value_node, dtype_node
    else:
        raise ctx.source.error(node, "T.reinterpret needs a dtype", construct="T.reinterpret")
    dtype, value = args.dtype(ctx, dtype_node, "T.reinterpret"), args.expr(ctx, value_node)
    if dt.itemsize(dtype) != dt.itemsize(value.dtype):
        raise ctx.source.error(
            node,
            f"{value.dtype} and {dtype} differ in size",
            construct="T.reinterpret",
            hint="cast to an equal width first",
        )
    return ops.call_intrin("reinterpret", value, dtype=dtype)


def _sync(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    items = args.positional(ctx, node, f"T.{name}", 1)
    return ops.call_intrin("storage_sync", StringImm(args.string(ctx, items[0], f"the scope of T.{name}")))


def _by_name(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    """What lowered modules do, and programs do not write: launches of kernels, calls of other functions."""
    if not node.args or node.keywords:
        raise ctx.source.error(node, f"T.{name} takes a function's name and its arguments", construct=f"T.{name}")
    function = args.string(ctx, node.args[0], f"the function of T.{name}")
    return ops.call_intrin(name, StringImm(function), *(args.expr(ctx, a) for a in node.args[1:]))


def _intrinsic(ctx: FunctionContext, node: ast.Call, name: str) -> Value:
    row = BY_SCRIPT[name]
    keywords = {k.arg: k.value for k in node.keywords}
    dtype = args.dtype(ctx, keywords.pop("dtype"), f"T.{name}") if "dtype" in keywords else None
    keywords.pop("span", None)
    if keywords or any(isinstance(a, ast.Starred) for a in node.args):
        raise ctx.source.error(node, f"T.{name} takes {row.arity} positional arguments", construct=f"T.{name}")
    operands = [args.number(ctx, item) for item in node.args]
    if dtype is None and row.domain == "float":
        operands = [float(o) if isinstance(o, int) and not isinstance(o, bool) else o for o in operands]
    return ops.call_intrin(row.name, *operands, dtype=dtype)


_HANDLERS: dict[str, Callable[[FunctionContext, ast.Call, str], Value]] = {
    **dict.fromkeys(BY_SCRIPT, _intrinsic),
    **dict.fromkeys(_OPERATORS, _operator),
    **dict.fromkeys(_LIMITS, _limit),
    "ceildiv": _ceildiv,
    "Not": _not,
    "Cast": _cast,
    "astype": _astype,
    "Select": _select,
    "if_then_else": _select,
    "Ramp": _ramp,
    "ramp": _ramp,
    "Broadcast": _broadcast,
    "broadcast": _broadcast,
    "Let": _let,
    "call_extern": _extern,
    "call_pure_extern": _extern,
    "address_of": _address_of,
    "reinterpret": _reinterpret,
    "tvm_storage_sync": _sync,
    "storage_sync": _sync,
    "launch_kernel": _by_name,
    "call_function": _by_name,
}
assert all(row.name in INTRINSICS for row in BY_SCRIPT.values())
