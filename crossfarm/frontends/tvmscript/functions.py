"""A function definition → ``PrimFunc``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from crossfarm.errors import ScriptError
from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.assignments import declared_dtype
from crossfarm.frontends.tvmscript.blocks import realize
from crossfarm.frontends.tvmscript.buffers import DETAILS, make_buffer
from crossfarm.frontends.tvmscript.context import BlockFrame, FunctionContext, HandleParam, spelled
from crossfarm.frontends.tvmscript.dialect import Aliases
from crossfarm.frontends.tvmscript.expressions import evaluate
from crossfarm.frontends.tvmscript.source import Source, nearest
from crossfarm.frontends.tvmscript.statements import parse_body
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.function import REDUNDANT_ATTRIBUTES, PrimFunc
from crossfarm.ir.stmt import BlockRealize, Stmt
from crossfarm.ir.visitor import MAX_DEPTH, children, make_room

#: What ``@T.prim_func(...)`` may say. The ones beside ``private`` change nothing here.
_OPTIONS = ("private", "s_tir", "check_well_formed", "persistent")


def parse_function(source: Source, aliases: Aliases, node: ast.FunctionDef, captured: Mapping[str, Any]) -> PrimFunc:
    """A ``@T.prim_func``. Raises ScriptError for any other function, and for one that nests too deep."""
    private = _decorator(source, aliases, node)
    ctx = FunctionContext(source, aliases, captured, evaluate)
    make_room()
    try:
        body = _parse(ctx, node)
    except RecursionError:
        raise _too_deep(ctx, node) from None
    _check_depth(ctx, node, body)
    params: list[Buffer | Var] = []
    for arg, param in zip(node.args.args, ctx.params):
        params.append(param if param is not None else Var(arg.arg, "handle"))
    attrs = {key: value for key, value in ctx.attrs.items() if key not in REDUNDANT_ATTRIBUTES}
    if attrs.get("global_symbol") == node.name:
        del attrs["global_symbol"]
    return PrimFunc(tuple(params), body, attrs, private)


def _parse(ctx: FunctionContext, node: ast.FunctionDef) -> Stmt:
    """The body; parameters and attributes are left in ``ctx``."""
    for stmt in node.body:
        ctx.declared.update(declared_dtype(ctx, stmt))
    ctx.in_block_form = _mentions_blocks(ctx, node)
    _parameters(ctx, node)
    root = BlockFrame("root", node, is_root=True)
    ctx.blocks.append(root)
    return _with_root(ctx, root, parse_body(ctx, node.body))


def _decorator(source: Source, aliases: Aliases, node: ast.FunctionDef) -> bool:
    """Whether the function is private."""
    if not node.decorator_list:
        raise source.error(
            node,
            f"the function {node.name} has no decorator",
            construct=f"def {node.name}",
            hint="write @T.prim_func or @R.function",
        )
    private = False
    for item in node.decorator_list:
        func = item.func if isinstance(item, ast.Call) else item
        name = aliases.resolve(func)
        if name != "tir.prim_func":
            text = ast.unparse(func)[:60]
            raise source.error(
                item, f"the decorator {text} is not part of the script language", construct=f"@{text}",
                hint=nearest(text, ["T.prim_func", "R.function"])
                or "a function is decorated with @T.prim_func or @R.function",
            )  # fmt: skip
        if isinstance(item, ast.Call):
            private = _options(source, item)
    return private


def _options(source: Source, call: ast.Call) -> bool:
    private = False
    for argument in call.args:
        raise source.error(argument, "T.prim_func takes keyword arguments only", construct="T.prim_func")
    for keyword in call.keywords:
        if keyword.arg not in _OPTIONS:
            raise source.error(
                keyword.value, f"T.prim_func has no option {keyword.arg!r}", construct="T.prim_func",
                hint=nearest(keyword.arg or "", _OPTIONS),
            )  # fmt: skip
        if not isinstance(keyword.value, ast.Constant) or not isinstance(keyword.value.value, bool):
            raise source.error(keyword.value, f"{keyword.arg} must be True or False", construct="T.prim_func")
        private = private or (keyword.arg == "private" and keyword.value.value)
    return private


def _parameters(ctx: FunctionContext, node: ast.FunctionDef) -> None:
    spec = node.args
    for extra in (*spec.posonlyargs, *spec.kwonlyargs, spec.vararg, spec.kwarg):
        if extra is not None:
            raise ctx.source.error(extra, f"the parameter {extra.arg} must be a plain one", construct="parameter")
    for default in (*spec.defaults, *spec.kw_defaults):
        if default is not None:
            raise ctx.source.error(default, "parameters have no default values", construct="default value")
    if node.returns is not None and not args.is_none(node.returns):
        raise ctx.source.error(
            node.returns, "a tensor program returns nothing", construct="return annotation",
            hint="it writes its results to its buffers",
        )  # fmt: skip
    # scalars and handles first: a buffer's shape may use a scalar that follows it
    for position, arg in enumerate(spec.args):
        if any(arg.arg == other.arg for other in spec.args[:position]):
            raise ctx.source.error(arg, f"the parameter {arg.arg} appears twice", construct="parameter")
        ctx.params.append(_scalar(ctx, arg, position))
    for position, arg in enumerate(spec.args):
        bound = _buffer_annotation(ctx, arg)
        if bound is not None:
            buffer = make_buffer(ctx, arg.arg, bound, "T.Buffer", defines=True)
            ctx.params[position] = buffer
            ctx.bind(arg.arg, buffer)


def _scalar(ctx: FunctionContext, arg: ast.arg, position: int) -> Var | None:
    if arg.annotation is None:
        raise ctx.source.error(
            arg, f"the parameter {arg.arg} has no annotation", construct="parameter",
            hint=f'write {arg.arg}: T.Buffer((n,), "float32"), or {arg.arg}: T.handle',
        )  # fmt: skip
    annotation = arg.annotation
    if isinstance(annotation, ast.Call) and ctx.resolve(annotation.func) == "tir.handle":
        annotation = annotation.func
    name = ctx.resolve(annotation)
    if name == "tir.handle":
        ctx.bind(arg.arg, HandleParam(arg.arg, position))
        return None
    if name is not None and name.startswith("tir.") and dt.is_valid(name.removeprefix("tir.")):
        var = Var(arg.arg, name.removeprefix("tir."))
        ctx.bind(arg.arg, var)
        return var
    if _buffer_annotation(ctx, arg) is not None:
        return None
    text = spelled(ctx, arg.annotation)
    raise ctx.source.error(
        arg.annotation, f"the parameter {arg.arg} is annotated {text}", construct=f"annotation {text}",
        hint=nearest(text.removeprefix("T."), ["Buffer", "handle", *dt.SCALARS], "T.")
        or "a parameter is a T.Buffer, a T.handle or a scalar such as T.int32",
    )  # fmt: skip


def _buffer_annotation(ctx: FunctionContext, arg: ast.arg) -> dict[str, ast.expr] | None:
    """The arguments of ``T.Buffer(...)``, or of the older ``T.Buffer[shape, dtype]``."""
    node = arg.annotation
    if isinstance(node, ast.Call) and ctx.resolve(node.func) == "tir.Buffer":
        bound = args.bind_arguments(ctx, node, "T.Buffer", ("shape", *DETAILS), 1)
        if not args.is_none(bound.pop("data", None)):
            raise ctx.source.error(node, "the data of a parameter is the caller's", construct="T.Buffer data")
        return bound
    if isinstance(node, ast.Subscript) and ctx.resolve(node.value) == "tir.Buffer":
        items = args.elements(ctx, node.slice)
        if len(items) > 2:
            raise ctx.source.error(node, "T.Buffer[shape, dtype] takes two arguments", construct="T.Buffer")
        return dict(zip(("shape", "dtype"), items))
    return None


def _mentions_blocks(ctx: FunctionContext, node: ast.FunctionDef) -> bool:
    """True when the function has blocks, so that allocations under loops belong to the block around them."""
    return any(isinstance(n, ast.Call) and ctx.resolve(n.func) == "tir.block" for n in ast.walk(node))


def _with_root(ctx: FunctionContext, root: BlockFrame, body: Stmt) -> Stmt:
    """Block form has one root block: the one the text writes out, else one made here; lowered form has none."""
    if not ctx.has_blocks:
        return body
    explicit = isinstance(body, BlockRealize) and body.block.name == "root" and not body.iter_values
    if explicit and not root.alloc_buffers:
        return body
    return realize(root, body, infer=False)


def _check_depth(ctx: FunctionContext, node: ast.FunctionDef, body: Stmt) -> None:
    """Later stages walk the IR recursively, so its depth is bounded here, once."""
    stack: list[tuple[Any, int]] = [(body, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise _too_deep(ctx, node)
        if not isinstance(item, (Buffer, Var, IntImm)):
            stack.extend((child, depth + 1) for child in children(item))


def _too_deep(ctx: FunctionContext, node: ast.FunctionDef) -> ScriptError:
    return ctx.source.error(
        node, f"the function {node.name} nests deeper than {MAX_DEPTH} levels", construct="nesting",
        hint="split it into several functions",
    )  # fmt: skip
