"""Which instances of a block are needed under a loop, and the loops that run exactly those.

``boxes`` says what a statement reads and writes while its own loops run, from its loads and stores rather than from
what blocks declare. ``axis_spans`` turns a needed box of a buffer around: the least box of axis values that holds every
instance which touches it. ``run_instances`` builds the loops, with predicates where a box overhangs an axis' domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, Analyzer, affine, const_int
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import COMPARISONS, Binary, BufferLoad, Expr, Let, Ramp, Var
from crossfarm.ir.regions import key
from crossfarm.ir.schedule.index_arith import conjuncts, proves
from crossfarm.ir.schedule.spans import Span, floordiv, join, meet, relax, tidy
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IterVar, LetStmt, Stmt
from crossfarm.ir.visitor import Visitor, substitute, walk

#: One span a dimension; None where nothing is known and the whole dimension may be touched.
Box = tuple[Span | None, ...]


class Boxes(Visitor):
    """Reads and writes of a statement, each buffer's united into one box over the loops inside the statement.

    Attributes:
        reads, writes: box of each buffer, in terms of what is bound outside the statement.
    """

    def __init__(self, analyzer: Analyzer) -> None:
        self.reads: dict[Buffer, Box] = {}
        self.writes: dict[Buffer, Box] = {}
        self._analyzer = analyzer
        self._domains: dict[Var, Span] = {}
        self._unknown: set[Var] = set()
        self._values: dict[Var, Expr] = {}
        self._views: dict[Buffer, BufferRegion] = {}

    def visit_For(self, node: For) -> None:
        self.visit(node.min)
        self.visit(node.extent)
        first, last = self._span(node.min), self._span(ops.sub(ops.add(node.min, node.extent), 1))
        if first is None or last is None:
            self._unknown.add(node.var)
        else:
            self._domains[node.var] = Span(first.low, last.high)
        self.visit(node.body)

    def visit_LetStmt(self, node: LetStmt | Let) -> None:
        self.visit(node.value)
        self._values[node.var] = substitute(node.value, self._values)
        self.visit(node.body)

    visit_Let = visit_LetStmt

    def visit_BlockRealize(self, node: BlockRealize) -> None:
        for value in (*node.iter_values, node.predicate):
            self.visit(value)
        for axis, value in zip(node.block.iter_vars, node.iter_values):
            self._values[axis.var] = substitute(value, self._values)
        self.visit_Block(node.block)

    def visit_Block(self, node: Block) -> None:
        for match in node.match_buffers:
            self._views[match.buffer] = match.source
        if node.init is not None:
            self.visit(node.init)
        self.visit(node.body)

    def visit_BufferLoad(self, node: BufferLoad) -> None:
        self._touch(self.reads, node.buffer, node.indices)
        self.visit_children(node)

    def visit_BufferStore(self, node: BufferStore) -> None:
        self.visit(node.value)
        for index in node.indices:
            self.visit(index)
        self._touch(self.writes, node.buffer, node.indices)

    def _touch(self, target: dict[Buffer, Box], buffer: Buffer, indices: tuple[Expr, ...]) -> None:
        if buffer in self._views:
            source = self._views[buffer]
            spans = [(self._span(r.min), self._span(Span.of_range(r.min, r.extent).high)) for r in source.region]
            box: Box = tuple(None if a is None or b is None else Span(a.low, b.high) for a, b in spans)
            buffer = source.buffer
        else:
            box = tuple(self._span(index) for index in indices)
        before = target.get(buffer)
        target[buffer] = box if before is None else unite(before, box, self._analyzer)

    def _span(self, index: Expr) -> Span | None:
        if isinstance(index, Ramp):
            ends = self._span(index.base), self._span(ops.add(index.base, ops.mul(index.stride, index.lanes - 1)))
            return None if ends[0] is None or ends[1] is None else join(ends[0], ends[1], self._analyzer)
        if dt.lanes_of(index.dtype) != 1:
            return None
        resolved = substitute(index, self._values)
        if any(n in self._unknown for n in walk(resolved)):
            return None
        return relax(resolved, self._domains, self._analyzer)


def boxes(stmt: Stmt, analyzer: Analyzer) -> Boxes:
    """What ``stmt`` reads and writes. A Block's own axes stay as they are."""
    result = Boxes(analyzer)
    result.visit(stmt)
    return result


def unite(a: Box, b: Box, analyzer: Analyzer) -> Box:
    """The smallest box that holds both."""
    return tuple(None if x is None or y is None else join(x, y, analyzer) for x, y in zip(a, b))


def dimension(buffer: Buffer, position: int) -> Span:
    """All of one dimension."""
    extent = buffer.shape[position]
    return Span.of_range(ops.const(0, extent.dtype), extent)


def domain(axis: IterVar) -> Span:
    """All values of an axis."""
    return Span.of_range(axis.dom.min, axis.dom.extent)


def axis_spans(axes: Sequence[IterVar], touched: Box, needed: Box, analyzer: Analyzer) -> dict[Var, Span]:
    """Spans of axis values that hold every instance touching an element of ``needed``; absent axes: any value.

    Args:
        touched: what an instance touches, in terms of its axes.
        needed: box of the same buffer, in terms of what is bound outside.
    """
    domains = {axis.var: domain(axis) for axis in axes}
    found: dict[Var, Span] = {}
    remainders: list[tuple[Binary, Span]] = []
    for part, want in zip(touched, needed):
        if part is None or want is None:
            continue
        if part.is_point() and isinstance(part.low, Binary) and part.low.op == "floormod":
            remainders.append((part.low, want))
        for axis in axes:
            span = _solve(axis.var, part, want, domains, analyzer)
            if span is not None:
                known = found.get(axis.var)
                found[axis.var] = span if known is None else _narrower(known, span, analyzer)
    for remainder, want in remainders:
        _refine(remainder, want, touched, needed, found, analyzer)
    return found


def _solve(var: Var, part: Span, want: Span, domains: Mapping[Var, Span], analyzer: Analyzer) -> Span | None:
    """Values of ``var`` for which ``part`` can meet ``want``."""
    if part.is_point() and isinstance(part.low, Binary) and part.low.op == "floordiv" and part.low.a is var:
        divisor = const_int(part.low.b)
        if divisor is None or divisor <= 0:
            return None
        want = want.cast(var.dtype)
        return Span(tidy(ops.mul(want.low, divisor)), tidy(ops.add(ops.mul(want.high, divisor), divisor - 1)))
    low, high = affine(tidy(part.low), key), affine(tidy(part.high), key)
    name = key(var)
    factor = low.terms.get(name, 0)
    if factor <= 0 or high.terms.get(name, 0) != factor:
        return None
    itself = Affine(0, {name: 1}, {name: var})
    low.add(itself, -factor)
    high.add(itself, -factor)
    dtype = part.low.dtype
    others = {v: s for v, s in domains.items() if v is not var}
    below, above = relax(low.to_expr(dtype), others, analyzer), relax(high.to_expr(dtype), others, analyzer)
    if (
        below is None
        or above is None
        or any(n is var for s in (below, above) for e in (s.low, s.high) for n in walk(e))
    ):
        return None
    by = ops.const(factor, dtype)
    want = want.cast(dtype)
    first = floordiv(tidy(ops.add(ops.sub(want.low, above.high), factor - 1)), by)
    last = floordiv(tidy(ops.sub(want.high, below.low)), by)
    return Span(first, last).cast(var.dtype)


def _refine(
    remainder: Binary, want: Span, touched: Box, needed: Box, found: dict[Var, Span], analyzer: Analyzer
) -> None:
    """``(v // c, v % c)`` with one value wanted of ``v // c``: then ``v % c`` says which part of the tile."""
    var, divisor = remainder.a, const_int(remainder.b)
    if not isinstance(var, Var) or divisor is None:
        return
    for part, tile in zip(touched, needed):
        if part is None or tile is None or not tile.is_point():
            continue
        quotient = part.low
        if not (isinstance(quotient, Binary) and quotient.op == "floordiv" and quotient.a is var):
            continue
        if const_int(quotient.b) == divisor:
            start = ops.mul(ops.cast(tile.low, var.dtype), divisor)
            inside = want.cast(var.dtype)
            found[var] = Span(tidy(ops.add(start, inside.low)), tidy(ops.add(start, inside.high)))


def _narrower(a: Span, b: Span, analyzer: Analyzer) -> Span:
    """Both hold: the one of smaller constant extent, else where they meet."""
    sizes = [const_int(s.extent()) for s in (a, b)]
    if sizes[0] is not None and (sizes[1] is None or sizes[0] <= sizes[1]):
        return a
    return b if sizes[1] is not None else meet(a, b, analyzer)


def run_instances(
    realize: BlockRealize,
    spans: Mapping[Var, Span],
    conditions: Sequence[Expr],
    analyzer: Analyzer,
    *,
    keep_unit_loops: bool,
) -> Stmt:
    """Loops that run ``realize``'s block for the axis values of ``spans`` that lie in its domains.

    A span of constant extent becomes a loop of that extent, with a predicate where it overhangs the domain; any other
    is cut to the domain. Axes that are not in ``spans`` run through their whole domain.

    Args:
        conditions: of the block's axes, under which an instance runs.
    """
    loops: list[tuple[Var, Expr]] = []
    values: dict[Var, Expr] = {}
    predicates: list[Expr] = []
    for position, axis in enumerate(realize.block.iter_vars):
        span, guards = _clipped(axis, spans.get(axis.var), analyzer)
        extent = span.extent()
        if const_int(extent) == 1 and not keep_unit_loops:
            values[axis.var] = span.low
        else:
            loop = Var(f"ax{position}", axis.var.dtype)
            loops.append((loop, extent))
            values[axis.var] = tidy(ops.add(span.low, loop))
        predicates.extend(substitute(guard, values) for guard in guards)
    predicates.extend(substitute(condition, values) for condition in conditions)
    body: Stmt = replace(
        realize,
        iter_values=tuple(values[axis.var] for axis in realize.block.iter_vars),
        predicate=ops.logical_and(*predicates),
    )
    for loop, extent in reversed(loops):
        body = For(loop, ops.const(0, loop.dtype), extent, body)
    return body


def _clipped(axis: IterVar, span: Span | None, analyzer: Analyzer) -> tuple[Span, list[Expr]]:
    """A span inside the axis' domain, or one with guards that keep it inside."""
    whole = domain(axis)
    if span is None:
        return whole, []
    span = span.cast(axis.var.dtype)
    size, limit = const_int(span.extent()), const_int(whole.extent())
    if size is None or (limit is not None and size >= limit):
        if size is not None or _holds(span, whole, analyzer):
            return whole, []
        return (span if _holds(whole, span, analyzer) else meet(span, whole, analyzer)), []
    guards: list[Expr] = []
    if not analyzer.prove(ops.compare("ge", span.low, whole.low)):
        guards.append(ops.compare("ge", axis.var, whole.low))
    stop = tidy(ops.add(whole.high, 1))
    if not analyzer.prove(ops.compare("lt", span.high, stop)):
        guards.append(ops.compare("lt", axis.var, stop))
    return span, guards


def _holds(outer: Span, inner: Span, analyzer: Analyzer) -> bool:
    """True when ``inner`` certainly lies in ``outer``."""
    return proves(ops.compare("le", outer.low, inner.low), analyzer) and proves(
        ops.compare("le", inner.high, outer.high), analyzer
    )


def holds_box(outer: Box, inner: Box, buffer: Buffer, analyzer: Analyzer) -> bool:
    """True when ``inner`` certainly lies in ``outer``, both boxes of ``buffer``."""
    return all(
        _holds(a or dimension(buffer, d), b or dimension(buffer, d), analyzer)
        for d, (a, b) in enumerate(zip(outer, inner))
    )


def axis_conditions(realize: BlockRealize, loops: Sequence[For], analyzer: Analyzer) -> list[Expr] | None:
    """The predicate of ``realize`` in terms of its axes, without what the axes' domains imply; None where it cannot be.

    Args:
        loops: around the block in its scope.
    """
    result: list[Expr] = []
    once: dict[Var, Expr] = {loop.var: loop.min for loop in loops if const_int(loop.extent) == 1}
    values = tuple(substitute(value, once) for value in realize.iter_values)
    axes = list(zip(realize.block.iter_vars, values))
    for conjunct in conjuncts(realize.predicate):
        written = _of_axes(substitute(conjunct, once), axes, {loop.var for loop in loops})
        if written is None:
            return None
        with analyzer.scope():
            for axis in realize.block.iter_vars:
                analyzer.bind_loop(axis.var, axis.dom.min, axis.dom.extent)
            if not analyzer.prove(written):
                result.append(written)
    return result


def _of_axes(conjunct: Expr, axes: Sequence[tuple[IterVar, Expr]], loops: set[Var]) -> Expr | None:
    if not any(n in loops for n in walk(conjunct)):
        return conjunct
    bare: dict[Var, Expr] = {v: ops.cast(a.var, v.dtype) for a, v in axes if isinstance(v, Var)}
    direct = substitute(conjunct, bare)
    if not any(n in loops for n in walk(direct)):
        return direct
    if not (isinstance(conjunct, Binary) and conjunct.op in COMPARISONS and dt.is_int(conjunct.a.dtype)):
        return None
    for axis, value in axes:
        if conjunct.op == "lt" and isinstance(value, Binary) and value.op == "floordiv":
            tiles = floordiv(tidy(conjunct.b), value.b)
            divides = key(tidy(ops.mul(tiles, value.b))) == key(tidy(conjunct.b))
            if divides and key(tidy(conjunct.a)) == key(tidy(value.a)):  # x < c * n is x // c < n
                return ops.compare("lt", axis.var, tiles)
    difference = ops.sub(conjunct.a, conjunct.b)
    for axis, value in axes:
        for sign in (1, -1):
            left = tidy(ops.sub(difference, value) if sign == 1 else ops.add(difference, value))
            left = substitute(left, bare)
            if not any(n in loops for n in walk(left)):
                whole = ops.add(left, axis.var) if sign == 1 else ops.sub(left, axis.var)
                return ops.compare(conjunct.op, tidy(whole), 0)
    return None
