"""Rule for maps: each element of the result from elements of the operands, broadcast, cast, gathered or shifted.

Chains of maps become one: what one computes is put where the next one reads it. Then the elements run in vectors along
the last axis, and outer axes, or parts of a long one, are shared among threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.nests import UNKNOWN_EXTENT, Nest, nest_of, temporaries
from compiler_service.schedules.vectors import is_worth_threads, parallelize, should_stream, vectorize_map
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Var
from crossfarm.ir.stmt import BufferStore
from crossfarm.ir.visitor import Node, children, walk

if TYPE_CHECKING:
    pass

#: A chain ends where its result would be computed more often than so many times the number of its elements.
_CHEAP_WORK = 4
#: How many parts each thread gets of one long axis: so many that threads that wait for one another are short of one.
_PARTS_PER_THREAD = 4
_USUAL_THREADS = 8
#: Rows of fewer vectors than this are one flat range, where that is possible.
_SHORT = 8


@dataclass(frozen=True)
class Elementwise:
    """Vectors along the last axis, threads along the others."""

    name: ClassVar[str] = "elementwise"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        reason = _refusal(nest)
        if reason:
            return Refusal(reason)
        chain = _chain(site, nest)
        what = "a map" if len(chain) == 1 else f"{len(chain)} maps in one pass"
        flat = " of one flat range" if _is_flat(chain[-1]) else ""
        return Fit(tuple(n.name for n in chain), f"{what}{flat}; vectors along the last axis")

    def apply(self, site: Site, fit: Fit) -> None:
        sch, cpu = site.schedule, site.cpu
        for name in fit.blocks[:-1]:
            sch.compute_inline(sch.get_block(name, site.function))
        nest = nest_of(site.func, fit.blocks[-1])
        assert isinstance(nest, Nest), nest
        block = sch.get_block(nest.name, site.function)
        axes = nest.block.iter_vars
        if not axes:
            return
        loops = {ref.var: ref for ref in sch.get_loops(block)}
        ordered = [loops[loop.var] for loop in nest.loops]
        if list(sch.get_loops(block)) != ordered:
            sch.reorder(*ordered)
        lanes = cpu.lanes(_narrowest(nest))
        stream = should_stream(cpu, tuple(s.buffer for s in nest.stores))
        extents = [a.dom.extent for a in axes]
        work = nest.instances() * nest.work
        if len(axes) > 1 and _is_flat(nest) and nest.instances(axes[-1:]) < _SHORT * lanes:
            ordered, extents = [sch.fuse(*ordered)], [IntImm(nest.instances(), "int64")]
        rows = math.prod(_count(e) for e in extents[:-1])
        last = const_int(extents[-1])
        wanted = (cpu.threads or _USUAL_THREADS) * _PARTS_PER_THREAD
        if last is not None and rows < wanted and is_worth_threads(cpu, work):
            parts = _parts(last, lanes, -(-wanted // rows))
            if parts > 1:
                part, rest = sch.split(ordered[-1], [parts, None])
                ordered[-1:] = [part, rest]
                extents[-1:] = [IntImm(parts, "int64"), IntImm(last // parts, "int64")]
        vectorize_map(sch, ordered[-1], extents[-1], lanes, stream=stream)
        if len(ordered) > 1:
            each = _count(extents[-1]) * nest.work
            parallelize(sch, cpu, tuple(ordered[:-1]), tuple(extents[:-1]), each)


def _refusal(nest: Nest) -> str:
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


def _chain(site: Site, nest: Nest) -> tuple[Nest, ...]:
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
        if isinstance(following, str) or _refusal(following):
            return tuple(chain)
        uses = sum(1 for load in following.loads if load.buffer is last.stores[0].buffer)
        if uses * following.instances() > last.instances() and last.work > _CHEAP_WORK:
            return tuple(chain)
        chain.append(following)


def _is_flat(nest: Nest) -> bool:
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


def _count(extent: Expr) -> int:
    known = const_int(extent)
    return UNKNOWN_EXTENT if known is None else known


def _parts(total: int, lanes: int, wanted: int) -> int:
    """A number of equal parts of whole vectors, near what is wanted; 1 where there is none."""
    for parts in range(wanted, 1, -1):
        if total % (parts * lanes) == 0:
            return parts
    return next((p for p in range(2, wanted) if total % p == 0), 1)


def _narrowest(nest: Nest) -> str:
    """Of the dtypes in the block, the widest: vectors of all fit registers."""
    return max((a.buffer.dtype for a in (*nest.stores, *nest.loads)), key=dt.itemsize)
