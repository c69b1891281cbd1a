"""Small programs made by hand: one loop over n elements that stores several expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, Stmt
from crossfarm.ir.visitor import seq

TRUE = IntImm(1, "bool")
Make = Callable[..., Expr]


def root(body: Stmt, *allocated: Buffer) -> Stmt:
    """The body of a function."""
    return BlockRealize((), TRUE, Block("root", (), (), (), body, alloc_buffers=allocated))


def loop(extent: int | Expr, body: Callable[[Var], Stmt], kind: str = "serial", name: str = "i") -> For:
    """``for name in range(extent)`` over int64."""
    var = Var(name, "int64")
    return For(var, IntImm(0, "int64"), IntImm(extent, "int64") if isinstance(extent, int) else extent, body(var), kind)


def elementwise(
    inputs: Sequence[str], results: Mapping[str, Make], kind: str = "serial", n: int | None = None
) -> PrimFunc:
    """``out_name[i] = make(in_0[i], in_1[i], …)`` for each of ``results``; n symbolic or constant."""
    size: Expr = Var("n", "int64") if n is None else IntImm(n, "int64")
    params = [Buffer(f"in_{k}", (size,), dtype) for k, dtype in enumerate(inputs)]

    def body(i: Var) -> Stmt:
        stores = []
        for name, make in results.items():
            value = make(*(BufferLoad(p, (i,)) for p in params[: len(inputs)]))
            out = Buffer(f"out_{name}", (size,), value.dtype)
            params.append(out)
            stores.append(BufferStore(out, value, (i,)))
        return seq(*stores)

    nest = loop(size, body, kind)
    return PrimFunc(tuple(params), root(nest), {"tir.noalias": True})


def module(**functions: PrimFunc) -> IRModule:
    return IRModule(functions)


def outputs(func: PrimFunc, inputs: int, n: int) -> list[np.ndarray[Any, Any]]:
    """Arrays for a function's output parameters, filled with what no result should be."""
    arrays = []
    for param in func.params[inputs:]:
        array = np.empty(n, dt.to_numpy(param.dtype))
        array.view(np.uint8).fill(0x55 if array.dtype != np.bool_ else 1)
        arrays.append(array)
    return arrays


def scalar_range(first: int, extent: int) -> Range:
    return Range(IntImm(first, "int64"), IntImm(extent, "int64"))
