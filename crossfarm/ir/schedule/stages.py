"""A block as a stage of its scope: what it depends on, what depends on it, and what makes its values timeless.

Where the block alone writes what it writes, different instances write different elements, and its inputs are final
when it reads them, an element's value does not depend on when it is computed, nor on how often. All of the location
family rests on this; ``Stage`` establishes it, or refuses with what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from crossfarm.ir.arith import Analyzer
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule import images
from crossfarm.ir.schedule.covering import Boxes, axis_conditions, boxes
from crossfarm.ir.schedule.dependencies import require_complete_or_reduction, scope_blocks
from crossfarm.ir.schedule.index_arith import analyzer_of
from crossfarm.ir.schedule.reducers import keeps_order, reduction_of
from crossfarm.ir.schedule.tree import ancestors, find_block, loops_above, parent_block, refuse, statements
from crossfarm.ir.stmt import Block, BlockRealize, For, SeqStmt, Stmt
from crossfarm.ir.visitor import walk


class Stage:
    """A block that may be computed at another time, or its values in another place.

    Attributes:
        func, primitive: where the block is, and for whom it is looked at.
        realize, scope, axes: the block, the block around it, and its axes.
        loops: around the block in its scope; ``known`` is what is known inside them.
        written, read: its buffers.
        producers, consumers: blocks of the scope that write what it reads, and read what it writes.
        conditions: on its axes, under which its instances run.
    """

    def __init__(self, func: PrimFunc, block: str, primitive: str) -> None:
        self.func, self.primitive = func, primitive
        self.realize = find_block(func, block, primitive)
        self.axes = self.realize.block.iter_vars
        self.scope = parent_block(func, self.realize, primitive)
        require_complete_or_reduction(func, self.realize, primitive)
        self.require_always_run(self.realize)
        self.loops = loops_above(func, self.realize)
        self.known = analyzer_of(func, ancestors(func, self.realize))
        siblings = scope_blocks(func, self.scope)
        touched = {b: boxes(b, Analyzer()) for b in siblings}
        accessed = touched[self.realize]
        self.written, self.read = tuple(accessed.writes), tuple(accessed.reads)
        inputs = set(self.read) - set(self.written)
        others = [b for b in siblings if b is not self.realize]
        self.producers = [b for b in others if inputs & set(touched[b].writes)]
        self.consumers = [b for b in others if set(self.written) & set(touched[b].reads)]
        self._require_order(siblings, touched)
        self._require_values()
        self.conditions = self._conditions()

    def refuse(self, reason: str) -> NoReturn:
        """Raises the ScheduleError that says why this block may not."""
        refuse(self.primitive, f"block {self.realize.block.name}: {reason}", at=self.realize)

    def require_all_instances(self) -> None:
        """Refuses unless its loops run every instance in its axes' domains."""
        problem = images.why_not_covering(self.realize, self.loops, self.known)
        if problem is not None:
            self.refuse(problem)

    def require_always_run(self, stmt: Stmt) -> None:
        """Refuses unless ``stmt`` runs in every iteration of the loops around it in its scope."""
        for outer in reversed(ancestors(self.func, stmt)):
            if isinstance(outer, Block):
                return
            if not isinstance(outer, For | SeqStmt):
                self.refuse(f"a {type(outer).__name__} stands around it or around the loop, so that it may not run")

    def require_final(self, producer: BlockRealize, consumer: BlockRealize) -> None:
        """Refuses unless, in loops that both run in, ``producer`` is done with an element once it has written it."""
        shared = {loop.var for loop in loops_above(self.func, producer)}
        shared &= {loop.var for loop in loops_above(self.func, consumer)}
        if not shared:
            return
        carried = reduce_loops(producer) & shared
        if carried:
            name = min(v.name for v in carried)
            self.refuse(f"the loop {name} carries the reduction of {producer.block.name}: nothing is final inside it")
        problem = None if producer is self.realize else images.why_not_one_to_one(producer.block)
        if problem is not None:
            self.refuse(f"elements that its producer {producer.block.name} writes may change: {problem}")

    def _require_order(self, siblings: Sequence[BlockRealize], touched: dict[BlockRealize, Boxes]) -> None:
        place = siblings.index(self.realize)
        written, read = set(self.written), set(self.read)
        for position, other in enumerate(siblings):
            if other is self.realize:
                continue
            both, late = written & set(touched[other].writes), read & set(touched[other].writes)
            if both:
                self.refuse(f"{other.block.name} writes {_least(both)} too")
            if position < place and written & set(touched[other].reads):
                self.refuse(f"{other.block.name} reads {_least(written)} before it is written")
            if position > place and late:
                self.refuse(f"{other.block.name} writes {_least(late)} after this block has read it")
        for stmt in _scope_statements(self.scope):
            if any(n in written for e in _deciding(stmt) for n in walk(e)):
                self.refuse("what it writes decides how loops or branches run")

    def _require_values(self) -> None:
        problem = images.why_not_one_to_one(self.realize.block)
        if problem is not None:
            self.refuse(f"its instances are not known to write elements of their own: {problem}")
        ordered = self.realize.block.init is None or keeps_order(self.realize, self.loops)
        if not ordered and reduction_of(self.realize.block) is None:
            self.refuse("its reduction runs in another order than its axes, and is not known to be commutative")
        for consumer in self.consumers:
            self.require_final(self.realize, consumer)
        for producer in self.producers:
            self.require_final(producer, self.realize)

    def _conditions(self) -> list[Expr]:
        known = analyzer_of(self.func, [*ancestors(self.func, self.scope), self.scope])
        found = axis_conditions(self.realize, self.loops, known)
        if found is None:
            self.refuse("its predicate cannot be written in terms of its axes")
        return found


def _scope_statements(scope: BlockRealize) -> list[Stmt]:
    """The statements of a scope that are not in one of its blocks."""
    inside: set[Stmt] = set()
    found = []
    for part in statements(scope.block.body):
        if part in inside:
            continue
        if isinstance(part, BlockRealize):
            inside.update(statements(part))
        found.append(part)
    return found


def reduce_loops(realize: BlockRealize) -> set[Var]:
    """The variables that the values of reduce axes depend on."""
    return {
        n
        for axis, value in zip(realize.block.iter_vars, realize.iter_values)
        if axis.kind == "reduce"
        for n in walk(value)
        if isinstance(n, Var)
    }


def _deciding(stmt: Stmt) -> list[Expr]:
    """What decides how ``stmt`` runs, its inside apart."""
    if isinstance(stmt, BlockRealize):
        return [*stmt.iter_values, stmt.predicate]
    found = (getattr(stmt, name, None) for name in ("min", "extent", "condition", "value"))
    return [e for e in found if isinstance(e, Expr)]


def _least(buffers: set[Buffer]) -> str:
    return min(b.name for b in buffers)
