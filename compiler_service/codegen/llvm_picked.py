"""Vectors of elements at places that are known now: one or two whole vectors are loaded, and their lanes picked.

Given lane by lane, LLVM loses the vectors: it makes each result of a permutation anew from single elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from compiler_service.codegen.llvm_text import Builder, Value, register_type
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int, fold_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Broadcast, Expr, IntImm, Ramp


def picked_places(buffer: Buffer, indices: tuple[Expr, ...], lanes: int) -> tuple[int, ...] | None:
    """Each lane's element, counted from the buffer's first; None for places that are not known or in more vectors.

    Vectors are those of ``lanes`` elements that begin at a multiple of it and end within the buffer.
    """
    shape = [const_int(extent) for extent in buffer.shape]
    if dt.is_bool(buffer.dtype) or buffer.strides or None in shape:
        return None
    places = [0] * lanes
    for index, extent in zip(indices, shape):
        values = _lanes_of(index, lanes)
        if values is None:
            return None
        places = [place * (extent or 0) + value for place, value in zip(places, values)]
    vectors = {place // lanes for place in places}
    if len(vectors) > 2 or min(vectors) < 0 or (max(vectors) + 1) * lanes > math.prod(n or 0 for n in shape):
        return None
    return tuple(places)


def picked_load(b: Builder, load: Callable[[int, str], Value], dtype: str, places: tuple[int, ...]) -> Value:
    """The elements at ``places``.

    Args:
        load: a vector from that many elements behind the buffer's first.
        dtype: of the result.
    """
    lanes = dt.lanes_of(dtype)
    starts = sorted({place // lanes * lanes for place in places})
    vectors = [load(start, dtype) for start in starts]
    mask = ", ".join(f"i32 {starts.index(place // lanes * lanes) * lanes + place % lanes}" for place in places)
    second = vectors[1].text if len(vectors) > 1 else "poison"
    return b.value(
        dtype, f"shufflevector {vectors[0].typed}, {register_type(dtype)} {second}, <{lanes} x i32> <{mask}>"
    )


def _lanes_of(index: Expr, lanes: int) -> list[int] | None:
    """The value of each lane, where it is a constant."""
    if isinstance(index, IntImm):
        return [index.value] * lanes
    if isinstance(index, Broadcast):
        return _lanes_of(index.value, lanes)
    if isinstance(index, Ramp):
        base, stride = const_int(index.base), const_int(index.stride)
        return None if base is None or stride is None else [base + lane * stride for lane in range(lanes)]
    if not isinstance(index, Binary):
        return None
    a, b = _lanes_of(index.a, lanes), _lanes_of(index.b, lanes)
    if a is None or b is None:
        return None
    folded = [fold_int(index.op, x, y, dt.scalar_of(index.dtype)) for x, y in zip(a, b)]
    values = [value for value in folded if value is not None]
    return values if len(values) == lanes else None
