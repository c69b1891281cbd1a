"""Small programs built by hand, for tests of what a program means and what a well-formed one is."""

from __future__ import annotations

from typing import Any

from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import Binary, BufferLoad, Expr, FloatImm, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IterVar, Stmt

TRUE = IntImm(1, "bool")


def i32(value: int) -> IntImm:
    return IntImm(value, "int32")


def f32(value: float) -> FloatImm:
    return FloatImm(float(value), "float32")


def shape(*sizes: int | Expr) -> tuple[Expr, ...]:
    return tuple(i32(s) if isinstance(s, int) else s for s in sizes)


def buffer(name: str, *sizes: int | Expr, dtype: str = "float32", **rest: Any) -> Buffer:
    return Buffer(name, shape(*sizes), dtype, **rest)


def const(value: float, dtype: str) -> Expr:
    return FloatImm(float(value), dtype) if dt.is_float(dtype) else IntImm(int(value), dtype)


def load(b: Buffer, *indices: int | Expr) -> BufferLoad:
    return BufferLoad(b, shape(*indices))


def store(b: Buffer, value: Expr, *indices: int | Expr) -> BufferStore:
    return BufferStore(b, value, shape(*indices))


def loop(var: Var, extent: int | Expr, body: Stmt, **rest: Any) -> For:
    return For(var, const(0, var.dtype), const(extent, var.dtype) if isinstance(extent, int) else extent, body, **rest)


def op(name: str, a: Expr, b: Expr) -> Binary:
    return Binary(name, a, b)


def module(body: Stmt, *params: Buffer | Var, **rest: Any) -> IRModule:
    return IRModule({"main": PrimFunc(tuple(params), body, **rest)})


def axis(name: str, extent: int | Expr, kind: str = "spatial") -> IterVar:
    return IterVar(Var(name), Range(i32(0), i32(extent) if isinstance(extent, int) else extent), kind)


def point(b: Buffer, *indices: int | Expr) -> BufferRegion:
    return BufferRegion(b, tuple(Range(i, i32(1)) for i in shape(*indices)))


def realize(block: Block, *values: Expr, predicate: Expr = TRUE) -> BlockRealize:
    return BlockRealize(tuple(values), predicate, block)


def root(body: Stmt, *allocated: Buffer) -> BlockRealize:
    return realize(Block("root", (), (), (), body, alloc_buffers=tuple(allocated)))


def scaled(factor: float = 2.0, names: tuple[str, str, str] = ("A", "B", "i"), block: str = "B") -> IRModule:
    """``B[i] = A[i] * factor`` over a symbolic size, in block form."""
    n = Var("n")
    a, b, i, v = buffer(names[0], n), buffer(names[1], n), Var(names[2]), axis("v", n)
    inner = Block(
        block, (v,), (point(a, v.var),), (point(b, v.var),),
        store(b, op("mul", load(a, v.var), f32(factor)), v.var),
    )  # fmt: skip
    return module(root(loop(i, n, realize(inner, i))), a, b, attrs={"tir.noalias": True})


def row_sums(rows: int = 3, columns: int = 5) -> IRModule:
    """``B[i] = sum over k of A[i, k]``, a reduction with init."""
    a, b = buffer("A", rows, columns), buffer("B", rows)
    i, k, vi, vk = Var("i"), Var("k"), axis("vi", rows), axis("vk", columns, "reduce")
    inner = Block(
        "B", (vi, vk), (point(a, vi.var, vk.var),), (point(b, vi.var),),
        store(b, op("add", load(b, vi.var), load(a, vi.var, vk.var)), vi.var),
        init=store(b, f32(0.0), vi.var),
    )  # fmt: skip
    return module(root(loop(i, rows, loop(k, columns, realize(inner, i, k)))), a, b)
