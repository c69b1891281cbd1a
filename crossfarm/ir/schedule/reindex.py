"""``reindex``: a block's access of a buffer goes through a copy that is indexed by the block's own axes."""

from __future__ import annotations

from dataclasses import replace

from crossfarm.ir import ops
from crossfarm.ir.arith import const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule.copied_regions import region_argument, views_of, why_not_all_instances
from crossfarm.ir.schedule.dependencies import buffers_read, buffers_written, scope_blocks
from crossfarm.ir.schedule.index_arith import analyzer_of, in_bounds
from crossfarm.ir.schedule.iter_map import IterMap
from crossfarm.ir.schedule.nests import (
    Place,
    insert,
    place_after,
    place_before,
    point,
    refuse_bare_access,
    refuse_taken_address,
    store_nest,
)
from crossfarm.ir.schedule.tree import children_of, find_block, parent_block, refuse, statements, unique_name
from crossfarm.ir.stmt import BlockRealize, BufferStore, IterVar, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, substitute, walk

PRIMITIVE = "reindex"


def reindex(func: PrimFunc, block: str, buffer: tuple[str, int]) -> tuple[PrimFunc, str]:
    """The block accesses a copy indexed by those of its axes that the access uses; the name of the block that copies.

    ``A[n, h * 2 + r, w * 2 + s]`` becomes ``A_reindex[n, h, w, r, s]``: the copy of an im2col. An element that an axis
    may take out of the buffer, which the block then does not use, is 0 in the copy.

    Args:
        buffer: ``("read" | "write", i)``: the ``i``-th read or write of the block.

    Raises:
        ScheduleError: the block accesses the buffer at several indices or through something other than its axes; for a
            write also: two instances write one element, or some instances may not run.
    """
    kind, index = buffer
    if kind not in ("read", "write"):
        refuse(PRIMITIVE, f"a buffer is ('read', i) or ('write', i), not {kind!r}")
    realize = find_block(func, block, PRIMITIVE)
    old = region_argument(realize, kind, index, PRIMITIVE).buffer
    scope = parent_block(func, realize, PRIMITIVE)
    refuse_taken_address(func, old, PRIMITIVE)
    refuse_bare_access(scope, old, PRIMITIVE)
    if any(isinstance(s, BlockRealize) and s is not realize for s in statements(realize)) or views_of(func, old):
        refuse(PRIMITIVE, f"block {block} has blocks or views inside", at=realize)
    indices = _one_access(realize, old)
    axes = _axes_of(realize, indices)
    siblings = scope_blocks(func, scope)
    if kind == "read":
        writers = [b for b in siblings if old in buffers_written(b)]
        if realize in writers:
            refuse(PRIMITIVE, f"block {block} writes {old.name} too", at=realize, hint="reindex the write")
        place = place_before(func, scope, [realize], writers, PRIMITIVE, old)
    else:
        _check_write(func, realize, old, indices, axes)
        readers = [b for b in siblings if b is not realize and old in buffers_read(b)]
        place = place_after(scope, realize, readers, PRIMITIVE, old)
    _check_outermost(scope, place, realize, old)
    shape = tuple(a.dom.extent for a in axes)
    new = Buffer(unique_name(func, f"{old.name}_reindex"), shape, old.dtype, scope=old.scope)
    name = unique_name(func, new.name)
    nest = _copy_in(func, name, old, new, axes, indices) if kind == "read" else _copy_out(name, old, new, axes, indices)
    changed = _reindexed(realize, old, new, axes)
    return (
        insert(func, scope, place, nest, before=kind == "read", rewritten={realize: changed}, allocated=(new,)),
        name,
    )


def _one_access(realize: BlockRealize, buffer: Buffer) -> tuple[Expr, ...]:
    """The indices at which the block accesses the buffer, the same everywhere."""
    found = {
        tuple(structural_key(i) for i in n.indices): n.indices
        for part in children_of(realize.block)
        for n in walk(part)
        if isinstance(n, BufferLoad | BufferStore) and n.buffer is buffer
    }
    if len(found) != 1:
        refuse(
            PRIMITIVE,
            f"block {realize.block.name} accesses {buffer.name} at {len(found)} different indices, not one",
            at=realize,
        )
    return next(iter(found.values()))


def _axes_of(realize: BlockRealize, indices: tuple[Expr, ...]) -> tuple[IterVar, ...]:
    """The axes that occur in ``indices``, in the block's order."""
    used = {n for i in indices for n in walk(i) if isinstance(n, Var)}
    axes = tuple(a for a in realize.block.iter_vars if a.var in used)
    inner = used.intersection(_bound_inside(realize))
    if inner or any(isinstance(n, BufferLoad) for i in indices for n in walk(i)):
        refuse(PRIMITIVE, f"an index in block {realize.block.name} is not made of its axes alone", at=realize)
    return axes


def _bound_inside(realize: BlockRealize) -> set[Var]:
    return {s.var for s in statements(realize.block) if hasattr(s, "var") and isinstance(s.var, Var)}


def _check_write(
    func: PrimFunc, realize: BlockRealize, buffer: Buffer, indices: tuple[Expr, ...], axes: tuple[IterVar, ...]
) -> None:
    name = realize.block.name
    scope = parent_block(func, realize, PRIMITIVE)
    other = next((b for b in scope_blocks(func, scope) if b is not realize and buffer in buffers_written(b)), None)
    if other is not None:
        refuse(PRIMITIVE, f"block {other.block.name} writes {buffer.name} too", at=other)
    if realize.block.init is None and buffer in buffers_read(realize):
        refuse(PRIMITIVE, f"block {name} reads what {buffer.name} held before it", at=realize)
    spatial = {a.var for a in realize.block.iter_vars if a.kind == "spatial"}
    if {a.var for a in axes} != spatial and any(
        const_int(a.dom.extent) != 1
        for a in realize.block.iter_vars
        if a.var in spatial.difference(x.var for x in axes)
    ):
        refuse(PRIMITIVE, f"a spatial axis of block {name} does not choose the element of {buffer.name}", at=realize)
    if any(a.kind != "spatial" for a in axes):
        refuse(PRIMITIVE, f"an axis that is not spatial chooses the element of {buffer.name}", at=realize)
    starts = {a.var: ops.add(a.var, a.dom.min) for a in axes if const_int(a.dom.min) != 0}
    problem = IterMap({a.var: a.dom.extent for a in axes}).injective([substitute(i, starts) for i in indices])
    if problem is not None:
        refuse(PRIMITIVE, f"two instances of block {name} may write one element: {problem}", at=realize)
    reason = why_not_all_instances(func, realize, [a.var for a in axes])
    if reason is not None:
        refuse(PRIMITIVE, f"the loops may not run all instances of block {name}: {reason}", at=realize)
    body = realize.block.body
    certain = body.stmts if isinstance(body, SeqStmt) else (body,)
    if not any(isinstance(s, BufferStore) and s.buffer is buffer for s in certain):
        refuse(PRIMITIVE, f"block {name} may leave its element of {buffer.name} unwritten", at=realize)


def _check_outermost(scope: BlockRealize, place: Place, realize: BlockRealize, buffer: Buffer) -> None:
    """The copy holds what all instances use, so that it is made outside of all loops."""
    body = scope.block.body
    outermost = body.stmts if isinstance(body, SeqStmt) else (body,)
    if place.anchor not in outermost:
        refuse(
            PRIMITIVE,
            f"block {realize.block.name} shares a loop with another block that uses {buffer.name}",
            at=realize,
            hint="reindex before compute_at",
        )


def _copy_in(
    func: PrimFunc, name: str, old: Buffer, new: Buffer, axes: tuple[IterVar, ...], indices: tuple[Expr, ...]
) -> Stmt:
    def store(v: tuple[Var, ...]) -> BufferStore:
        at = tuple(substitute(i, _values(axes, v)) for i in indices)
        known = analyzer_of(func, least_size=1)
        for axis, var in zip(axes, v):
            known.bind_loop(var, ops.const(0, var.dtype), axis.dom.extent)
        outside = in_bounds(at, old.shape, known)
        value: Expr = BufferLoad(old, at)
        if outside is not None:
            value = ops.if_then_else(outside, value, ops.const(0, old.dtype))
        return BufferStore(new, value, v)

    return store_nest(name, new.shape, store, axis_names=[a.var.name for a in axes])


def _copy_out(name: str, old: Buffer, new: Buffer, axes: tuple[IterVar, ...], indices: tuple[Expr, ...]) -> Stmt:
    def store(v: tuple[Var, ...]) -> BufferStore:
        at = tuple(substitute(i, _values(axes, v)) for i in indices)
        return BufferStore(old, BufferLoad(new, v), at)

    return store_nest(name, new.shape, store, axis_names=[a.var.name for a in axes])


def _values(axes: tuple[IterVar, ...], at: tuple[Var, ...]) -> dict[Var, Expr]:
    """The axes' values for indices of the copy, which start at 0."""
    return {a.var: v if const_int(a.dom.min) == 0 else ops.add(v, a.dom.min) for a, v in zip(axes, at)}


def _reindexed(realize: BlockRealize, old: Buffer, new: Buffer, axes: tuple[IterVar, ...]) -> BlockRealize:
    """The block with each access of ``old`` one of ``new`` at its axes, and its regions inferred anew."""
    at = tuple(a.var if const_int(a.dom.min) == 0 else ops.sub(a.var, a.dom.min) for a in axes)
    change = _Access(old, new, at)
    block = realize.block
    body = change.mutate(block.body)
    init = None if block.init is None else change.mutate(block.init)
    element = point(new, at)
    return replace(
        realize,
        block=replace(
            block,
            body=body,
            init=init,
            # a region may be where an element of the buffer says
            reads=tuple(element if r.buffer is old else change.mutate(r) for r in block.reads),
            writes=tuple(element if w.buffer is old else change.mutate(w) for w in block.writes),
        ),
    )


class _Access(Mutator):
    """Takes each access of ``old`` to ``new`` at ``indices``."""

    def __init__(self, old: Buffer, new: Buffer, indices: tuple[Expr, ...]) -> None:
        self.old = old
        self.new = new
        self.indices = indices

    def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
        return BufferLoad(self.new, self.indices) if node.buffer is self.old else self.mutate_children(node)

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        node = self.mutate_children(node)
        return BufferStore(self.new, node.value, self.indices) if node.buffer is self.old else node
