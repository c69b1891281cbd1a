"""Tiles of a size that is known only when the function is called: what matmuls of dynamic batches need."""

from __future__ import annotations

import numpy as np
import pytest

from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.interpreter import run
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.verify import verify

MATMUL = """
from crossfarm.script import tir as T

@T.prim_func
def main(a: T.handle, b: T.handle, c: T.handle):
    m, n = T.{dtype}(), T.{dtype}()
    A = T.match_buffer(a, (m, 7), "float32")
    B = T.match_buffer(b, (7, n), "float32")
    C = T.match_buffer(c, (m, n), "float32")
    for i, j, k in T.grid(m, n, 7):
        with T.block("mm"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
"""


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_the_copy_of_a_padded_result_moves_to_its_tile(dtype: str) -> None:
    module = parse(MATMUL.format(dtype=dtype))
    sch = Schedule(module)
    block = sch.get_block("mm")
    sch.pad_einsum(block, [6, 8, 1])
    i, j, k = sch.get_loops(block)
    i0, i1 = sch.split(i, [None, 6])
    j0, j1 = sch.split(j, [None, 8])
    sch.reorder(i0, j0, k, i1, j1)
    (copy,) = sch.get_consumers(block)
    sch.reverse_compute_at(copy, j0)
    sch.decompose_reduction(block, k)
    blocks, tile = sch.split(i0, [None, 4])
    sch.reorder(blocks, j0, tile)
    sch.parallel(blocks)
    verify(sch.module)
    a, b = (np.random.default_rng(0).standard_normal(s).astype("float32") for s in ((41, 7), (7, 19)))
    c = np.zeros((41, 19), "float32")
    run(sch.module, "main", [a, b, c])
    np.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)
