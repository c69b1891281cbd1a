"""Loop kinds, annotations, scopes and alignment: what each leaves behind, and what each refuses."""

from __future__ import annotations

import numpy as np
import pytest

from crossfarm.errors import ScheduleError
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.interpreter import run
from crossfarm.ir.schedule.tree import find_block
from tests.compiler.native import Native
from tests.schedule.programs import CHAIN, MATMUL, SYMBOLIC, arguments, body, check, schedule

PREFIX_SUM = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")):
        B = T.alloc_buffer((1,))
        for i in range(8):
            with T.block("B"):
                v_i = T.axis.reduce(8, i)
                with T.init():
                    B[0] = T.float32(0)
                B[0] = B[0] + A[v_i]
            with T.block("C"):
                v_i = T.axis.spatial(8, i)
                C[v_i] = B[0]
"""

SCATTER = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((8,), "int32"), C: T.Buffer((4,), "int32")):
        for i in range(8):
            with T.block("C"):
                v_i = T.axis.spatial(8, i)
                T.reads(A[v_i])
                T.writes(C[0:4])
                C[A[v_i] % 4] = v_i
"""

DECOMPOSED = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((12, 8), "float32"), C: T.Buffer((12,), "float32")):
        for i_0, i_1 in T.grid(3, 4):
            with T.block("C_init"):
                v_i = T.axis.spatial(12, i_0 * 4 + i_1)
                C[v_i] = T.float32(0)
            for k in range(8):
                with T.block("C_update"):
                    v_i = T.axis.spatial(12, i_0 * 4 + i_1)
                    v_k = T.axis.reduce(8, k)
                    C[v_i] = C[v_i] + A[v_i, v_k]
"""

TEMPORARY = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((6, 10), "float32"), C: T.Buffer((6, 10), "float32")):
        B = T.alloc_buffer((10,))
        for i in range(6):
            for j in range(10):
                with T.block("B"):
                    v_i, v_j = T.axis.remap("SS", [i, j])
                    B[v_j] = A[v_i, v_j] * T.float32(2)
            for j in range(10):
                with T.block("C"):
                    v_i, v_j = T.axis.remap("SS", [i, j])
                    C[v_i, v_j] = B[v_j] + B[9 - v_j]
"""


def test_spatial_loops_run_as_they_are_told() -> None:
    sch = schedule(MATMUL)
    i, j, k = sch.get_loops(sch.get_block("C"))
    sch.reorder(i, k, j)
    sch.parallel(i)
    sch.unroll(k)
    sch.vectorize(j)
    for text in ("in T.parallel(12)", "in T.unroll(8)", "in T.vectorized(10)"):
        assert text in body(sch)
    check(sch, MATMUL)


@pytest.mark.parametrize("primitive", ["parallel", "vectorize"])
def test_a_reduce_axis_does_not_run_at_once(primitive: str) -> None:
    sch = schedule(MATMUL)
    *_, k = sch.get_loops(sch.get_block("C"))
    with pytest.raises(ScheduleError, match=rf"(?s){primitive}: .*drives the reduce axis v_k of block C.*T.block"):
        getattr(sch, primitive)(k)


def test_a_reduction_may_run_across_threads() -> None:
    sch = schedule(MATMUL)
    i, _, k = sch.get_loops(sch.get_block("C"))
    sch.bind(i, "blockIdx.x")
    sch.bind(k, "threadIdx.x")
    assert 'T.thread_binding(8, thread="threadIdx.x")' in body(sch)
    check(sch, MATMUL)


def test_bind_refuses_unknown_axes_and_one_axis_twice_in_a_nest() -> None:
    sch = schedule(MATMUL)
    i, j, k = sch.get_loops(sch.get_block("C"))
    with pytest.raises(ScheduleError, match=r"no thread axis 'threadIdx.w'"):
        sch.bind(i, "threadIdx.w")
    with pytest.raises(ScheduleError, match="drives the reduce axis"):
        sch.bind(k, "blockIdx.x")
    sch.bind(i, "threadIdx.x")
    with pytest.raises(ScheduleError, match=r"loop i in the same nest is bound to threadIdx\.x"):
        sch.bind(j, "threadIdx.x")


def test_a_loop_has_one_kind() -> None:
    sch = schedule(MATMUL)
    i, *_ = sch.get_loops(sch.get_block("C"))
    sch.parallel(i)
    for primitive in (sch.vectorize, sch.unroll, sch.parallel):
        with pytest.raises(ScheduleError, match="loop i is parallel already"):
            primitive(i)


def test_vectors_have_a_constant_length() -> None:
    sch = schedule(SYMBOLIC)
    _, j = sch.get_loops(sch.get_block("B"))
    with pytest.raises(ScheduleError, match="no constant extent"):
        sch.vectorize(j)
    outer, inner = sch.split(j, [None, 8])
    sch.vectorize(inner)
    sch.parallel(outer)
    check(sch, SYMBOLIC, n=2, m=13)


def test_a_fused_symbolic_loop_is_known_to_be_parallel() -> None:
    sch = schedule(SYMBOLIC)
    outer, inner = sch.split(sch.fuse(*sch.get_loops(sch.get_block("B"))), [None, 16])
    sch.parallel(outer)
    sch.vectorize(inner)
    check(sch, SYMBOLIC, n=5, m=7)


def test_a_running_sum_is_not_taken_for_independent_steps() -> None:
    sch = schedule(PREFIX_SUM)
    (i,) = sch.get_loops(sch.get_block("C"))
    with pytest.raises(ScheduleError, match="drives the reduce axis v_i of block B"):
        sch.parallel(i)


def test_elements_chosen_by_data_are_not_taken_for_different_ones() -> None:
    sch = schedule(SCATTER)
    (i,) = sch.get_loops(sch.get_block("C"))
    with pytest.raises(ScheduleError, match="several may touch one element of C"):
        sch.parallel(i)


def test_a_decomposed_reduction_runs_its_spatial_loops_at_once() -> None:
    sch = schedule(DECOMPOSED)
    outer, inner = sch.get_loops(sch.get_block("C_init"))
    sch.parallel(outer)
    sch.vectorize(inner)
    check(sch, DECOMPOSED)


def test_a_temporary_of_one_iteration_does_not_tie_iterations_together() -> None:
    sch = schedule(TEMPORARY)
    i, j = sch.get_loops(sch.get_block("C"))
    sch.parallel(i)
    sch.vectorize(j)
    check(sch, TEMPORARY)


def test_a_temporary_that_an_earlier_iteration_filled_does() -> None:
    text = TEMPORARY.replace(
        'for j in range(10):\n                with T.block("B")',
        'for j in range(5):\n                with T.block("B")',
    )
    sch = schedule(text)
    i, _ = sch.get_loops(sch.get_block("C"))
    with pytest.raises(ScheduleError, match="block C may read in one what block B writes to B in another"):
        sch.parallel(i)


def test_annotations_come_and_go() -> None:
    sch = schedule(MATMUL)
    block = sch.get_block("C")
    loop = sch.get_loops(block)[0]
    sch.annotate(block, "kind", "gemm")
    sch.annotate(loop, "unroll", (4, 2))
    assert '{"kind": "gemm"}' in body(sch)
    assert 'annotations={"unroll": (4, 2)}' in body(sch) or '"unroll": [4, 2]' in body(sch)
    check(sch, MATMUL)
    sch.unannotate(block, "kind")
    sch.unannotate(loop, "unroll")
    with pytest.raises(ScheduleError, match="no annotation 'kind'; there are: none"):
        sch.unannotate(block, "kind")
    with pytest.raises(ScheduleError, match="an attribute holds a object"):
        sch.annotate(block, "kind", object())  # type: ignore[arg-type]


def buffer_of(sch: object, block: str) -> Buffer:
    return find_block(sch.module["main"], block).block.writes[0].buffer  # type: ignore[attr-defined]


def test_a_temporary_moves_to_another_scope() -> None:
    sch = schedule(CHAIN)
    sch.set_scope(sch.get_block("B"), 0, "shared")
    assert buffer_of(sch, "B").scope == "shared"
    check(sch, CHAIN)


def test_rows_of_a_temporary_are_spaced() -> None:
    sch = schedule(CHAIN)
    sch.storage_align(sch.get_block("B"), 0, -2, 16, 3)
    assert [getattr(s, "value", 0) for s in buffer_of(sch, "B").strides] == [19, 1]
    check(sch, CHAIN)


def test_scopes_and_alignment_are_for_temporaries() -> None:
    sch = schedule(CHAIN)
    b, d = sch.get_block("B"), sch.get_block("D")
    with pytest.raises(ScheduleError, match="D is not allocated here"):
        sch.set_scope(d, 0, "shared")
    with pytest.raises(ScheduleError, match="has 1 written buffers, not one of index 1"):
        sch.set_scope(b, 1, "shared")
    with pytest.raises(ScheduleError, match="no memory scope 'warp'"):
        sch.set_scope(b, 0, "warp")
    with pytest.raises(ScheduleError, match="axis 1 of B has no stride to choose"):
        sch.storage_align(b, 0, 1, 16, 0)
    with pytest.raises(ScheduleError, match="17 modulo 16"):
        sch.storage_align(b, 0, 0, 16, 17)


def test_spaced_rows_have_room_in_native_code() -> None:
    sch = schedule(CHAIN)
    sch.storage_align(sch.get_block("B"), 0, 0, 4096, 1)
    expected, got = arguments(sch.module, "main", {}), arguments(sch.module, "main", {})
    run(sch.module, "main", expected)
    Native(sch.module, schedule="none")("main", *got)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)
