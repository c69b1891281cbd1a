"""Dot products of 8-bit integers as tensor intrinsics."""

from __future__ import annotations

import re

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Broadcast, BufferLoad, Call, Expr, IntImm, Ramp, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses
from crossfarm.ir.schedule.whole import whole_function
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IterVar

_LANES = (4, 8, 16)
_DTYPES = {"i8": "int8", "u8": "uint8"}
_PATTERN = re.compile(r"dot_(?P<lanes>4|8|16)x4_(?P<a>[iu]8)(?P<b>[iu]8)i32")
_TRUE = IntImm(1, "bool")


def dot_name(lanes: int, a: str, b: str) -> str:
    """The name of the dot product of ``lanes`` sums, for factors of dtypes ``a`` and ``b``."""
    short = {dtype: text for text, dtype in _DTYPES.items()}
    return f"dot_{lanes}x4_{short[a]}{short[b]}i32"


def dot_names() -> list[str]:
    """All of them."""
    return [dot_name(lanes, a, b) for lanes in _LANES for a in _DTYPES.values() for b in _DTYPES.values()]


def dot_functions(name: str) -> tuple[PrimFunc, PrimFunc] | None:
    """Description and implementation of the one of that name; None for any other name."""
    match = _PATTERN.fullmatch(name)
    if match is None:
        return None
    lanes, a, b = int(match["lanes"]), _DTYPES[match["a"]], _DTYPES[match["b"]]
    return _dot_desc(lanes, a, b), _dot_impl(lanes, a, b)


def _parameters(lanes: int, a: str, b: str) -> tuple[Buffer, Buffer, Buffer]:
    return (
        Buffer("A", (IntImm(4),), a),
        Buffer("B", (IntImm(4 * lanes),), b),
        Buffer("C", (IntImm(lanes),), "int32"),
    )


def _dot_desc(lanes: int, a: str, b: str) -> PrimFunc:
    params = factor, factors, sums = _parameters(lanes, a, b)
    v_i, v_k = Var("v_i"), Var("v_k")
    target = BufferLoad(sums, (v_i,))
    column = Binary("add", Binary("mul", v_i, IntImm(4)), v_k)
    product = ops.mul(ops.cast(BufferLoad(factor, (v_k,)), "int32"), ops.cast(BufferLoad(factors, (column,)), "int32"))
    store = BufferStore(sums, ops.add(target, product), (v_i,))
    accesses = infer_accesses(store)
    i, k = Var("i"), Var("k")
    axes = (
        IterVar(v_i, Range(IntImm(0), IntImm(lanes)), "spatial"),
        IterVar(v_k, Range(IntImm(0), IntImm(4)), "reduce"),
    )
    block = Block("update", axes, accesses.reads, accesses.writes, store)
    inner = For(k, IntImm(0), IntImm(4), BlockRealize((i, k), _TRUE, block))
    return whole_function(params, For(i, IntImm(0), IntImm(lanes), inner))


def _dot_impl(lanes: int, a: str, b: str) -> PrimFunc:
    params = factor, factors, sums = _parameters(lanes, a, b)

    def vector(buffer: Buffer) -> Expr:
        return BufferLoad(buffer, (Ramp(IntImm(0), IntImm(1), _elements(buffer)),))

    word = Call("reinterpret", (vector(factor),), "int32")
    repeated = Call("reinterpret", (Broadcast(word, lanes),), dt.with_lanes(a, 4 * lanes))
    total = Call("dot4", (vector(sums), repeated, vector(factors)), dt.with_lanes("int32", lanes))
    return whole_function(params, BufferStore(sums, total, (Ramp(IntImm(0), IntImm(1), lanes),)))


def _elements(buffer: Buffer) -> int:
    (extent,) = buffer.shape
    assert isinstance(extent, IntImm)
    return extent.value
