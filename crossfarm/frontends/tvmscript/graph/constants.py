"""Constant tensors in text: ``R.const`` with their numbers, ``R.constant`` by the digest of their content."""

from __future__ import annotations

import ast
import re

import numpy as np

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.frontends.tvmscript.graph.types import annotation
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import FloatImm, IntImm
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Constant
from crossfarm.ir.graph.types import TensorType

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_DEFAULTS = {bool: "bool", int: "int32", float: "float32"}

Nested = bool | int | float | list["Nested"]


def constant(ctx: GraphContext, call: ast.Call) -> Constant:
    """``R.const(1.0, "float32")``, ``R.const([[1, 2], [3, 4]], "int64")``; without a dtype int32, float32 or bool."""
    bound = args.bind_arguments(ctx, call, "R.const", ("value", "dtype"), 1)
    kinds: set[type] = set()
    values = _nested(ctx, bound["value"], kinds)
    if args.is_none(bound.get("dtype")):
        dtype = next((_DEFAULTS[k] for k in (float, int, bool) if k in kinds), "float32")
    else:
        dtype = args.dtype(ctx, bound["dtype"], "R.const")
    if dtype not in dt.SCALARS or (float in kinds and not dt.is_float(dtype)):
        raise ctx.source.error(
            call, f"R.const cannot make {spelled(ctx, bound['value'])} of dtype {dtype}", construct="R.const"
        )
    try:
        array = np.array(values, dt.to_numpy(dtype))
    except (ValueError, OverflowError) as error:
        raise ctx.source.error(
            call, f"R.const: {error}", construct="R.const", hint="rows are of one length, and numbers fit the dtype"
        ) from None
    return Constant(ConstantData.of(array))


def named_constant(ctx: GraphContext, call: ast.Call) -> Constant:
    """``R.constant("sha256:…", R.Tensor((1000,), dtype="float32"))``: its content is elsewhere."""
    bound = args.bind_arguments(ctx, call, "R.constant", ("digest", "type"), 2)
    match = _DIGEST.fullmatch(args.string(ctx, bound["digest"], "the digest of R.constant"))
    if match is None:
        raise ctx.source.error(
            bound["digest"], "the digest of R.constant must be sha256: and 64 hexadecimal digits",
            construct="R.constant", hint="write small constants as numbers: R.const([1.0, 2.0], \"float32\")",
        )  # fmt: skip
    kind = annotation(ctx, bound["type"])
    shape = dims.constants(kind.shape) if isinstance(kind, TensorType) else None
    if not isinstance(kind, TensorType) or shape is None:
        raise ctx.source.error(
            bound["type"], f"R.constant is of known shape and dtype, not {spelled(ctx, bound['type'])}",
            construct="R.constant", hint='as in R.Tensor((64, 3), dtype="float32")',
        )  # fmt: skip
    if 0 in shape:  # nothing is all that there is to know
        empty = ConstantData.of(np.empty(shape, dt.to_numpy(kind.dtype)))
        if empty.digest != match[1]:
            raise ctx.source.error(bound["digest"], "this is not the digest of nothing", construct="R.constant")
        return Constant(empty)
    return Constant(ConstantData(kind.dtype, shape, digest=match[1]))


def refuse_metadata(ctx: GraphContext, node: ast.Subscript) -> None:
    """Raises ScriptError for ``metadata["relax.expr.Constant"][0]``, as TVM prints constants that are no scalars."""
    root: ast.expr = node
    while isinstance(root, (ast.Subscript, ast.Attribute)):
        root = root.value
    if isinstance(root, ast.Name) and root.id == "metadata" and ctx.find("metadata") is None:
        raise ctx.source.error(
            node, "the text refers to metadata[...], a constant that was printed without its contents",
            construct="metadata", hint="export the model to ONNX and load that, or make weights parameters before "
            "printing (relax.transform.LiftTransformParams)",
        )  # fmt: skip


def scalar(ctx: GraphContext, node: ast.expr) -> bool | int | float:
    """A number in the text: plain, or with a dtype (``T.float32(0.5)``)."""
    value = ctx.evaluate(node)
    if isinstance(value, IntImm):
        value = bool(value.value) if dt.is_bool(value.dtype) else value.value
    if isinstance(value, FloatImm):
        value = value.value
    if not isinstance(value, (bool, int, float)):
        raise ctx.source.error(
            node, f"a number is needed, not {spelled(ctx, node)}", construct="R.const", hint="write it out"
        )
    return value


def _nested(ctx: GraphContext, node: ast.expr, kinds: set[type]) -> Nested:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_nested(ctx, item, kinds) for item in args.elements(ctx, node)]
    value = scalar(ctx, node)
    kinds.add(type(value))
    return value
