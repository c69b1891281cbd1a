"""What a block touches over the loops around it, declared and done: the basis on which copies are put around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import BufferLoad, Expr, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses, simplify, whole
from crossfarm.ir.schedule.images import why_not_onto
from crossfarm.ir.schedule.index_arith import analyzer_of, conjuncts, fold, proves
from crossfarm.ir.schedule.nests import is_true
from crossfarm.ir.schedule.tree import ancestors, children_of, refuse, statements
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, Evaluate, For, IfThenElse, LetStmt, SeqStmt, Stmt, While
from crossfarm.ir.visitor import seq, substitute


def region_argument(block: BlockRealize, kind: str, index: int, primitive: str) -> BufferRegion:
    """The ``index``-th entry of the block's ``reads`` or ``writes``. Raises ScheduleError listing those there are."""
    regions = block.block.reads if kind == "read" else block.block.writes
    if not 0 <= index < len(regions):
        names = ", ".join(f"{i}: {r.buffer.name}" for i, r in enumerate(regions)) or "none"
        refuse(primitive, f"block {block.block.name} has no {kind} {index}; it has {names}", at=block)
    return regions[index]


def region_at(
    func: PrimFunc, scope: BlockRealize, block: BlockRealize, anchor: Stmt, buffer: Buffer, kind: str
) -> BufferRegion:
    """The box of ``buffer`` that ``block`` reads or writes over the loops between ``anchor``'s sequence and it.

    What the block declares and what its content shows are united; what may lie outside the buffer, or cannot be told,
    becomes all that the scope touches in that dimension.
    """
    content = infer_accesses(block.block.body, block.block.init, block.block.alloc_buffers, block.block.match_buffers)
    inferred = content.reads if kind == "read" else content.writes
    declared = block.block.reads if kind == "read" else block.block.writes
    mapping = {a.var: v for a, v in zip(block.block.iter_vars, block.iter_values)}
    found = united([substitute(r, mapping) for r in (*declared, *inferred) if r.buffer is buffer])
    loops = [s for s in _between(func, anchor, block) if isinstance(s, For)]
    outer = [s for s in ancestors(func, anchor) if isinstance(s, For)]
    known = analyzer_of(func, outer, least_size=1)
    around = analyzer_of(func, [*ancestors(func, scope), scope], least_size=1)
    within = clamped(_touched(scope, buffer, kind), whole(buffer).region, around)  # the last of tiles may overhang
    return BufferRegion(buffer, clamped(relaxed(found, loops), within, known))


def why_not_written(func: PrimFunc, block: BlockRealize, anchor: Stmt, region: BufferRegion) -> str | None:
    """None when ``block`` writes all of ``region`` over the loops from ``anchor`` down to it, else why not."""
    path = [*_between(func, anchor, block), block, block.block]
    starts = () if block.block.init is None else _certain_stores(block.block.init)  # each element's first step runs it
    for store, below in (*starts, *_certain_stores(block.block.body)):
        if store.buffer is not region.buffer:
            continue
        loops, mapping, conditions = _environment([*path, *below])
        if loops is None:
            return "it runs under a condition"
        values = [simplify(substitute(i, mapping)) for i in store.indices]
        return why_not_onto(values, region.region, loops, [substitute(c, mapping) for c in conditions])
    return "the element it stores to may be left out"


def why_not_all_instances(func: PrimFunc, block: BlockRealize, axes: Sequence[Var] | None = None) -> str | None:
    """None when the loops in the scope take ``block``'s axes (or those given) through their whole domains."""
    stmts = list(ancestors(func, block))
    inner = max(i for i, s in enumerate(stmts) if isinstance(s, Block)) + 1
    loops, mapping, conditions = _environment([*stmts[inner:], block])
    if loops is None:
        return "it runs under a condition"
    chosen = [a for a in block.block.iter_vars if axes is None or a.var in axes]
    values = [simplify(mapping[a.var]) for a in chosen]
    return why_not_onto(values, [a.dom for a in chosen], loops, [substitute(c, mapping) for c in conditions])


def united(regions: Sequence[BufferRegion]) -> BufferRegion:
    """The box around regions of one buffer; a whole dimension where that cannot be told."""
    found: list[Stmt] = []
    for region in regions:
        high = (simplify(ops.sub(ops.add(r.min, r.extent), 1)) for r in region.region)
        for corner in (tuple(r.min for r in region.region), tuple(high)):
            found.append(Evaluate(BufferLoad(region.buffer, corner)))
    return next(r for r in infer_accesses(seq(*found)).reads if r.buffer is regions[0].buffer)


def relaxed(region: BufferRegion, loops: Sequence[For]) -> BufferRegion:
    """The box that ``region`` covers over all iterations of ``loops``, outer to inner; a whole dimension if unknown."""
    low = tuple(r.min for r in region.region)
    high = tuple(simplify(ops.sub(ops.add(r.min, r.extent), 1)) for r in region.region)
    nest: Stmt = seq(*(Evaluate(BufferLoad(region.buffer, corner)) for corner in (low, high)))
    for loop in reversed(loops):
        nest = For(loop.var, loop.min, loop.extent, nest)
    return next(r for r in infer_accesses(nest).reads if r.buffer is region.buffer)


def clamped(region: BufferRegion, within: Sequence[Range], analyzer: Analyzer) -> tuple[Range, ...]:
    """``region`` where it certainly lies inside ``within``, that dimension of ``within`` where it may not."""
    result = []
    for r, outer in zip(region.region, within):
        start, stop = fold(r.min, analyzer), fold(simplify(ops.add(r.min, r.extent)), analyzer)
        end = simplify(ops.add(outer.min, outer.extent))
        inside = proves(ops.compare("ge", start, outer.min), analyzer) and proves(
            ops.compare("le", stop, end), analyzer
        )
        result.append(Range(start, fold(r.extent, analyzer)) if inside else outer)
    return tuple(result)


def _touched(scope: BlockRealize, buffer: Buffer, kind: str) -> BufferRegion:
    """What the scope block declares of the buffer; all of it for root and for the block's own temporaries."""
    regions = scope.block.reads if kind == "read" else scope.block.writes
    return next((r for r in regions if r.buffer is buffer), whole(buffer))


def _between(func: PrimFunc, anchor: Stmt, block: BlockRealize) -> list[Stmt]:
    """The statements around ``block`` from the sequence on that ``anchor`` is in."""
    return list(ancestors(func, block)[len(ancestors(func, anchor)) :])


def _environment(
    path: Sequence[Stmt],
) -> tuple[dict[Var, Expr] | None, dict[Var, Expr], list[Expr]]:
    """(loops from 0 with their extents, axes and lets in terms of these, conditions) along ``path``; None for loops
    where something else decides whether it runs."""
    loops: dict[Var, Expr] = {}
    mapping: dict[Var, Expr] = {}
    conditions: list[Expr] = []
    for stmt in path:
        match stmt:
            case For():
                loops[stmt.var] = substitute(stmt.extent, mapping)
                mapping[stmt.var] = simplify(ops.add(stmt.var, substitute(stmt.min, mapping)))
            case BlockRealize():
                if not is_true(stmt.predicate):
                    conditions += conjuncts(substitute(stmt.predicate, mapping))
                for axis, value in zip(stmt.block.iter_vars, stmt.iter_values):
                    mapping[axis.var] = substitute(value, mapping)
            case LetStmt():
                mapping[stmt.var] = substitute(stmt.value, mapping)
            case IfThenElse() | While():
                return None, mapping, conditions
    return loops, mapping, conditions


def _certain_stores(body: Stmt) -> Iterator[tuple[BufferStore, tuple[Stmt, ...]]]:
    """The stores that run whenever ``body`` runs, each with the statements around it."""
    stack: list[tuple[Stmt, tuple[Stmt, ...]]] = [(body, ())]
    while stack:
        stmt, above = stack.pop()
        if isinstance(stmt, BufferStore):
            yield stmt, above
        elif isinstance(stmt, For | LetStmt | SeqStmt | BlockRealize | Block):
            below = [c for c in children_of(stmt) if not (isinstance(stmt, Block) and c is stmt.init)]
            stack.extend((child, (*above, stmt)) for child in reversed(below))


def views_of(func: PrimFunc, buffer: Buffer) -> tuple[Buffer, ...]:
    """The buffers that blocks match to a region of ``buffer``."""
    return tuple(
        m.buffer
        for s in statements(func.body)
        if isinstance(s, Block)
        for m in s.match_buffers
        if m.source.buffer is buffer
    )
