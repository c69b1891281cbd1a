"""Graph functions of calls, with the tensor programs that they call written in script."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import CallTIR, Function, GraphExpr, GraphVar, OperatorCall
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import IRModule

SCRIPT = """
from crossfarm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func(private=True)
    def double(a: T.handle, b: T.handle):
        n = T.int64()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (n,), "float32")
        for i in range(n):
            with T.block("double"):
                v = T.axis.spatial(n, i)
                B[v] = A[v] * T.float32(2)

    @T.prim_func(private=True)
    def add(a: T.handle, b: T.handle, c: T.handle):
        n = T.int64()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (n,), "float32")
        C = T.match_buffer(c, (n,), "float32")
        for i in range(n):
            with T.block("add"):
                v = T.axis.spatial(n, i)
                C[v] = A[v] + B[v]

    @T.prim_func(private=True)
    def both(a: T.handle, b: T.handle, c: T.handle):  # on threads of a CPU
        n = T.int64()
        A = T.match_buffer(a, (n, 64), "float32")
        B = T.match_buffer(b, (n, 64), "float32")
        C = T.match_buffer(c, (n,), "float32")
        for i in T.parallel(n):
            for j in range(64):
                with T.block("square"):
                    x, y = T.axis.remap("SS", [i, j])
                    B[x, y] = A[x, y] * A[x, y]
        for i in T.parallel(n):
            for j in range(64):
                with T.block("total"):
                    x, y = T.axis.remap("SR", [i, j])
                    with T.init():
                        C[x] = T.float32(0)
                    C[x] = C[x] + A[x, y]

    @T.prim_func(private=True)
    def mirrored(a: T.handle, b: T.handle):  # a row needs the total of another: two nests, and a temporary between
        n = T.int64()
        A = T.match_buffer(a, (n, 2000), "float32")
        B = T.match_buffer(b, (n, 2000), "float32")
        total = T.alloc_buffer((n,), "float32")
        scaled = T.alloc_buffer((n, 2000), "float32")
        for i, j in T.grid(n, 2000):
            with T.block("scaled"):
                x, y = T.axis.remap("SS", [i, j])
                scaled[x, y] = A[x, y] * T.float32(0.125)
        for i, j in T.grid(n, 2000):
            with T.block("total"):
                x, y = T.axis.remap("SR", [i, j])
                with T.init():
                    total[x] = T.float32(0)
                total[x] = total[x] + scaled[x, 1999 - y]
        for i, j in T.grid(n, 2000):
            with T.block("share"):
                x, y = T.axis.remap("SS", [i, j])
                B[x, y] = A[x, y] + total[n - 1 - x]

    @T.prim_func(private=True)
    def quotient(a: T.handle, b: T.handle, c: T.handle):
        n = T.int64()
        A = T.match_buffer(a, (n,), "int32")
        B = T.match_buffer(b, (n,), "int32")
        C = T.match_buffer(c, (n,), "int32")
        for i in range(n):
            with T.block("quotient"):
                v = T.axis.spatial(n, i)
                C[v] = A[v] // B[v]

    @T.prim_func(private=True)
    def positive(a: T.handle, b: T.handle):
        n = T.int64()
        A = T.match_buffer(a, (n,), "int32")
        B = T.match_buffer(b, (n,), "int32")
        for i in range(n):
            assert A[i] > 0, "all are positive"
            B[i] = A[i]

    @T.prim_func(private=True)
    def repeated(a: T.handle, b: T.handle, times: T.int64):
        n, m = T.int64(), T.int64()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (m,), "float32")
        for i in range(m):
            with T.block("repeated"):
                v = T.axis.spatial(m, i)
                B[v] = A[v // times]

    @T.prim_func
    def halve(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        for i in range(64):
            with T.block("halve"):
                v = T.axis.spatial(64, i)
                B[v] = A[v] * T.float32(0.5)
"""
PROGRAMS = parse(SCRIPT)
Array = np.ndarray[Any, Any]


def tensor(*shape: dims.Dim, dtype: str = "float32") -> TensorType:
    return TensorType(dims.dims(shape), dtype)


class Calls(Builder):
    """A builder of functions that call the programs above."""

    def __init__(self) -> None:
        super().__init__(PROGRAMS.functions)
        self.n = Var("n", "int64")

    def call(self, name: str, *args: GraphExpr, out: TensorType | tuple[TensorType, ...], **fields: Any) -> GraphVar:
        kinds = out if isinstance(out, tuple) else (out,)
        return self.bind(CallTIR(name, tuple(self.atom(a) for a in args), kinds, **fields))

    def view(self, value: GraphVar, *shape: dims.Dim) -> GraphVar:
        assert isinstance(value.type, TensorType)
        kind = tensor(*shape, dtype=value.type.dtype)
        return self.bind(OperatorCall("reshape", (value,), {"shape": kind.shape}), type=kind)

    def module(self, *results: GraphExpr, **fields: Any) -> IRModule:
        """The function as ``main``, with those programs that it calls."""
        whole = self.function(results[0] if len(results) == 1 else results, **fields)
        return with_programs(whole)


def with_programs(main: Function) -> IRModule:
    """A module of ``main`` and those programs that it calls."""
    called = {b.value.function for block in main.body.blocks for b in block.bindings if isinstance(b.value, CallTIR)}
    return IRModule({"main": main, **{name: f for name, f in PROGRAMS.functions.items() if name in called}})
