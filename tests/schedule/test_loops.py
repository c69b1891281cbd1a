"""Reshaping loop nests: what split, fuse, reorder and add_unit_loop make of them, and what they refuse."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from crossfarm.ir import ops
from crossfarm.ir.schedule.schedule import Schedule
from tests.schedule.programs import CHAIN, MATMUL, SYMBOLIC, body, check, schedule


def test_split_takes_a_loop_apart() -> None:
    sch = schedule(MATMUL)
    i, _, _ = sch.get_loops(sch.get_block("C"))
    outer, inner = sch.split(i, [None, 4])
    assert (outer.var.name, inner.var.name) == ("i_0", "i_1")
    assert "for i_0, i_1, j, k in T.grid(3, 4, 10, 8):" in body(sch)
    assert "v_i = T.axis.spatial(12, i_0 * 4 + i_1)" in body(sch)
    assert "T.where" not in body(sch)
    check(sch, MATMUL)


def test_split_that_does_not_divide_runs_under_a_condition() -> None:
    sch = schedule(MATMUL)
    _, j, k = sch.get_loops(sch.get_block("C"))
    sch.split(j, [2, None, 2])
    sch.split(k, [3, 4])
    assert "T.where(j_0 * 6 + j_1 * 2 + j_2 < 10 and k_0 * 4 + k_1 < 8)" in body(sch)
    check(sch, MATMUL)


def test_split_of_a_symbolic_loop_rounds_up() -> None:
    sch = schedule(SYMBOLIC)
    _, j = sch.get_loops(sch.get_block("B"))
    sch.split(j, [None, 4])
    assert "T.grid(n, (m + T.int64(3)) // T.int64(4), T.int64(4))" in body(sch)
    check(sch, SYMBOLIC, n=3, m=10)
    check(sch, SYMBOLIC, n=1, m=4)


def test_split_by_a_symbolic_factor() -> None:
    sch = schedule(SYMBOLIC)
    i, j = sch.get_loops(sch.get_block("B"))
    fused = sch.fuse(i, j)
    extent = sch.module["main"].params[0].shape[1]  # type: ignore[union-attr]
    sch.split(fused, [None, extent])
    assert "T.grid(n, m)" in body(sch)
    check(sch, SYMBOLIC, n=3, m=10)


def test_unit_factors_may_be_left_out() -> None:
    sch = schedule(MATMUL)
    i, _, _ = sch.get_loops(sch.get_block("C"))
    assert len(sch.split(i, [1, None, 1], preserve_unit_iters=False)) == 1
    check(sch, MATMUL)


def test_fuse_makes_one_loop_of_several_and_splitting_it_again_gives_them_back() -> None:
    sch = schedule(MATMUL)
    i, j, _ = sch.get_loops(sch.get_block("C"))
    fused = sch.fuse(i, j)
    assert fused.var.name == "i_j_fused"
    assert "v_i = T.axis.spatial(12, i_j_fused // 10)" in body(sch)
    check(sch, MATMUL)
    sch.split(fused, [12, 10])
    assert 'T.axis.remap("SSR", [i_j_fused_0, i_j_fused_1, k])' in body(sch)
    check(sch, MATMUL)


def test_fuse_of_what_was_split_is_the_loop_it_came_from() -> None:
    sch = schedule(MATMUL)
    i, _, _ = sch.get_loops(sch.get_block("C"))
    sch.fuse(*sch.split(i, [3, 4]))
    assert 'T.axis.remap("SSR", [i_0_i_1_fused, j, k])' in body(sch)
    check(sch, MATMUL)


def test_reorder_permutes_and_leaves_other_loops_in_their_places() -> None:
    sch = schedule(MATMUL)
    i, j, k = sch.get_loops(sch.get_block("C"))
    sch.reorder(k, i)
    assert sch.get_loops(sch.get_block("C")) == (k, j, i)
    assert "for k, j, i in T.grid(8, 10, 12):" in body(sch)
    check(sch, MATMUL)


def test_a_unit_loop_goes_around_a_block() -> None:
    sch = schedule(MATMUL)
    block = sch.get_block("C")
    loop = sch.add_unit_loop(block)
    assert sch.get_loops(block)[-1] == loop
    check(sch, MATMUL)


TWO_STAGES = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((6, 10), "float32"), C: T.Buffer((6, 10), "float32")):
        B = T.alloc_buffer((6, 10))
        for i, j in T.grid(6, 10):
            with T.block("B"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                B[v_i, v_j] = A[v_i, v_j] * T.float32(2)
            with T.block("C"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                T.reads(B[0:6, 0:10])
                T.writes(C[v_i, v_j])
                C[v_i, v_j] = B[{read}] + T.float32(1)
"""


def test_stages_in_one_nest_are_reordered_when_each_iteration_needs_its_own_alone() -> None:
    text = TWO_STAGES.replace("T.reads(B[0:6, 0:10])", "T.reads(B[v_i, v_j])").format(read="v_i, v_j")
    sch = schedule(text)
    i, j = sch.get_loops(sch.get_block("C"))
    sch.reorder(j, i)
    check(sch, text)


def test_stages_that_need_another_iterations_result_keep_their_order() -> None:
    text = TWO_STAGES.format(read="T.max(v_i - 1, 0), T.min(v_j + 1, 9)")
    sch = schedule(text)
    i, j = sch.get_loops(sch.get_block("C"))
    with pytest.raises(ScheduleError, match=r"must keep their order: block C may read in one what block B writes to B"):
        sch.reorder(j, i)


@pytest.mark.parametrize(
    ("factors", "reason"),
    [
        ([2, 4], "do not cover the extent of loop i"),
        ([None, None], "more than one factor is None"),
        ([], "there are no factors"),
        ([None, 0], "factors are positive"),
        ([-4, -3], "factors are positive"),
    ],
)
def test_split_refuses_factors_that_make_no_nest(factors: list[int | None], reason: str) -> None:
    sch = schedule(MATMUL)
    i, _, _ = sch.get_loops(sch.get_block("C"))
    with pytest.raises(ScheduleError, match=reason):
        sch.split(i, factors)


def marked(sch: Schedule) -> None:
    sch.parallel(sch.get_loops(sch.get_block("C"))[0])


def noted(sch: Schedule) -> None:
    sch.annotate(sch.get_loops(sch.get_block("C"))[0], "note", 1)


@pytest.mark.parametrize(("before", "reason"), [(marked, "loop i is parallel"), (noted, "has the annotation 'note'")])
def test_a_loop_that_says_how_it_runs_is_not_replaced(before: object, reason: str) -> None:
    sch = schedule(MATMUL)
    i, j, _ = sch.get_loops(sch.get_block("C"))
    before(sch)  # type: ignore[operator]
    with pytest.raises(ScheduleError, match=reason):
        sch.split(i, [None, 4])
    with pytest.raises(ScheduleError, match=reason):
        sch.fuse(i, j)


def test_a_loop_that_was_replaced_is_gone() -> None:
    sch = schedule(MATMUL)
    i, _, _ = sch.get_loops(sch.get_block("C"))
    sch.split(i, [None, 4])
    with pytest.raises(ScheduleError, match="loop over i is no longer in the function"):
        sch.split(i, [None, 2])


def test_fuse_refuses_loops_that_are_not_directly_nested() -> None:
    sch = schedule(MATMUL)
    i, j, k = sch.get_loops(sch.get_block("C"))
    for loops in ((i, k), (j, i)):
        with pytest.raises(ScheduleError, match="not the one thing directly inside"):
            sch.fuse(*loops)
    other = schedule(CHAIN)
    first, second = other.get_loops(other.get_block("B"))[0], other.get_loops(other.get_block("C"))[0]
    with pytest.raises(ScheduleError, match="not the one thing directly inside"):
        other.fuse(first, second)


def test_reorder_refuses_loops_of_two_nests_and_one_loop_twice() -> None:
    sch = schedule(CHAIN)
    first, second = sch.get_loops(sch.get_block("B"))[0], sch.get_loops(sch.get_block("C"))[0]
    with pytest.raises(ScheduleError, match="not in one nest"):
        sch.reorder(first, second)
    with pytest.raises(ScheduleError, match="named twice"):
        sch.reorder(first, first)


TRIANGLE = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((6, 6), "float32")):
        for i in range(6):
            for j in range(i + 1):
                with T.block("A"):
                    v_i, v_j = T.axis.remap("SS", [i, j])
                    A[v_i, v_j] = A[v_i, v_j] + T.float32(1)
"""


def test_a_range_that_depends_on_a_loop_stays_inside_it() -> None:
    sch = schedule(TRIANGLE)
    i, j = sch.get_loops(sch.get_block("A"))
    with pytest.raises(ScheduleError, match="range of loop j depends on loop i"):
        sch.reorder(j, i)
    with pytest.raises(ScheduleError, match="extent of loop j depends on loop i"):
        sch.fuse(i, j)
    sch.split(i, [None, 4])
    check(sch, TRIANGLE)


def test_factors_may_be_expressions() -> None:
    sch = schedule(MATMUL)
    i, _, _ = sch.get_loops(sch.get_block("C"))
    sch.split(i, [None, ops.const(5, "int32")])
    check(sch, MATMUL)
