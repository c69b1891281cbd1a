"""A parallel loop that could only race runs serially; one that does not keeps its threads."""

from __future__ import annotations

import numpy as np
import pytest

from compiler_service.passes.lower_blocks import LowerBlocks
from compiler_service.passes.serialize_races import SerializeRaces
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For
from crossfarm.ir.visitor import walk
from crossfarm.target import Target
from tests.compiler.native import Native


def program(body: str) -> IRModule:
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return parse(
        "from crossfarm.script import tir as T\n@T.prim_func\n"
        f'def main(A: T.Buffer((512, 8), "float32"), B: T.Buffer((512, 8), "float32")):\n{indented}\n'
    )


def kinds(module: IRModule) -> list[str]:
    target = Target("llvm")
    after = SerializeRaces().apply(LowerBlocks().apply(module, target), target)
    return [node.kind for node in walk(after["main"].body) if isinstance(node, For)]


SUM = """
B[0, 0] = T.float32(0)
for i in T.parallel(512):
    for j in range(8):
        B[0, 0] = B[0, 0] + A[i, j]
"""
COLUMNS = """
for i in T.parallel(512):
    for j in range(8):
        B[0, j] = B[0, j] + A[i, j]
"""
ROWS = """
for i in T.parallel(512):
    for j in range(8):
        B[i, j] = A[i, j]
"""
THROUGH_A_NAME = """
for i in T.parallel(512):
    k: T.int32 = 511 - i
    for j in range(8):
        B[k, j] = A[i, j]
"""
TRIANGLE = """
for i in T.parallel(8):
    for j in range(i, i + 1):
        B[0, j] = A[0, j]
"""


@pytest.mark.parametrize(
    ("body", "outer"),
    [(SUM, "serial"), (COLUMNS, "serial"), (ROWS, "parallel"), (THROUGH_A_NAME, "parallel"), (TRIANGLE, "parallel")],
)
def test_only_a_loop_whose_iterations_write_one_element_loses_its_threads(body: str, outer: str) -> None:
    assert kinds(program(body)) == [outer, "serial"]


def test_a_sum_that_was_declared_parallel_is_right() -> None:
    a = np.ones((512, 8), "float32")
    b = np.zeros((512, 8), "float32")
    native = Native(program(SUM))
    for _ in range(20):
        native("main", a, b)
        assert b[0, 0] == 4096
