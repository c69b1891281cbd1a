"""Assignments: stores to buffers, block axes, buffers and sizes being declared, and values being named."""

from __future__ import annotations

import ast
from collections.abc import Callable

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript import blocks, scoped
from crossfarm.frontends.tvmscript.buffers import DETAILS, make_buffer, region_of
from crossfarm.frontends.tvmscript.context import Cell, FunctionContext, HandleParam, spelled
from crossfarm.frontends.tvmscript.expressions import indexed
from crossfarm.frontends.tvmscript.loops import check_thread
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Var
from crossfarm.ir.stmt import BufferStore, MatchBufferRegion, Stmt

Result = Stmt | Callable[[Stmt], Stmt] | None

_IN_PLACE = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift,
)  # fmt: skip


def parse_assign(ctx: FunctionContext, node: ast.Assign) -> Result:
    """``target = value``"""
    if len(node.targets) != 1:
        raise ctx.source.error(node, "a = b = c is not part of the script language", construct="chained assignment")
    target = node.targets[0]
    if isinstance(target, ast.Subscript):
        return _store(ctx, *_place(ctx, target), node.value)
    if isinstance(target, (ast.Tuple, ast.List)):
        return _assign_several(ctx, node, args.elements(ctx, target), node.value)
    if isinstance(target, ast.Name) and isinstance(ctx.lookup(target.id), Cell):
        return _store(ctx, *_place(ctx, target), node.value)
    if isinstance(target, ast.Name):
        return _assign_name(ctx, target, node.value)
    raise ctx.source.error(target, f"assignment to {spelled(ctx, target)}", construct="assignment")


def parse_annotated(ctx: FunctionContext, node: ast.AnnAssign) -> Result:
    """``x: T.int32 = value`` and ``x: T.let[T.int32] = value`` name a value for the rest of the scope.

    ``x: T.int32`` alone declares a scalar that later assignments change.
    """
    if not isinstance(node.target, ast.Name):
        raise ctx.source.error(node, "an annotated assignment names a value", construct="annotation")
    annotation = node.annotation
    if node.value is None:
        cell = Buffer(node.target.id, (IntImm(1),), args.dtype(ctx, annotation, node.target.id), scope="local")
        wrap = scoped.allocate(ctx, node.target, cell, {})
        ctx.bind(node.target.id, Cell(cell))
        return wrap
    if isinstance(annotation, ast.Subscript) and ctx.resolve(annotation.value) == "tir.Let":
        annotation = annotation.slice
    if isinstance(annotation, ast.Call) and ctx.resolve(annotation.func) == "tir.handle":
        annotation = annotation.func
    if ctx.resolve(annotation) == "tir.Let":
        return _let(ctx, node.target, args.expr(ctx, node.value))
    dtype = args.dtype(ctx, annotation, node.target.id)
    value = args.expr(ctx, node.value, dtype)
    if value.dtype != dtype:
        raise ctx.source.error(
            node.value, f"{node.target.id} is declared {dtype} and its value is {value.dtype}", construct="annotation",
            hint=f'cast the value: T.Cast("{dtype}", …)',
        )  # fmt: skip
    return _let(ctx, node.target, value)


def parse_augmented(ctx: FunctionContext, node: ast.AugAssign) -> Result:
    """``A[i] += x``"""
    cell = isinstance(node.target, ast.Name) and isinstance(ctx.lookup(node.target.id), Cell)
    if not isinstance(node.target, ast.Subscript) and not cell:
        raise ctx.source.error(
            node, "only elements of buffers can be changed in place", construct="augmented assignment",
            hint="a named value never changes: keep it in a buffer",
        )  # fmt: skip
    if type(node.op) not in _IN_PLACE:
        raise ctx.source.error(node, "this operator has no in-place form", construct="augmented assignment")
    value = ast.copy_location(ast.BinOp(node.target, node.op, node.value), node)
    return _store(ctx, *_place(ctx, node.target), value)


def _place(ctx: FunctionContext, target: ast.Subscript | ast.Name | ast.Attribute) -> tuple[Buffer, tuple[Expr, ...]]:
    """What an assignment changes: an element of a buffer, or a scalar."""
    cell = ctx.lookup(target.id) if isinstance(target, ast.Name) else None
    if isinstance(cell, Cell):
        return cell.buffer, cell.indices
    assert isinstance(target, ast.Subscript)
    return indexed(ctx, target)


def _store(ctx: FunctionContext, buffer: Buffer, indices: tuple[Expr, ...], value_node: ast.expr) -> Stmt:
    wanted = BufferLoad(buffer, indices).dtype
    value = args.expr(ctx, value_node, wanted)
    if value.dtype != wanted:
        from_float = dt.is_float(value.dtype) and not dt.is_float(wanted)
        lanes = dt.lanes_of(value.dtype) not in (1, dt.lanes_of(wanted))
        if from_float or lanes or "handle" in (value.dtype, wanted):
            raise ctx.source.error(
                value_node, f"{buffer.name} holds {wanted} and the value is {value.dtype}", construct="buffer store",
                hint=f'cast the value: T.Cast("{wanted}", …)',
            )  # fmt: skip
        value = ops.cast(value, wanted)
    return BufferStore(buffer, value, indices)


def _assign_several(ctx: FunctionContext, node: ast.Assign, targets: list[ast.expr], value: ast.expr) -> Result:
    """``n, m = T.int64(), T.int64()`` and ``vi, vj = T.axis.remap(...)``."""
    names: list[ast.Name] = []
    for target in targets:
        if not isinstance(target, ast.Name):
            raise ctx.source.error(target, f"assignment to {spelled(ctx, target)}", construct="assignment")
        names.append(target)
    if isinstance(value, ast.Call) and ctx.resolve(value.func) == "tir.axis.remap":
        blocks.parse_remap(ctx, value, names)
        return None
    items = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
    if len(items) == len(names) and all(_declares(ctx, item) is not None for item in items):
        for name, item in zip(names, items):
            _declare(ctx, name, item)
        return None
    raise ctx.source.error(
        node, f"assignment of {spelled(ctx, value)} to several names", construct="assignment",
        hint="only T.axis.remap and declarations of sizes give several names at once",
    )  # fmt: skip


def _assign_name(ctx: FunctionContext, target: ast.Name, value: ast.expr) -> Result:
    name = ctx.resolve(value.func) if isinstance(value, ast.Call) else None
    if isinstance(value, ast.Call) and name is not None:
        handler = _MAKERS.get(name)
        if handler is not None:
            return handler(ctx, target, value)
        if name.startswith("tir.axis."):
            kind = name.removeprefix("tir.axis.")
            if kind == "remap":
                blocks.parse_remap(ctx, value, [target])
            elif kind in blocks.AXES:
                blocks.parse_axis(ctx, value, kind, [target])
            else:
                raise ctx.source.error(value, f"unknown axis kind T.axis.{kind}", construct=f"T.axis.{kind}",
                                       hint=f"known are {', '.join(blocks.AXES)}")  # fmt: skip
            return None
        if _declares(ctx, value) is not None:
            _declare(ctx, target, value)
            return None
    if isinstance(value, ast.Name) and isinstance(ctx.lookup(value.id), Buffer):
        raise ctx.source.error(
            value, f"{value.id} gets a second name", construct="assignment", hint="use the buffer itself"
        )
    return _let(ctx, target, args.expr(ctx, value))


def _let(ctx: FunctionContext, target: ast.Name, value: Expr) -> Result:
    """A name for a value. A second value for it is refused where it could be meant as a change: elsewhere than in the
    scope of the first, where hiding it and changing it are the same."""
    here = ctx.scopes[-1].get(target.id)
    named = here if here is not None else next((s[target.id] for s in ctx.scopes if target.id in s), None)
    if isinstance(named, Expr) and (here is None or named not in ctx.lets):
        raise ctx.source.error(
            target, f"{target.id} already names a value, and values never change", construct="assignment",
            hint="give it another name, or keep what changes in a buffer: x = T.alloc_buffer((1,), dtype)",
        )  # fmt: skip
    return scoped.let(ctx, target, value)


def _declares(ctx: FunctionContext, node: ast.expr) -> str | None:
    """The dtype that ``T.int64()`` or ``T.var("int64")`` declares, None for anything else."""
    if not isinstance(node, ast.Call):
        return None
    name = ctx.resolve(node.func) or ""
    short = name.removeprefix("tir.")
    if name in ("tir.var", "tir.Var", "tir.SizeVar"):
        return args.dtype(ctx, node.args[-1], "a variable") if node.args else "int32"
    if name.startswith("tir.") and dt.is_valid(short) and not node.args:
        return short
    return None


def declared_dtype(ctx: FunctionContext, node: ast.stmt) -> dict[str, str]:
    """The names a statement declares as sizes, with their dtypes: the signature may use them before."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return {}
    target, value = node.targets[0], node.value
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        pairs = list(zip(target.elts, value.elts))
    found = {}
    for name, declaration in pairs:
        dtype = _declares(ctx, declaration)
        if isinstance(name, ast.Name) and dtype is not None:
            found[name.id] = dtype
    return found


def _declare(ctx: FunctionContext, target: ast.Name, node: ast.expr) -> None:
    dtype = _declares(ctx, node)
    assert dtype is not None
    if ctx.frames[-1].kind == "function" and target.id in ctx.declared:
        if not isinstance(ctx.lookup(target.id), Var):
            raise ctx.source.error(target, f"{target.id} is declared twice", construct="declaration")
        return
    ctx.bind(target.id, Var(target.id, dtype))


def _match_buffer(ctx: FunctionContext, target: ast.Name, call: ast.Call) -> Result:
    bound = args.bind_arguments(ctx, call, "T.match_buffer", ("param", "shape", *DETAILS), 1)
    param = bound.pop("param")
    handle = ctx.lookup(param.id) if isinstance(param, ast.Name) else None
    if isinstance(handle, HandleParam):
        if "shape" not in bound:
            raise ctx.source.error(call, "T.match_buffer of a handle needs a shape", construct="T.match_buffer")
        if ctx.params[handle.position] is not None:
            raise ctx.source.error(call, f"{handle.name} is matched twice", construct="T.match_buffer")
        buffer = make_buffer(ctx, target.id, bound, "T.match_buffer", defines=True)
        ctx.params[handle.position] = buffer
        ctx.bind(target.id, buffer)
        return None
    region = region_of(ctx, param, "T.match_buffer")
    frame = blocks.current_block(ctx, call, "T.match_buffer of a region")
    if "shape" not in bound:
        raise ctx.source.error(call, "T.match_buffer needs a shape", construct="T.match_buffer")
    bound.setdefault("dtype", ast.copy_location(ast.Constant(region.buffer.dtype), call))
    bound.setdefault("scope", ast.copy_location(ast.Constant(region.buffer.scope), call))
    buffer = make_buffer(ctx, target.id, bound, "T.match_buffer", defines=True)
    frame.match_buffers.append(MatchBufferRegion(buffer, region))
    ctx.bind(target.id, buffer)
    return None


def _alloc_buffer(ctx: FunctionContext, target: ast.Name, call: ast.Call) -> Result:
    """In a block or function: one of its temporaries. In a loop of a program without blocks: lowered form."""
    bound = args.bind_arguments(ctx, call, "T.alloc_buffer", ("shape", *DETAILS, "annotations"), 1)
    bound.pop("annotations", None)
    if not args.is_none(bound.pop("data", None)):
        raise ctx.source.error(call, "T.alloc_buffer makes its own data", construct="T.alloc_buffer data")
    buffer = make_buffer(ctx, target.id, bound, "T.alloc_buffer", defines=False)
    kind = ctx.frames[-1].kind
    if kind not in ("block", "function") and not ctx.in_block_form:
        return scoped.allocate(ctx, target, buffer, {})
    ctx.has_blocks = True
    ctx.blocks[-1].alloc_buffers.append(buffer)
    ctx.bind(target.id, buffer)
    return None


def _env_thread(ctx: FunctionContext, target: ast.Name, call: ast.Call) -> Result:
    items = args.positional(ctx, call, "T.env_thread")
    if not items:
        raise ctx.source.error(call, "T.env_thread needs the name of a thread axis", construct="T.env_thread")
    ctx.env_threads[target.id] = check_thread(ctx, items[0])
    return None


def _scoped(name: str) -> Callable[[FunctionContext, ast.Name, ast.Call], Result]:
    return lambda ctx, target, call: scoped.parse_scoped(ctx, call, name, target)


_MAKERS: dict[str, Callable[[FunctionContext, ast.Name, ast.Call], Result]] = {
    "tir.match_buffer": _match_buffer,
    "tir.alloc_buffer": _alloc_buffer,
    "tir.env_thread": _env_thread,
    "tir.allocate": _scoped("tir.allocate"),
    "tir.decl_buffer": _scoped("tir.decl_buffer"),
    "tir.Buffer": _scoped("tir.decl_buffer"),
    "tir.launch_thread": _scoped("tir.launch_thread"),
}
