"""Copies before consumers and after producers."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from tests.schedule.layout_programs import SYMBOLIC_MATMUL, matmul, program
from tests.schedule.programs import CHAIN, MATMUL, SYMBOLIC, body, check, schedule

AB = "A: T.Buffer((8,)), B: T.Buffer((8,))"


def test_a_block_reads_a_copy_of_a_parameter() -> None:
    sch = schedule(MATMUL)
    block = sch.get_block("C")
    copy = sch.cache_read(block, 0, "global")
    assert copy.name == "A_global"
    assert "T.reads(A_global[v_i, v_k], B[v_k, v_j])" in body(sch)
    check(sch, MATMUL)


def test_all_consumers_read_the_copy_of_a_temporary_unless_some_are_named() -> None:
    sch = schedule(CHAIN)
    sch.cache_read(sch.get_block("D"), 1, "local")
    assert body(sch).count("B_local[v_i, v_j]") == 4
    check(sch, CHAIN)
    sch = schedule(CHAIN)
    sch.cache_read(sch.get_block("D"), 1, "local", [sch.get_block("D")])
    assert "T.reads(B[v_i, v_j])\n            T.writes(C[v_i, v_j])" in body(sch)
    check(sch, CHAIN)


def test_a_block_writes_a_copy_that_is_written_back_after_it() -> None:
    sch = schedule(MATMUL)
    sch.cache_write(sch.get_block("C"), 0, "local")
    assert "C_local[v_i, v_j] = C_local[v_i, v_j] +" in body(sch)
    check(sch, MATMUL)


def test_named_consumers_read_what_a_block_writes_from_the_copy() -> None:
    sch = schedule(CHAIN)
    sch.cache_write(sch.get_block("B"), 0, "global", [sch.get_block("C")])
    assert "T.reads(B_global[v_i, v_j])\n            T.writes(C[v_i, v_j])" in body(sch)
    check(sch, CHAIN)


@pytest.mark.parametrize("text", [SYMBOLIC, SYMBOLIC_MATMUL])
def test_copies_of_symbolic_shapes(text: str) -> None:
    sch = schedule(text)
    block = sch.get_block("B" if text is SYMBOLIC else "C")
    sch.cache_read(block, 0, "global")
    sch.cache_write(block, 0, "global")
    check(sch, text, n=5, m=3, M=5, N=7, K=3)


def test_only_the_box_that_is_read_is_copied() -> None:
    text = program(
        """
for i in range(3):
    with T.block("B"):
        v = T.axis.spatial(3, i)
        B[v] = A[v * 2 + 1]
""",
        AB,
    )
    sch = schedule(text)
    sch.cache_read(sch.get_block("B"), 0, "global")
    assert "for ax0 in range(5):" in body(sch)
    check(sch, text)


def test_a_copy_of_what_loops_overhang_covers_the_whole_dimension() -> None:
    sch = schedule(MATMUL)
    block = sch.get_block("C")
    sch.split(sch.get_loops(block)[0], [None, 5])
    sch.cache_read(block, 0, "global")
    sch.cache_write(block, 0, "global")
    assert "T.grid(12, 8)" in body(sch)
    assert "T.grid(12, 10)" in body(sch)
    check(sch, MATMUL)


def test_a_copy_goes_between_producer_and_consumer_in_a_loop_they_share() -> None:
    text = program(
        """
C = T.alloc_buffer((8,))
for i in range(8):
    with T.block("C"):
        v = T.axis.spatial(8, i)
        C[v] = A[v] + T.float32(1)
    with T.block("B"):
        v = T.axis.spatial(8, i)
        B[v] = C[v] * T.float32(2)
""",
        AB,
    )
    sch = schedule(text)
    sch.cache_read(sch.get_block("B"), 0, "local")
    sch.cache_write(sch.get_block("C"), 0, "local")
    assert body(sch).count("for ax0 in range(1):") == 2
    check(sch, text)


def test_a_copy_of_a_block_that_leaves_gaps_is_refused() -> None:
    text = program(
        """
for i in range(4):
    with T.block("B"):
        v = T.axis.spatial(4, i)
        B[v * 2] = A[v]
""",
        AB,
    )
    sch = schedule(text)
    with pytest.raises(ScheduleError, match="may not write all of B that would be copied: it leaves gaps"):
        sch.cache_write(sch.get_block("B"), 0, "local")


def test_a_copy_of_a_block_that_stores_under_a_condition_is_refused() -> None:
    text = program(
        """
for i in range(8):
    with T.block("B"):
        v = T.axis.spatial(8, i)
        if A[v] > T.float32(0):
            B[v] = A[v]
""",
        AB,
    )
    sch = schedule(text)
    with pytest.raises(ScheduleError, match="may be left out"):
        sch.cache_write(sch.get_block("B"), 0, "local")


def test_a_copy_between_writes_is_refused() -> None:
    text = program(
        """
C = T.alloc_buffer((8,))
for i in range(8):
    with T.block("first"):
        v = T.axis.spatial(8, i)
        B[v] = A[v]
for i in range(8):
    with T.block("again"):
        v = T.axis.spatial(8, i)
        A[v] = T.float32(0)
for i in range(8):
    with T.block("last"):
        v = T.axis.spatial(8, i)
        C[v] = A[v]
""",
        AB,
    )
    sch = schedule(text)
    with pytest.raises(ScheduleError, match="A is written between the first and the last of its consumers"):
        sch.cache_read(sch.get_block("first"), 0, "local")
    sch.cache_read(sch.get_block("first"), 0, "local", [sch.get_block("first")])
    check(sch, text)


def test_what_a_block_updates_is_neither_cached_for_reading_nor_for_writing() -> None:
    text = program(
        """
for i in range(8):
    with T.block("B"):
        v = T.axis.spatial(8, i)
        B[v] = B[v] + A[v]
""",
        AB,
    )
    sch = schedule(text)
    block = sch.get_block("B")
    with pytest.raises(ScheduleError, match="writes B too"):
        sch.cache_read(block, 0, "local")
    with pytest.raises(ScheduleError, match="reads what B held before it"):
        sch.cache_write(block, 0, "local")


@pytest.mark.parametrize(
    ("index", "scope", "reason"), [(7, "local", "has no read 7; it has 0: A, 1: B"), (0, "moon", "no memory scope")]
)
def test_arguments_that_name_nothing_are_refused(index: int, scope: str, reason: str) -> None:
    sch = schedule(MATMUL)
    with pytest.raises(ScheduleError, match=reason):
        sch.cache_read(sch.get_block("C"), index, scope)


@pytest.mark.parametrize("position", [1, 2])
def test_a_copy_inside_a_tile_that_overhangs_stays_inside_the_buffer(position: int) -> None:
    text = matmul(10, 7, 5)
    sch = schedule(text)
    i, j, _ = sch.get_loops(sch.get_block("C"))
    sch.reorder(*sch.split(i, [None, 4]), j)
    sch.blockize(sch.get_loops(sch.get_block("C"))[position])
    sch.cache_read(sch.get_block("C"), 1, "local")
    check(sch, text)
