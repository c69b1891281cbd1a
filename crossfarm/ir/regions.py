"""Regions: what a block reads and writes, inferred from its body where the text does not say.

The rule is TVM's (``GetBlockAccessRegion``): the accesses of each buffer are united into one box, loop variables inside
the block are relaxed to their range, a nested block counts by its own declared regions, and a block with ``init`` does
not count the buffers it writes as read. A box whose bounds cannot be told is the whole buffer.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, affine
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import Binary, BufferLoad, Expr, IntImm, Let, Ramp, Range, Var
from crossfarm.ir.stmt import (
    Allocate,
    Block,
    BlockRealize,
    BufferStore,
    For,
    LetStmt,
    MatchBufferRegion,
    Stmt,
)
from crossfarm.ir.visitor import Visitor

Interval = tuple[Expr, Expr]


@dataclass(frozen=True)
class Accesses:
    """The two lists a block declares, in order of first access."""

    reads: tuple[BufferRegion, ...]
    writes: tuple[BufferRegion, ...]


def infer_accesses(
    body: Stmt,
    init: Stmt | None = None,
    alloc_buffers: tuple[Buffer, ...] = (),
    match_buffers: tuple[MatchBufferRegion, ...] = (),
) -> Accesses:
    """What a block with this content reads and writes, one region a buffer; its own temporaries left out."""
    collector = _Collector(match_buffers, alloc_buffers)
    if init is not None:
        collector.visit(init)
    collector.visit(body)
    hidden = collector.allocated
    writes = {b: box for b, box in collector.writes.items() if b not in hidden}
    skipped = set(writes) if init is not None else set()
    reads = {b: box for b, box in collector.reads.items() if b not in hidden and b not in skipped}
    return Accesses(tuple(map(_region, reads.items())), tuple(map(_region, writes.items())))


def whole(buffer: Buffer) -> BufferRegion:
    """The region that is all of the buffer."""
    return BufferRegion(buffer, tuple(Range(ops.const(0, dim.dtype), dim) for dim in buffer.shape))


def extent_between(start: Expr | int | float, stop: Expr | int | float) -> tuple[Expr, Expr]:
    """``(start, stop - start)`` in one dtype, simplified: for ``a:b`` and ``range(a, b)``.

    ``stop`` written as ``start + x`` gives exactly ``x``, so that what the printer writes reads back the same.
    """
    first, last = ops.unify(start, stop, "range")
    if isinstance(first, IntImm) and first.value == 0:
        return first, last
    if isinstance(last, Binary) and last.op == "add" and key(last.a) == key(first):
        return first, last.b
    return first, simplify(ops.sub(last, first))


def key(node: Any, bound: tuple[Var, ...] = ()) -> Hashable:
    """A value equal for two expressions exactly when they are the same tree over the same variables and buffers.

    Args:
        bound: variables of the lets around ``node``, which count by their position and not by identity.
    """
    if isinstance(node, Var) and node in bound:
        return bound.index(node), node.dtype
    if isinstance(node, (Var, Buffer)):
        return id(node)
    if isinstance(node, tuple):
        return tuple(key(item, bound) for item in node)
    if isinstance(node, Let):
        inner = (*bound, node.var)
        return "Let", key(node.value, bound), key(node.var, inner), key(node.body, inner)
    if isinstance(node, (Expr, Range)):
        return (type(node).__name__, *(key(getattr(node, f.name), bound) for f in fields(node)))  # type: ignore[arg-type]
    return repr(node)


def simplify(value: Expr) -> Expr:
    """An integer expression with its sums collected; any other as it is.

    Raises:
        InvalidModule: the sums come to a number that the dtype does not hold.
    """
    if not dt.is_int(value.dtype) or dt.lanes_of(value.dtype) != 1:
        return value
    return _rebuild(affine(value, key), value.dtype)


def _rebuild(form: Affine, dtype: str) -> Expr:
    for number in (form.constant, *form.terms.values()):
        ops.const(number, dtype)  # a text's numbers are refused where they do not fit, never wrapped around
    return form.to_expr(dtype)


class _Collector(Visitor):
    """Walks a block's content and unites the boxes of each buffer."""

    def __init__(self, match_buffers: tuple[MatchBufferRegion, ...], allocated: tuple[Buffer, ...]) -> None:
        self.reads: dict[Buffer, tuple[Interval | None, ...]] = {}
        self.writes: dict[Buffer, tuple[Interval | None, ...]] = {}
        self.allocated = set(allocated)
        self._matches = {m.buffer: m.source for m in match_buffers}
        self._domains: dict[Var, Interval | None] = {}

    def visit_For(self, node: For) -> None:
        self.visit(node.min)
        self.visit(node.extent)
        low = self._interval(node.min)
        high = self._interval(simplify(ops.sub(ops.add(node.min, node.extent), 1)))
        self._domains[node.var] = (low[0], high[1]) if low is not None and high is not None else None
        self.visit(node.body)

    def visit_LetStmt(self, node: LetStmt) -> None:
        self.visit(node.value)
        self._domains[node.var] = self._interval(node.value)
        self.visit(node.body)

    def visit_Let(self, node: Let) -> None:
        self.visit(node.value)
        self._domains[node.var] = self._interval(node.value)
        self.visit(node.body)

    def visit_Allocate(self, node: Allocate) -> None:
        self.allocated.add(node.buffer)
        self.visit(node.body)

    def visit_BufferLoad(self, node: BufferLoad) -> None:
        self._access(self.reads, node.buffer, node.indices)
        for index in node.indices:
            self.visit(index)

    def visit_BufferStore(self, node: BufferStore) -> None:
        self.visit(node.value)
        for index in node.indices:
            self.visit(index)
        self._access(self.writes, node.buffer, node.indices)

    def visit_BlockRealize(self, node: BlockRealize) -> None:
        for value in (*node.iter_values, node.predicate):
            self.visit(value)
        for axis, value in zip(node.block.iter_vars, node.iter_values):
            self._domains[axis.var] = self._interval(value)
        self._nested(node.block)

    def _nested(self, block: Block) -> None:
        for target, regions in ((self.reads, block.reads), (self.writes, block.writes)):
            for region in regions:
                self._unite(target, region.buffer, tuple(self._range(r) for r in region.region))

    def _access(self, target: dict[Buffer, Any], buffer: Buffer, indices: tuple[Expr, ...]) -> None:
        source = self._matches.get(buffer)
        if source is not None:  # a view inside the block: its whole source region is touched
            self._unite(target, source.buffer, tuple(self._range(r) for r in source.region))
        else:
            self._unite(target, buffer, tuple(self._interval(index) for index in indices))

    def _unite(self, target: dict[Buffer, Any], buffer: Buffer, box: tuple[Interval | None, ...]) -> None:
        before = target.get(buffer)
        target[buffer] = box if before is None else tuple(_union(a, b) for a, b in zip(before, box))

    def _range(self, range_: Range) -> Interval | None:
        low = self._interval(range_.min)
        if isinstance(range_.extent, IntImm) and range_.extent.value == 1:
            return low
        high = self._interval(simplify(ops.sub(ops.add(range_.min, range_.extent), 1)))
        return None if low is None or high is None else (low[0], high[1])

    def _interval(self, value: Expr) -> Interval | None:
        """Smallest and largest value over the loops inside the block, or None where that cannot be told."""
        if isinstance(value, Ramp):
            last = simplify(ops.add(value.base, ops.mul(value.stride, value.lanes - 1)))
            ends = [self._interval(value.base), self._interval(last)]
            if ends[0] is None or ends[1] is None or not isinstance(value.stride, IntImm):
                return None
            return (ends[0][0], ends[1][1]) if value.stride.value > 0 else (ends[1][0], ends[0][1])
        if not self._varies(value):
            return value, value
        if isinstance(value, Var):
            return self._domains[value]
        if isinstance(value, Binary) and value.op in ("add", "sub", "mul"):
            return self._linear_interval(value)
        if isinstance(value, Binary) and value.op in ("min", "max"):
            a, b = self._interval(value.a), self._interval(value.b)
            if a is None or b is None:
                return None
            return _extreme(value.op, a[0], b[0]), _extreme(value.op, a[1], b[1])
        if isinstance(value, Binary) and value.op in ("floordiv", "floormod"):
            return self._division(value)
        return None

    def _linear_interval(self, value: Expr) -> Interval | None:
        form = affine(value, key)
        low, high = Affine(form.constant), Affine(form.constant)
        for name, coefficient in form.terms.items():
            term = form.atoms[name]
            box = None if isinstance(term, Binary) and term.op == "mul" and self._varies(term) else self._interval(term)
            if box is None:
                return None
            low.add(affine(box[0] if coefficient > 0 else box[1], key), coefficient)
            high.add(affine(box[1] if coefficient > 0 else box[0], key), coefficient)
        return _rebuild(low, value.dtype), _rebuild(high, value.dtype)

    def _division(self, value: Binary) -> Interval | None:
        if not isinstance(value.b, IntImm) or value.b.value <= 0:
            return None
        if value.op == "floormod":
            return ops.const(0, value.dtype), ops.const(value.b.value - 1, value.dtype)
        box = self._interval(value.a)
        return None if box is None else (_floordiv(box[0], value.b.value), _floordiv(box[1], value.b.value))

    def _varies(self, value: Any) -> bool:
        found = False

        class Find(Visitor):
            def visit_Var(inner, node: Var) -> None:
                nonlocal found
                found = found or node in self._domains

            def visit_BufferLoad(inner, node: BufferLoad) -> None:
                nonlocal found
                found = found or node.buffer in self.allocated
                inner.visit_children(node)

            def visit_Let(inner, node: Let) -> None:
                nonlocal found
                found = True  # a region repeats the index, and what an expression binds is bound once

        Find().visit(value)
        return found


def _extreme(op: str, a: Expr, b: Expr) -> Expr:
    if isinstance(a, IntImm) and isinstance(b, IntImm):
        return a if (a.value <= b.value) == (op == "min") else b
    return ops.binary(op, a, b)


def _floordiv(value: Expr, by: int) -> Expr:
    quotient, rest = affine(value, key).split(by)
    return ops.floordiv(value, by) if rest.terms else _rebuild(quotient, value.dtype)


def _inside(low: Expr, high: Expr, dim: Expr) -> Interval:
    """The part of a constant interval in a constant dimension: bounds do not see the predicates that keep to it."""
    if isinstance(low, IntImm) and isinstance(high, IntImm) and isinstance(dim, IntImm):
        first, last = max(low.value, 0), min(high.value, dim.value - 1)
        if first <= last:
            return ops.const(first, low.dtype), ops.const(last, low.dtype)
    return low, high


def _union(a: Interval | None, b: Interval | None) -> Interval | None:
    if a is None or b is None:
        return None
    low, high = _pick(a[0], b[0], smaller=True), _pick(a[1], b[1], smaller=False)
    return None if low is None or high is None else (low, high)


def _pick(a: Expr, b: Expr, *, smaller: bool) -> Expr | None:
    """The smaller or larger of two bounds, where their difference is a constant."""
    if key(a) == key(b):
        return a
    difference = simplify(ops.sub(a, b))
    if not isinstance(difference, IntImm):
        return None
    return a if (difference.value <= 0) == smaller else b


def _region(item: tuple[Buffer, tuple[Interval | None, ...]]) -> BufferRegion:
    buffer, box = item
    ranges = []
    for dim, interval in zip(buffer.shape, box):
        if interval is None:
            ranges.append(Range(ops.const(0, dim.dtype), dim))
        elif interval[0] is interval[1] or key(interval[0]) == key(interval[1]):
            ranges.append(Range(interval[0], ops.const(1, interval[0].dtype)))
        else:
            low, high = _inside(*ops.unify(*interval), dim)
            ranges.append(Range(low, simplify(ops.add(ops.sub(high, low), 1))))
    return BufferRegion(buffer, tuple(ranges))
