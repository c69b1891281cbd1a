"""Accesses through copies indexed by a block's own axes."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from tests.schedule.layout_programs import CONV, SYMBOLIC_MATMUL, program
from tests.schedule.programs import MATMUL, body, check, schedule

AB = "A: T.Buffer((8,)), B: T.Buffer((8,))"


def test_a_read_through_a_copy_indexed_by_the_axes() -> None:
    sch = schedule(CONV)
    copy = sch.reindex(sch.get_block("C"), ("read", 0))
    assert copy.name == "P_reindex"
    assert "P_reindex[v_n, v_h, v_w, v_r, v_s, v_c] = P[v_n, v_h * 2 + v_r, v_w * 2 + v_s, v_c]" in body(sch)
    check(sch, CONV)


def test_a_write_through_a_copy_indexed_by_the_axes() -> None:
    sch = schedule(CONV)
    sch.reindex(sch.get_block("C"), ("write", 0))
    check(sch, CONV)


def test_a_transposed_operand_of_symbolic_shape() -> None:
    sch = schedule(SYMBOLIC_MATMUL)
    sch.reindex(sch.get_block("C"), ("read", 1))
    assert "T.alloc_buffer((N, K)" in body(sch)
    check(sch, SYMBOLIC_MATMUL, M=3, N=4, K=5)


def test_what_a_guarded_access_never_reads_is_zero_in_the_copy() -> None:
    text = program(
        """
for i in range(8):
    with T.block("B"):
        v = T.axis.spatial(8, i)
        B[v] = T.if_then_else(v >= 1, A[v - 1], T.float32(3))
""",
        AB,
    )
    sch = schedule(text)
    sch.reindex(sch.get_block("B"), ("read", 0))
    assert "A_reindex[v] = T.if_then_else(v - 1 >= 0, A[v - 1], T.float32(0.0))" in body(sch)
    check(sch, text)


def test_two_different_accesses_are_refused() -> None:
    text = program(
        """
for i in range(7):
    with T.block("B"):
        v = T.axis.spatial(7, i)
        B[v] = A[v] + A[v + 1]
""",
        AB,
    )
    sch = schedule(text)
    with pytest.raises(ScheduleError, match="accesses A at 2 different indices"):
        sch.reindex(sch.get_block("B"), ("read", 0))


def test_a_write_of_one_element_by_two_instances_is_refused() -> None:
    text = program(
        """
for i in range(8):
    with T.block("B"):
        v = T.axis.spatial(8, i)
        B[v // 2] = A[v]
""",
        AB,
    )
    sch = schedule(text)
    with pytest.raises(ScheduleError, match="two instances of block B may write one element"):
        sch.reindex(sch.get_block("B"), ("write", 0))


def test_instances_that_do_not_run_are_noticed() -> None:
    text = program(
        """
for i in range(4):
    with T.block("B"):
        v = T.axis.spatial(8, i)
        B[v] = A[v]
""",
        AB,
    )
    sch = schedule(text)
    with pytest.raises(ScheduleError, match="may not run all instances"):
        sch.reindex(sch.get_block("B"), ("write", 0))


def test_a_bad_argument_is_refused() -> None:
    sch = schedule(MATMUL)
    with pytest.raises(ScheduleError, match="not 'both'"):
        sch.reindex(sch.get_block("C"), ("both", 0))
