"""Vectors of elements at constant places, in any order, from one vector in memory, from two, and from more."""

from __future__ import annotations

import numpy as np
import pytest

import crossfarm as cf
from crossfarm.ir.interpreter import run
from tests.compiler.native import Native

PROGRAM = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer(({rows}, {columns}), "{dtype}"), B: T.Buffer((8,), "{dtype}")):
        T.func_attr({{"tir.noalias": True}})
        for j in T.vectorized(8):
            B[j] = A[{row}, {column}]
"""

PLACES = {
    "the same order": ("0", "j"),
    "backwards": ("0", "7 - j"),
    "one element": ("1", "3"),
    "each twice": ("0", "j // 2"),
    "rows in turns": ("j % 2", "j // 2"),
    "across two vectors": ("(j + 3) // 8", "(j + 3) % 8"),
    "columns": ("j", "1"),
    "up to the last": ("T.max(j, 6)", "7 - j % 4"),
    "by bits": ("T.bitwise_xor(j, 5) // 4", "T.bitwise_and(j, 3) * 2"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "float16", "bool"])
@pytest.mark.parametrize("columns", [8, 11])
@pytest.mark.parametrize("places", PLACES)
def test_lanes_from_constant_places(places: str, columns: int, dtype: str) -> None:
    row, column = PLACES[places]
    module = cf.parse(PROGRAM.format(rows=8, columns=columns, dtype=dtype, row=row, column=column))
    a = (np.arange(8 * columns).reshape(8, columns) % (2 if dtype == "bool" else 90)).astype(dtype)
    interpreted, compiled = np.zeros(8, dtype), np.zeros(8, dtype)
    run(module, "main", [a, interpreted])
    Native(module, schedule="none")("main", a, compiled)
    np.testing.assert_array_equal(compiled, interpreted)


def test_a_permutation_of_two_vectors_is_one_shuffle() -> None:
    program = PROGRAM.format(rows=8, columns=8, dtype="float32", row="j % 2 * 4", column="j")
    built = Native(cf.parse(program), "llvm cpu=x86-64-v3", schedule="none", keep_sources=True).built
    text = built.sources["llvm.ll"]
    assert text.count("shufflevector") == 1
    assert "insertelement" not in text
