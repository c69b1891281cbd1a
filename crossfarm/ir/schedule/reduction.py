"""decompose_reduction and rfactor: a reduction's start apart from its steps, and its steps in groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses, key
from crossfarm.ir.schedule.dependencies import require_reduction
from crossfarm.ir.schedule.fresh import fresh_copy
from crossfarm.ir.schedule.index_arith import conjuncts, fold
from crossfarm.ir.schedule.reducers import Reduction, init_values, reduction_of
from crossfarm.ir.schedule.spans import tidy
from crossfarm.ir.schedule.stages import reduce_loops
from crossfarm.ir.schedule.tree import (
    ancestors,
    find_block,
    find_loop,
    loops_above,
    parent_block,
    refuse,
    replace_stmt,
    rewrite,
    unique_name,
)
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IfThenElse, IterVar, Stmt
from crossfarm.ir.visitor import seq, substitute, walk


def decompose_reduction(func: PrimFunc, block: str, loop: Var) -> tuple[PrimFunc, str]:
    """Makes the ``init`` of a reduction a block of its own, right before ``loop``; the new block's name.

    The new block runs over copies of those loops from ``loop`` inwards that choose the elements. A reduction over no
    element at all leaves its target as it was, before and after: where a size may be 0, the new block asks for it.
    """
    name = "decompose_reduction"
    realize, target = find_block(func, block, name), find_loop(func, loop, name)
    require_reduction(func, realize, name)
    loops = loops_above(func, realize)
    if target not in loops:
        refuse(name, f"the loop {loop.name} is not around block {block}", at=realize)
    inner = loops[loops.index(target) :]
    steps = reduce_loops(realize)
    outside = next((one for one in loops[: loops.index(target)] if one.var in steps), None)
    if outside is not None:
        reason = (
            f"the loop {outside.var.name} around {loop.name} runs the reduction: each of its steps would start anew"
        )
        refuse(name, reason, at=realize)
    chosen = [one for one in inner if one.var in _spatial_loops(realize)]
    mixed = next((one for one in chosen if one.var in steps), None)
    if mixed is not None:
        refuse(name, f"the loop {mixed.var.name} feeds both a spatial and a reduce axis", at=realize)
    bounded = next((o for o in chosen if any(n in steps for e in (o.min, o.extent) for n in walk(e))), None)
    if bounded is not None:
        refuse(name, f"the range of loop {bounded.var.name} depends on a step of the reduction", at=realize)
    first: dict[Var, Expr] = {one.var: one.min for one in inner if one not in chosen}
    for axis, value in zip(realize.block.iter_vars, realize.iter_values):
        if axis.kind == "reduce" and key(fold(tidy(substitute(value, first)), Analyzer())) != key(tidy(axis.dom.min)):
            refuse(name, f"the first iteration of its loops is not the first step of axis {axis.var.name}", at=realize)
    start = _init_nest(func, realize, chosen, first, _steps_exist(one for one in inner if one.var in steps))
    update = _without_init(realize)
    changed = replace_stmt(func, realize, update)
    placed = find_loop(changed, loop, name)
    return replace_stmt(changed, placed, seq(start[0], placed)), start[1]


def rfactor(func: PrimFunc, loop: Var, factor_axis: int) -> tuple[PrimFunc, str]:
    """Groups the steps of a reduction by ``loop``: each iteration reduces for itself, then the results are reduced.

    A new block before the given one writes partial results, in a buffer that has the loop's extent as an additional
    dimension at ``factor_axis`` (negative counts from the end); the given block reduces those. Float sums and products
    round differently than before, which is what was asked for. A reduction over no element at all leaves its target as
    it was, before and after.

    Returns the function and the new block's name.
    """
    name = "rfactor"
    target = find_loop(func, loop, name)
    realize = _only_block(func, target)
    require_reduction(func, realize, name)
    plan = _Factoring(func, realize, target, factor_axis)
    return plan.apply()


def _steps_exist(loops: Iterable[For]) -> list[Expr]:
    """The conditions under which each of ``loops`` runs at least once, those that always hold left out."""
    return [tidy(ops.compare("gt", one.extent, 0)) for one in loops if (const_int(one.extent) or 0) <= 0]


def _init_nest(
    func: PrimFunc, realize: BlockRealize, chosen: Sequence[For], first: Mapping[Var, Expr], needed: Sequence[Expr]
) -> tuple[Stmt, str]:
    block = realize.block
    assert block.init is not None
    spatial = [(a, v) for a, v in zip(block.iter_vars, realize.iter_values) if a.kind == "spatial"]
    accesses = infer_accesses(block.init)
    body = Block(
        unique_name(func, f"{block.name}_init"),
        tuple(axis for axis, _ in spatial),
        accesses.reads,
        accesses.writes,
        block.init,
    )
    predicate = [tidy(substitute(c, dict(first))) for c in (*conjuncts(realize.predicate), *needed)]
    nest: Stmt = BlockRealize(tuple(v for _, v in spatial), ops.logical_and(*predicate), body)
    for one in reversed(chosen):
        nest = replace(one, body=nest, annotations={})
    nest = fresh_copy(func, nest)
    return nest, body.name


def _without_init(realize: BlockRealize) -> BlockRealize:
    """The steps alone: what was left out of the reads, as a reduction's target may be, is read now."""
    block = realize.block
    inferred = infer_accesses(block.body, None, block.alloc_buffers, block.match_buffers)
    written = {region.buffer for region in block.writes}
    declared = {region.buffer for region in block.reads}
    own = tuple(r for r in inferred.reads if r.buffer in written and r.buffer not in declared)
    return replace(realize, block=replace(block, init=None, reads=(*own, *block.reads)))


def _spatial_loops(realize: BlockRealize) -> set[Var]:
    return {
        n
        for axis, value in zip(realize.block.iter_vars, realize.iter_values)
        if axis.kind != "reduce"
        for n in walk(value)
        if isinstance(n, Var)
    }


def _only_block(func: PrimFunc, loop: For) -> BlockRealize:
    stmt: Stmt = loop
    while isinstance(stmt, For):
        stmt = stmt.body
    if not isinstance(stmt, BlockRealize):
        refuse("rfactor", f"the loop {loop.var.name} is around more than one block", at=loop)
    return stmt


@dataclass
class _Factoring:
    """One application of ``rfactor``."""

    func: PrimFunc
    realize: BlockRealize
    loop: For
    factor_axis: int

    def __post_init__(self) -> None:
        block = self.realize.block
        found = reduction_of(block)
        inits = None if found is None else init_values(block, found)
        if found is None or inits is None:
            self._refuse("its reduction is not known: x op y for a commutative op, or an argmax or argmin by Select")
        self.reduction: Reduction = found
        self.inits: tuple[Expr, ...] = inits
        self.chain = self._chain()
        self.steps = {one.var for one in self.chain if one.var in reduce_loops(self.realize)}
        self._check_loops()
        self.copies = self._partial_buffers()

    def apply(self) -> tuple[PrimFunc, str]:
        """The function with two nests in place of the one, and the new block's name."""
        partial = self._partial_block()
        first: Stmt = partial
        for one in reversed(self.chain):
            first = replace(one, body=first)
        last = _copy_of_same_name(self.func, self._final_nest(), self.realize.block.name)
        scope = parent_block(self.func, self.realize, "rfactor")
        changed = replace_stmt(self.func, self.chain[0], seq(first, last))
        outer = find_block(changed, scope.block.name, "rfactor")
        allocated = (*outer.block.alloc_buffers, *self.copies)
        changed = replace_stmt(changed, outer, replace(outer, block=replace(outer.block, alloc_buffers=allocated)))
        return changed, partial.block.name

    def _refuse(self, reason: str) -> NoReturn:
        refuse("rfactor", f"block {self.realize.block.name}: {reason}", at=self.realize)

    def _chain(self) -> list[For]:
        """The loops, outermost first, that are around this block alone."""
        chain: list[For] = []
        for outer in reversed(ancestors(self.func, self.realize)):
            if not isinstance(outer, For):
                break
            chain.insert(0, outer)
        return chain

    def _check_loops(self) -> None:
        inside = {one.var for one in self.chain}
        all_steps = reduce_loops(self.realize)
        elsewhere = {one.var for one in loops_above(self.func, self.realize)} - inside
        shared = all_steps & elsewhere
        if shared:
            self._refuse(f"the loop {min(v.name for v in shared)} runs the reduction beside other blocks")
        spatial = _spatial_loops(self.realize)
        mixed = all_steps & spatial & inside
        if mixed:
            self._refuse(f"the loop {min(v.name for v in mixed)} feeds both a spatial and a reduce axis")
        if self.loop.var not in self.steps:
            self._refuse(f"the loop {self.loop.var.name} does not run the reduction")
        if const_int(self.loop.min) != 0:
            self._refuse(f"the loop {self.loop.var.name} does not start at 0")
        for one in self.chain:
            if any(n in inside for e in (one.min, one.extent) for n in walk(e)):
                self._refuse(f"the range of loop {one.var.name} depends on another loop")
        loops = {one.var for one in loops_above(self.func, self.realize)}
        if any(n in loops for n in walk(self.loop.extent)):
            self._refuse(f"the extent of loop {self.loop.var.name} depends on another loop")

    def _partial_buffers(self) -> tuple[Buffer, ...]:
        rank = len(self.reduction.targets[0].indices)
        at = self.factor_axis if self.factor_axis >= 0 else self.factor_axis + rank + 1
        if not 0 <= at <= rank:
            self._refuse(f"factor_axis {self.factor_axis} is not between {-rank - 1} and {rank}")
        self.at = at
        buffers = []
        for target in self.reduction.targets:
            shape = self._with(target.buffer.shape, self.loop.extent)
            wish = unique_name(self.func, f"{target.buffer.name}_rf")
            buffers.append(Buffer(wish, shape, target.buffer.dtype, scope=target.buffer.scope))
        return tuple(buffers)

    def _with(self, items: Sequence[Expr], extra: Expr) -> tuple[Expr, ...]:
        return (*items[: self.at], extra, *items[self.at :])

    def _partial_block(self) -> BlockRealize:
        """The given block with the loop as a spatial axis, into the new buffers."""
        realize, block = self.realize, self.realize.block
        lane = IterVar(Var(f"v_{self.loop.var.name}", self.loop.var.dtype), Range(self.loop.min, self.loop.extent))
        axes: list[tuple[IterVar, Expr]] = []
        mapping: dict[Var, Expr] = {}
        as_axis: dict[Var, Expr] = {one.var: one.min for one in self.chain if const_int(one.extent) == 1}
        as_axis[self.loop.var] = lane.var
        extra: list[tuple[IterVar, Expr]] = []
        for axis, value in zip(block.iter_vars, realize.iter_values):
            if axis.kind != "reduce" or not any(n is self.loop.var for n in walk(value)):
                copy = replace(axis, var=Var(axis.var.name, axis.var.dtype))
                axes.append((copy, value))
                mapping[axis.var] = copy.var
                if isinstance(value, Var) and axis.kind == "reduce":
                    as_axis.setdefault(value, ops.cast(copy.var, value.dtype))
        for axis, value in zip(block.iter_vars, realize.iter_values):
            if axis.var in mapping:
                continue
            for one in self.chain:
                if one.var not in as_axis and any(n is one.var for n in walk(value)):
                    extra.append(self._loop_axis(one, as_axis))
            mapping[axis.var] = substitute(value, as_axis)
        conditions, kept = self._split_predicate(as_axis, extra)
        all_axes = [*axes, *extra, (lane, self.loop.var)]
        targets = [
            BufferLoad(copy, tuple(substitute(i, mapping) for i in self._with(t.indices, lane.var)))
            for copy, t in zip(self.copies, self.reduction.targets)
        ]
        update = self.reduction.update(targets, [substitute(o, mapping) for o in self.reduction.operands])
        body = IfThenElse(ops.logical_and(*conditions), update) if conditions else update
        starts = self.reduction.starts([substitute(v, mapping) for v in self.inits])
        init = seq(*(BufferStore(t.buffer, v, t.indices) for t, v in zip(targets, starts)))
        accesses = infer_accesses(body, init)
        new = Block(
            unique_name(self.func, f"{block.name}_rf"),
            tuple(axis for axis, _ in all_axes),
            accesses.reads,
            accesses.writes,
            body,
            init,
            annotations=block.annotations,
        )
        return BlockRealize(tuple(v for _, v in all_axes), ops.logical_and(*kept), new)

    def _loop_axis(self, one: For, as_axis: dict[Var, Expr]) -> tuple[IterVar, Expr]:
        axis = IterVar(Var(f"v_{one.var.name}", one.var.dtype), Range(one.min, one.extent), "reduce")
        as_axis[one.var] = axis.var
        return axis, one.var

    def _split_predicate(
        self, as_axis: dict[Var, Expr], extra: list[tuple[IterVar, Expr]]
    ) -> tuple[list[Expr], list[Expr]]:
        """Conditions on steps, in terms of axes (a partial result starts even where it has no step), and the others."""
        conditions, kept = [], []
        chain = {one.var: one for one in self.chain}
        for conjunct in conjuncts(self.realize.predicate):
            used = [n for n in walk(conjunct) if isinstance(n, Var) and n in chain]
            if not any(n in self.steps for n in used):
                kept.append(conjunct)
                continue
            for var in used:
                if var in as_axis:
                    continue
                if var not in self.steps:
                    self._refuse(f"its predicate compares the loop {var.name} with steps of the reduction")
                extra.append(self._loop_axis(chain[var], as_axis))
            conditions.append(substitute(conjunct, as_axis))
        return conditions, kept

    def _final_nest(self) -> Stmt:
        """The given block, reducing the partial results; its Vars are made new where it is put in."""
        realize, block = self.realize, self.realize.block
        lane = IterVar(
            Var(f"v_{self.loop.var.name}", self.loop.var.dtype), Range(self.loop.min, self.loop.extent), "reduce"
        )
        spatial = [(a, v) for a, v in zip(block.iter_vars, realize.iter_values) if a.kind != "reduce"]
        partial = [
            BufferLoad(copy, self._with(t.indices, lane.var)) for copy, t in zip(self.copies, self.reduction.targets)
        ]
        body = self.reduction.update(self.reduction.targets, partial)
        accesses = infer_accesses(body, block.init)
        new = replace(
            block,
            iter_vars=(*(a for a, _ in spatial), lane),
            reads=accesses.reads,
            writes=accesses.writes,
            body=body,
        )
        kept = [c for c in conjuncts(realize.predicate) if not any(n in self.steps for n in walk(c))]
        kept += _steps_exist(one for one in self.chain if one.var in self.steps and one.var is not self.loop.var)
        nest: Stmt = BlockRealize((*(v for _, v in spatial), self.loop.var), ops.logical_and(*kept), new)
        for one in reversed(self.chain):
            if one.var is self.loop.var or one.var not in self.steps:
                nest = replace(one, body=nest, kind="serial" if one.var is self.loop.var else one.kind)
        return nest


def _copy_of_same_name(func: PrimFunc, nest: Stmt, name: str) -> Stmt:
    """A copy with Vars of its own whose block keeps its name."""
    copied = fresh_copy(func, nest)
    return rewrite(copied, lambda s: replace(s, name=name) if isinstance(s, Block) else s)
