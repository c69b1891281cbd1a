"""compute_at and reverse_compute_at: a block moves under a loop, and runs there for just what that loop needs or made.

Where ``stages`` establishes that an element's value does not depend on when and how often it is computed, a producer
may run anywhere after its inputs and before the consumers, for any superset of the instances that they read; and a
consumer may run as soon as what it reads is final, as long as each of its instances runs somewhere. Boxes from
``covering`` are supersets of what is touched, ``images`` says where nothing of them is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crossfarm.ir.arith import Analyzer
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule import images
from crossfarm.ir.schedule.covering import (
    Boxes,
    axis_conditions,
    axis_spans,
    boxes,
    domain,
    holds_box,
    run_instances,
)
from crossfarm.ir.schedule.dependencies import is_output_block, scope_blocks
from crossfarm.ir.schedule.independence import require_independent
from crossfarm.ir.schedule.index_arith import analyzer_of
from crossfarm.ir.schedule.inline import compute_inline
from crossfarm.ir.schedule.spans import Span, join, meet, relax
from crossfarm.ir.schedule.stages import Stage, reduce_loops
from crossfarm.ir.schedule.tree import (
    ancestors,
    find_loop,
    loops_above,
    outermost_blocks,
    parent_block,
    refuse,
    remove_stmt,
    replace_stmt,
    statements,
)
from crossfarm.ir.stmt import BlockRealize, For, SeqStmt, Stmt
from crossfarm.ir.visitor import seq, substitute


def compute_at(
    func: PrimFunc, block: str, loop: Var | str, preserve_unit_loops: bool = False, index: int = -1
) -> tuple[PrimFunc, None]:
    """Moves a producer under ``loop``, where it computes what the consumers there read in one iteration.

    Args:
        loop: a loop with all consumers under it; or where ``sample_compute_location`` says: ``"root"`` leaves the
            block where it is, ``"inline"`` inlines it.
        preserve_unit_loops: keep loops of one iteration.
        index: which statement of the loop's body it becomes: -1 the last place that is legal, -2 the first.
    """
    if loop == "root":
        return func, None
    if loop == "inline":
        return compute_inline(func, block)
    move = _Move(func, block, loop, "compute_at")
    if is_output_block(func, move.realize):
        move.refuse("writes an output of its scope, which other readers need whole")
    if not move.consumers:
        move.refuse("has no consumers")
    apart = next((b for b in move.consumers if b not in move.under), None)
    if apart is not None:
        move.refuse(f"its consumer {apart.block.name} is not under the loop {move.loop.var.name}")
    without, target = move.without()
    needed = boxes(target.body, move.analyzer)
    group = _group_around(move.func, move.loop)
    made = boxes(move.realize.block, move.analyzer)
    spans: dict[Var, Span] | None = None
    for buffer in move.written:
        if buffer in needed.reads:
            read = needed.reads[buffer]
            if group and buffer.scope == "shared":
                read = tuple(None if part is None else _of_all(part, group, move.analyzer) for part in read)
            found = axis_spans(move.axes, made.writes[buffer], read, move.analyzer)
            spans = found if spans is None else _either(spans, found, move.analyzer)
    reduced = {axis.var for axis in move.axes if axis.kind == "reduce"}
    spans = {var: span for var, span in (spans or {}).items() if var not in reduced}
    missing = images.why_not_covering(move.realize, move.loops, move.known, _largest(spans, move.analyzer))
    if missing is not None:
        move.refuse(missing)
    nest = run_instances(move.realize, spans, move.conditions, move.analyzer, keep_unit_loops=preserve_unit_loops)
    return _insert(move, without, target, nest, index), None


def reverse_compute_at(
    func: PrimFunc, block: str, loop: Var | str, preserve_unit_loops: bool = False, index: int = -1
) -> tuple[PrimFunc, None]:
    """Moves a consumer under ``loop``, where it reads what the producers there made in one iteration.

    Args: as of ``compute_at``, with all that the block reads from under the loop final there.
    """
    if loop == "root":
        return func, None
    move = _Move(func, block, loop, "reverse_compute_at")
    move.require_all_instances()
    sharing = [p for p in move.producers if _shared_loops(move, p)]
    inside = [p for p in move.producers if p in move.under]
    if not inside:
        move.refuse(f"none of its producers is under the loop {move.loop.var.name}")
    siblings = scope_blocks(func, move.scope)
    begin = min(siblings.index(b) for b in move.under)
    late = next((p for p in move.producers if p not in move.under and siblings.index(p) > begin), None)
    if late is not None:
        move.refuse(f"its producer {late.block.name} runs after the loop {move.loop.var.name}")
    without, target = move.without()
    produced = {p: _Produced(move, p) for p in sharing}
    reads = boxes(move.realize.block, move.analyzer)
    spans = None
    for producer in reversed(inside):
        spans = _covered_by(move, produced, producer, reads)
        if spans is not None:
            break
    if spans is None:
        names = ", ".join(p.block.name for p in inside)
        move.refuse(
            f"what it reads is not known to be what one iteration of {move.loop.var.name} makes in {names}: an "
            "instance would read elements of other iterations, or would never run"
        )
    nest = run_instances(move.realize, spans, move.conditions, move.analyzer, keep_unit_loops=preserve_unit_loops)
    return _insert(move, without, target, nest, index), None


class _Move(Stage):
    """A stage and the loop it goes to.

    Attributes:
        loop: in the same scope.
        under: blocks of the scope under the loop, this one apart.
        analyzer: what is known in the loop's body.
    """

    def __init__(self, func: PrimFunc, block: str, loop: Var | str, primitive: str) -> None:
        if isinstance(loop, str):
            refuse(primitive, f"{loop!r} is no place for a block", hint="give a loop of get_loops")
        super().__init__(func, block, primitive)
        self.loop = find_loop(func, loop, primitive)
        if parent_block(func, self.loop, primitive) is not self.scope:
            self.refuse(f"the loop {loop.name} is in another block than it")
        self.require_always_run(self.loop)
        self.under = {b for b in outermost_blocks(self.loop.body) if b is not self.realize}
        self.analyzer = analyzer_of(func, [*ancestors(func, self.loop), self.loop])

    def without(self) -> tuple[PrimFunc, For]:
        """The function without the block where it was, and the loop in that."""
        func = remove_stmt(self.func, self.realize)
        return func, find_loop(func, self.loop.var, self.primitive)


class _Produced:
    """What a producer that runs in loops around the target has made at the end of one iteration of it.

    Attributes:
        exact: buffer → box of elements that are surely made, in terms of the loops around.
        whole: buffer → box of all elements it ever makes.
    """

    def __init__(self, move: _Move, producer: BlockRealize) -> None:
        shared = _shared_loops(move, producer)
        loops = loops_above(move.func, producer)
        inner = [loop for loop in loops if loop.var not in shared]
        carried = reduce_loops(producer) & shared
        if carried:
            move.refuse(f"the loop {_name(carried)} carries the reduction of {producer.block.name}: not final there")
        conditions = axis_conditions(producer, loops, move.analyzer)
        problem = (
            images.why_not_one_to_one(producer.block)
            or images.why_not_covering(producer, loops, move.analyzer)
            or ("its predicate leaves instances out" if conditions is None or conditions else None)
        )
        if problem is not None:
            move.refuse(f"what its producer {producer.block.name} makes is not known: {problem}")
        self.exact: dict[Buffer, tuple[Span | None, ...]] = {}
        self.whole: dict[Buffer, tuple[Span | None, ...]] = {}
        values = {axis.var: value for axis, value in zip(producer.block.iter_vars, producer.iter_values)}
        kept = {axis.var: axis for axis in producer.block.iter_vars if axis.kind == "spatial"}
        for at in images.stores(producer.block):
            if not at.surely:
                continue
            indices, around = at.indices, at.loops
            moving = {**{loop.var: loop.extent for loop in inner}, **around}
            bound = tuple(substitute(index, values) for index in indices)
            domains = {loop.var: Span.of_range(loop.min, loop.extent) for loop in inner}
            domains |= {var: Span.of_range(images.zero_of(var), extent) for var, extent in around.items()}
            everything = {**{var: axis.dom.extent for var, axis in kept.items()}, **around}
            axis_domains = {var: domain(axis) for var, axis in kept.items()} | {
                var: Span.of_range(images.zero_of(var), extent) for var, extent in around.items()
            }
            if images.is_full_image(bound, moving) and images.is_full_image(indices, everything):
                self.exact[at.store.buffer] = tuple(relax(index, domains, move.analyzer) for index in bound)
                self.whole[at.store.buffer] = tuple(relax(index, axis_domains, move.analyzer) for index in indices)


def _covered_by(
    move: _Move, produced: dict[BlockRealize, _Produced], producer: BlockRealize, reads: Boxes
) -> dict[Var, Span] | None:
    """Axis values of the consumer for one iteration, as what it reads of ``producer`` says; None if not sound."""
    reduced = {axis.var for axis in move.axes if axis.kind == "reduce"}
    whole = {axis.var: domain(axis) for axis in move.axes}
    spans: dict[Var, Span] | None = None
    for buffer, made in produced[producer].exact.items():
        if buffer not in reads.reads:
            continue
        everything = _relaxed(reads.reads[buffer], whole, move.analyzer)
        if everything is None or None in made:
            return None
        if not holds_box(produced[producer].whole[buffer], everything, buffer, move.analyzer):
            return None
        found = axis_spans(move.axes, reads.reads[buffer], made, move.analyzer)
        found = {var: span for var, span in found.items() if var not in reduced}
        spans = found if spans is None else _either(spans, found, move.analyzer)
    if spans is None:
        return None
    for other, results in produced.items():
        for buffer in boxes(other, move.analyzer).writes:
            if buffer not in reads.reads or buffer in move.written:
                continue
            if buffer not in results.exact:
                return None
            inside = {var: meet(span, whole[var], move.analyzer) for var, span in spans.items()}
            for values in (spans, inside):  # either is right; which one is easier to prove depends on the sizes
                touched = _relaxed(reads.reads[buffer], {**whole, **values}, move.analyzer)
                if touched is not None and holds_box(results.exact[buffer], touched, buffer, move.analyzer):
                    break
            else:
                return None
    return spans


def _insert(move: _Move, func: PrimFunc, target: For, nest: Stmt, index: int) -> PrimFunc:
    """``func`` with ``nest`` in the target's body, after the producers and before the consumers there."""
    body = list(target.body.stmts) if isinstance(target.body, SeqStmt) else [target.body]
    holds = [{s.block.name for s in statements(part) if isinstance(s, BlockRealize)} for part in body]
    before, after = {b.block.name for b in move.producers}, {b.block.name for b in move.consumers}
    first = max((i + 1 for i, names in enumerate(holds) if names & before), default=0)
    last = min((i for i, names in enumerate(holds) if names & after), default=len(body))
    if first > last:
        move.refuse(f"in the loop {target.var.name} a producer comes after a consumer, or in one nest with it")
    at = {-1: last, -2: first}.get(index, index)
    if not first <= at <= last:
        move.refuse(f"index {index} is not between its producers and consumers there, {first} to {last}")
    func = replace_stmt(func, target, replace(target, body=seq(*body[:at], nest, *body[at:])))
    for loop in (*ancestors(func, find_loop(func, target.var)), find_loop(func, target.var)):
        if isinstance(loop, For) and loop.kind not in ("serial", "unrolled"):
            # neighbouring boxes may overlap: iterations that run at once need what they compute for themselves
            require_independent(func, loop, move.primitive, reduction=loop.thread.startswith("threadIdx"))
    return func


def _group_around(func: PrimFunc, target: For) -> dict[Var, Span]:
    """The loops over threads of a group that are around the target's body: what is shared is for all of them."""
    loops = [s for s in (*ancestors(func, target), target) if isinstance(s, For) and s.thread.startswith("threadIdx")]
    return {loop.var: Span.of_range(loop.min, loop.extent) for loop in loops}


def _of_all(part: Span, domains: dict[Var, Span], analyzer: Analyzer) -> Span | None:
    found = _relaxed((part,), domains, analyzer)
    return None if found is None else found[0]


def _shared_loops(move: _Move, producer: BlockRealize) -> set[Var]:
    """Loops that a producer runs in and the target is, or runs in."""
    around = {s.var for s in (*ancestors(move.func, move.loop), move.loop) if isinstance(s, For)}
    return around & {loop.var for loop in loops_above(move.func, producer)}


def _relaxed(box: Sequence[Span | None], domains: dict[Var, Span], analyzer: Analyzer) -> tuple[Span, ...] | None:
    """``box`` while the axes in it run; None where that is not known."""
    result = []
    for part in box:
        low = None if part is None else relax(part.low, domains, analyzer)
        high = None if part is None else relax(part.high, domains, analyzer)
        if low is None or high is None:
            return None
        result.append(Span(low.low, high.high))
    return tuple(result)


def _largest(spans: dict[Var, Span], analyzer: Analyzer) -> dict[Var, int]:
    """The greatest value that each axis can be asked for."""
    return {var: analyzer.bounds(span.high).high for var, span in spans.items()}


def _either(a: dict[Var, Span], b: dict[Var, Span], analyzer: Analyzer) -> dict[Var, Span]:
    """Spans that hold what either needs."""
    return {var: join(a[var], b[var], analyzer) for var in a if var in b}


def _name(variables: set[Var]) -> str:
    return min(v.name for v in variables)
