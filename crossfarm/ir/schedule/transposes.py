"""Transposes of square tiles as tensor intrinsics.

Element by element a tile of N × N takes N * N moves. In steps that exchange one bit of the row's number with the same
bit of the column's, each row after a step is made of two rows before it, whole vectors, and N times log2(N) shuffles do
it (J. O. Eklundh, "A fast computer method for matrix transposing", 1972).
"""

from __future__ import annotations

import re

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses
from crossfarm.ir.schedule.whole import whole_function
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IterVar, Stmt
from crossfarm.ir.visitor import seq

_SIDES = (2, 4, 8, 16)
_DTYPES = tuple(dtype for dtype in dt.SCALARS if not dt.is_bool(dtype))
_PATTERN = re.compile(r"transpose_(?P<side>2|4|8|16)x(?P=side)_(?P<dtype>\w+)")


def transpose_name(side: int, dtype: str) -> str:
    """The name of the transpose of tiles of ``side`` by ``side`` elements."""
    return f"transpose_{side}x{side}_{dtype}"


def transpose_names() -> list[str]:
    """All of them."""
    return [transpose_name(side, dtype) for side in _SIDES for dtype in _DTYPES]


def transpose_functions(name: str) -> tuple[PrimFunc, PrimFunc] | None:
    """Description and implementation of the one of that name; None for any other name."""
    match = _PATTERN.fullmatch(name)
    if match is None or match["dtype"] not in _DTYPES:
        return None
    side, dtype = int(match["side"]), match["dtype"]
    return _description(side, dtype), _implementation(side, dtype)


def _parameters(side: int, dtype: str) -> tuple[Buffer, Buffer]:
    shape = (IntImm(side), IntImm(side))
    return Buffer("A", shape, dtype), Buffer("B", shape, dtype)


def _description(side: int, dtype: str) -> PrimFunc:
    source, target = params = _parameters(side, dtype)
    v_i, v_j, i, j = Var("v_i"), Var("v_j"), Var("i"), Var("j")
    store = BufferStore(target, BufferLoad(source, (v_j, v_i)), (v_i, v_j))
    accesses = infer_accesses(store)
    axes = tuple(IterVar(v, Range(IntImm(0), IntImm(side)), "spatial") for v in (v_i, v_j))
    block = BlockRealize((i, j), IntImm(1, "bool"), Block("transpose", axes, accesses.reads, accesses.writes, store))
    return whole_function(params, For(i, IntImm(0), IntImm(side), For(j, IntImm(0), IntImm(side), block)))


def _implementation(side: int, dtype: str) -> PrimFunc:
    source, target = params = _parameters(side, dtype)
    bits = [1 << bit for bit in range(side.bit_length() - 1)]
    steps = [Buffer(f"rows_{bit}", source.shape, dtype, scope="local") for bit in bits]
    made = [_rows(steps[0], source, 0, side)]
    made += [_rows(after, before, bit, side) for bit, before, after in zip(bits, steps, (*steps[1:], target))]
    return whole_function(params, seq(*made), tuple(steps))


def _rows(target: Buffer, source: Buffer, bit: int, side: int) -> Stmt:
    """All rows of ``target``, each a vector: those of ``source`` with ``bit`` of row and lane exchanged, if any."""
    row, lane = Var("row"), Var("lane")
    place: tuple[Expr, Expr] = (_mixed(row, lane, bit), _mixed(lane, row, bit)) if bit else (row, lane)
    store = BufferStore(target, BufferLoad(source, place), (row, lane))
    vector = For(lane, IntImm(0), IntImm(side), store, kind="vectorized")
    return For(row, IntImm(0), IntImm(side), vector, kind="unrolled")


def _mixed(value: Expr, other: Expr, bit: int) -> Expr:
    """``value`` with ``bit`` as ``other`` has it."""
    above = ops.mul(ops.floordiv(value, 2 * bit), 2 * bit)
    here = ops.mul(ops.floordiv(ops.floormod(other, 2 * bit), bit), bit)
    return ops.add(ops.add(above, here), ops.floormod(value, bit))
