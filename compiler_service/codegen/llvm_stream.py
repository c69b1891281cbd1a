"""Stores around the caches: results that are larger than the caches are written without reading what they replace.

An ordinary store to memory that is in no cache reads the line first, and evicts others. A loop that is annotated
``stream_stores`` asks for non-temporal stores of the vectors that it writes, which on x86-64 saves a third of the
traffic of a copy. They need vectors on a multiple of their size in memory. Whether that is so depends on the arguments:
the loop is emitted twice, and the address that it begins with chooses.
"""

from __future__ import annotations

from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import affine, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Ramp, Var
from crossfarm.ir.stmt import Allocate, BufferStore, For
from crossfarm.ir.visitor import substitute, walk

#: Annotation of a loop.
STREAM_STORES = "stream_stores"
#: Bytes of vectors that there may be non-temporal stores of.
_WIDTHS = (16, 32, 64)

#: A store's buffer and its index where the loop begins.
First = tuple[Buffer, tuple[Expr, ...]]


def streamed(loop: For, strides: dict[Buffer, tuple[Expr, ...]]) -> tuple[int, tuple[First, ...]] | None:
    """What of an annotated loop can be streamed: the vectors' bytes, and the first store of each statement.

    None where a store in it is no vector of a size that can be streamed, or where vectors after the first may be
    elsewhere than at a multiple of their size.
    """
    if not loop.annotations.get(STREAM_STORES):
        return None
    inside = [n for n in walk(loop) if isinstance(n, (For, BufferStore, Allocate))]
    starts: dict[Var, Expr] = {n.var: n.min for n in inside if isinstance(n, For)}
    own = {n.buffer for n in inside if isinstance(n, Allocate)}
    stores = [n for n in inside if isinstance(n, BufferStore) and n.buffer not in own]
    if not stores:
        return None
    widths = {dt.itemsize(store.value.dtype) for store in stores}
    width = widths.pop()
    if widths or width not in _WIDTHS:
        return None
    first = []
    for store in stores:
        *outer, last = store.indices
        if not isinstance(last, Ramp) or const_int(last.stride) != 1 or store.buffer not in strides:
            return None
        indices = (*outer, last.base)
        if not _moves_by_vectors(indices, strides[store.buffer], set(starts), last.lanes):
            return None
        first.append((store.buffer, tuple(substitute(index, starts) for index in indices)))
    return width, tuple(first)


def _moves_by_vectors(indices: tuple[Expr, ...], strides: tuple[Expr, ...], loops: set[Var], lanes: int) -> bool:
    """Whether each step of each loop moves the store by a multiple of its lanes."""
    for index, stride in zip(indices, strides):
        form = affine(index)
        for key, coefficient in form.terms.items():
            if not any(n in loops for n in walk(form.atoms[key]) if isinstance(n, Var)):
                continue
            by = const_int(stride)
            if key not in loops or by is None or coefficient * by % lanes:
                return False
    return True
