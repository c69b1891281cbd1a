"""Programs that schedules are tried on, and how a scheduled module is compared with the one it came from."""

from __future__ import annotations

import numpy as np

import crossfarm as cf
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import IntImm
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.printer import print_function
from crossfarm.ir.schedule.schedule import Schedule

MATMUL = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((12, 8), "float32"), B: T.Buffer((8, 10), "float32"), C: T.Buffer((12, 10), "float32")):
        for i, j, k in T.grid(12, 10, 8):
            with T.block("C"):
                v_i, v_j, v_k = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    C[v_i, v_j] = T.float32(0)
                C[v_i, v_j] = C[v_i, v_j] + A[v_i, v_k] * B[v_k, v_j]
"""

CHAIN = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((6, 10), "float32"), D: T.Buffer((6, 10), "float32")):
        B = T.alloc_buffer((6, 10))
        C = T.alloc_buffer((6, 10))
        for i, j in T.grid(6, 10):
            with T.block("B"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                B[v_i, v_j] = A[v_i, v_j] * T.float32(2)
        for i, j in T.grid(6, 10):
            with T.block("C"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                C[v_i, v_j] = B[v_i, v_j] + T.float32(1)
        for i, j in T.grid(6, 10):
            with T.block("D"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                D[v_i, v_j] = C[v_i, v_j] * B[v_i, v_j]
"""

SYMBOLIC = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(var_A: T.handle, var_B: T.handle):
        n = T.int64()
        m = T.int64()
        A = T.match_buffer(var_A, (n, m))
        B = T.match_buffer(var_B, (n, m))
        for i, j in T.grid(n, m):
            with T.block("B"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                B[v_i, v_j] = A[v_i, v_j] + T.float32(1)
"""


def schedule(text: str, *, seed: int | None = 0) -> Schedule:
    """A schedule of a program given as text."""
    return Schedule(cf.parse(text), seed=seed)


def check(sch: Schedule, original: IRModule | str, **sizes: int) -> None:
    """The schedule's module verifies, reads back as printed, and computes what the original computes.

    Args:
        sizes: values of symbolic sizes by name.
    """
    before = cf.parse(original) if isinstance(original, str) else original
    cf.verify(sch.module)
    assert cf.structural_equal(cf.parse(sch.module.script()), sch.module)
    for name in before.functions:
        same_results(before, sch.module, name, sizes)


def same_results(before: IRModule, after: IRModule, name: str = "main", sizes: dict[str, int] | None = None) -> None:
    """Both modules compute the same from the same random arguments, to the last bit but for the order of sums."""
    first, second = (arguments(module, name, sizes or {}) for module in (before, after))
    run(before, name, first)
    run(after, name, second)
    for a, b in zip(first, second):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def arguments(module: IRModule, name: str, sizes: dict[str, int]) -> list[np.ndarray]:
    """Random tensors for a function's parameters, the same at each call."""
    random = np.random.default_rng(7)
    tensors = []
    for param in module[name].params:
        assert isinstance(param, Buffer)
        shape = tuple(d.value if isinstance(d, IntImm) else sizes[getattr(d, "name", "")] for d in param.shape)
        tensors.append((random.standard_normal(shape) * 4).astype(dt.to_numpy(param.dtype)))
    return tensors


def body(sch: Schedule, func: str = "main") -> str:
    """The function as printed."""
    return print_function(sch.module[func], func)
