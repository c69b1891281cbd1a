"""Recognizes maps, and chains of them: each element of the result from elements of the operands."""

from __future__ import annotations

from compiler_service.schedules.base import Site
from compiler_service.schedules.nests import Access, Nest, nest_of, temporaries
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, Var
from crossfarm.ir.stmt import BufferStore, IterVar
from crossfarm.ir.visitor import Node, children, walk

#: A chain ends where its result would be computed more often than so many times the number of its elements.
_CHEAP_WORK = 4


def map_refusal(nest: Nest) -> str:
    """Why it is no map, or ``""``."""
    if nest.reduced:
        return "it reduces"
    if nest.block.init is not None:
        return "it has an initial value"
    if len({s.buffer for s in nest.stores}) != len(nest.stores):
        return "it stores one tensor twice"
    stored = {s.buffer for s in nest.stores}
    if any(load.buffer in stored for load in nest.loads):
        return "it reads what it stores"
    spatial = [a.var for a in nest.spatial]
    for store in nest.stores:
        if [i for i in store.indices if const_int(i) is None] != spatial:
            return "its axes are not the dimensions of its result, in order"
    return ""


def chain_from(site: Site, nest: Nest) -> tuple[Nest, ...]:
    """The map and those after it that it can be put into, one after another."""
    chain = [nest]
    own = temporaries(site.func)
    while True:
        last = chain[-1]
        if len(last.stores) != 1 or last.stores[0].buffer not in own:
            return tuple(chain)
        sch = site.schedule
        consumers = sch.get_consumers(sch.get_block(last.name, site.function))
        if len(consumers) != 1 or consumers[0].name not in site.open_blocks:
            return tuple(chain)
        following = nest_of(site.func, consumers[0].name)
        if isinstance(following, str) or map_refusal(following):
            return tuple(chain)
        uses = sum(1 for load in following.loads if load.buffer is last.stores[0].buffer)
        if uses * following.instances() > last.instances() and last.work > _CHEAP_WORK:
            return tuple(chain)
        chain.append(following)


def is_flat(nest: Nest) -> bool:
    """Whether it reads what is at the same place as what it stores, or one element for all."""
    axes = tuple(a.var for a in nest.spatial)
    shapes = {tuple(map(const_int, s.buffer.shape)) for s in nest.stores}
    if len(shapes) != 1 or None in (shape := shapes.pop()):
        return False

    def same_place(indices: tuple[object, ...]) -> bool:
        return len(indices) == len(axes) and all(i is a for i, a in zip(indices, axes))

    for store in nest.stores:
        if not same_place(store.indices) or store.buffer.strides:
            return False
    for load in nest.loads:
        used = any(a in _variables(i) for i in load.indices for a in axes)
        plain = same_place(load.indices) and not load.buffer.strides
        if used and not (plain and tuple(map(const_int, load.buffer.shape)) == shape):
            return False
    # an axis used as a number would have to be computed from the one index
    return not _counts(nest.block.body, frozenset(axes))


def _counts(node: Node, axes: frozenset[Var]) -> bool:
    """Whether an axis is used otherwise than to index."""
    stack: list[Node | Buffer] = [node]
    while stack:
        current = stack.pop()
        if current in axes:
            return True
        if isinstance(current, BufferStore):
            stack.append(current.value)
        elif not isinstance(current, (BufferLoad, Buffer)):
            stack.extend(children(current))
    return False


def _variables(index: object) -> set[object]:
    assert isinstance(index, Expr)
    return set(walk(index))


def widest(nest: Nest) -> str:
    """Of the dtypes in the block, the widest: vectors of all fit registers."""
    return max((a.buffer.dtype for a in (*nest.stores, *nest.loads)), key=dt.itemsize)


def transposed_axes(nest: Nest) -> tuple[Access, IterVar] | str:
    """What is read across the grain, and the axis along which it is contiguous."""
    if nest.reduced or nest.block.init is not None:
        return "it reduces"
    spatial = [a.var for a in nest.spatial]
    if len(spatial) < 2 or len(nest.stores) != 1 or len(nest.loads) != 1:
        return "it is not one result of one operand with two axes"
    (store,), (load,) = nest.stores, nest.loads
    if [i for i in store.indices if const_int(i) is None] != spatial:
        return "its axes are not the dimensions of its result, in order"
    if load.buffer.dtype != store.buffer.dtype:
        return "it reads another dtype than it writes"
    along = [a for a in nest.spatial if load.step(a.var) == 1]
    last = load.step(spatial[-1])
    if not along or along[-1].var is spatial[-1] or last in (0, 1, None):
        return "it reads along the axis that it writes along, or along none"
    used = [i for i in load.indices if const_int(i) is None]
    if sorted(map(id, used)) != sorted(map(id, spatial)):
        return "it does not read each element once"
    return load, along[-1]
