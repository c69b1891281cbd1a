"""Rule for what no other fits: the loops stay as they are written, the outermost shared among threads.

LLVM vectorizes the inner loops as well as it can, and no order of operations changes: it is never slower than the
plain loops, where a loop is only shared that is worth it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.cpu.vectors import is_worth_threads
from compiler_service.schedules.nests import Nest, nest_of
from crossfarm.ir.arith import const_int
from crossfarm.ir.stmt import For

#: Outer loops are joined until they have so many iterations together.
_ENOUGH = 64


@dataclass(frozen=True)
class Fallback:
    """Threads along the outermost loops whose iterations are independent."""

    name: ClassVar[str] = "fallback"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        loops = _shared(nest)
        if not loops:
            return Refusal("its outermost loop reduces, or its size is known only at the call")
        if not is_worth_threads(site.cpu, nest.instances() * nest.work):
            return Refusal("it is too little work to share")
        return Fit((nest.name,), f"loops as written, the outermost {len(loops)} over threads")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        nest = nest_of(site.func, fit.blocks[0])
        assert isinstance(nest, Nest), nest
        refs = {ref.var: ref for ref in sch.get_loops(sch.get_block(nest.name, site.function))}
        loops = [refs[loop.var] for loop in _shared(nest)]
        sch.parallel(loops[0] if len(loops) == 1 else sch.fuse(*loops))


def _shared(nest: Nest) -> list[For]:
    """The outermost loops over spatial axes of constant extent, as few as make enough iterations."""
    spatial = {loop.var for loop, axis in zip(nest.loops, nest.block.iter_vars) if axis.kind == "spatial"}
    found: list[For] = []
    total = 1
    for loop in nest.outer:
        extent = const_int(loop.extent)
        if loop.var not in spatial or extent is None or total >= _ENOUGH:
            break
        found.append(loop)
        total *= extent
    return found if total > 1 else []
