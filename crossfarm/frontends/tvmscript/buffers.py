"""Buffers: the arguments of ``T.Buffer``, ``T.match_buffer``, ``T.alloc_buffer`` and their kin, and buffer regions."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.context import FunctionContext, View, spelled
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import SCOPES, Buffer, BufferRegion
from crossfarm.ir.expr import Expr, IntImm, Range, Var
from crossfarm.ir.regions import extent_between, whole

#: Parameters after ``shape`` in the order TVM has them, of every function that makes a buffer.
DETAILS = ("dtype", "data", "strides", "elem_offset", "scope", "align", "offset_factor", "buffer_type",
           "axis_separators", "layout")  # fmt: skip
_DEFAULT_ALIGN = 64


def make_buffer(ctx: FunctionContext, name: str, bound: Mapping[str, ast.expr], what: str, *, defines: bool) -> Buffer:
    """A buffer from its bound arguments (``shape`` and DETAILS).

    Args:
        defines: quoted or undefined sizes define symbols (parameters and matches), rather than being errors.
    """
    shape = shape_of(ctx, bound["shape"], what, defines=defines)
    for refused in ("buffer_type", "axis_separators", "layout"):
        given = bound.get(refused)
        empty = isinstance(given, (ast.List, ast.Tuple)) and not given.elts
        default = isinstance(given, ast.Constant) and given.value in (None, "", "default")
        if given is not None and not empty and not default:
            raise ctx.source.error(given, f"{refused}= is not supported", construct=f"{what} {refused}")
    dtype = args.dtype(ctx, bound["dtype"], what) if "dtype" in bound else "float32"
    if dtype == "handle":
        raise ctx.source.error(bound["dtype"], "a buffer cannot hold handles", construct=what)
    strides: tuple[Expr, ...] = ()
    if not args.is_none(bound.get("strides")):
        strides = shape_of(ctx, bound["strides"], f"strides of {what}", defines=defines, like=shape)
        if len(strides) not in (0, len(shape)):
            raise ctx.source.error(
                bound["strides"], f"{len(strides)} strides for {len(shape)} dimensions", construct=f"{what} strides"
            )
    return Buffer(
        name, shape, dtype, strides, _offset(ctx, name, bound, shape, defines=defines), _scope(ctx, bound, what),
        _align(ctx, bound),
    )  # fmt: skip


def shape_of(
    ctx: FunctionContext, node: ast.expr, what: str, *, defines: bool = False, like: tuple[Expr, ...] = ()
) -> tuple[Expr, ...]:
    """Sizes as expressions, each an integer. Names in quotes define symbols of the dtype of ``like``'s first."""
    items = args.elements(ctx, node)
    sizes = []
    for item in items:
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            inner = ctx.source.quoted(item)
            if defines:
                define_names(ctx, inner, like[0].dtype if like else None)
            item = inner
        size = args.expr(ctx, item)
        if not dt.is_int(size.dtype) or dt.lanes_of(size.dtype) != 1:
            raise ctx.source.error(item, f"a size of dtype {size.dtype} in {what}", construct=what, hint="use integers")
        if isinstance(size, IntImm) and size.value < 0:
            raise ctx.source.error(item, f"a size of {size.value} in {what}", construct=what)
        sizes.append(size)
    return tuple(sizes)


def regions_of(ctx: FunctionContext, items: list[ast.expr], what: str) -> tuple[BufferRegion, ...]:
    """``A[i, 0:4], B`` as regions; a list of them counts as them."""
    if len(items) == 1 and isinstance(items[0], (ast.List, ast.Tuple)):
        items = list(items[0].elts)
    return tuple(region_of(ctx, item, what) for item in items)


def region_of(ctx: FunctionContext, node: ast.expr, what: str) -> BufferRegion:
    """``A[i, 0:4]`` or all of ``A`` as a region."""
    name = node.value if isinstance(node, ast.Subscript) else node
    value = ctx.lookup(name.id) if isinstance(name, ast.Name) else None
    if isinstance(value, View):
        raise ctx.source.error(node, f"{what} of a reshaped view", construct=what, hint="name the buffer it is over")
    if not isinstance(value, Buffer):
        if isinstance(name, ast.Name) and value is None:
            raise ctx.undefined(name)
        raise ctx.source.error(node, f"{what} needs buffer regions, not {spelled(ctx, node)}", construct=what)
    if not isinstance(node, ast.Subscript):
        return whole(value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if len(items) != len(value.shape):
        raise ctx.source.error(
            node, f"{value.name} has {len(value.shape)} dimensions, and {len(items)} are given", construct=what
        )
    return BufferRegion(value, tuple(_range(ctx, item, dim) for item, dim in zip(items, value.shape)))


def define_names(ctx: FunctionContext, node: ast.expr, dtype: str | None) -> None:
    """Makes sizes of the new names in a quoted expression, of their declared dtype or of ``dtype``."""
    for item in ast.walk(node):
        if isinstance(item, ast.Name) and ctx.lookup(item.id) is None and not ctx.aliases.is_alias(item.id):
            if dtype is not None:
                ctx.declared.setdefault(item.id, dtype)
            ctx.define_size(item.id)


def _range(ctx: FunctionContext, node: ast.expr, dim: Expr) -> Range:
    if not isinstance(node, ast.Slice):
        index = args.expr(ctx, node)
        if not dt.is_int(index.dtype) or dt.lanes_of(index.dtype) != 1:
            raise ctx.source.error(node, f"an index of dtype {index.dtype} in a region", construct="region")
        return Range(index, ops.const(1, index.dtype))
    if node.step is not None and args.integer(ctx, node.step, "the step of a region") != 1:
        raise ctx.source.error(node.step, "a region has no step", construct="region")
    start = args.number(ctx, node.lower) if node.lower is not None else 0
    stop = args.number(ctx, node.upper) if node.upper is not None else dim
    return Range(*extent_between(start, stop))


def _offset(
    ctx: FunctionContext, name: str, bound: Mapping[str, ast.expr], shape: tuple[Expr, ...], *, defines: bool
) -> Expr | None:
    given = bound.get("elem_offset")
    if given is not None and not args.is_none(given):
        found = shape_of(ctx, given, "elem_offset", defines=defines, like=shape)
        if len(found) != 1:
            raise ctx.source.error(given, "elem_offset is one expression", construct="elem_offset")
        return None if isinstance(found[0], IntImm) and found[0].value == 0 else found[0]
    factor = bound.get("offset_factor")
    if defines and factor is not None and not args.is_none(factor) and args.integer(ctx, factor, "offset_factor") != 0:
        # TVM makes the offset a variable then: the view may start anywhere
        return Var(f"{name}_elem_offset", shape[0].dtype if shape else "int32")
    return None


def _scope(ctx: FunctionContext, bound: Mapping[str, ast.expr], what: str) -> str:
    if args.is_none(bound.get("scope")):
        return "global"
    scope = args.string(ctx, bound["scope"], "scope") or "global"
    if scope not in SCOPES:
        raise ctx.source.error(
            bound["scope"], f"unknown scope {scope!r}", construct=f"scope {scope}",
            hint=nearest(scope, SCOPES) or f"known are {', '.join(SCOPES)}",
        )  # fmt: skip
    return scope


def _align(ctx: FunctionContext, bound: Mapping[str, ast.expr]) -> int:
    if args.is_none(bound.get("align")):
        return _DEFAULT_ALIGN
    align = args.integer(ctx, bound["align"], "align", -1, 1 << 16)
    if align in (-1, 0):
        return _DEFAULT_ALIGN
    if align & (align - 1):
        raise ctx.source.error(bound["align"], f"align {align} is not a power of two", construct="align")
    return align
