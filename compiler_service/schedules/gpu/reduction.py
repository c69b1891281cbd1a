"""A reduction by all threads of a group: each reduces a part, then some the parts, then one the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compiler_service.schedules.gpu.groups import fused, write_out
from compiler_service.schedules.machines import Gpu
from compiler_service.schedules.nests import temporaries
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.tree import find_block, find_loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfarm.ir.schedule.references import BlockRef, LoopRef
    from crossfarm.ir.schedule.schedule import Schedule
    from crossfarm.ir.stmt import BlockRealize

#: Parts that each thread reduces at the end, and up to how many there may be without a stage between.
_LAST_PARTS, _SINGLE_STAGE = 16, 32
#: Threads of a group that reduce one result together at most; on a CPU they are lanes, of a few vectors.
_MOST_LANES, _MOST_CPU_LANES = 256, 64
#: Results for each core that keep it busy without working together, and threads of a group then, lanes of a vector.
_CPU_RESULTS, _CPU_GROUP = 8, 8
#: Parts that one thread on a core reduces side by side: elements of a few vectors.
_CPU_PARTS = 32
#: Steps for each thread that pay for working together.
_FEWEST_STEPS = 2
#: Threads of a group that reduces several results.
_SMALL_GROUP = 128


@dataclass(frozen=True)
class Sharing:
    """How threads of a group share reductions.

    Attributes:
        lanes: threads for one result.
        results: of a group, each by other threads.
        axis: of the lanes; the results have the other one.
        parts: of one result that a thread alone reduces side by side.
    """

    lanes: int
    results: int
    axis: str = "threadIdx.x"
    parts: int = 1

    @property
    def other(self) -> str:
        return "threadIdx.y" if self.axis == "threadIdx.x" else "threadIdx.x"

    @classmethod
    def along(cls, gpu: Gpu, steps: int | None, results: int | None) -> Sharing:
        """Of reductions along memory: neighbouring threads have neighbouring steps.

        Args:
            steps, results: how many there are; None where only the call knows it.
        """
        if gpu.is_cpu and (results is None or results >= _CPU_RESULTS * gpu.units):
            parts = _CPU_PARTS if steps is None or steps >= _FEWEST_STEPS * _CPU_PARTS else 1
            return cls(1, 1, parts=parts) if gpu.loops_over_threads else cls(1, gpu.group(_CPU_GROUP))
        most = gpu.group(_MOST_CPU_LANES if gpu.is_cpu else _MOST_LANES)
        lanes = most if steps is None else min(most, _power_up_to(max(steps // _FEWEST_STEPS, 1)))
        if lanes < min(8, most):
            lanes = 1
        rows = max(gpu.group(_SMALL_GROUP) // lanes, 1)
        if results is not None:
            while rows > 1 and results < rows * gpu.units:
                rows //= 2
        return cls(lanes, rows)

    def shared_bytes(self, width: int) -> int:
        """Of the parts of reductions whose values have so many bytes."""
        return (self.lanes + min(self.lanes, _LAST_PARTS)) * self.results * width if self.lanes > 1 else 0


def reduce_together(sch: Schedule, block: BlockRef, outer: int, sharing: Sharing) -> None:
    """Schedules a reduction whose first ``outer`` loops choose the result, the others are its steps.

    The results of each stage are shared; the last is in registers, of every thread, and stored by one.
    """
    steps = fused(sch, sch.get_loops(block)[outer:])
    stages = [sharing.lanes, _LAST_PARTS] if sharing.lanes > _SINGLE_STAGE else [sharing.lanes]
    if sharing.lanes == 1:
        stages = [sharing.parts] if sharing.parts > 1 else []
    for lanes in stages:
        _stage(sch, block, sch.split(steps, [None, lanes])[1], outer, sharing)
        (steps,) = sch.get_loops(block)[outer:]
    keep_in_registers(sch, block, sch.get_loops(block)[outer - 1], steps)


def share_steps(sch: Schedule, block: BlockRef, lane: LoopRef, outer: int, axis: str) -> None:
    """Schedules a reduction whose first ``outer`` loops choose the result, and of whose steps ``lane`` becomes the
    threads along ``axis``; of constant extent."""
    lanes = const_int(find_loop(sch.module.prim_func(block.func), lane.var).extent)
    assert lanes is not None
    sharing = Sharing(lanes, 1, axis)
    _stage(sch, block, lane, outer, sharing)
    (parts,) = sch.get_loops(block)[outer:]
    if lanes > _SINGLE_STAGE:
        _stage(sch, block, sch.split(parts, [None, _LAST_PARTS])[1], outer, sharing)
        (parts,) = sch.get_loops(block)[outer:]
    keep_in_registers(sch, block, sch.get_loops(block)[outer - 1], parts)


def keep_in_registers(sch: Schedule, block: BlockRef, loop: LoopRef, first: LoopRef) -> None:
    """What a reduction gives is a register, stored when it is final where others use it than ``loop``."""
    func = sch.module.prim_func(block.func)
    node = find_block(func, block.name).block
    is_sure = const_int(find_block(func, block.name).predicate) == 1  # else there may be no step, and nothing to store
    used_here = all(loop in sch.get_loops(consumer) for consumer in sch.get_consumers(block))
    own = temporaries(func) if used_here else ()
    for number, region in enumerate(node.writes):
        if region.buffer in own:
            sch.set_scope(block, number, "local")
        elif is_sure:
            sch.reverse_compute_at(sch.cache_write(block, number, "local"), loop)
    sch.decompose_reduction(block, first)


def _stage(sch: Schedule, block: BlockRef, lane: LoopRef, outer: int, sharing: Sharing) -> None:
    """Iterations of ``lane`` become threads that reduce for themselves, into shared memory; the block the results."""
    writes = _realized(sch, block).block.writes
    rank = len(writes[0].buffer.shape)
    partial = sch.rfactor(lane, rank)
    around = sch.get_loops(block)[:outer]
    if sch.get_loops(partial)[outer - 1] != around[-1]:
        sch.compute_at(partial, around[-1], preserve_unit_loops=True)
    loops = sch.get_loops(partial)[outer:]
    lane = _loop_of_axis(sch, partial, rank, loops)
    steps = [loop for loop in loops if loop != lane] or [sch.add_unit_loop(partial)]  # of each lane; it may have one
    if sharing.lanes == 1:
        sch.reorder(*steps, lane)
        for number in range(len(writes)):
            sch.set_scope(partial, number, "local")
        sch.decompose_reduction(partial, steps[0])
        return
    sch.reorder(lane, *steps)
    is_sure = const_int(_realized(sch, partial).predicate) == 1  # else there may be no step, and nothing to copy
    for number in range(len(writes)):
        copy = partial
        if is_sure:
            copy = sch.cache_write(partial, number, "local")
            sch.reverse_compute_at(copy, lane)
        sch.set_scope(copy, 0 if is_sure else number, "shared")
    sch.decompose_reduction(partial, steps[0])
    write_out(sch, block.func, steps)
    sch.bind(lane, sharing.axis)


def _loop_of_axis(sch: Schedule, partial: BlockRef, rank: int, loops: Sequence[LoopRef]) -> LoopRef:
    """The loop over the lanes: that of the axis which indexes the last dimension of what ``rfactor`` made."""
    realize = _realized(sch, partial)
    axis = realize.block.writes[0].region[rank].min
    value = next(v for a, v in zip(realize.block.iter_vars, realize.iter_values) if a.var is axis)
    assert isinstance(value, Var)
    return next(loop for loop in loops if loop.var is value)


def _realized(sch: Schedule, block: BlockRef) -> BlockRealize:
    return find_block(sch.module.prim_func(block.func), block.name)


def _power_up_to(number: int) -> int:
    return 1 << (number.bit_length() - 1)
