"""Which elements the blocks below a loop touch in each iteration, and whether one makes all that another needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer, affine, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Expr, Range, Var
from crossfarm.ir.regions import simplify
from crossfarm.ir.schedule.index_arith import conjuncts, proves
from crossfarm.ir.schedule.spans import Span, relax
from crossfarm.ir.schedule.tree import children_of
from crossfarm.ir.stmt import BlockRealize, For, SeqStmt, Stmt
from crossfarm.ir.visitor import substitute, walk


@dataclass(frozen=True)
class Touch:
    """A block's declared access to a box of a buffer.

    Attributes:
        box: in terms of the loops around the block: its axes are substituted by their values.
        loops: those loops from the statement looked at down to the block, outer to inner.
    """

    block: BlockRealize
    loops: tuple[For, ...]
    buffer: Buffer
    box: tuple[Range, ...]
    is_write: bool


def touches_under(top: Stmt) -> list[Touch]:
    """What the first blocks at or below ``top`` touch, in execution order, a block's reads before its writes."""
    found: list[Touch] = []
    stack: list[tuple[Stmt, tuple[For, ...]]] = [(top, ())]
    while stack:
        stmt, loops = stack.pop()
        if isinstance(stmt, BlockRealize):
            found += _touches_of(stmt, loops)
            continue
        inside = (*loops, stmt) if isinstance(stmt, For) else loops
        stack.extend((child, inside) for child in reversed(children_of(stmt)))
    return found


def bare_statement(top: Stmt) -> Stmt | None:
    """A statement at or below ``top`` that computes outside any block, or None."""
    stack = [top]
    while stack:
        stmt = stack.pop()
        below = children_of(stmt)
        if not below and not isinstance(stmt, SeqStmt):
            return stmt
        if not isinstance(stmt, BlockRealize):
            stack.extend(below)
    return None


def makes_all(write: Touch, read: Touch, around: Sequence[For] = ()) -> bool:
    """True when in each iteration of the loops that both are in, ``write`` has made all that ``read`` then needs.

    Both are below one statement, ``write`` before ``read``, in the loops ``around``. False says nothing.
    """
    common = 0
    while common < min(len(write.loops), len(read.loops)) and write.loops[common] is read.loops[common]:
        common += 1
    if reduces_over(write.block, write.loops[:common]) or not _runs_everywhere(write):
        return False
    analyzer = Analyzer()
    for loop in (*around, *write.loops[:common]):
        analyzer.bind_loop(loop.var, loop.min, loop.extent)
    made = [_relaxed(part, write.loops[common:], analyzer) for part in write.box]
    needed = [_relaxed(part, read.loops[common:], analyzer) for part in read.box]
    return all(_within(analyzer, n, m, dim) for n, m, dim in zip(needed, made, write.buffer.shape))


def reduces_over(realize: BlockRealize, loops: Sequence[For]) -> bool:
    """True when a reduction of the block is still under way at the end of an iteration of one of ``loops``."""
    variables = {loop.var for loop in loops}
    return any(
        axis.kind != "spatial" and any(n in variables for n in walk(value))
        for axis, value in zip(realize.block.iter_vars, realize.iter_values)
    )


def _touches_of(realize: BlockRealize, loops: tuple[For, ...]) -> list[Touch]:
    values = {axis.var: value for axis, value in zip(realize.block.iter_vars, realize.iter_values)}
    found = []
    for regions, is_write in ((realize.block.reads, False), (realize.block.writes, True)):
        for region in regions:
            box = tuple(substitute(part, values) for part in region.region)
            found.append(Touch(realize, loops, region.buffer, box, is_write))
    return found


def _runs_everywhere(write: Touch) -> bool:
    """True when the block's predicate only cuts off what is beyond its axes' domains, which nobody needs."""
    beyond = []
    for axis, value in zip(write.block.block.iter_vars, write.block.iter_values):
        past = affine(value)
        past.add(affine(ops.add(axis.dom.min, axis.dom.extent)), -1)
        beyond.append((past.constant, past.terms))
    for condition in conjuncts(write.block.predicate):
        if not isinstance(condition, Binary) or condition.op != "lt":
            return False
        limit = affine(condition.a)
        limit.add(affine(condition.b), -1)
        if (limit.constant, limit.terms) not in beyond:
            return False
    return True


def _within(analyzer: Analyzer, needed: Span | None, made: Span | None, dim: Expr) -> bool:
    """True when ``needed``, as far as it is inside the buffer, lies in ``made``."""
    if made is None:
        return False
    from_start = const_int(made.low) == 0
    to_end = proves(ops.compare("ge", made.high, simplify(ops.sub(dim, 1))), analyzer)
    if needed is None:
        return from_start and to_end
    return (from_start or proves(ops.compare("le", made.low, needed.low), analyzer)) and (
        to_end or proves(ops.compare("le", needed.high, made.high), analyzer)
    )


def _relaxed(part: Range, loops: Sequence[For], analyzer: Analyzer) -> Span | None:
    """The values of a range over all iterations of ``loops``, outer to inner; None where that cannot be told."""
    domains: dict[Var, Span] = {}
    for loop in loops:
        domain = _bounds(Span.of_range(loop.min, loop.extent), domains, analyzer)
        if domain is None:
            return None
        domains[loop.var] = domain
    return _bounds(Span.of_range(part.min, part.extent), domains, analyzer)


def _bounds(span: Span, domains: Mapping[Var, Span], analyzer: Analyzer) -> Span | None:
    low, high = relax(span.low, domains, analyzer), relax(span.high, domains, analyzer)
    return None if low is None or high is None else Span(low.low, high.high)
