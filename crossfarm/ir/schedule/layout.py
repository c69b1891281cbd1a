"""Layouts: ``transform_layout`` moves a temporary's elements, ``transform_block_layout`` a block's instances."""

from __future__ import annotations

from dataclasses import replace

from crossfarm.errors import InvalidModule, ScheduleError
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer, const_int
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import BufferLoad, Expr, Not, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import whole
from crossfarm.ir.schedule.copied_regions import region_argument, relaxed, views_of, why_not_all_instances
from crossfarm.ir.schedule.dependencies import require_complete_or_reduction, same_size
from crossfarm.ir.schedule.index_arith import analyzer_of, fold
from crossfarm.ir.schedule.index_map import IndexMap, Inverse
from crossfarm.ir.schedule.nests import (
    TRUE,
    only_serial_nest,
    point,
    refuse_taken_address,
    store_nest,
)
from crossfarm.ir.schedule.tree import (
    children_of,
    find_block,
    refuse,
    replace_stmt,
    statements,
    unique_name,
)
from crossfarm.ir.stmt import Allocate, Block, BlockRealize, BufferStore, For, IterVar, Stmt
from crossfarm.ir.visitor import Mutator, seq, substitute, walk

PRIMITIVE = "transform_layout"


def transform_layout(
    func: PrimFunc,
    block: str,
    buffer: tuple[str, int],
    index_map: IndexMap,
    pad_value: bool | int | float | None = None,
) -> tuple[PrimFunc, None]:
    """Stores the elements of a temporary at other indices, in all of the function.

    Args:
        buffer: ``("read" | "write", i)``: the buffer of the block's ``i``-th read or write.
        index_map: of the old indices.
        pad_value: what elements of the new layout hold that have none in the old; None for anything. A producer that
            gives each element its own value in plain loops is rewritten to run over the new layout and writes the
            padding too; before others a block is put that writes the padding.

    Raises:
        ScheduleError: the buffer is a parameter or matched by views, the map takes two elements to one place, or an
            access is by a vector or address.
    """
    kind, index = buffer
    realize = find_block(func, block, PRIMITIVE)
    if kind not in ("read", "write"):
        refuse(PRIMITIVE, f"a buffer is ('read', i) or ('write', i), not {kind!r}")
    old = region_argument(realize, kind, index, PRIMITIVE).buffer
    _check_transformable(func, realize, old)
    try:
        index_map = IndexMap.of(index_map, len(old.shape))
        analyzer = analyzer_of(func, least_size=1)
        problem = index_map.why_not_injective(old.shape)
        if problem is not None:
            refuse(PRIMITIVE, f"{index_map} may take two elements of {old.name} to one place: {problem}", at=realize)
        shape = index_map.shape(old.shape, analyzer)
        new = replace(old, shape=shape, strides=(), elem_offset=None)
        if pad_value is not None:
            inverse = index_map.inverse(old.shape, analyzer)
            func = _padded(func, old, new, inverse, ops.const(pad_value, old.dtype))
    except InvalidModule as reason:
        refuse(PRIMITIVE, reason.message, hint=reason.hint)
    return replace(func, body=_Relayout(old, new, index_map, analyzer).mutate(func.body)), None


def transform_block_layout(func: PrimFunc, block: str, index_map: IndexMap) -> tuple[PrimFunc, None]:
    """Runs the instances of a block in another order: new loops, one for each output of the map, around it.

    Args:
        index_map: of the block's axes. Where it leaves gaps, the block has a predicate.

    Raises:
        ScheduleError: the block is not complete nor a reduction, its loops are not plain or do not run all of its
            axes' domains, or the map mixes spatial and reduce axes or takes two instances to one.
    """
    primitive = "transform_block_layout"
    realize = find_block(func, block, primitive)
    require_complete_or_reduction(func, realize, primitive)
    top = only_serial_nest(func, realize, primitive)
    reason = why_not_all_instances(func, realize)
    if reason is not None:
        refuse(primitive, f"the loops may not run all instances of block {block}: {reason}", at=realize)
    axes = realize.block.iter_vars
    analyzer = analyzer_of(func, least_size=1)
    extents = [a.dom.extent for a in axes]
    try:
        index_map = IndexMap.of(index_map, len(axes))
        inverse = index_map.inverse(extents, analyzer)
        shape = index_map.shape(extents, analyzer)
        starts = index_map.indices([ops.const(0, a.var.dtype) for a in axes])
    except InvalidModule as why:
        refuse(primitive, why.message, hint=why.hint, at=realize)
    if any(const_int(start) != 0 for start in starts):
        refuse(primitive, f"{index_map} does not take the first instance to 0", at=realize)
    kinds = [_kind(index_map, output, axes, realize) for output in index_map.outputs]
    new = [
        IterVar(Var(f"v{i}", e.dtype), Range(ops.const(0, e.dtype), e), k) for i, (e, k) in enumerate(zip(shape, kinds))
    ]
    loops = [Var(f"ax{i}", e.dtype) for i, e in enumerate(shape)]
    with analyzer.scope():
        for axis in new:
            analyzer.bind_loop(axis.var, axis.dom.min, axis.dom.extent)
        before, _ = inverse.at([a.var for a in new], analyzer)
        values = {a.var: fold(ops.add(v, a.dom.min), analyzer) for a, v in zip(axes, before)}
        moved = fold(substitute(replace(realize.block, iter_vars=()), values), analyzer)
    _, valid = inverse.at(loops)
    nest: Stmt = BlockRealize(tuple(loops), TRUE if valid is None else valid, replace(moved, iter_vars=tuple(new)))
    for var, extent in zip(reversed(loops), reversed(shape)):
        nest = For(var, ops.const(0, var.dtype), extent, nest)
    return replace_stmt(func, top, nest), None


def _check_transformable(func: PrimFunc, realize: BlockRealize, buffer: Buffer) -> None:
    if buffer in func.params:
        refuse(
            PRIMITIVE,
            f"{buffer.name} is a parameter: its layout is the caller's",
            at=realize,
            hint="use cache_read or cache_write first, and transform the layout of that copy",
        )
    if buffer.strides or buffer.elem_offset is not None:
        refuse(PRIMITIVE, f"{buffer.name} has strides or an offset of its own", at=realize)
    if any(buffer is m.buffer for s in statements(func.body) if isinstance(s, Block) for m in s.match_buffers):
        refuse(PRIMITIVE, f"{buffer.name} is a view: its layout is that of what it views", at=realize)
    view = next(iter(views_of(func, buffer)), None)
    if view is not None:
        reason = f"{view.name} is a view of {buffer.name}, which is a box of it only in this layout"
        refuse(PRIMITIVE, reason, at=realize)
    if any(isinstance(s, Allocate) and s.buffer is buffer for s in statements(func.body)):
        refuse(PRIMITIVE, f"{buffer.name} is allocated in lowered form", at=realize, hint="transform before lowering")
    refuse_taken_address(func, buffer, PRIMITIVE)
    uses = [n for n in walk(func.body) if isinstance(n, BufferLoad | BufferStore) and n.buffer is buffer]
    if any(dt.lanes_of(i.dtype) > 1 for n in uses for i in n.indices):
        refuse(PRIMITIVE, f"{buffer.name} is accessed by vectors, which the new layout may take apart", at=realize)


class _Relayout(Mutator):
    """Takes accesses and regions of ``old`` to ``new``, with what loops and axes are known to be for folding."""

    def __init__(self, old: Buffer, new: Buffer, index_map: IndexMap, analyzer: Analyzer) -> None:
        self.old = old
        self.new = new
        self.index_map = index_map
        self.analyzer = analyzer

    def mutate_buffer(self, buffer: Buffer) -> Buffer:
        return self.new if buffer is self.old else buffer

    def mutate_For(self, node: For) -> Stmt:
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, node.min, node.extent)
            return self.mutate_children(node)

    def mutate_Block(self, node: Block) -> Stmt:
        with self.analyzer.scope():
            for axis in node.iter_vars:
                self.analyzer.bind_loop(axis.var, axis.dom.min, axis.dom.extent)
            return self.mutate_children(node)

    def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
        indices = tuple(self.mutate(i) for i in node.indices)
        if node.buffer is self.old:
            return BufferLoad(self.new, self.index_map.indices(indices, self.analyzer))
        return node if all(a is b for a, b in zip(indices, node.indices)) else BufferLoad(node.buffer, indices)

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        value, indices = self.mutate(node.value), tuple(self.mutate(i) for i in node.indices)
        if node.buffer is self.old:
            return BufferStore(self.new, value, self.index_map.indices(indices, self.analyzer))
        same = value is node.value and all(a is b for a, b in zip(indices, node.indices))
        return node if same else BufferStore(node.buffer, value, indices)

    def mutate_BufferRegion(self, node: BufferRegion) -> BufferRegion:
        if node.buffer is not self.old:
            return self.mutate_children(node)
        box = [Range(self.mutate(r.min), self.mutate(r.extent)) for r in node.region]
        steps = [Var(f"r{i}", r.min.dtype) for i, r in enumerate(box)]
        loops = [For(v, ops.const(0, v.dtype), ops.cast(r.extent, v.dtype), seq()) for v, r in zip(steps, box)]
        inside = [r.min if const_int(r.extent) == 1 else ops.add(r.min, v) for v, r in zip(steps, box)]
        with self.analyzer.scope():
            for loop in loops:
                self.analyzer.bind_loop(loop.var, loop.min, loop.extent)
            element = point(self.new, self.index_map.indices(inside, self.analyzer))
        found = relaxed(element, [s for s, r in zip(loops, box) if const_int(r.extent) != 1])
        return BufferRegion(
            self.new, tuple(Range(fold(r.min, self.analyzer), fold(r.extent, self.analyzer)) for r in found.region)
        )


def _padded(func: PrimFunc, old: Buffer, new: Buffer, inverse: Inverse, pad: Expr) -> PrimFunc:
    """``func`` with the padding of ``new`` written: by the producer, where that copies, else by a block before it."""
    writers = [
        s
        for s in statements(func.body)
        if isinstance(s, BlockRealize) and any(isinstance(n, BufferStore) and n.buffer is old for n in _own(s.block))
    ]
    if len(writers) == 1 and _gives_each_element(func, writers[0], old):
        try:
            top = only_serial_nest(func, writers[0], PRIMITIVE)
        except ScheduleError:
            top = None
        if top is not None:
            return replace_stmt(func, top, _producer(func, writers[0], new, inverse, pad))
    if inverse.valid is None:
        return func
    owner = next(s for s in statements(func.body) if isinstance(s, Block) and old in s.alloc_buffers)
    name = unique_name(func, f"{old.name}_pad")

    def predicate(values: tuple[Expr, ...]) -> Expr:
        valid = inverse.at(values)[1]
        assert valid is not None
        return Not(valid)

    fill = store_nest(name, new.shape, lambda v: BufferStore(new, pad, v), predicate=predicate)
    return replace_stmt(func, owner.body, seq(fill, owner.body))


def _producer(func: PrimFunc, realize: BlockRealize, new: Buffer, inverse: Inverse, pad: Expr) -> Stmt:
    """The block that gives each element of the old layout its value, over the new one."""
    store = realize.block.body
    assert isinstance(store, BufferStore)
    axes = [i for i in store.indices if isinstance(i, Var)]

    def body(v: tuple[Var, ...]) -> BufferStore:
        analyzer = analyzer_of(func, domains=dict(zip(v, whole(new).region)), least_size=1)
        before, valid = inverse.at(v, analyzer)
        value = substitute(store.value, dict(zip(axes, before)))
        return BufferStore(new, value if valid is None else ops.if_then_else(valid, value, pad), v)

    return store_nest(
        realize.block.name,
        new.shape,
        body,
        annotations=realize.block.annotations,
    )


def _gives_each_element(func: PrimFunc, realize: BlockRealize, buffer: Buffer) -> bool:
    """True for ``buffer[v0, v1, …] = value`` with the block's axes, all of the buffer's elements, each once."""
    block = realize.block
    store = block.body
    if not isinstance(store, BufferStore) or block.init is not None or block.alloc_buffers or block.match_buffers:
        return False
    if any(r.buffer is buffer for r in block.reads) or any(
        isinstance(n, BufferLoad) and n.buffer is buffer for n in walk(store)
    ):
        return False
    by_var = {a.var: a for a in block.iter_vars if a.kind == "spatial"}
    if len(by_var) != len(block.iter_vars) or {*store.indices} != {*by_var} or len(store.indices) != len(by_var):
        return False
    domains = [by_var[i].dom for i in store.indices if isinstance(i, Var)]
    if not all(const_int(d.min) == 0 and same_size(d.extent, e) for d, e in zip(domains, buffer.shape)):
        return False
    return why_not_all_instances(func, realize) is None


def _kind(index_map: IndexMap, output: Expr, axes: tuple[IterVar, ...], realize: BlockRealize) -> str:
    used = {n for n in walk(output) if isinstance(n, Var)}
    kinds = {a.kind for v, a in zip(index_map.inputs, axes) if v in used}
    if len(kinds) > 1:
        refuse("transform_block_layout", f"{index_map} mixes {' and '.join(sorted(kinds))} axes", at=realize)
    return kinds.pop() if kinds else "spatial"


def _own(block: Block) -> list[object]:
    """The statements of a block but for those of blocks inside it."""
    found: list[object] = []
    stack = list(children_of(block))
    while stack:
        stmt = stack.pop()
        found.append(stmt)
        if not isinstance(stmt, BlockRealize):
            stack.extend(children_of(stmt))
    return found
