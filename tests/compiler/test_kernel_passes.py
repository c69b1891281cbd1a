"""What the passes for devices with thread groups do, as text before and after."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from compiler_service.codegen.kernel import Kernel
from compiler_service.launch_plan import plan_launches
from compiler_service.passes.base import Pass
from compiler_service.passes.bind_parallel import BindParallel
from compiler_service.passes.insert_barriers import InsertBarriers
from compiler_service.passes.localize_buffers import LocalizeBuffers
from compiler_service.passes.lower_blocks import LowerBlocks
from compiler_service.passes.narrow_indices import NarrowIndices
from compiler_service.passes.report_failures import ReportFailures
from compiler_service.passes.simplify import Simplify
from compiler_service.passes.split_kernels import SplitKernels
from compiler_service.pipeline import run_pipeline
from crossfarm.errors import BuildFailed, InvalidModule
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.structural import explain_difference
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import LaunchPlan

TARGET = Target("opencl")
A_B = 'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")'


def function(body: str, params: str = A_B) -> IRModule:
    """A module of one noalias function with that body, lowered."""
    text = f"@T.prim_func\ndef f({params}):\n    T.func_attr({{'tir.noalias': True}})\n"
    indented = textwrap.indent(textwrap.dedent(body), "    ")
    return LowerBlocks().apply(parse(f"from crossfarm.script import tir as T\n{text}{indented}"), TARGET)


def check(step: Pass, before: IRModule, after: str) -> None:
    """``after``: the text of the function's body as the printer writes it, simplified."""
    verify(before)
    result = Simplify().apply(step.apply(before, TARGET), TARGET)
    verify(result)
    assert explain_difference(parse(result.script()), result) is None
    body = result.script().split("    def ", 1)[1].split("\n", 2)[2]
    wanted = textwrap.indent(textwrap.dedent(after).strip("\n"), " " * 8)
    assert body.rstrip("\n") == wanted, result.script()


def test_a_parallel_loop_is_bound_to_groups_of_threads() -> None:
    check(
        BindParallel(threads=16),
        function("for i in T.parallel(60):\n    for j in T.parallel(1):\n        B[i] = A[i]"),
        """
        for i_0 in T.thread_binding(4, thread="blockIdx.x"):
            for i_1 in T.thread_binding(16, thread="threadIdx.x"):
                if i_0 * 16 + i_1 < 60:
                    B[i_0 * 16 + i_1] = A[i_0 * 16 + i_1]
        """,
    )


def test_loops_that_are_bound_already_stay() -> None:
    module = function("for i in T.thread_binding(64, thread='threadIdx.x'):\n    B[i] = A[i]")
    assert BindParallel().apply(module, TARGET) is module


EXCHANGE = """
    S = T.alloc_buffer((64,), "float32", scope="shared")
    for b in T.thread_binding(4, thread="blockIdx.x"):
        for t in T.thread_binding(16, thread="threadIdx.x"):
            S[b * 16 + t] = A[b * 16 + t]
        for u in T.thread_binding(16, thread="threadIdx.x"):
            B[b * 16 + u] = S[b * 16 + (u + 8) % 16]
"""


def test_shared_memory_becomes_a_groups_own_tile() -> None:
    check(
        LocalizeBuffers(),
        function(EXCHANGE),
        """
        for b in T.thread_binding(4, thread="blockIdx.x"):
            S = T.allocate([16], "float32", "shared")
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = A[b * 16 + t]
            for u in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 16 + u] = S[(u + 8) % 16]
        """,
    )


def test_a_tile_that_threads_fill_together_lives_inside_the_loop_that_reuses_it() -> None:
    check(
        LocalizeBuffers(),
        function("""
            S = T.alloc_buffer((64,), "float32", scope="shared")
            for t in T.thread_binding(16, thread="threadIdx.x"):
                for k in range(4):
                    for u in T.thread_binding(16, thread="threadIdx.x"):
                        S[k * 16 + u] = A[k * 16 + u]
                    B[k * 16 + t] = S[k * 16 + (t + 8) % 16]
        """),
        """
        for t in T.thread_binding(16, thread="threadIdx.x"):
            for k in range(4):
                S = T.allocate([16], "float32", "shared")
                for u in T.thread_binding(16, thread="threadIdx.x"):
                    S[u] = A[k * 16 + u]
                B[k * 16 + t] = S[(t + 8) % 16]
        """,
    )


def test_what_earlier_iterations_left_in_shared_memory_stays_there() -> None:
    """A rolling sum: a buffer of one iteration would lose it."""
    module = function("""
        S = T.alloc_buffer((16,), "float32", scope="shared")
        for b in T.thread_binding(1, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = T.float32(0)
            for k in range(4):
                for t in T.thread_binding(16, thread="threadIdx.x"):
                    S[t] = S[t] + A[k * 16 + t]
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[t] = S[t]
    """)
    check(
        LocalizeBuffers(),
        module,
        """
        for b in T.thread_binding(1, thread="blockIdx.x"):
            S = T.allocate([16], "float32", "shared")
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = T.float32(0.0)
            for k in range(4):
                for t in T.thread_binding(16, thread="threadIdx.x"):
                    S[t] = S[t] + A[k * 16 + t]
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[t] = S[t]
        """,
    )


def test_a_barrier_stands_between_threads_that_exchange_values() -> None:
    check(
        InsertBarriers(),
        LocalizeBuffers().apply(function(EXCHANGE), TARGET),
        """
        for b in T.thread_binding(4, thread="blockIdx.x"):
            S = T.allocate([16], "float32", "shared")
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = A[b * 16 + t]
            T.tvm_storage_sync("shared")
            for u in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 16 + u] = S[(u + 8) % 16]
        """,
    )


def test_a_loop_gets_a_barrier_for_what_its_next_iteration_overwrites() -> None:
    check(
        InsertBarriers(),
        function("""
            S = T.alloc_buffer((16,), "float32", scope="shared")
            for t in T.thread_binding(16, thread="threadIdx.x"):
                for k in range(4):
                    for u in T.thread_binding(16, thread="threadIdx.x"):
                        S[u] = A[k * 16 + u]
                    B[k * 16 + t] = S[15 - t]
        """),
        """
        S = T.allocate([16], "float32", "shared")
        for t in T.thread_binding(16, thread="threadIdx.x"):
            for k in range(4):
                T.tvm_storage_sync("shared")
                for u in T.thread_binding(16, thread="threadIdx.x"):
                    S[u] = A[k * 16 + u]
                T.tvm_storage_sync("shared")
                B[k * 16 + t] = S[15 - t]
        """,
    )


def test_threads_that_keep_to_themselves_need_no_barrier() -> None:
    module = function("""
        for t in T.thread_binding(16, thread="threadIdx.x"):
            B[t] = A[t]
            B[t] = B[t] + A[t + 16]
    """)
    assert InsertBarriers().apply(module, TARGET) is module


def test_each_nest_is_a_kernel_and_what_lies_between_is_in_global_memory() -> None:
    module = function("""
        X = T.alloc_buffer((64,), "float32")
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                X[b * 16 + t] = A[b * 16 + t]
        for i in range(64):
            B[i] = X[63 - i]
    """)
    result = SplitKernels().apply(module, TARGET)
    verify(result)
    expected = """
    @T.prim_func
    def f(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        T.func_attr({"tir.noalias": True})
        X = T.allocate([64], "float32", "global")
        T.launch_kernel("f_kernel", T.address_of(A[0]), T.address_of(X[0]))
        T.launch_kernel("f_kernel_1", T.address_of(B[0]), T.address_of(X[0]))

    @T.prim_func(private=True)
    def f_kernel(A: T.Buffer((64,), "float32"), X: T.Buffer((64,), "float32")):
        T.func_attr({"tir.noalias": True, "crossfarm.kernel_of": "f"})
        for block_x in T.thread_binding(4, thread="blockIdx.x"):
            for thread_x in T.thread_binding(16, thread="threadIdx.x"):
                X[block_x * 16 + thread_x] = A[block_x * 16 + thread_x]

    @T.prim_func(private=True)
    def f_kernel_1(B: T.Buffer((64,), "float32"), X: T.Buffer((64,), "float32")):
        T.func_attr({"tir.noalias": True, "crossfarm.kernel_of": "f"})
        for i in range(64):
            B[i] = X[63 - i]
"""
    assert result.script().split("class Module:\n", 1)[1].strip() == expected.strip()
    assert explain_difference(parse(result.script()), result) is None


def test_all_loops_over_a_tag_become_one_index_and_shorter_ones_are_guarded() -> None:
    check_kernel(
        """
        for b in T.thread_binding(2, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 32 + t] = A[b * 32 + t]
            for t in T.thread_binding(4, thread="threadIdx.x"):
                B[b * 32 + 16 + t] = A[b * 32 + t]
        """,
        """
        for block_x in T.thread_binding(2, thread="blockIdx.x"):
            for thread_x in T.thread_binding(16, thread="threadIdx.x"):
                B[block_x * 32 + thread_x] = A[block_x * 32 + thread_x]
                if thread_x < 4:
                    B[block_x * 32 + 16 + thread_x] = A[block_x * 32 + thread_x]
        """,
    )


def test_what_no_loop_over_threads_is_around_one_thread_stores() -> None:
    check_kernel(
        """
        for b in T.thread_binding(2, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 32 + t] = A[b * 32 + t]
            B[b * 32 + 31] = T.float32(1)
        """,
        """
        for block_x in T.thread_binding(2, thread="blockIdx.x"):
            for thread_x in T.thread_binding(16, thread="threadIdx.x"):
                B[block_x * 32 + thread_x] = A[block_x * 32 + thread_x]
                if thread_x == 0:
                    B[block_x * 32 + 31] = T.float32(1.0)
        """,
    )


def check_kernel(before: str, after: str) -> None:
    result = Simplify().apply(SplitKernels().apply(function(before), TARGET), TARGET)
    verify(result)
    body = result.script().split("def f_kernel", 1)[1].split("\n", 2)[2]
    assert body.rstrip("\n") == textwrap.indent(textwrap.dedent(after).strip("\n"), " " * 8), result.script()


REFUSED = {
    "no constant extent": """
        for t in T.thread_binding(n, thread="threadIdx.x"):
            B[t] = A[t]
    """,
    "with different extents": """
        for b in T.thread_binding(2, thread="blockIdx.x"):
            B[b] = A[b]
            for c in T.thread_binding(3, thread="blockIdx.x"):
                B[b + c] = A[c]
    """,
    "is shared memory, and 2 kernels use it": """
        S = T.alloc_buffer((16,), "float32", scope="shared")
        for t in T.thread_binding(16, thread="threadIdx.x"):
            S[t] = A[t]
        for t in T.thread_binding(16, thread="threadIdx.x"):
            B[t] = S[15 - t]
    """,
    "not all threads of a group reach a barrier": """
        S = T.alloc_buffer((16,), "float32", scope="shared")
        for t in T.thread_binding(16, thread="threadIdx.x"):
            if A[t] > T.float32(0):
                for u in T.thread_binding(16, thread="threadIdx.x"):
                    S[u] = A[u]
                B[t] = S[15 - t]
    """,
    "only 4 of the threads along threadIdx.x reach the barrier": """
        S = T.alloc_buffer((16,), "float32", scope="shared")
        for t in T.thread_binding(16, thread="threadIdx.x"):
            B[t] = A[t]
        for b in T.thread_binding(1, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[t + 16] = A[t]
            for t in T.thread_binding(4, thread="threadIdx.x"):
                for k in range(2):
                    for u in T.thread_binding(4, thread="threadIdx.x"):
                        S[u] = A[u + k]
                    B[t + k * 4] = S[3 - t]
    """,
    "a temporary of one thread, has 16,384 elements": """
        for t in T.thread_binding(16, thread="threadIdx.x"):
            with T.block("b"):
                v = T.axis.spatial(16, t)
                X = T.alloc_buffer((16384,), "float32")
                for i in range(16384):
                    X[i] = A[i % 64]
                B[v] = X[v * 64 + T.Cast("int32", A[v])]
    """,
    "depends on data that only the device has": """
        if A[0] > T.float32(0):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[t] = A[t]
    """,
    "returns early": """
        for t in T.thread_binding(16, thread="threadIdx.x"):
            if A[t] > T.float32(0):
                T.evaluate(T.ret(0))
            B[t] = A[t]
    """,
    "is around kernels and has no constant extent": """
        for i in range(n):
            for b in T.thread_binding(4, thread="blockIdx.x"):
                B[b] = B[b] + A[i]
    """,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_no_kernel_can_do_is_refused_with_the_reason(reason: str) -> None:
    module = function(REFUSED[reason], f"{A_B}, n: T.int32")
    with pytest.raises(BuildFailed, match=reason) as refused:
        planned(module)
    assert refused.value.hint


def planned(module: IRModule) -> LaunchPlan:
    lowered, _ = run_pipeline(module, TARGET, schedule="none")
    kernels = {name: Kernel.of(name, func) for name, func in lowered.functions.items() if func.private}
    return plan_launches("f", lowered["f"], kernels).plan


def test_failures_are_written_down_with_their_messages() -> None:
    messages = (
        "[\"assertion failed in function 'f': A must be positive\", \"integer division by zero in function 'f'\"]"
    )
    check(
        ReportFailures(),
        function("""
            assert A[0] > T.float32(0), "A must be positive"
            for i in range(64):
                B[i] = A[i % T.Cast("int32", A[63])]
        """),
        f"""
        status = T.allocate([1], "int32", "global", annotations={{"crossfarm.failures": {messages}}})
        if not A[0] > T.float32(0.0):
            status[0] = 1
        for i in range(64):
            if T.Cast("int32", A[63]) == 0:
                status[0] = 2
            B[i] = A[i % T.Cast("int32", A[63])]
        """,
    )


def test_indices_that_fit_are_computed_in_32_bits() -> None:
    module = function("""
        for b in T.thread_binding(T.int64(4), thread="blockIdx.x"):
            for t in T.thread_binding(T.int64(16), thread="threadIdx.x"):
                if b * T.int64(16) + t < T.int64(60):
                    B[b * T.int64(16) + t] = A[(b * T.int64(16) + t) // T.int64(2)]
    """)
    result = NarrowIndices().apply(Simplify().apply(SplitKernels().apply(module, TARGET), TARGET), TARGET)
    verify(result)
    body = result.script().split("def f_kernel", 1)[1].split("\n", 2)[2]
    expected = """
        for block_x in T.thread_binding(4, thread="blockIdx.x"):
            for thread_x in T.thread_binding(16, thread="threadIdx.x"):
                if block_x * 16 + thread_x < 60:
                    B[block_x * 16 + thread_x] = A[(block_x * 16 + thread_x) // 2]
    """
    assert body.rstrip("\n") == textwrap.indent(textwrap.dedent(expected).strip("\n"), " " * 8), result.script()


def test_indices_that_may_not_fit_stay_as_they_are() -> None:
    module = function(
        """
        n = T.int64()
        A = T.match_buffer(a, (n,), "float32")
        for b in T.thread_binding(n, thread="blockIdx.x"):
            A[b] = A[b * T.int64(3)]
        """,
        "a: T.handle",
    )
    split = Simplify().apply(SplitKernels().apply(module, TARGET), TARGET)
    assert NarrowIndices().apply(split, TARGET) is split


def test_the_interpreter_does_not_run_what_was_split() -> None:
    module = SplitKernels().apply(function("for i in range(64):\n    B[i] = A[i]"), TARGET)
    arrays = [np.zeros(64, np.float32), np.zeros(64, np.float32)]
    with pytest.raises(InvalidModule, match="function 'f' launches kernels"):
        run(module, "f", arrays)


def test_a_loop_of_the_host_launches_its_kernel_for_each_iteration() -> None:
    plan = planned(
        function("""
            for i in range(3):
                for b in T.thread_binding(4, thread="blockIdx.x"):
                    B[b] = B[b] + A[i * 4 + b]
        """)
    )
    assert [launch.kernel for launch in plan.launches] == ["f_kernel"] * 3
    assert [launch.arguments[2].size.ops[0].constant for launch in plan.launches] == [0, 1, 2]
