"""The blocks that pad a convolution's data, and copies in general: elementwise work that only has to be spread."""

from __future__ import annotations

from compiler_service.schedules.base import Site
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.schedule.dependencies import is_complete_block, producers
from crossfarm.ir.schedule.references import BlockRef
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.tree import find_block, find_loop
from crossfarm.ir.stmt import BufferStore

#: Iterations below which a loop is not worth starting threads for.
_FEWEST_ITERATIONS = 1 << 12


def padding_before(site: Site, data: Buffer) -> tuple[str, ...]:
    """The name of the open block that makes ``data`` for the site's block, element by element; () for none."""
    func = site.func
    for before in producers(func, find_block(func, site.block)):
        made = before.block.writes[0].buffer if len(before.block.writes) == 1 else None
        single = isinstance(before.block.body, BufferStore) and is_complete_block(func, before)
        if made is data and single and before.block.name in site.open_blocks:
            return (before.block.name,)
    return ()


def parallel_copy(sch: Schedule, block: BlockRef) -> None:
    """Spreads the outer loops of an elementwise block over threads, down to the last two, which stay for vectors."""
    loops = sch.get_loops(block)
    outer = loops[:-2] if len(loops) > 2 else loops[:-1]
    func = sch.module[block.func]
    extents = [const_int(find_loop(func, loop.var).extent) for loop in loops]
    count = 1
    for extent in extents:
        count *= extent or _FEWEST_ITERATIONS
    if outer and count >= _FEWEST_ITERATIONS:
        sch.parallel(sch.fuse(*outer) if len(outer) > 1 else outer[0])
