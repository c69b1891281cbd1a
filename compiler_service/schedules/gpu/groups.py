"""The steps that rules for GPUs share: loops become groups of threads, results are kept in registers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compiler_service.schedules.machines import Gpu
from compiler_service.schedules.nests import Nest
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Expr
from crossfarm.ir.schedule.tree import find_block, find_loop

if TYPE_CHECKING:
    from crossfarm.ir.schedule.references import BlockRef, LoopRef
    from crossfarm.ir.schedule.schedule import Schedule

#: Threads of a group where nothing else says how many: enough for any GPU to hide a load behind, few enough for all.
USUAL_GROUP = 256
#: Iterations of a loop that are written out at most.
_WRITTEN_OUT = 32
#: Groups that every device can start along y or z; along x any number, in parts where it has to be.
MOST_GROUPS = 65535


def loops_in_order(sch: Schedule, nest: Nest) -> tuple[list[LoopRef], list[LoopRef]]:
    """The loops over spatial and over reduced axes of a block under plain loops, put in that order."""
    block = sch.get_block(nest.name, next(iter(sch.module.functions)))
    by_var = {ref.var: ref for ref in sch.get_loops(block)}
    pairs = list(zip(nest.block.iter_vars, (by_var[loop.var] for loop in nest.loops)))
    spatial = [loop for axis, loop in pairs if axis.kind == "spatial"]
    reduced = [loop for axis, loop in pairs if axis.kind != "spatial"]
    if [*spatial, *reduced] != list(sch.get_loops(block)):
        sch.reorder(*spatial, *reduced)
    return spatial, reduced


def fused(sch: Schedule, loops: Sequence[LoopRef]) -> LoopRef:
    """Directly nested loops as one."""
    return loops[0] if len(loops) == 1 else sch.fuse(*loops)


def keep_results(sch: Schedule, block: BlockRef, loop: LoopRef, first: LoopRef) -> None:
    """A reduction's results are registers of the thread that runs ``loop``, and are stored when they are final.

    Args:
        loop: the innermost around the block that does not reduce.
        first: the outermost that does.
    """
    for number in range(len(find_block(sch.module.prim_func(block.func), block.name).block.writes)):
        sch.reverse_compute_at(sch.cache_write(block, number, "local"), loop)
    sch.decompose_reduction(block, first)


def bind_flat(sch: Schedule, loop: LoopRef, extent: int | None, threads: int) -> LoopRef:
    """One thread for each iteration of a loop; the loop over a group's threads.

    Args:
        extent: the loop's; None where only the call knows it.
        threads: of a group at most.
    """
    if extent is not None:
        threads = min(threads, 1 << max(extent - 1, 0).bit_length())
    groups, thread = sch.split(loop, [None, threads])
    sch.bind(groups, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread


def product_of(extents: Sequence[Expr]) -> int | None:
    """How many iterations loops of these extents have together; None where only the call knows it."""
    counts = [const_int(e) for e in extents]
    return None if None in counts else math.prod(c or 0 for c in counts)


def usual_group(gpu: Gpu, instances: int | None) -> int:
    """Threads of a group for so many that do not work together: fewer where there would be too few groups."""
    wanted = USUAL_GROUP
    while instances is not None and wanted > 2 * gpu.warp and instances < wanted * gpu.units * 2:
        wanted //= 2
    return gpu.group(wanted)


def write_out(sch: Schedule, func: str, loops: Sequence[LoopRef]) -> None:
    """Short loops are written out: loads of several steps are under way at once, and on a CPU the threads of a group
    become lanes of vectors only where no loop is left in them."""
    for loop in loops:
        extent = const_int(find_loop(sch.module.prim_func(func), loop.var).extent)
        if extent is not None and extent <= _WRITTEN_OUT:
            sch.unroll(loop)
