"""Threads of a group make together, in shared memory, what all of them use."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.schedule.schedule import Schedule
from tests.schedule.location_programs import holds, matmul
from tests.schedule.programs import schedule

TILES = 4, 2


def bound(text: str) -> tuple[Schedule, BlockRef, LoopRef]:
    """A matmul whose threads have 2 by 2 results each; its block and the loop over steps of the sum."""
    sch = schedule(text)
    block = sch.get_block("C")
    i, j, k = sch.get_loops(block)
    rows, row_thread, row = sch.split(i, [None, *TILES])
    columns, column_thread, column = sch.split(j, [None, *TILES])
    steps, step = sch.split(k, [None, 4])
    sch.reorder(rows, columns, row_thread, column_thread, steps, step, row, column)
    for loop, tag in (
        (rows, "blockIdx.y"), (columns, "blockIdx.x"), (row_thread, "threadIdx.y"), (column_thread, "threadIdx.x"),
    ):  # fmt: skip
        sch.bind(loop, tag)
    return sch, block, steps


@pytest.mark.parametrize("size", [16, 15])
def test_what_is_shared_is_computed_for_all_threads_and_by_all_of_them(size: int) -> None:
    text = matmul(size, size, size)
    sch, block, steps = bound(text)
    for read in (0, 1):
        copy = sch.cache_read(block, read, "shared")
        sch.compute_at(copy, steps)
        around = sch.get_loops(copy)
        fused = sch.fuse(*around[around.index(steps) + 1 :])
        assert sch.get(fused).extent.value == 8 * 4  # the tile of a group, not of a thread
        _, row_thread, column_thread = sch.split(fused, [None, 4, 4])
        sch.bind(row_thread, "threadIdx.y")
        sch.bind(column_thread, "threadIdx.x")
    holds(sch, text, compiled=False)


def test_what_each_thread_has_for_itself_is_not_made_together() -> None:
    sch, block, steps = bound(matmul(16, 16, 16))
    copy = sch.cache_read(block, 0, "local")
    sch.compute_at(copy, steps)
    inner = sch.get_loops(copy)[-1]
    with pytest.raises(ScheduleError, match=r"A_local is not in memory that they share|depends on"):
        sch.bind(inner, "threadIdx.x")


def test_threads_that_work_together_are_as_many_as_there_are() -> None:
    sch, block, steps = bound(matmul(16, 16, 16))
    copy = sch.cache_read(block, 1, "shared")
    sch.compute_at(copy, steps)
    _, some = sch.split(sch.get_loops(copy)[-1], [None, 2])
    with pytest.raises(ScheduleError, match="they are not threads of one group"):
        sch.bind(some, "threadIdx.x")


def test_groups_do_not_work_together() -> None:
    sch, block, steps = bound(matmul(16, 16, 16))
    copy = sch.cache_read(block, 1, "shared")
    sch.compute_at(copy, steps)
    _, some = sch.split(sch.get_loops(copy)[-1], [None, 2])
    with pytest.raises(ScheduleError, match="they are not threads of one group"):
        sch.bind(some, "blockIdx.x")
