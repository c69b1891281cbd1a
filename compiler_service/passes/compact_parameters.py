"""Tensor arguments arrive compact: symbolic strides and offsets of parameters get the values that this means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from compiler_service.passes.lower_blocks import compact_strides
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.visitor import substitute

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class CompactParameters:
    """A stride that is a bare symbol becomes the compact stride, an offset that is one becomes 0.

    Constant strides and offsets stay: they are what the function demands of its argument.
    """

    name: ClassVar[str] = "compact_parameters"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: _compact(func))


def _compact(func: PrimFunc) -> PrimFunc:
    values: dict[Var, Expr] = {}
    scalars = {p for p in func.params if isinstance(p, Var)}
    sizes = {e for p in func.params if isinstance(p, Buffer) for e in p.shape if isinstance(e, Var)}
    for param in func.params:
        if not isinstance(param, Buffer):
            continue
        for stride, compact in zip(param.strides, compact_strides(param.shape)):
            if isinstance(stride, Var) and stride not in scalars | sizes:
                values.setdefault(stride, compact)
        offset = param.elem_offset
        if isinstance(offset, Var) and offset not in scalars | sizes:
            values.setdefault(offset, IntImm(0, offset.dtype))
    if not values:
        return func
    params = tuple(_with_values(p, values) if isinstance(p, Buffer) else p for p in func.params)
    renamed = {old: new for old, new in zip(func.params, params) if old is not new}
    return replace(func, params=params, body=substitute(func.body, {**values, **renamed}))


def _with_values(buffer: Buffer, values: dict[Var, Expr]) -> Buffer:
    strides = tuple(substitute(s, values) for s in buffer.strides)
    if strides and all(s in values for s in buffer.strides):
        strides = ()
    offset = None if buffer.elem_offset is None else substitute(buffer.elem_offset, values)
    if isinstance(offset, IntImm) and offset.value == 0:
        offset = None
    return replace(buffer, strides=strides, elem_offset=offset)
