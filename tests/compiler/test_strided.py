"""Vectors of every second, third or fourth element, up to the very last one of a tensor."""

from __future__ import annotations

import numpy as np
import pytest

import crossfarm as cf
from tests.compiler.native import Native

PROGRAM = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((3, {width}), "{dtype}"), B: T.Buffer((3, {lanes}), "{dtype}")):
        T.func_attr({{"tir.noalias": True}})
        for i in range(3):
            for j in T.vectorized({lanes}):
                with T.block("B"):
                    v_i, v_j = T.axis.remap("SS", [i, j])
                    B[v_i, v_j] = A[v_i, v_j * {stride} + {first}]
"""


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "float16"])
@pytest.mark.parametrize("lanes", [2, 3, 7, 16, 33])
@pytest.mark.parametrize(("stride", "first"), [(2, 0), (2, 1), (3, 0), (3, 2), (4, 3), (5, 0)])
def test_lanes_at_a_distance(stride: int, first: int, lanes: int, dtype: str) -> None:
    width = first + stride * (lanes - 1) + 1
    module = cf.parse(PROGRAM.format(width=width, lanes=lanes, stride=stride, first=first, dtype=dtype))
    a = np.arange(3 * width).reshape(3, width).astype(dtype)
    b = np.zeros((3, lanes), dtype)
    Native(module, schedule="none")("main", a, b)
    np.testing.assert_array_equal(b, a[:, first::stride])
