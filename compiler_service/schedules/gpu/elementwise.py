"""Rule for maps: each element of the result from elements of the operands, broadcast, cast, gathered or shifted.

Chains of maps become one: what one computes is put where the next one reads it. Neighbouring threads have neighbouring
elements; where all rows begin at a multiple of it, a thread has several, which it loads and stores at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.gpu.groups import bind_flat, fused, loops_in_order, product_of, usual_group
from compiler_service.schedules.maps import chain_from, map_refusal
from compiler_service.schedules.nests import Access, Nest, nest_of
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var

#: Most elements, and most bytes of one tensor, that a thread loads at once.
_MOST_LANES, _MOST_BYTES = 4, 16


@dataclass(frozen=True)
class Elementwise:
    """One thread for each element of the result, or for a few."""

    name: ClassVar[str] = "elementwise"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        reason = map_refusal(nest)
        if reason:
            return Refusal(reason)
        if not nest.spatial:
            return Refusal("it has one element")
        chain = chain_from(site, nest)
        what = "a map" if len(chain) == 1 else f"{len(chain)} maps in one pass"
        lanes = _lanes(site, chain[-1])
        return Fit(tuple(n.name for n in chain), f"{what}; a thread for {f'{lanes} elements' if lanes > 1 else 'each'}")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        for name in fit.blocks[:-1]:
            sch.compute_inline(sch.get_block(name, site.function))
        nest = nest_of(site.func, fit.blocks[-1])
        assert isinstance(nest, Nest), nest
        lanes = _lanes(site, nest)
        loops, _ = loops_in_order(sch, nest)
        if lanes > 1:
            loops[-1], lane = sch.split(loops[-1], [None, lanes])
        total = product_of([a.dom.extent for a in nest.spatial])
        count = None if total is None else total // lanes
        bind_flat(sch, fused(sch, loops), count, usual_group(site.gpu, count))
        if lanes > 1:
            sch.vectorize(lane)


def _lanes(site: Site, nest: Nest) -> int:
    """Elements that a thread loads and stores at once: 1 where rows are not made of as many, or there are few."""
    last = nest.spatial[-1]
    length, total = const_int(last.dom.extent), product_of([a.dom.extent for a in nest.spatial[:-1]])
    width = max(dt.itemsize(a.buffer.dtype) for a in (*nest.stores, *nest.loads))
    lanes = min(_MOST_LANES, _MOST_BYTES // width)
    if any(a.buffer.dtype == "bool" for a in (*nest.stores, *nest.loads)):
        return 1
    while lanes > 1:
        whole = length is not None and length % lanes == 0
        many = total is None or (length or 0) * total >= lanes * site.gpu.units * site.gpu.warp * 4
        if whole and many and all(_is_along(a, last.var, lanes) for a in (*nest.stores, *nest.loads)):
            return lanes
        lanes //= 2
    return 1


def _is_along(access: Access, axis: Var, lanes: int) -> bool:
    """Whether the elements of ``lanes`` steps along the axis are one, or follow one another from a multiple of it."""
    if access.step(axis) == 0:
        return True
    length = const_int(access.buffer.shape[-1]) if access.buffer.shape else None
    plain = not access.buffer.strides and access.buffer.elem_offset is None
    return plain and access.step(axis) == 1 and access.indices[-1] is axis and (length or 1) % lanes == 0
