"""Steps of a reduction bound to threads: each its own part, the parts together in shared memory."""

from __future__ import annotations

import numpy as np
import pytest

from compiler_service.passes.reduce_across_threads import ReduceAcrossThreads
from crossfarm.errors import BuildFailed
from crossfarm.ir import interpreter
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Block, For
from crossfarm.ir.verify import verify
from crossfarm.ir.visitor import walk
from crossfarm.target import Target
from tests.compiler.thread_reductions import PROGRAMS, matmul, shapes_of

GPU = Target("vulkan")


def applied(module: IRModule) -> PrimFunc:
    result = ReduceAcrossThreads().apply(module, GPU)
    verify(result)
    return result.prim_func("main")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_result_is_the_products(name: str) -> None:
    func = applied(PROGRAMS[name])
    rng = np.random.default_rng(5)
    shapes = shapes_of(func)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes[:2])
    c = np.zeros(shapes[2], np.float32)
    interpreter.run(IRModule({"main": func}), "main", [a, b, c])
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_thread_adds_to_what_another_one_adds_to(name: str) -> None:
    for node in walk(applied(PROGRAMS[name]).body):
        if not isinstance(node, For) or not node.thread.startswith("threadIdx"):
            continue
        for block in (
            n for n in walk(node.body) if isinstance(n, Block) and any(a.kind == "reduce" for a in n.iter_vars)
        ):
            assert block.writes[0].buffer.scope != "global" or node.thread == "threadIdx.y"


def test_other_reductions_are_left_as_they_are() -> None:
    sch = matmul(48)
    i, j, _ = sch.get_loops(sch.get_block("c"))
    sch.bind(i, "blockIdx.x")
    sch.bind(j, "threadIdx.x")
    assert ReduceAcrossThreads().apply(sch.module, GPU) is sch.module


def _two_axes() -> IRModule:
    sch = matmul(64)
    i, _, k = sch.get_loops(sch.get_block("c"))
    outer, inner = sch.split(k, [8, 8])
    sch.bind(i, "blockIdx.x")
    sch.bind(outer, "threadIdx.y")
    sch.bind(inner, "threadIdx.x")
    return sch.module


def _results_inside() -> IRModule:
    sch = matmul(64)
    i, j, k = sch.get_loops(sch.get_block("c"))
    sch.reorder(k, j)
    sch.bind(i, "blockIdx.x")
    sch.bind(k, "threadIdx.x")
    return sch.module


def _initialized_elsewhere() -> IRModule:
    sch = matmul(64)
    i, _, k = sch.get_loops(sch.get_block("c"))
    sch.decompose_reduction(sch.get_block("c"), k)
    sch.bind(i, "blockIdx.x")
    sch.bind(k, "threadIdx.x")
    return sch.module


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (_two_axes(), r"loop 'k_1' is bound to threadIdx.x, too\n.*fuse them"),
        (_results_inside(), r"loop 'j' inside is over its results\n.*reorder"),
        (_initialized_elsewhere(), r"initial value is stored elsewhere\n.*decompose_reduction"),
    ],
    ids=["two axes", "results inside", "initialized elsewhere"],
)
def test_threads_that_cannot_work_together_are_refused(module: IRModule, why: str) -> None:
    with pytest.raises(BuildFailed, match=rf"(?s)function 'main': loop 'k.*reduction 'c.*{why}"):
        applied(module)
