"""Threads of a group make together, in shared memory, what all of them use."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.schedule.schedule import Schedule
from tests.schedule.location_programs import holds, matmul, program
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


@pytest.mark.parametrize(
    ("shape", "threads"), [((16, 18, 67), 32), ((2, 35, 9), 64), ((5, 3, 4, 35), 256), ((33, 2, 7), 8), ((3, 8, 9), 48)]
)
def test_axes_that_are_fused_and_split_by_threads_are_told_apart(shape: tuple[int, ...], threads: int) -> None:
    loops, axes = (", ".join(f"{letter}{n}" for n in range(len(shape))) for letter in "iv")
    sizes = ", ".join(map(str, shape))
    text = program(
        f'A: T.Buffer(({sizes}), "float32"), B: T.Buffer(({sizes}), "float32")',
        f"""
for {loops} in T.grid({sizes}):
    with T.block("B"):
        {axes} = T.axis.remap("{"S" * len(shape)}", [{loops}])
        B[{axes}] = A[{axes}] + T.float32(1)
""",
    )
    sch = schedule(text)
    groups, thread = sch.split(sch.fuse(*sch.get_loops(sch.get_block("B"))), [None, threads])
    sch.bind(groups, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    holds(sch, text, compiled=False)


def test_what_several_threads_store_is_refused_however_it_is_counted() -> None:
    text = program(
        'A: T.Buffer((64, 18), "float32"), B: T.Buffer((64, 18), "float32")',
        """
for i, j in T.grid(64, 18):
    with T.block("B"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        B[v_i // 2, v_j] = A[v_i, v_j]
""",
    )
    sch = schedule(text)
    groups, thread = sch.split(sch.fuse(*sch.get_loops(sch.get_block("B"))), [None, 32])
    for loop in (groups, thread):
        with pytest.raises(ScheduleError, match="several may touch one element of B"):
            sch.bind(loop, "threadIdx.x")


@pytest.mark.parametrize("steps", [72, 67])
def test_partial_results_are_registers_though_some_steps_are_missing(steps: int) -> None:
    text = program(
        f'A: T.Buffer((5, {steps}), "float32"), B: T.Buffer((5,), "float32")',
        f"""
for i, k in T.grid(5, {steps}):
    with T.block("B"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            B[v_i] = T.float32(0)
        B[v_i] = B[v_i] + A[v_i, v_k]
""",
    )
    sch = schedule(text)
    block = sch.get_block("B")
    row, steps_ = sch.get_loops(block)
    _, lane = sch.split(steps_, [None, 8])
    partial = sch.rfactor(lane, 1)
    sch.compute_at(partial, sch.get_loops(block)[0])
    row, lane_, step = sch.get_loops(partial)
    if sch.get(lane_).extent.value != 8:
        lane_, step = step, lane_
        sch.reorder(lane_, step)
    copy = sch.cache_write(partial, 0, "local")
    sch.reverse_compute_at(copy, lane_)
    sch.set_scope(copy, 0, "shared")
    start = sch.decompose_reduction(partial, step)
    assert "T.where" not in str(sch.get(start).body)
    sch.bind(lane_, "threadIdx.x")
    sch.bind(row, "blockIdx.x")
    holds(sch, text, compiled=False)
