"""Annotations of graph functions: ``R.Tensor((n, 64), dtype="float32")`` and its kin.

Those of parameters say everything; those of bindings may leave open what inference finds (``R.Tensor``,
``R.Tensor(ndim=2)``, ``R.Object``), and are checked against it.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.buffers import define_names
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer
from crossfarm.ir.expr import Expr, IntImm, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType, TupleType, Type
from crossfarm.ir.visitor import substitute, walk


@dataclass(frozen=True)
class SomeTensor:
    """A tensor of which a part is said; None is what is not."""

    shape: tuple[Expr, ...] | None = None
    dtype: str | None = None
    ndim: int | None = None


@dataclass(frozen=True)
class SomeShape:
    """A shape of ``ndim`` dimensions, None for any number."""

    ndim: int | None = None


@dataclass(frozen=True)
class SomeTuple:
    """A tuple; ``fields`` None: of anything."""

    fields: tuple[Annotation, ...] | None = None


@dataclass(frozen=True)
class Anything:
    """``R.Object``"""


#: What an annotation says of a value.
Annotation = TensorType | ShapeType | PrimType | SomeTensor | SomeShape | SomeTuple | Anything

_NAMES = ("Tensor", "Tuple", "Shape", "Prim", "Object")


def annotation(ctx: GraphContext, node: ast.expr, *, defines: bool = False) -> Annotation:
    """What an annotation says. Raises ScriptError for one outside the subset.

    Args:
        defines: names in quotes define symbolic sizes (parameters, ``R.match_cast``).
    """
    func = node.func if isinstance(node, ast.Call) else node
    name = ctx.resolve(func) or ""
    short = name.removeprefix("relax.")
    call = node if isinstance(node, ast.Call) else ast.copy_location(ast.Call(func, [], []), node)
    if name.startswith("tir.") and dt.is_valid(name.removeprefix("tir.")):
        return PrimType(name.removeprefix("tir."))
    if short != name:
        match short:
            case "Tensor":
                return _tensor(ctx, call, defines=defines)
            case "Tuple":
                items = args.positional(ctx, call, "R.Tuple")
                if len(items) == 1 and isinstance(items[0], (ast.List, ast.Tuple)):
                    items = list(items[0].elts)
                return SomeTuple(
                    tuple(annotation(ctx, i, defines=defines) for i in items) if isinstance(node, ast.Call) else None
                )
            case "Shape":
                bound = args.bind_arguments(ctx, call, "R.Shape", ("values", "ndim"))
                if not args.is_none(bound.get("values")):
                    return ShapeType(sizes(ctx, bound["values"], "R.Shape", defines=defines))
                return SomeShape(_ndim(ctx, bound.get("ndim")))
            case "Prim":
                return _prim(ctx, call)
            case "Object" | "Any":
                return Anything()
    text = spelled(ctx, node)
    raise ctx.source.error(
        node, f"the annotation {text} is not one of a value of a graph function", construct=f"annotation {text}",
        hint=nearest(short, _NAMES, "R.") or 'write R.Tensor((n, 64), dtype="float32"), R.Tuple(...) or R.Shape([...])',
    )  # fmt: skip


def whole(ctx: GraphContext, node: ast.expr, found: Annotation) -> Type:
    """The type that an annotation says. Raises ScriptError where it leaves something open."""
    match found:
        case TensorType() | ShapeType() | PrimType():
            return found
        case SomeTuple(fields=fields) if fields is not None:
            return TupleType(tuple(whole(ctx, node, f) for f in fields))
        case SomeTensor(dtype=None, shape=shape) if shape is not None:
            missing, hint = "dtype", 'write it: R.Tensor((n, 64), dtype="float32")'
        case _:
            missing, hint = "shape", 'name sizes that are not known: R.Tensor(("n", "m"), dtype="float32")'
    text = spelled(ctx, node)
    raise ctx.source.error(
        node, f"{text} leaves the {missing} open, which has to be known here", construct=f"annotation {text}", hint=hint
    )


def agrees(found: Annotation, kind: Type) -> bool:
    """False where a value of type ``kind`` is certainly not what the annotation says."""
    match found, kind:
        case ((TensorType(shape=shape, dtype=dtype) | SomeTensor(shape=shape, dtype=dtype)), TensorType()):
            ndim = found.ndim if shape is None else len(shape)
            return (
                dtype in (None, kind.dtype)
                and ndim in (None, kind.ndim)
                and (shape is None or _may_be_same(shape, kind.shape))
            )
        case SomeTuple(fields=fields), TupleType():
            return fields is None or (
                len(fields) == len(kind.fields) and all(agrees(a, k) for a, k in zip(fields, kind.fields))
            )
        case ShapeType(values=values), ShapeType():
            return len(values) == len(kind.values) and _may_be_same(values, kind.values)
        case SomeShape(ndim=ndim), ShapeType():
            return ndim in (None, len(kind.values))
        case PrimType(dtype=dtype), PrimType():
            return dtype == kind.dtype
    return isinstance(found, Anything)


def size(ctx: GraphContext, node: ast.expr, what: str, *, defines: bool = False) -> Expr:
    """A dimension in normal form; may stand in quotes. Raises ScriptError for anything but an integer."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        inner = ctx.source.quoted(node)
        if defines:
            define_names(ctx, inner, None)
        node = inner
    value = args.expr(ctx, node, "int64")
    if not dt.is_int(value.dtype) or dt.lanes_of(value.dtype) != 1:
        raise ctx.source.error(node, f"a size of dtype {value.dtype} in {what}", construct=what, hint="use integers")
    for part in walk(value):
        if isinstance(part, Var) and part.dtype != "int64":
            raise ctx.source.error(
                node, f"the size {part.name} is declared {part.dtype}", construct=what,
                hint=f"sizes of graph functions are int64: {part.name} = T.int64()",
            )  # fmt: skip
    return dims.dim(value)


def sizes(ctx: GraphContext, node: ast.expr, what: str, *, defines: bool = False) -> tuple[Expr, ...]:
    """A shape. Raises ScriptError for one that has a negative dimension."""
    found = []
    for item in args.elements(ctx, node):
        value = size(ctx, item, what, defines=defines)
        if isinstance(value, IntImm) and value.value < 0:
            raise ctx.source.error(item, f"a size of {value.value} in {what}", construct=what)
        found.append(value)
    return tuple(found)


def _tensor(ctx: GraphContext, call: ast.Call, *, defines: bool) -> Annotation:
    bound = args.bind_arguments(ctx, call, "R.Tensor", ("shape", "dtype", "vdevice", "ndim"))
    if not args.is_none(bound.get("vdevice")):
        raise ctx.source.error(
            bound["vdevice"], "vdevice= is not supported", construct="R.Tensor vdevice",
            hint="leave it out: the target of the build says where a function runs",
        )  # fmt: skip
    shape, dtype = bound.get("shape"), bound.get("dtype")
    if dtype is None and isinstance(shape, ast.Constant) and isinstance(shape.value, str):
        shape, dtype = None, shape  # R.Tensor("float32", ndim=2)
    name = None if args.is_none(dtype) or dtype is None else args.dtype(ctx, dtype, "R.Tensor")
    if name is not None and name not in dt.SCALARS:
        raise ctx.source.error(dtype, f"a tensor of {name}", construct="R.Tensor", hint="elements are scalars")
    if shape is None or args.is_none(shape):
        return SomeTensor(None, name, _ndim(ctx, bound.get("ndim")))
    found = sizes(ctx, shape, "R.Tensor", defines=defines)
    return SomeTensor(found) if name is None else TensorType(found, name)


def _ndim(ctx: GraphContext, node: ast.expr | None) -> int | None:
    value = None if node is None else args.integer(ctx, node, "ndim", low=-1)
    return None if value == -1 else value


def _prim(ctx: GraphContext, call: ast.Call) -> Annotation:
    bound = args.bind_arguments(ctx, call, "R.Prim", ("dtype", "value"))
    if not args.is_none(bound.get("value")):
        raise ctx.source.error(
            bound["value"], "R.Prim(value=) is not supported", construct="R.Prim value",
            hint='write R.Prim("int64"); a parameter R.Shape(["n"]) names a size',
        )  # fmt: skip
    if "dtype" not in bound:
        raise ctx.source.error(call, "R.Prim needs a dtype", construct="R.Prim", hint='as in R.Prim("int64")')
    return PrimType(args.dtype(ctx, bound["dtype"], "R.Prim"))


def _may_be_same(a: Sequence[Expr], b: Sequence[Expr]) -> bool:
    return all(dims.same(x, y) or _equal_at_samples(x, y) for x, y in zip(a, b))


def _equal_at_samples(a: Expr, b: Expr) -> bool:
    """True where two sizes of different form are the same number for a few values of what they consist of."""
    symbols = dict.fromkeys(v for e in (a, b) for v in walk(e) if isinstance(v, Var))
    for start in (101, 1009, 10007):
        values = {v: IntImm(start + 6 * i, "int64") for i, v in enumerate(symbols)}
        first, second = (Analyzer().bounds(substitute(e, values)) for e in (a, b))
        if first.low == first.high and second.low == second.high and first != second:
            return False
    return True
