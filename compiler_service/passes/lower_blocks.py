"""Block form → lowered form: what each block means, written out as plain statements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from crossfarm.ir import ops
from crossfarm.ir.arith import is_larger
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Expr, IntImm, Let, Ramp, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    Allocate,
    Block,
    BlockRealize,
    BufferStore,
    IfThenElse,
    LetStmt,
    MatchBufferRegion,
    Stmt,
)
from crossfarm.ir.visitor import Mutator, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


_LARGEST_SUBSTITUTED = 64


@dataclass(frozen=True)
class LowerBlocks:
    """Removes every block.

    ====================  ==========================================================================
    in the block          becomes
    ====================  ==========================================================================
    axes                  their iteration values, substituted
    predicate             ``if``
    init                  ``if`` all reduce axes are at their domain's first value, before the body
    alloc_buffers         ``Allocate`` around the block's statements
    match_buffers         accesses of the source region
    ====================  ==========================================================================
    """

    name: ClassVar[str] = "lower_blocks"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: lower_function(func))


def lower_function(func: PrimFunc) -> PrimFunc:
    """``func`` without blocks; a function already in lowered form comes back as it is."""
    body = _Lower().mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class _Lower(Mutator):
    """Carries one environment down the tree, so that each node is rebuilt once however deep blocks nest."""

    def __init__(self) -> None:
        self.env: dict[Var, Expr] = {}
        self.buffers: dict[Buffer, Buffer] = {}
        self.views: dict[Buffer, tuple[Buffer, tuple[Expr, ...]]] = {}

    def mutate_Var(self, node: Var) -> Expr:
        return self.env.get(node, node)

    def mutate_BlockRealize(self, node: BlockRealize) -> Stmt:
        block = node.block
        values = tuple(self.mutate(v) for v in node.iter_values)
        predicate = self.mutate(node.predicate)
        bound = [(axis.var, value) for axis, value in zip(block.iter_vars, values) if _is_substituted(value)]
        kept = [(axis.var, value) for axis, value in zip(block.iter_vars, values) if not _is_substituted(value)]
        self.env.update(bound)
        allocated = tuple(self._renew(b) for b in block.alloc_buffers)
        for match in block.match_buffers:
            self._bind_view(match)
        body: Stmt = self.mutate(block.body)
        if block.init is not None:
            init = self.mutate(block.init)
            first = self._at_first_reduction(block)
            body = seq(init if first is None else IfThenElse(first, init), body)
        for buffer in reversed(allocated):
            body = Allocate(buffer, body)
        for var, value in reversed(kept):
            body = LetStmt(var, value, body)
        if isinstance(predicate, IntImm) and predicate.value:
            return body
        return IfThenElse(predicate, body)

    def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
        buffer, indices = self._resolve(node.buffer, tuple(self.mutate(i) for i in node.indices))
        if buffer is node.buffer and all(a is b for a, b in zip(indices, node.indices)):
            return node
        return BufferLoad(buffer, indices)

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        buffer, indices = self._resolve(node.buffer, tuple(self.mutate(i) for i in node.indices))
        return BufferStore(buffer, self.mutate(node.value), indices)

    def mutate_Allocate(self, node: Allocate) -> Stmt:
        buffer = self._renew(node.buffer)
        body = self.mutate(node.body)
        return node if buffer is node.buffer and body is node.body else replace(node, buffer=buffer, body=body)

    def _at_first_reduction(self, block: Block) -> Expr | None:
        """The condition under which init runs; None for always (no reduce axis)."""
        condition: Expr | None = None
        for axis in block.iter_vars:
            if axis.kind != "reduce":
                continue
            at_start = Binary("eq", self.mutate(axis.var), self.mutate(axis.dom.min))
            condition = at_start if condition is None else Binary("and", condition, at_start)
        return condition

    def _renew(self, buffer: Buffer) -> Buffer:
        """The buffer itself, or a copy where its shape mentions a block axis."""
        exprs = [*buffer.shape, *buffer.strides, *((buffer.elem_offset,) if buffer.elem_offset is not None else ())]
        if not any(n in self.env for e in exprs for n in walk(e) if isinstance(n, Var)):
            return buffer
        renewed = replace(
            buffer,
            shape=tuple(self.mutate(e) for e in buffer.shape),
            strides=tuple(self.mutate(e) for e in buffer.strides),
            elem_offset=None if buffer.elem_offset is None else self.mutate(buffer.elem_offset),
        )
        self.buffers[buffer] = renewed
        return renewed

    def _bind_view(self, match: MatchBufferRegion) -> None:
        """Accesses of ``match.buffer`` now mean its region's buffer; symbols in its strides and offset get values."""
        region = match.source.region
        starts = tuple(self.mutate(r.min) for r in region)
        source, starts = self._resolve(match.source.buffer, starts)
        self.views[match.buffer] = (source, starts)
        view = match.buffer
        for dim, extent in zip(reversed(view.shape), reversed(region)):
            self._define(dim, extent.extent)
        strides = source.strides or compact_strides(source.shape)
        for stride, actual in zip(reversed(view.strides), reversed(strides)):
            self._define(stride, actual)
        if view.elem_offset is not None:
            offset: Expr = source.elem_offset or IntImm(0, starts[0].dtype if starts else "int32")
            for start, actual in zip(starts, strides):
                offset = ops.add(offset, ops.mul(start, actual))
            self._define(view.elem_offset, offset)

    def _define(self, symbol: Expr, value: Expr) -> None:
        if isinstance(symbol, Var) and symbol not in self.env:
            self.env[symbol] = self.mutate(value)

    def _resolve(self, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[Buffer, tuple[Expr, ...]]:
        buffer = self.buffers.get(buffer, buffer)
        while buffer in self.views:
            source, starts = self.views[buffer]
            inner = len(starts) - len(indices)
            indices = (
                *starts[:inner],
                *(_plus(start, index) for start, index in zip(starts[inner:], indices)),
            )
            buffer = self.buffers.get(source, source)
        return buffer, indices


def _is_substituted(value: Expr) -> bool:
    """Small values are written where their axis was. Others would grow exponentially over nested blocks, or bind the
    variables of a let inside them more than once: those axes become lets."""
    return not is_larger(value, _LARGEST_SUBSTITUTED) and not any(isinstance(n, Let) for n in walk(value))


def compact_strides(shape: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Row-major strides in elements of a compact tensor of ``shape``."""
    strides: list[Expr] = []
    running: Expr | None = None
    for extent in reversed(shape):
        if running is None:
            strides.append(IntImm(1, extent.dtype))
            running = extent
        else:
            strides.append(running)
            running = Binary("mul", running, extent)
    return tuple(reversed(strides))


def _plus(start: Expr, index: Expr) -> Expr:
    if isinstance(start, IntImm) and start.value == 0:
        return index
    if isinstance(index, IntImm) and index.value == 0 and index.dtype == start.dtype:
        return start
    if isinstance(index, Ramp):  # elements that lie side by side stay so
        base = _plus(start, index.base)
        return Ramp(base, ops.cast(index.stride, base.dtype), index.lanes)
    return ops.add(start, index)  # a view's indices may be of another dtype than its source's
