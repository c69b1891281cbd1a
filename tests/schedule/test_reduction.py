"""Reductions start apart from their steps, and run in groups of steps."""

from __future__ import annotations

import numpy as np
import pytest

import crossfarm as cf
from crossfarm.errors import ScheduleError
from crossfarm.ir.interpreter import run
from crossfarm.ir.schedule.schedule import Schedule
from tests.compiler.native import Native
from tests.schedule.location_programs import holds, matmul, program, row_sum, softmax
from tests.schedule.programs import schedule


def refused(sch: Schedule, method: str, *args: object) -> str:
    with pytest.raises(ScheduleError) as error:
        getattr(sch, method)(*args)
    return str(error.value)


def argmax(
    n: int, m: int, condition: str, value: str = "T.Select(top[v_i] > x[v_i, v_k], top[v_i], x[v_i, v_k])"
) -> str:
    return program(
        f'x: T.Buffer(({n}, {m}), "int32"), at: T.Buffer(({n},), "int32"), top: T.Buffer(({n},), "int32")',
        f"""
for i, k in T.grid({n}, {m}):
    with T.block("at"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            at[v_i] = -1
            top[v_i] = -1000
        v_at: T.int32 = T.Select({condition}, at[v_i], v_k)
        v_top: T.int32 = {value}
        at[v_i] = v_at
        top[v_i] = v_top
""",
    )


BY_INDEX = "top[v_i] > x[v_i, v_k] or top[v_i] == x[v_i, v_k] and at[v_i] < v_k"


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_start_of_a_matmul_is_a_block_before_any_loop_that_holds_all_steps(position: int) -> None:
    text = matmul(6, 7, 5)
    sch = schedule(text)
    block = sch.get_block("C")
    init = sch.decompose_reduction(block, sch.get_loops(block)[position])
    assert init.name == "C_init"
    assert len(sch.get_loops(init)) == 2
    holds(sch, text)


def test_a_tile_starts_at_once_and_its_start_is_vectorized_with_it() -> None:
    text = matmul(6, 21, 9)
    sch = schedule(text)
    block = sch.get_block("C")
    i, j, k = sch.get_loops(block)
    jo, ji = sch.split(j, [None, 8])
    ko, ki = sch.split(k, [None, 4])
    sch.reorder(jo, ko, ki, i, ji)
    sch.vectorize(ji)
    init = sch.decompose_reduction(block, ko)
    assert sch.get(sch.get_loops(init)[-1]).kind == "vectorized"
    holds(sch, text)


def test_each_step_would_start_anew_below_a_loop_of_the_reduction() -> None:
    sch = schedule(matmul(6, 7, 5))
    block = sch.get_block("C")
    i, j, k = sch.get_loops(block)
    sch.reorder(k, i, j)
    assert "start anew" in refused(sch, "decompose_reduction", block, i)
    sch.decompose_reduction(block, k)
    assert "no init" in refused(sch, "decompose_reduction", block, k)


@pytest.mark.parametrize("m", [16, 13, 3])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_row_sum_runs_in_lanes(m: int, axis: int) -> None:
    text = row_sum(3, m)
    sch = schedule(text)
    block = sch.get_block("S")
    _i, k = sch.get_loops(block)
    _ko, ki = sch.split(k, [None, 8])
    partial = sch.rfactor(ki, axis)
    assert partial.name == "S_rf"
    lanes = sch.get(partial).writes[0].buffer
    assert [s.value for s in lanes.shape] == ([8, 3] if axis == 0 else [3, 8])
    sch.vectorize(sch.get_loops(partial)[-1])
    holds(sch, text)


def test_a_vectorized_row_sum_lives_in_the_row_loop() -> None:
    text = row_sum(5, 37)
    sch = schedule(text)
    block = sch.get_block("S")
    _i, k = sch.get_loops(block)
    _ko, ki = sch.split(k, [None, 8])
    partial = sch.rfactor(ki, 1)
    row = sch.get_loops(partial)[0]
    sch.reverse_compute_at(block, row)
    sch.vectorize(sch.get_loops(partial)[-1])
    init = sch.decompose_reduction(partial, sch.get_loops(partial)[1])
    assert [b.name for b in sch.get_child_blocks(sch.get_block("root"))] == [init.name, "S_rf", "S"]
    holds(sch, text)


def test_rows_of_symbolic_length_run_in_lanes() -> None:
    text = program(
        "var_A: T.handle, var_S: T.handle",
        """
n = T.int64()
m = T.int64()
A = T.match_buffer(var_A, (n, m))
S = T.match_buffer(var_S, (n,))
for i, k in T.grid(n, m):
    with T.block("S"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            S[v_i] = T.float32(2)
        S[v_i] = S[v_i] + A[v_i, v_k]
""",
    )
    sch = schedule(text)
    _ko, ki = sch.split(sch.get_loops(sch.get_block("S"))[1], [None, 8])
    sch.rfactor(ki, 1)
    for m in (1, 8, 29):
        holds(sch, text, n=3, m=m)


def test_a_reduction_in_a_fused_row_runs_in_lanes() -> None:
    text = softmax(21)
    sch = schedule(text)
    row = sch.get_loops(sch.get_block("top"))[0]
    for name in ("e", "total", "y"):
        sch.reverse_compute_at(sch.get_block(name), row)
    for name in ("top", "total"):
        k = sch.get_loops(sch.get_block(name))[1]
        _ko, ki = sch.split(k, [None, 8])
        sch.rfactor(ki, 1)
    names = [b.name for b in sch.get_child_blocks(sch.get_block("root"))]
    assert names == ["top_rf", "top", "e", "total_rf", "total", "y"]
    holds(sch, text, n=3)


@pytest.mark.parametrize(
    ("op", "dtype", "init"),
    [
        ("S[v_i] * A[v_i, v_k]", "int32", "1"),
        ("A[v_i, v_k] + 1 + S[v_i]", "int32", "5"),
        ("T.max(S[v_i], A[v_i, v_k])", "int32", "-9"),
        ("T.min(A[v_i, v_k], S[v_i])", "float32", "T.float32(2)"),
    ],
)
def test_every_commutative_operator_keeps_its_start(op: str, dtype: str, init: str) -> None:
    text = row_sum(3, 11).replace("T.float32(0)", init).replace("S[v_i] + A[v_i, v_k]", op)
    text = text.replace('"float32"', f'"{dtype}"')
    sch = schedule(text)
    ko, _ki = sch.split(sch.get_loops(sch.get_block("S"))[1], [None, 4])
    sch.rfactor(ko, 0)
    holds(sch, text)


@pytest.mark.parametrize("m", [12, 13])
@pytest.mark.parametrize("which", [0, 1])
def test_an_argmax_in_groups_finds_the_first_of_equals(m: int, which: int) -> None:
    text = argmax(5, m, BY_INDEX)
    sch = schedule(text)
    loops = sch.split(sch.get_loops(sch.get_block("at"))[1], [None, 4])
    sch.rfactor(loops[which], 1)
    cf.verify(sch.module)
    x = np.random.default_rng(3).integers(0, 3, (5, m)).astype("int32")
    for call in (lambda *a: run(sch.module, "main", a), lambda *a: Native(sch.module)("main", *a)):
        at, top = np.zeros(5, "int32"), np.zeros(5, "int32")
        call(x, at, top)
        np.testing.assert_array_equal(at, x.argmax(1))
        np.testing.assert_array_equal(top, x.max(1))


def test_an_argmax_whose_ties_depend_on_the_order_is_not_regrouped() -> None:
    sch = schedule(argmax(5, 12, "top[v_i] >= x[v_i, v_k]"))
    assert "not known" in refused(sch, "rfactor", sch.get_loops(sch.get_block("at"))[1], 0)


def test_what_is_not_commutative_is_not_regrouped() -> None:
    sch = schedule(row_sum(3, 8).replace("S[v_i] + A[v_i, v_k]", "S[v_i] * T.float32(0.5) + A[v_i, v_k]"))
    k = sch.get_loops(sch.get_block("S"))[1]
    assert "not known" in refused(sch, "rfactor", k, 0)


def test_loops_of_elements_and_axes_outside_the_buffer_are_refused() -> None:
    sch = schedule(row_sum(3, 8))
    i, k = sch.get_loops(sch.get_block("S"))
    assert "does not run the reduction" in refused(sch, "rfactor", i, 0)
    assert "factor_axis" in refused(sch, "rfactor", k, 2)
