"""What holds for the rest of a scope, as ``with …:`` or as a plain statement: let, allocation, attributes, threads."""

from __future__ import annotations

import ast
from collections.abc import Callable

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.attributes import attribute_value, attributes
from crossfarm.frontends.tvmscript.buffers import DETAILS, make_buffer, shape_of
from crossfarm.frontends.tvmscript.context import FunctionContext, View, spelled
from crossfarm.frontends.tvmscript.loops import check_thread
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.regions import key
from crossfarm.ir.stmt import Allocate, AttrStmt, AttrValue, For, LetStmt, Stmt

Wrap = Callable[[Stmt], Stmt]


def parse_scoped(ctx: FunctionContext, call: ast.Call, name: str, target: ast.expr | None) -> Wrap:
    """The wrap that ``name`` puts around the rest of the scope; ``target`` is what follows ``as`` or stands left of =.

    Raises ScriptError where the construct needs a name and has none, or the reverse.
    """
    if name == "tir.attr":
        return _attr(ctx, call)
    if name == "tir.launch_thread":
        return _launch_thread(ctx, call, target)
    if name == "tir.Let":  # with T.let(x, value): of TVM 0.9
        bound = args.bind_arguments(ctx, call, "T.let", ("var", "value"), 2)
        if not isinstance(bound["var"], ast.Name):
            raise ctx.source.error(bound["var"], "T.let needs a name", construct="T.let")
        return let(ctx, bound["var"], args.expr(ctx, bound["value"]))
    if target is None and name == "tir.LetStmt":
        bound = args.bind_arguments(ctx, call, "T.LetStmt", ("value", "type_annotation", "var"), 1)
        target = bound.get("var")
    if not isinstance(target, ast.Name):
        short = name.removeprefix("tir.")
        raise ctx.source.error(call, f"T.{short} needs a name for what it makes", construct=f"T.{short}")
    if name == "tir.LetStmt":
        bound = args.bind_arguments(ctx, call, "T.LetStmt", ("value", "type_annotation", "var"), 1)
        return let(ctx, target, args.expr(ctx, bound["value"]))
    if name == "tir.allocate":
        return _allocate(ctx, call, target)
    return declare_buffer(ctx, call, target)


def let(ctx: FunctionContext, target: ast.Name, value: Expr) -> Wrap:
    """``target`` is ``value`` from here to the end of the scope."""
    var = Var(target.id, value.dtype)
    ctx.bind(target.id, var)
    ctx.lets.add(var)
    return lambda body: LetStmt(var, value, body)


def allocate(ctx: FunctionContext, target: ast.Name, buffer: Buffer, annotations: dict[str, AttrValue]) -> Wrap:
    """``target`` is a fresh ``buffer`` from here to the end of the scope."""
    ctx.bind(target.id, buffer)
    return lambda body: Allocate(buffer, body, annotations)


def declare_buffer(ctx: FunctionContext, call: ast.Call, target: ast.Name) -> Wrap:
    """``T.decl_buffer(shape, dtype, data=X.data)``: a name for X's memory; without ``data`` a fresh buffer."""
    bound = args.bind_arguments(ctx, call, "T.decl_buffer", ("shape", *DETAILS), 1)
    data = bound.pop("data", None)
    buffer = make_buffer(ctx, target.id, bound, "T.decl_buffer", defines=False)
    if args.is_none(data):
        return allocate(ctx, target, buffer, {})
    assert data is not None
    node = data.value if isinstance(data, ast.Attribute) and data.attr == "data" else data
    source = ctx.lookup(node.id) if isinstance(node, ast.Name) else None
    if isinstance(source, View):
        source = source.buffer
    if not isinstance(source, Buffer):
        raise ctx.source.error(
            data, f"{spelled(ctx, data)} is not the data of a buffer", construct="T.decl_buffer data"
        )
    if source.dtype != buffer.dtype or source.strides or buffer.strides or buffer.elem_offset is not None:
        raise ctx.source.error(
            call, f"a view of {source.name} with another dtype, strides or offset", construct="T.decl_buffer",
            hint="a view may only give compact memory another shape",
        )  # fmt: skip
    same = key(source.shape) == key(buffer.shape)
    ctx.bind(target.id, source if same else View(source, buffer.shape))
    return lambda body: body


def _allocate(ctx: FunctionContext, call: ast.Call, target: ast.Name) -> Wrap:
    bound = args.bind_arguments(ctx, call, "T.allocate", ("extents", "dtype", "scope", "condition", "annotations"), 2)
    condition = bound.get("condition")
    if condition is not None and not args.boolean(ctx, condition, "the condition of T.allocate"):
        raise ctx.source.error(condition, "an allocation that is never made", construct="T.allocate")
    parts = {"shape": bound["extents"], "dtype": bound["dtype"]}
    if "scope" in bound:
        parts["scope"] = bound["scope"]
    buffer = make_buffer(ctx, target.id, parts, "T.allocate", defines=False)
    given = bound.get("annotations")
    annotations = {} if given is None or args.is_none(given) else attributes(ctx, given, "annotations of T.allocate")
    return allocate(ctx, target, buffer, annotations)


def _attr(ctx: FunctionContext, call: ast.Call) -> Wrap:
    """``T.attr(node, "key", value)``, or ``T.attr({"key": value})``."""
    if len(call.args) == 1 and not call.keywords:
        found = attributes(ctx, call.args[0], "T.attr")

        def wrap_all(body: Stmt) -> Stmt:
            for name, value in reversed(found.items()):
                body = AttrStmt(name, value, body)
            return body

        return wrap_all
    bound = args.bind_arguments(ctx, call, "T.attr", ("node", "attr_key", "value"), 3)
    name = args.string(ctx, bound["attr_key"], "the key of T.attr")
    node = bound["node"]
    if isinstance(node, ast.Call) and ctx.resolve(node.func) == "tir.iter_var" and name == "thread_extent":
        return _thread_extent(ctx, node, bound["value"])
    about = _attr_node(ctx, node)
    value = attribute_value(ctx, bound["value"], "T.attr")
    return lambda body: AttrStmt(name, value, body, about)


def _attr_node(ctx: FunctionContext, node: ast.expr) -> str:
    """What an attribute is about, by name."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, int)):
        return ""
    if isinstance(node, ast.Attribute) and node.attr == "data":
        node = node.value
    if isinstance(node, ast.Name):
        value = ctx.lookup(node.id)
        if isinstance(value, (Var, Buffer)):
            return value.name
        if value is None:
            raise ctx.undefined(node)
    if isinstance(node, ast.Call):  # T.int32(0) and the like: about nothing
        args.expr(ctx, node)
        return ""
    return args.string(ctx, node, "the node of T.attr")


def _thread_extent(ctx: FunctionContext, call: ast.Call, extent: ast.expr) -> Wrap:
    """``T.attr(T.iter_var(tx, …, "ThreadIndex", "threadIdx.x"), "thread_extent", n)`` is a bound loop."""
    bound = args.bind_arguments(ctx, call, "T.iter_var", ("var", "dom", "iter_type", "thread_tag"), 4)
    target = bound["var"]
    if not isinstance(target, ast.Name):
        raise ctx.source.error(target, "T.iter_var needs the name of a variable", construct="T.iter_var")
    return _bound_loop(ctx, target.id, check_thread(ctx, bound["thread_tag"]), extent)


def _launch_thread(ctx: FunctionContext, call: ast.Call, target: ast.expr | None) -> Wrap:
    """``bx = T.launch_thread("blockIdx.x", n)``; older text launches what ``T.env_thread`` declared."""
    bound = args.bind_arguments(ctx, call, "T.launch_thread", ("thread", "extent"), 2)
    thread = bound["thread"]
    if isinstance(thread, ast.Name) and thread.id in ctx.env_threads:
        return _bound_loop(ctx, thread.id, ctx.env_threads[thread.id], bound["extent"])
    name = target.id if isinstance(target, ast.Name) else "_"
    return _bound_loop(ctx, name, check_thread(ctx, thread), bound["extent"])


def _bound_loop(ctx: FunctionContext, name: str, thread: str, extent_node: ast.expr) -> Wrap:
    (extent,) = shape_of(ctx, extent_node, "the extent of a thread axis")
    var = Var(name, extent.dtype)
    ctx.bind(name, var)
    return lambda body: For(var, ops.const(0, extent.dtype), extent, body, "thread_binding", thread)
