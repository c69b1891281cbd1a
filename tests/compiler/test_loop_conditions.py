"""Conditions leave the loops they do not depend on, and the iterations in which they always hold."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler_service.passes.base import Pass
from compiler_service.passes.hoist_conditions import HoistConditions
from compiler_service.passes.partition_loops import PartitionLoops
from compiler_service.passes.simplify import Simplify
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.structural import structural_equal
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from tests.compiler.test_each_pass import check, function, lowered

TARGET = Target("llvm")


def same_result(before: IRModule, *steps: Pass) -> IRModule:
    after = before
    for step in steps:
        after = step.apply(after, TARGET)
        verify(after)
    source = np.random.default_rng(0).standard_normal(64).astype("float32")
    outputs = []
    for module in (before, after):
        outputs.append(np.zeros(64, "float32"))
        run(module, "f", [source, outputs[-1]])
    np.testing.assert_array_equal(*outputs)
    return after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "for i in range(8):\n    for j in range(8):\n        if i < 5 and j < 3:\n            B[i * 8 + j] = A[i]",
            "for i in range(8):\n    if i < 5:\n        for j in range(8):\n            if j < 3:\n"
            "                B[i * 8 + j] = A[i]",
        ),
        (
            "for i in range(8):\n    for j in range(8):\n        if i < 5:\n            B[i * 8 + j] = A[i]\n"
            "    for j in range(8):\n        if i < 5:\n            B[i * 8 + j] = B[i * 8 + j] + A[j]",
            "for i in range(8):\n    if i < 5:\n        for j in range(8):\n            B[i * 8 + j] = A[i]\n"
            "        for j in range(8):\n            B[i * 8 + j] = B[i * 8 + j] + A[j]",
        ),
    ],
)
def test_a_condition_moves_out_of_the_loops_it_does_not_depend_on(before: str, after: str) -> None:
    same_result(lowered(before), HoistConditions())
    check(HoistConditions(), lowered(before), function(after))


@pytest.mark.parametrize(
    "kept",
    [
        "for i in range(8):\n    if A[0] > T.float32(0):\n        B[i] = A[i]",  # what it loads may change
        "for i in range(8):\n    if i < 5:\n        B[i] = A[i]\n    else:\n        B[i] = A[0]",
        "for i in range(8):\n    B[i] = A[i]\n    if i < 4:\n        B[i + 8] = A[i]",
    ],
)
def test_a_condition_stays_where_moving_it_would_change_what_runs(kept: str) -> None:
    assert structural_equal(HoistConditions().apply(lowered(kept), TARGET), lowered(kept))


def test_the_iterations_in_which_a_tail_condition_holds_run_without_it() -> None:
    loops = "for i in range(16):\n    for v in T.vectorized(4):\n"
    before = loops + "        if i * 4 + v < 59:\n            B[i * 4 + v] = A[v]"
    after = (
        "for i in range(14):\n    for v in T.vectorized(4):\n        B[i * 4 + v] = A[v]\n"
        "for i in range(14, 16):\n    for v in T.vectorized(4):\n"
        "        if i * 4 + v < 59:\n            B[i * 4 + v] = A[v]"
    )
    same_result(lowered(before), PartitionLoops())
    check(PartitionLoops(), lowered(before), function(after))


def test_padding_is_cut_off_at_both_ends() -> None:
    before = "for i in range(64):\n    B[i] = T.if_then_else(i >= 3 and i < 60, A[i - 3], T.float32(0))"
    after = (
        "for i in range(3):\n    B[i] = T.float32(0)\n"
        "for i in range(3, 60):\n    B[i] = A[i - 3]\n"
        "for i in range(60, 64):\n    B[i] = T.float32(0)"
    )
    same_result(lowered(before), PartitionLoops())
    check(PartitionLoops(), lowered(before), function(after))


@pytest.mark.parametrize(
    "kept",
    [
        "for i in range(64):\n    if i < 20:\n        B[i] = A[i]\n    B[i] = A[0]",  # less than half is free of it
        "for i in range(4):\n    if i < 3:\n        B[i] = A[i]",  # short
        "for i in T.parallel(64):\n    if i < 60:\n        B[i] = A[i]",
        "for i in range(64):\n    if A[i] < T.float32(2):\n        B[i] = A[i]",
        "for i in range(64):\n    if i * i < 3600:\n        B[i] = A[i]",
        "for i in range(64):\n    if i % 7 < 6:\n        B[i] = A[i]",
    ],
)
def test_other_loops_stay_whole(kept: str) -> None:
    assert structural_equal(PartitionLoops().apply(lowered(kept), TARGET), lowered(kept))


def test_a_large_body_is_not_copied() -> None:
    text = "for i in range(64):\n    if i < 60:\n        B[i] = A[i]\n    B[i] = A[i]"
    assert not structural_equal(PartitionLoops().apply(lowered(text), TARGET), lowered(text))
    assert structural_equal(PartitionLoops(max_nodes=5).apply(lowered(text), TARGET), lowered(text))


@given(
    st.sampled_from([-3, -2, -1, 1, 2, 3]),
    st.integers(-70, 70),
    st.sampled_from(["<", "<=", ">", ">="]),
    st.integers(-70, 70),
    st.integers(0, 5),
)
def test_whatever_the_condition_the_result_is_the_same(step: int, offset: int, op: str, bound: int, start: int) -> None:
    body = f"if i * {step} + u + {offset} {op} {bound} and i + u < {60 + start}:\n    B[i] = B[i] + A[i] * T.float32(2)"
    text = f"for i in range({start}, 60):\n    for u in T.unroll(2):\n" + textwrap.indent(body, " " * 8)
    same_result(lowered(text), PartitionLoops(), Simplify())


@given(st.integers(1, 70), st.integers(1, 9))
def test_symbolic_tails_are_cut_at_run_time(size: int, factor: int) -> None:
    params = "a: T.handle, b: T.handle"
    module = lowered(
        f"""
        n = T.int32()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (n,), "float32")
        for i in range((n + {factor - 1}) // {factor}):
            for v in T.vectorized({factor}):
                if i * {factor} + v < n:
                    B[i * {factor} + v] = A[i * {factor} + v] + T.float32(1)
        """,
        params=params,
    )
    after = PartitionLoops().apply(module, TARGET)
    verify(after)
    assert factor == 1 or not structural_equal(module, after)
    source, out = np.arange(size, dtype="float32"), np.zeros(size, "float32")
    run(after, "f", [source, out])
    np.testing.assert_array_equal(out, source + 1)
