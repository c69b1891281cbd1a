"""A program may nest its loops in any order: the rules find each axis' loop, and the result stays right."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

import crossfarm as cf
from compiler_service.schedules import choose_schedules
from crossfarm.target import Target
from tests.compiler.native import Native

SIZES = {"i": 40, "j": 48, "k": 56}


def product(order: tuple[str, ...]) -> cf.IRModule:
    extents = ", ".join(str(SIZES[axis]) for axis in order)
    return cf.parse(
        f"""
from crossfarm.script import ir as I, tir as T


@I.ir_module
class Module:
    @T.prim_func
    def main(
        A: T.Buffer((40, 56), "float32"), B: T.Buffer((56, 48), "float32"), C: T.Buffer((40, 48), "float32")
    ):
        T.func_attr({{"tir.noalias": True}})
        for {", ".join(order)} in T.grid({extents}):
            with T.block("C"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    C[vi, vj] = T.float32(0)
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
"""
    )


@pytest.mark.parametrize("order", list(permutations("ijk")), ids="".join)
def test_a_product_is_tiled_and_right_in_every_order_of_its_loops(order: tuple[str, ...]) -> None:
    module = product(order)
    (choice,) = choose_schedules(module, Target("llvm").resolved()).choices
    assert choice.rule == "matmul"
    a, b = (np.random.default_rng(i).random(s, dtype=np.float32) for i, s in enumerate([(40, 56), (56, 48)]))
    c = np.zeros((40, 48), np.float32)
    Native(module)("main", a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)
