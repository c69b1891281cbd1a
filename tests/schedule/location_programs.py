"""Programs of several stages, and how a schedule of them is held against the original, interpreted and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

import crossfarm as cf
from crossfarm.ir.interpreter import run
from crossfarm.ir.schedule.schedule import Schedule
from tests.compiler.native import Native
from tests.schedule.programs import arguments

HEAD = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
"""


def program(signature: str, body: str) -> str:
    """Script text of a module with the function ``main``; ``body`` starts at column 0."""
    indented = "\n".join("        " + line for line in body.strip("\n").splitlines())
    return f"{HEAD}    def main({signature}):\n{indented}\n"


def holds(sch: Schedule, text: str, *, compiled: bool = True, **sizes: int) -> None:
    """The scheduled module verifies, round-trips, and computes what ``text`` computes, interpreted and compiled."""
    before = cf.parse(text)
    cf.verify(sch.module)
    assert cf.structural_equal(cf.parse(sch.module.script()), sch.module)
    expected, actual = arguments(before, "main", sizes), arguments(before, "main", sizes)
    run(before, "main", expected)
    run(sch.module, "main", actual)
    _compare(expected, actual)
    if compiled:
        native = arguments(before, "main", sizes)
        Native(sch.module)("main", *native)
        _compare(expected, native)


def _compare(expected: list[Any], actual: list[Any]) -> None:
    for a, b in zip(expected, actual, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)


def pointwise(n: object, m: object) -> str:
    """B = A + 1, C = B * 2, each n × m."""
    return program(
        f'A: T.Buffer(({n}, {m}), "float32"), C: T.Buffer(({n}, {m}), "float32")',
        f"""
B = T.alloc_buffer(({n}, {m}))
for i, j in T.grid({n}, {m}):
    with T.block("B"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        B[v_i, v_j] = A[v_i, v_j] + T.float32(1)
for i, j in T.grid({n}, {m}):
    with T.block("C"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        C[v_i, v_j] = B[v_i, v_j] * T.float32(2)
""",
    )


def matmul(n: int, m: int, k: int) -> str:
    return program(
        f'A: T.Buffer(({n}, {k}), "float32"), B: T.Buffer(({k}, {m}), "float32"), C: T.Buffer(({n}, {m}), "float32")',
        f"""
for i, j, k in T.grid({n}, {m}, {k}):
    with T.block("C"):
        v_i, v_j, v_k = T.axis.remap("SSR", [i, j, k])
        with T.init():
            C[v_i, v_j] = T.float32(0)
        C[v_i, v_j] = C[v_i, v_j] + A[v_i, v_k] * B[v_k, v_j]
""",
    )


def softmax(m: int) -> str:
    """Rows of a symbolic number."""
    return program(
        "var_x: T.handle, var_y: T.handle",
        f"""
n = T.int64()
x = T.match_buffer(var_x, (n, T.int64({m})))
y = T.match_buffer(var_y, (n, T.int64({m})))
top = T.alloc_buffer((n,))
e = T.alloc_buffer((n, T.int64({m})))
total = T.alloc_buffer((n,))
for i, k in T.grid(n, T.int64({m})):
    with T.block("top"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            top[v_i] = T.float32(-340282346638528859811704183484516925440.0)
        top[v_i] = T.max(top[v_i], x[v_i, v_k])
for i, j in T.grid(n, T.int64({m})):
    with T.block("e"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        e[v_i, v_j] = T.exp(x[v_i, v_j] - top[v_i])
for i, k in T.grid(n, T.int64({m})):
    with T.block("total"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            total[v_i] = T.float32(0)
        total[v_i] = total[v_i] + e[v_i, v_k]
for i, j in T.grid(n, T.int64({m})):
    with T.block("y"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        y[v_i, v_j] = e[v_i, v_j] / total[v_i]
""",
    )


def row_sum(n: int, m: object) -> str:
    return program(
        f'A: T.Buffer(({n}, {m}), "float32"), S: T.Buffer(({n},), "float32")',
        f"""
for i, k in T.grid({n}, {m}):
    with T.block("S"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            S[v_i] = T.float32(0)
        S[v_i] = S[v_i] + A[v_i, v_k]
""",
    )


def padded_pool(n: int, kernel: int, stride: int) -> str:
    """Max pool over a padded line of n."""
    out = (n + 2 - kernel) // stride + 1
    return program(
        f'x: T.Buffer((3, {n}), "float32"), y: T.Buffer((3, {out}), "float32")',
        f"""
pad = T.alloc_buffer((3, {n + 2}))
for c, i in T.grid(3, {n + 2}):
    with T.block("pad"):
        v_c, v_i = T.axis.remap("SS", [c, i])
        pad[v_c, v_i] = T.if_then_else(1 <= v_i and v_i < {n + 1}, x[v_c, v_i - 1], T.float32(-1000))
for c, i, r in T.grid(3, {out}, {kernel}):
    with T.block("pool"):
        v_c, v_i, v_r = T.axis.remap("SSR", [c, i, r])
        with T.init():
            y[v_c, v_i] = T.float32(-1000)
        y[v_c, v_i] = T.max(y[v_c, v_i], pad[v_c, v_i * {stride} + v_r])
""",
    )
