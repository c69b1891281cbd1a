"""compute_inline and reverse_compute_inline: a block disappears into those that read it, or into the one it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer, const_int, may_fail
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import BufferLoad, Call, Expr, Let, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses, key
from crossfarm.ir.schedule import images
from crossfarm.ir.schedule.covering import axis_conditions, boxes, dimension, domain, holds_box
from crossfarm.ir.schedule.dependencies import is_output_block, scope_blocks, why_not_complete
from crossfarm.ir.schedule.index_arith import analyzer_of
from crossfarm.ir.schedule.inverse import solve_axes
from crossfarm.ir.schedule.spans import Span, relax, tidy
from crossfarm.ir.schedule.stages import Stage
from crossfarm.ir.schedule.tree import (
    ancestors,
    buffers_of,
    find_block,
    loops_above,
    remove_stmt,
    replace_stmt,
)
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, IterVar, Stmt
from crossfarm.ir.visitor import Mutator, substitute, walk


def compute_inline(func: PrimFunc, block: str) -> tuple[PrimFunc, None]:
    """Puts what the block computes where its result is read, and removes the block and its buffer.

    The block stores one element an instance, to an index that says which instance it is.
    """
    stage = Stage(func, block, "compute_inline")
    stage.require_all_instances()
    store = _single_store(stage)
    if is_output_block(func, stage.realize):
        stage.refuse("writes an output of its scope")
    if not stage.consumers:
        stage.refuse("has no consumers to go into")
    if stage.conditions:
        stage.refuse("its predicate leaves elements out, which the consumers would then compute")
    if any(isinstance(n, Call) and may_fail(n) for n in walk(store.value)):
        stage.refuse("what it computes has effects, which must happen once")
    _require_whole(stage, store)
    without = remove_stmt(func, stage.realize)
    scope = find_block(without, stage.scope.block.name)
    into = _Inline(stage, store)
    body = into.mutate(scope.block.body)
    kept = tuple(b for b in scope.block.alloc_buffers if b is not store.buffer)
    new = replace(scope, block=replace(scope.block, body=body, alloc_buffers=kept))
    return replace_stmt(without, scope, new), None


def reverse_compute_inline(func: PrimFunc, block: str) -> tuple[PrimFunc, None]:
    """Puts what the block does to each element into its only producer, and removes the block and the buffer between.

    The block reads one element of that buffer an instance, each of them once; the producer is complete and stores one
    element an instance.
    """
    stage = Stage(func, block, "reverse_compute_inline")
    stage.require_all_instances()
    store = _single_store(stage)
    producer = next((p for p in stage.producers if _only_feeds(stage, p)), None)
    if producer is None:
        stage.refuse("it has no producer whose result it alone reads, inside its scope")
    _require_inputs_before(stage, producer)
    made = _producer_store(stage, producer)
    read = _one_element(stage, store, made.buffer)
    solved = solve_axes(read, made.indices, stage.axes)
    if solved is None:
        stage.refuse(f"which instance reads an element of {made.buffer.name} cannot be told from its index")
    guard = _guard(stage, producer, read, solved, made)
    value = _renamed(substitute(_replaced(store.value, made.buffer, made.value), solved))
    new_store = BufferStore(store.buffer, value, tuple(tidy(substitute(i, solved)) for i in store.indices))
    inner = producer.block
    accesses = infer_accesses(new_store, None, inner.alloc_buffers, inner.match_buffers)
    annotations = {**stage.realize.block.annotations, **inner.annotations}
    changed = replace(inner, body=new_store, reads=accesses.reads, writes=accesses.writes, annotations=annotations)
    predicate = ops.logical_and(*(c for c in (producer.predicate, *guard) if const_int(c) != 1))
    without = remove_stmt(func, stage.realize)
    without = replace_stmt(without, producer, replace(producer, block=changed, predicate=predicate))
    scope = find_block(without, stage.scope.block.name)
    kept = tuple(b for b in scope.block.alloc_buffers if b is not made.buffer)
    return replace_stmt(without, scope, replace(scope, block=replace(scope.block, alloc_buffers=kept))), None


def _single_store(stage: Stage) -> BufferStore:
    reason = why_not_complete(stage.func, stage.realize)
    if reason is not None:
        stage.refuse(f"it is not complete: {reason}")
    block = stage.realize.block
    if not isinstance(block.body, BufferStore) or block.init is not None or block.alloc_buffers or block.match_buffers:
        stage.refuse("its body is not a single store")
    if any(dt.lanes_of(i.dtype) != 1 for i in block.body.indices):
        stage.refuse("it stores vectors")
    return block.body


def _require_whole(stage: Stage, store: BufferStore) -> None:
    """Every element that is read is one that the block stores."""
    known = analyzer_of(stage.func, [*ancestors(stage.func, stage.scope), stage.scope])
    axes = {axis.var: axis.dom.extent for axis in stage.axes}
    if not images.is_full_image(store.indices, axes):
        stage.refuse("the elements that it stores are not a box")
    domains = {axis.var: domain(axis) for axis in stage.axes}
    stored = tuple(relax(index, domains, known) for index in store.indices)
    all_of_it = tuple(dimension(store.buffer, d) for d in range(len(stored)))
    if None in stored or holds_box(stored, all_of_it, store.buffer, known):
        return
    needed = boxes(stage.scope.block.body, known).reads[store.buffer]
    if not holds_box(stored, needed, store.buffer, known):
        stage.refuse(f"its consumers may read elements of {store.buffer.name} that it does not store")


class _Inline(Mutator):
    """Replaces loads of the block's buffer by its value, and corrects what the blocks around declare to read."""

    def __init__(self, stage: Stage, store: BufferStore) -> None:
        self.stage, self.store = stage, store
        self.inputs = {n.buffer for n in walk(store.value) if isinstance(n, BufferLoad)}

    def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
        indices = tuple(self.mutate(index) for index in node.indices)
        if node.buffer is not self.store.buffer:
            return node if all(a is b for a, b in zip(indices, node.indices)) else BufferLoad(node.buffer, indices)
        if any(dt.lanes_of(index.dtype) != 1 for index in indices):
            self.stage.refuse(f"a consumer reads vectors of {node.buffer.name}")
        values = solve_axes(self.store.indices, indices, self.stage.axes)
        if values is None:
            self.stage.refuse(f"which instance stores an element of {node.buffer.name} cannot be told from its index")
        return _renamed(substitute(self.store.value, values))

    def mutate_Call(self, node: Call) -> Expr:
        if node.op == "address_of" and any(n is self.store.buffer for n in walk(node)):
            self.stage.refuse(f"a consumer takes the address of {self.store.buffer.name}")
        return self.mutate_children(node)

    def mutate_Block(self, node: Block) -> Stmt:
        if any(match.source.buffer is self.store.buffer for match in node.match_buffers):
            self.stage.refuse(f"its consumer {node.name} views {self.store.buffer.name}")
        body = self.mutate(node.body)
        init = None if node.init is None else self.mutate(node.init)
        if body is node.body and init is node.init:
            return node
        reads = read_regions(replace(node, body=body, init=init), self.store.buffer, self.inputs)
        return replace(node, body=body, init=init, reads=reads)


def read_regions(block: Block, gone: Buffer, new: set[Buffer]) -> tuple[BufferRegion, ...]:
    """The reads of a block that no longer reads ``gone`` and now reads ``new``; others stay as declared."""
    inferred = {
        r.buffer: r for r in infer_accesses(block.body, block.init, block.alloc_buffers, block.match_buffers).reads
    }
    result: list[BufferRegion] = []
    for region in block.reads:
        if region.buffer is gone:
            result += [r for b, r in inferred.items() if b in new and all(b is not o.buffer for o in block.reads)]
        elif region.buffer in new and region.buffer in inferred:
            result.append(inferred[region.buffer])
        else:
            result.append(region)
    return tuple(result)


def _only_feeds(stage: Stage, producer: BlockRealize) -> bool:
    """True when what ``producer`` writes is read by this block alone, and not outside its scope."""
    made = set(boxes(producer, Analyzer()).writes)
    if not made <= set(stage.scope.block.alloc_buffers):
        return False
    siblings = [b for b in scope_blocks(stage.func, stage.scope) if b is not producer]
    touching = [b for b in siblings if any(buffer in made for buffer in buffers_of(b))]
    return touching == [stage.realize]


def _require_inputs_before(stage: Stage, producer: BlockRealize) -> None:
    """What the block reads besides is complete when the producer begins."""
    siblings = scope_blocks(stage.func, stage.scope)
    around = {loop.var for loop in loops_above(stage.func, producer)}
    for other in stage.producers:
        if other is producer:
            continue
        shared = around & {loop.var for loop in loops_above(stage.func, other)}
        if shared or siblings.index(other) > siblings.index(producer):
            stage.refuse(
                f"it reads what {other.block.name} writes, which is not complete when {producer.block.name} runs"
            )


def _producer_store(stage: Stage, producer: BlockRealize) -> BufferStore:
    name, block = producer.block.name, producer.block
    if block.init is not None or any(axis.kind != "spatial" for axis in block.iter_vars):
        stage.refuse(f"its producer {name} is a reduction: an element is not final in the store that would change")
    reason = why_not_complete(stage.func, producer) or images.why_not_one_to_one(block)
    loops = loops_above(stage.func, producer)
    known = analyzer_of(stage.func, ancestors(stage.func, producer))
    reason = reason or images.why_not_covering(producer, loops, known)
    if reason is None and (not isinstance(block.body, BufferStore) or block.alloc_buffers or block.match_buffers):
        reason = "its body is not a single store"
    if reason is None and axis_conditions(producer, loops, known) != []:
        reason = "its predicate leaves instances out"
    if reason is not None or not isinstance(block.body, BufferStore):
        stage.refuse(f"its producer {name} cannot take it: {reason}")
    stage.require_always_run(producer)
    return block.body


def _one_element(stage: Stage, store: BufferStore, buffer: Buffer) -> tuple[Expr, ...]:
    """The one index at which the block reads ``buffer``."""
    loads = [n for e in (store.value, *store.indices) for n in walk(e) if isinstance(n, BufferLoad)]
    found = {key(n.indices): n.indices for n in loads if n.buffer is buffer}
    if len(found) != 1:
        stage.refuse(f"it reads {len(found)} elements of {buffer.name} an instance, not one")
    if any(n.buffer is buffer for i in store.indices for n in walk(i) if isinstance(n, BufferLoad)):
        stage.refuse(f"an element of {buffer.name} chooses where it stores")
    return next(iter(found.values()))


def _guard(
    stage: Stage, producer: BlockRealize, read: Sequence[Expr], solved: dict[Var, Expr], made: BufferStore
) -> list[Expr]:
    """Conditions under which the block reads an instance of the producer; refuses where it reads others besides."""
    known = analyzer_of(stage.func, [*ancestors(stage.func, stage.scope), stage.scope])
    axes = producer.block.iter_vars
    if not images.is_full_image(made.indices, {a.var: a.dom.extent for a in axes}):
        stage.refuse(f"the elements that {producer.block.name} stores are not a box")
    stored = tuple(relax(index, {a.var: domain(a) for a in axes}, known) for index in made.indices)
    wanted = tuple(relax(index, {a.var: domain(a) for a in stage.axes}, known) for index in read)
    if None in wanted or not holds_box(stored, wanted, made.buffer, known):
        stage.refuse(f"it may read elements of {made.buffer.name} that {producer.block.name} does not store")
    values = {a.var: value for a, value in zip(axes, producer.iter_values)}
    guards: list[Expr] = [substitute(c, solved) for c in stage.conditions]
    with known.scope():
        for axis in axes:
            known.bind_loop(axis.var, axis.dom.min, axis.dom.extent)
        for axis in stage.axes:
            guards += _inside(axis, solved[axis.var])
        for index, element in zip(read, made.indices):
            back = tidy(substitute(index, solved))
            if key(back) != key(tidy(element)):
                guards.append(ops.compare("eq", element, ops.cast(back, element.dtype)))
        guards = [g for g in guards if not known.prove(g)]
    return [substitute(g, values) for g in guards]


def _inside(axis: IterVar, value: Expr) -> list[Expr]:
    span: Span = domain(axis)
    return [ops.compare("ge", value, span.low), ops.compare("lt", value, tidy(ops.add(span.high, 1)))]


def _replaced(value: Expr, buffer: Buffer, by: Expr) -> Expr:
    class Replace(Mutator):
        def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
            return by if node.buffer is buffer else self.mutate_children(node)

    return Replace().mutate(value)


class _RenameLets(Mutator):
    def mutate_Let(self, node: Let) -> Expr:
        var = Var(node.var.name, node.var.dtype)
        return Let(var, self.mutate(node.value), self.mutate(substitute(node.body, {node.var: var})))


def _renamed(value: Expr) -> Expr:
    """``value`` with Vars of its own in its lets, so that it may stand in several places."""
    return _RenameLets().mutate(value)
