"""The steps that rules about loops over tensors share: vectors along an axis, threads along rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compiler_service.schedules.machines import Cpu
from compiler_service.schedules.nests import UNKNOWN_EXTENT, Nest
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.schedule.tree import find_block, find_loop

if TYPE_CHECKING:
    from crossfarm.ir.buffer import Buffer
    from crossfarm.ir.expr import Expr
    from crossfarm.ir.schedule.references import BlockRef, LoopRef
    from crossfarm.ir.schedule.schedule import Schedule
    from crossfarm.ir.stmt import BlockRealize

#: Iterations of a copy below which it is not worth starting threads for.
_FEWEST_ITERATIONS = 1 << 12
#: Simple operations that take a thread about as long as it takes to wake the others.
PARALLEL_WORK = 1 << 16
#: Level of the cache that is fetched into; what the first one has no room for stays in the second one.
FETCHED_INTO = 1
_USUAL_L3_BYTES = 16 << 20
#: Lanes of a part of a vector that every CPU adds at once: the last partial results are that many.
_QUARTER = 4
#: Longest vector that the pipeline makes of one loop.
_MOST_LANES = 64


def vectorize_map(
    sch: Schedule,
    loop: LoopRef,
    extent: Expr,
    lanes: int,
    *,
    stream: bool = False,
    ahead: Sequence[str] = (),
) -> None:
    """Vectors of ``lanes`` along an innermost loop whose iterations are independent.

    An extent that is no multiple stays a plain loop: LLVM vectorizes it, with the rest of fewer lanes after it.

    Args:
        stream: store around the caches.
        ahead: names of operands to fetch what the next turn of the loop around reads of.
    """
    count = const_int(extent)
    if count is None or lanes < 2:
        return
    if count % lanes == 0:
        if count > lanes:
            steps, loop = sch.split(loop, [None, lanes])
            if stream:
                sch.annotate(steps, "stream_stores", 1)
            if ahead:
                sch.annotate(steps, "fetch_next", dict.fromkeys(ahead, FETCHED_INTO))
        sch.vectorize(loop)
    elif count < lanes and count in (2, 4, 8, 16, 32):
        sch.vectorize(loop)


def row_lanes(extent: Expr, lanes: int) -> int:
    """Lanes of the vectors that a row which is no multiple of ``lanes`` is made of, a divisor of its length; 1: none.

    They fill registers but for a part of the last one: of 26 elements in 16 lanes two registers are made.
    """
    count = const_int(extent)
    if count is None or lanes < 2:
        return 1
    parts = [d for d in range(lanes // 2 + 1, min(4 * lanes, _MOST_LANES) + 1) if count % d == 0]
    return min(parts, key=lambda d: (-(-d // lanes) * lanes / d, d), default=1)


def should_stream(cpu: Cpu, results: tuple[Buffer, ...]) -> bool:
    """Whether results are so large that caching them would only push other things out of the caches.

    Only x86-64 gains by it: elsewhere CPUs see by themselves that whole lines are written.
    """
    limit = cpu.l3_bytes or _USUAL_L3_BYTES
    sizes = [math.prod(const_int(d) or 0 for d in b.shape) * dt.itemsize(b.dtype) for b in results]
    return cpu.arch == "x86_64" and sum(sizes) > limit // 2


def reduction_lanes(cpu: Cpu, dtype: str, extent: Expr) -> int:
    """How many partial results a reduction along an innermost axis keeps; 1 where it is too short to have several.

    Up to four vectors: each waits for its own last addition only. They are few enough to be added up at the end in
    less than a tenth of the time.
    """
    lanes = cpu.lanes(dtype)
    count = const_int(extent)
    if lanes < 2 or (count is not None and count < 2 * lanes):
        return 1
    total = lanes
    while total * 2 <= min(4 * lanes, _MOST_LANES) and (UNKNOWN_EXTENT * 4 if count is None else count) >= 32 * total:
        total *= 2
    return total


def reduce_in_lanes(sch: Schedule, block: BlockRef, outer: int, lanes: int, vector: int) -> None:
    """Splits a reduction along its innermost loop into partial ones, side by side in vectors, and their reduction.

    Args:
        outer: how many loops around the block do not reduce; they come first.
        lanes: partial results, a multiple of ``vector``: these are reduced to one vector first, that to part of one.
        vector: lanes of one vector.
    """
    rank = len(_realized(sch, block).block.writes[0].buffer.shape)
    _, lane = sch.split(sch.get_loops(block)[-1], [None, lanes])
    partial = sch.rfactor(lane, rank)
    around = sch.get_loops(block)[:outer]
    if around and sch.get_loops(partial)[outer - 1] != around[-1]:
        sch.compute_at(partial, around[-1])
    loops = sch.get_loops(partial)[outer:]
    lane = _loop_of_axis(sch, partial, rank, loops)
    steps = [loop for loop in loops if loop != lane]
    sch.reorder(*steps, lane)
    start = sch.decompose_reduction(partial, steps[0])
    sch.vectorize(lane)
    sch.vectorize(sch.get_loops(start)[-1])
    if lanes > vector:
        reduce_in_lanes(sch, block, outer, vector, vector)
    elif lanes > _QUARTER:
        reduce_in_lanes(sch, block, outer, _QUARTER, _QUARTER)


def _loop_of_axis(sch: Schedule, partial: BlockRef, rank: int, loops: Sequence[LoopRef]) -> LoopRef:
    """The loop over the lanes: that of the axis which indexes the last dimension of what ``rfactor`` made."""
    realize = _realized(sch, partial)
    axis = realize.block.writes[0].region[rank].min
    value = next(v for a, v in zip(realize.block.iter_vars, realize.iter_values) if a.var is axis)
    return next(loop for loop in loops if loop.var is value)


def _realized(sch: Schedule, block: BlockRef) -> BlockRealize:
    return find_block(sch.module.prim_func(block.func), block.name)


def is_worth_threads(cpu: Cpu, work: int) -> bool:
    """Whether that many simple operations are worth waking other threads for."""
    return cpu.threads != 1 and work >= 2 * PARALLEL_WORK


def total_work(nests: tuple[Nest, ...]) -> int:
    """Simple operations of all instances of all blocks."""
    return sum(n.instances() * n.work for n in nests)


def parallelize(sch: Schedule, cpu: Cpu, rows: tuple[LoopRef, ...], extents: tuple[Expr, ...], row_work: int) -> None:
    """Shares the iterations of adjacent outer loops among threads, where there is enough for them to do.

    Where sizes are known only at the call, iterations are handed out in groups that are worth a thread each: few of
    them are one group, which runs without waking anybody.
    """
    counts = [const_int(e) for e in extents]
    known = [c for c in counts if c is not None]
    if len(known) == len(counts):
        total = 1
        for c in known:
            total *= c
        if total < 2 or not is_worth_threads(cpu, total * row_work):
            return
        sch.parallel(rows[0] if len(rows) == 1 else sch.fuse(*rows))
        return
    loop = rows[0] if len(rows) == 1 else sch.fuse(*rows)
    group = -(-PARALLEL_WORK // max(row_work, 1))
    if group > 1:
        loop, _ = sch.split(loop, [None, group])
    sch.parallel(loop)


def parallel_copy(sch: Schedule, block: BlockRef) -> None:
    """Spreads the outer loops of an elementwise block over threads, down to the last two, which stay for vectors."""
    loops = sch.get_loops(block)
    outer = loops[:-2] if len(loops) > 2 else loops[:-1]
    func = sch.module.prim_func(block.func)
    extents = [const_int(find_loop(func, loop.var).extent) for loop in loops]
    count = 1
    for extent in extents:
        count *= extent or _FEWEST_ITERATIONS
    if outer and count >= _FEWEST_ITERATIONS:
        sch.parallel(sch.fuse(*outer) if len(outer) > 1 else outer[0])
