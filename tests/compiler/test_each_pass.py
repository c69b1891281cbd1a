"""What each pass does, as text before and after."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from compiler_service.passes.base import Pass
from compiler_service.passes.compact_parameters import CompactParameters
from compiler_service.passes.hoist_first_iteration import HoistFirstIteration
from compiler_service.passes.lower_blocks import LowerBlocks
from compiler_service.passes.plan_workspace import PlanWorkspace
from compiler_service.passes.simplify import Simplify
from compiler_service.passes.unroll_loops import UnrollLoops
from compiler_service.passes.vectorize_loops import VectorizeLoops
from compiler_service.passes.workspace import workspace_plan
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.structural import explain_difference
from crossfarm.ir.verify import verify
from crossfarm.target import Target


def function(body: str, params: str = 'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")') -> IRModule:
    """A module of one noalias function with that body."""
    text = f"@T.prim_func\ndef f({params}):\n    T.func_attr({{'tir.noalias': True}})\n"
    return parse("from crossfarm.script import tir as T\n" + text + textwrap.indent(textwrap.dedent(body), "    "))


def check(step: Pass, before: IRModule, after: IRModule) -> None:
    verify(before)
    result = step.apply(before, Target("llvm"))
    verify(result)
    # the text of `after` is read as block form, where a root block is around everything
    expected = LowerBlocks().apply(after, Target("llvm"))
    assert explain_difference(result, expected) is None, f"{explain_difference(result, expected)}\n{result.script()}"


def lowered(body: str, **given: str) -> IRModule:
    return LowerBlocks().apply(function(body, **given), Target("llvm"))


def test_a_block_becomes_its_statements_with_init_at_the_first_reduction() -> None:
    check(
        LowerBlocks(),
        function("""
            for i, k in T.grid(64, 8):
                with T.block("sum"):
                    v, r = T.axis.remap("SR", [i, k])
                    with T.init():
                        B[v] = T.float32(0)
                    B[v] = B[v] + A[v]
        """),
        function("""
            for i, k in T.grid(64, 8):
                if k == 0:
                    B[i] = T.float32(0)
                B[i] = B[i] + A[i]
        """),
    )


def test_a_where_becomes_an_if_and_axes_their_values() -> None:
    check(
        LowerBlocks(),
        function("""
            for i, j in T.grid(5, 16):
                with T.block("copy"):
                    v = T.axis.spatial(64, i * 16 + j)
                    T.where(i * 16 + j < 64)
                    B[v] = A[v]
        """),
        function("""
            for i, j in T.grid(5, 16):
                if i * 16 + j < 64:
                    B[i * 16 + j] = A[i * 16 + j]
        """),
    )


def test_a_matched_region_becomes_its_source() -> None:
    params = 'A: T.Buffer((8, 16), "float32"), B: T.Buffer((8, 16), "float32")'
    check(
        LowerBlocks(),
        function(
            """
            for i in range(8):
                with T.block("row"):
                    v = T.axis.spatial(8, i)
                    T.reads(A[v, 0:16])
                    T.writes(B[v, 0:16])
                    a = T.match_buffer(A[v, 0:16], (16,), "float32", strides=("s",), offset_factor=1)
                    b = T.match_buffer(B[v, 4:12], (8,), "float32", offset_factor=1)
                    for j in range(8):
                        b[j] = a[j + 1]
            """,
            params=params,
        ),
        function(
            """
            for i in range(8):
                for j in range(8):
                    B[i, 4 + j] = A[i, j + 1]
            """,
            params=params,
        ),
    )


def test_what_only_the_first_iteration_does_moves_before_the_loop() -> None:
    check(
        HoistFirstIteration(),
        lowered("""
            for i in range(64):
                for k, l in T.grid(8, 4):
                    if k == 0 and l == 0:
                        B[i] = T.float32(0)
                    B[i] = B[i] + A[k + l]
        """),
        function("""
            for i in range(64):
                B[i] = T.float32(0)
                for k, l in T.grid(8, 4):
                    B[i] = B[i] + A[k + l]
        """),
    )


def test_a_loop_that_may_not_run_keeps_its_first_iteration_under_a_condition() -> None:
    params = 'a: T.handle, B: T.Buffer((64,), "float32")'
    body = """
        n = T.int32()
        A = T.match_buffer(a, (n,), "float32")
        for i in range(64):
            {first}
                B[i] = T.float32(0)
            for k in range(n):
                B[i] = B[i] + A[k]
    """
    before = """
        n = T.int32()
        A = T.match_buffer(a, (n,), "float32")
        for i in range(64):
            for k in range(n):
                if k == 0:
                    B[i] = T.float32(0)
                B[i] = B[i] + A[k]
    """
    check(
        HoistFirstIteration(), lowered(before, params=params), function(body.format(first="if n > 0:"), params=params)
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("B[i + 2 - 1 - 1] = A[i]", "B[i] = A[i]"),
        ("B[(i * 8 + 3) // 8] = A[i]", "B[i] = A[i]"),
        ("B[(i * 8 + 3) % 8] = A[i]", "B[3] = A[i]"),
        ("B[(i // 2) // 4] = A[i]", "B[i // 8] = A[i]"),
        ("B[i // 7 * 7 + i % 7] = A[i]", "B[i] = A[i]"),
        ("B[i % 8 + 2 + i // 8 * 8 - 2] = A[i]", "B[i] = A[i]"),
        ("B[i // 7 * 7 + i % 5] = A[i]", "B[i // 7 * 7 + i % 5] = A[i]"),
        ("B[T.min(i, 63)] = A[T.max(i, 0)]", "B[i] = A[i]"),
        ("B[i] = T.if_then_else(i < 64, A[i], T.float32(0))", "B[i] = A[i]"),
        (
            "B[i] = T.if_then_else(i < 8 and i < 16, A[i], T.float32(0))",
            "B[i] = T.if_then_else(i < 8, A[i], T.float32(0))",
        ),
        ("if i < 0:\n    B[i] = A[i]\nB[i] = A[0]", "B[i] = A[0]"),
        ("if i < 8:\n    if i < 16:\n        B[i] = A[i]", "if i < 8:\n    B[i] = A[i]"),
        ("for j in range(1):\n    B[i + j] = A[i]", "B[i] = A[i]"),
        ("for j in range(0):\n    B[i + j] = A[i]\nB[i] = A[0]", "B[i] = A[0]"),
        ("B[i] = T.Cast('float32', (i - i) // 1)", "B[i] = T.Cast('float32', 0)"),
    ],
)
def test_simplification(before: str, after: str) -> None:
    nest = "for i in range(64):\n"
    check(
        Simplify(),
        lowered(nest + textwrap.indent(before, "    ")),
        function(nest + textwrap.indent(after, "    ")),
    )


@pytest.mark.parametrize(
    "kept",
    [
        "B[0] = T.Cast('float32', (n * 8 + 3) // 8)",  # n * 8 may wrap
        "B[0] = T.Cast('float32', 0 * (1 // n))",  # may divide by zero
        "B[0] = T.Cast('float32', T.min(n, 63))",
        "if n + 1 > n:\n    B[0] = A[0]",  # the largest n wraps
        "B[0] = A[0] + T.float32(0)",  # of -0.0 this is 0.0
    ],
)
def test_what_might_change_the_meaning_is_not_simplified(kept: str) -> None:
    params = 'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32"), n: T.int32'
    check(Simplify(), lowered(kept, params=params), function(kept, params=params))


def test_an_unrolled_loop_is_written_out_and_a_large_one_is_left_to_llvm() -> None:
    before = "for i in range(8):\n    for u in T.unroll(3):\n        B[i * 4 + u] = A[i]"
    after = "for i in range(8):\n    B[i * 4 + 0] = A[i]\n    B[i * 4 + 1] = A[i]\n    B[i * 4 + 2] = A[i]"
    check(UnrollLoops(), lowered(before), function(after))
    large = "for u in T.unroll(64):\n    B[u] = A[u]"
    check(UnrollLoops(max_nodes=100), lowered(large), function(large))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "B[i * 8 + v] = A[i * 8 + v] + A[i]",
            "B[T.Ramp(i * 8, 1, 8)] = A[T.Ramp(i * 8, 1, 8)] + T.Broadcast(A[i], 8)",
        ),
        ("B[v * 2] = T.exp(A[v])", "B[T.Ramp(0, 2, 8)] = T.exp(A[T.Ramp(0, 1, 8)])"),
        (
            "B[v] = T.Select(v < i, T.float32(1), T.float32(2))",
            "B[T.Ramp(0, 1, 8)] = T.Select(T.Ramp(0, 1, 8) < T.Broadcast(i, 8),"
            " T.Broadcast(T.float32(1), 8), T.Broadcast(T.float32(2), 8))",
        ),
        ("if i < 4:\n    B[v] = A[v]", "if i < 4:\n    B[T.Ramp(0, 1, 8)] = A[T.Ramp(0, 1, 8)]"),
    ],
)
def test_a_vectorized_loop_becomes_vector_statements(before: str, after: str) -> None:
    outer, inner = "for i in range(8):\n", "    for v in T.vectorized(8):\n"
    check(
        VectorizeLoops(),
        lowered(outer + inner + textwrap.indent(before, " " * 8)),
        function(outer + textwrap.indent(after, "    ")),
    )


@pytest.mark.parametrize(
    "body",
    [
        "if v == i:\n    B[v] = A[v]",
        "B[v] = T.if_then_else(A[v] > T.float32(0), A[v + 1], T.float32(0))",
        "B[0] = B[0] + A[v]",
        "B[v + 1] = B[v] + A[v]",
        "B[v // 2] = B[v // 2] + A[v]",
    ],
)
def test_what_has_no_vector_form_runs_lane_by_lane(body: str) -> None:
    outer, indented = "for i in range(8):\n", textwrap.indent(body, " " * 8)
    before = lowered(outer + "    for v in T.vectorized(8):\n" + indented)
    check(VectorizeLoops(), before, function(outer + "    for v in range(8):\n" + indented))


@pytest.mark.parametrize(
    ("guarded", "in_all_lanes", "vector"),
    [
        ("if i * 8 + v < 60:\n    B[v] = A[v]", "i * 8 + 7 < 60", "A[T.Ramp(0, 1, 8)]"),
        ("if i < 5 and i * 8 - v >= 0:\n    B[v] = A[v]", "i * 8 - 7 >= 0", "A[T.Ramp(0, 1, 8)]"),
        (
            "B[v] = T.if_then_else(3 <= v + i, A[v], T.float32(0))",
            "3 <= 0 + i",
            "A[T.Ramp(0, 1, 8)]",
        ),
    ],
)
def test_what_is_under_a_condition_on_the_lane_is_a_vector_where_all_lanes_meet_it(
    guarded: str, in_all_lanes: str, vector: str
) -> None:
    before = lowered("for i in range(8):\n    for v in T.vectorized(8):\n" + textwrap.indent(guarded, " " * 8))
    result = VectorizeLoops().apply(before, Target("llvm"))
    verify(result)
    text = result.script()
    assert f"if {in_all_lanes}:" in text
    assert f"B[T.Ramp(0, 1, 8)] = {vector}" in text
    assert "for v in range(8):" in text.split("else:")[1]
    source = np.arange(64, dtype="float32")
    outputs = []
    for module in (before, result):
        outputs.append(np.zeros(64, "float32"))
        run(module, "f", [source, outputs[-1]])
    np.testing.assert_array_equal(*outputs)


def test_symbolic_strides_of_a_parameter_are_those_of_a_compact_tensor() -> None:
    text = """
        n, s = T.int32(), T.int32()
        A = T.match_buffer(a, (n, 16), "float32"{strides})
        for i in range(n):
            A[i, 0] = T.Cast("float32", {s})
    """
    params = "a: T.handle"
    before = lowered(text.format(strides=", strides=(s, 1)", s="s"), params=params)
    result = CompactParameters().apply(before, Target("llvm"))
    verify(result)
    (parameter,) = result["f"].params
    assert [getattr(e, "value", e) for e in parameter.strides] == [16, 1]
    assert "16" in result.script().split("Cast")[1]


def test_temporaries_whose_lives_do_not_overlap_share_memory() -> None:
    module = lowered("""
        X = T.alloc_buffer((2000,), "float32")
        Y = T.alloc_buffer((3000,), "float32")
        Z = T.alloc_buffer((1000,), "float64")
        small = T.alloc_buffer((4,), "float32")
        for i in range(64):
            X[i] = A[i]
        for i in range(64):
            Y[i] = X[i]
        for i in range(64):
            Z[i] = T.Cast("float64", Y[i])
        for i in range(4):
            small[i] = T.Cast("float32", Z[i])
            B[i] = small[i]
    """)
    planned = PlanWorkspace().apply(module, Target("llvm"))
    verify(planned)
    plan = workspace_plan(planned["f"])
    # X and Z share 8000 bytes, Y has 12000; each rounded up to 64
    assert [getattr(o, "value", None) for o in plan.offsets] == [0, 8000]
    assert getattr(plan.size, "value", None) == 8000 + 12032
    assert planned.script().count('"place": "stack"') == 1


def test_a_temporary_sized_by_a_loop_gets_room_for_the_largest() -> None:
    module = lowered("""
        for i in range(64):
            with T.block("b"):
                v = T.axis.spatial(64, i)
                X = T.alloc_buffer((v * 40 + 1,), "float32")
                X[0] = A[v]
                B[v] = X[0]
    """)
    plan = workspace_plan(PlanWorkspace().apply(module, Target("llvm"))["f"])
    assert getattr(plan.size, "value", None) == -(-(63 * 40 + 1) * 4 // 64) * 64


def test_a_temporary_without_a_largest_size_is_refused() -> None:
    module = lowered("""
        size: T.int32 = T.Cast("int32", A[0])
        with T.block("b"):
            X = T.alloc_buffer((size,), "float32")
            X[0] = A[0]
            B[0] = X[0]
    """)
    with pytest.raises(BuildFailed, match=r"'X'.*without a known largest value"):
        PlanWorkspace().apply(module, Target("llvm"))
