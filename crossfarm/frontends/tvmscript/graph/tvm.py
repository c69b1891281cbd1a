"""What TVM writes differently from our table of operators: arguments of other names or in another order, arguments that
say what is so here anyway, and operators that are others of ours in disguise."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.expr import GraphExpr, OperatorCall, TupleExpr
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.operator import Operator
from crossfarm.ir.graph.types import TensorType

#: Names of a first input, of which either side has its own.
_FIRST = ("x", "data", "x1", "tensors")
#: (operator, TVM's name) → ours.
_RENAMED = {("full", "fill_value"): "value", ("full_like", "fill_value"): "value", ("arange", "end"): "stop"}
#: Arguments by position, where that is not our inputs and then our attributes. ``indices_or_sections`` has no
#: counterpart here: ours are the sizes of the parts.
_ORDER = {
    "split": ("x", "indices_or_sections", "axis"),
    "one_hot": ("indices", "on_value", "off_value", "depth", "axis"),
}

_LAYOUTS = ("NCW", "NCHW", "NCDHW")
_ANY = object()
#: What TVM writes beside our attributes, with the values that say what is so here anyway.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "data_layout": _LAYOUTS,
    "layout": _LAYOUTS,
    "out_layout": (*_LAYOUTS, "", None),
    "kernel_layout": ("OIW", "OIHW", "OIDHW"),
    "center": (True,),
    "scale": (True,),
    "momentum": (_ANY,),
    "training": (False,),
    "count_include_pad": (False,),
    "assume_inbound": (_ANY,),
    "mode": ("fast", "clip"),
    "ret_type": ("both",),
}
_TRANSPOSED_KERNELS = ("IOW", "IOHW", "IODHW")


@dataclass(frozen=True)
class Rewrite:
    """An operator of TVM that is one of ours with some attributes given.

    Attributes:
        op: ours.
        attrs: what it stands for: name → source text of the attribute.
        given: attributes that it must be called with, as source text: with others it is something else.
    """

    op: str
    attrs: Mapping[str, str]
    given: Mapping[str, tuple[str, ...]]


REWRITES = {
    "zeros": Rewrite("full", {"value": "0"}, {}),
    "ones": Rewrite("full", {"value": "1"}, {}),
    "zeros_like": Rewrite("full_like", {"value": "0"}, {}),
    "ones_like": Rewrite("full_like", {"value": "1"}, {}),
    "nn.relu6": Rewrite("clip", {"min": "0", "max": "6"}, {}),
    "nn.adaptive_avg_pool2d": Rewrite(
        "mean", {"axis": "(2, 3)", "keepdims": "True"}, {"output_size": ("[1, 1]", "(1, 1)", "1")}
    ),
}


def positions(row: Operator, names: list[str]) -> tuple[str, ...]:
    """What arguments stand for by position; ``names``: our inputs, then our attributes."""
    return _ORDER.get(row.name, tuple(names))


def our_name(row: Operator, name: str, names: list[str]) -> str:
    """Our name of a keyword, itself where it has none."""
    if name in names:
        return name
    if name in _FIRST and names and names[0] in _FIRST:
        return names[0]
    return _RENAMED.get((row.name, name), name)


def check_neutral(ctx: GraphContext, row: Operator, name: str, node: ast.expr, names: list[str]) -> None:
    """Raises ScriptError for a keyword that is neither ours nor says what is so anyway."""
    known = _NEUTRAL.get(name)
    if name == "kernel_layout" and row.name.endswith("transpose"):
        known = _TRANSPOSED_KERNELS
    what = f"R.{row.name}"
    if row.name == "nn.prelu" and name == "axis":
        return
    if known is None:
        raise ctx.source.error(
            node, f"{what} has no argument {name!r}", construct=what,
            hint=nearest(name, names) or f"it takes: {', '.join(names) or 'none'}",
        )  # fmt: skip
    value = node.value if isinstance(node, ast.Constant) else spelled(ctx, node)
    if value not in known and _ANY not in known:
        raise ctx.source.error(
            node, f"{what} with {name}={spelled(ctx, node)} is not supported", construct=f"{what} {name}",
            hint=f"it may be {', '.join(map(repr, known))}",
        )  # fmt: skip


def part_sizes(
    ctx: GraphContext, call: ast.Call, x: GraphExpr, given: int | tuple[int, ...], axis: int
) -> tuple[int, ...]:
    """Sizes of the parts of ``R.split`` by TVM's ``indices_or_sections``: how many parts, or where they begin."""
    with ctx.placed(call):
        kind = type_of(x, ctx.module.typed)
        whole = dims.constant(kind.shape[dims.axis(axis, kind.ndim)]) if isinstance(kind, TensorType) else None
    if whole is None:
        raise ctx.source.error(
            call, "R.split of a dimension whose size is not known", construct="R.split",
            hint="take the parts one by one with R.strided_slice",
        )  # fmt: skip
    if isinstance(given, int):
        step = -(-whole // max(given, 1))
        given = tuple(range(step, whole, step)) if step else ()
    ends = (*given, whole)
    return tuple(end - begin for begin, end in zip((0, *ends), ends))


def as_tvm_has_it(ctx: GraphContext, node: ast.Call, call: OperatorCall, extra: Mapping[str, ast.expr]) -> GraphExpr:
    """The value of an operator that TVM's own arguments (``extra``) make another one."""
    if call.op == "nn.batch_norm" and extra:  # TVM's gives the running statistics too, which inference leaves alone
        with ctx.placed(node):
            return TupleExpr((ctx.builder.bind(call), *call.args[3:5]))
    if call.op == "nn.prelu" and "axis" in extra:
        return _prelu(ctx, node, call, extra["axis"])
    return call


def _prelu(ctx: GraphContext, node: ast.Call, call: OperatorCall, axis_node: ast.expr) -> GraphExpr:
    """TVM's slopes are a vector along one dimension; ours stretch from the last one."""
    data, alpha = call.args
    with ctx.placed(node):
        kind, slopes = type_of(data, ctx.module.typed), type_of(alpha, ctx.module.typed)
        if isinstance(kind, TensorType) and isinstance(slopes, TensorType) and slopes.ndim == 1:
            axis = dims.axis(args.integer(ctx, axis_node, "axis", low=-kind.ndim), kind.ndim)
            shape = tuple(slopes.shape[0] if k == axis else dims.dim(1) for k in range(axis, kind.ndim))
            alpha = ctx.builder.op("reshape", alpha, shape=shape)
    return OperatorCall(call.op, (data, alpha), call.attrs, call.origin)
