"""Temporaries become as small and as local as their use allows, and never more."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from compiler_service.passes.access_boxes import accesses_of, touched_box
from compiler_service.passes.localize_buffers import LocalizeBuffers
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, For
from crossfarm.ir.structural import structural_equal
from crossfarm.ir.verify import verify
from crossfarm.ir.visitor import walk
from crossfarm.target import Target
from tests.compiler.test_each_pass import check, function, lowered


def localized(body: str) -> IRModule:
    return LocalizeBuffers().apply(lowered(body), Target("llvm"))


def in_block(body: str, buffer: str, where: str) -> str:
    """``where`` with its ``...`` replaced by a block that allocates ``buffer`` around ``body``."""
    block = f'with T.block("b"):\n    X = T.alloc_buffer({buffer}, "float32")\n' + textwrap.indent(body, "    ")
    return where.replace("...", textwrap.indent(block, "    " * where.count("\n")).lstrip())


def same_result(body: str) -> None:
    before = lowered(body)
    after = LocalizeBuffers().apply(before, Target("llvm"))
    verify(after)
    source = np.random.default_rng(0).standard_normal(64).astype("float32")
    results = []
    for module in (before, after):
        out = np.zeros(64, "float32")
        run(module, "f", [source, out])
        results.append(out)
    np.testing.assert_array_equal(*results)


def test_a_tile_that_each_iteration_owns_becomes_that_iterations_buffer() -> None:
    body = "for i in range(8):\n    X[{x} + i] = A[t * 8 + i]\nfor i in range(8):\n    B[t * 8 + i] = X[{x} + i]"
    whole = 'X = T.alloc_buffer((64,), "float32")\nfor t in range(8):\n' + textwrap.indent(
        body.format(x="t * 8"), "    "
    )
    same_result(whole)
    check(
        LocalizeBuffers(),
        lowered(whole),
        function(in_block(body.replace("{x} + ", ""), "(8,)", "for t in range(8):\n    ...")),
    )


def test_an_accumulator_inside_two_loops_becomes_one_element() -> None:
    body = "X[{x}] = T.float32(0)\nfor k in range(8):\n    X[{x}] = X[{x}] + A[i * 8 + k]\nB[i * 8 + j] = X[{x}]"
    loops = "for i in range(8):\n    for j in range(8):\n"
    whole = 'X = T.alloc_buffer((8, 8), "float32")\n' + loops + textwrap.indent(body.format(x="i, j"), " " * 8)
    same_result(whole)
    check(
        LocalizeBuffers(),
        lowered(whole),
        function(in_block(body.format(x="0, 0"), "(1, 1)", loops + "        ...")),
    )


def test_a_tile_that_each_iteration_computes_again_moves_although_tiles_overlap() -> None:
    whole = """
        X = T.alloc_buffer((64,), "float32")
        for t in range(15):
            for i in range(8):
                X[t * 4 + i] = A[t * 4 + i] * T.float32(2)
            for i in range(4):
                B[t * 4 + i] = X[t * 4 + i] + X[t * 4 + i + 4]
    """
    same_result(whole)
    assert 'X = T.allocate([8], "float32"' in localized(whole).script()


@pytest.mark.parametrize(
    "body",
    [
        # the next iteration loads what this one stored
        "X[0] = A[0]\nfor i in range(63):\n    X[i + 1] = X[i] + A[i]\n    B[i] = X[i]",
        "for i in range(64):\n    if i == 0:\n        X[0] = A[0]\n    B[i] = X[0]\n    X[0] = X[0] + A[i]",
        # only every second element is stored anew
        "for i in range(60):\n    for j in range(2):\n        X[j * 2] = A[i + j]\n    for j in range(4):\n"
        "        B[i + j] = X[j]\n    X[1] = A[i]\n    X[3] = A[i]",
        # stored under a condition
        "for i in range(64):\n    if A[i] > T.float32(0):\n        X[0] = A[i]\n    B[i] = X[0]",
        # used again after the loop
        "for i in range(64):\n    X[i] = A[i]\nfor i in range(64):\n    B[i] = X[63 - i]",
        # which element is stored depends on data
        "for i in range(64):\n    q: T.int32 = T.Cast('int32', A[i]) % 4 + 4\n    X[i + q - 4] = A[i]\n    B[i] = X[i]",
    ],
)
def test_values_that_pass_between_iterations_keep_their_buffer_outside(body: str) -> None:
    whole = 'X = T.alloc_buffer((68,), "float32")\n' + body
    assert structural_equal(localized(whole), lowered(whole))


def test_a_buffer_used_by_one_of_several_loops_moves_into_that_one() -> None:
    whole = """
        X = T.alloc_buffer((64,), "float32")
        for i in range(64):
            B[i] = A[i]
        for i in range(64):
            X[i] = B[i] * T.float32(2)
            B[i] = X[i] + T.float32(1)
    """
    same_result(whole)
    assert 'X = T.allocate([1], "float32"' in localized(whole).script()


def test_a_place_that_moves_with_the_loop_around_has_no_ends_of_its_own() -> None:
    """``(t * 15 + i) // 2`` can be told only where ``t`` can: what may be anything is no box to allocate."""
    module = lowered(
        """
        X = T.alloc_buffer((n * T.int64(8),), "float32")
        for t in T.parallel(n):
            for i in range(T.int64(15)):
                X[(t * T.int64(15) + i) // T.int64(2)] = A[i]
                X[(t * T.int64(15) + i) % T.int64(4)] = A[i]
                X[i // T.int64(4)] = A[i]
        """,
        params='A: T.Buffer((64,), "float32"), n: T.int64',
    )
    (loop, _) = (node for node in walk(module["f"].body) if isinstance(node, For))
    (buffer,) = (node.buffer for node in walk(module["f"].body) if isinstance(node, Allocate))
    moving, remainder, own = (touched_box([access]) for access in accesses_of(buffer, loop.body))
    assert moving == (None,)
    for box, last in ((remainder, 3), (own, 3)):
        assert box[0] is not None
        assert [(end.constant, end.terms) for end in box[0]] == [(0, {}), (last, {})]
