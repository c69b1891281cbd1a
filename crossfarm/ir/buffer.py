"""Buffers: typed, shaped memory, and regions of them."""

from __future__ import annotations

from dataclasses import dataclass

from crossfarm.ir.expr import Expr, Range

#: Memory scopes. ``global`` is the device's memory, ``shared`` a thread group's, ``local`` one thread's.
SCOPES = ("global", "shared", "local")


@dataclass(frozen=True, eq=False)
class Buffer:
    """A tensor in memory, compared by identity.

    Attributes:
        shape: one Expr a dimension; a bare Var in a parameter's shape defines that symbolic size. () is a scalar.
        dtype: element dtype.
        strides: in elements, one a dimension, or () for compact row-major.
        elem_offset: first element's offset in elements, or None for 0. A bare Var not bound elsewhere is defined by
            the match.
        scope: one of SCOPES.
        align: guaranteed alignment of the data in bytes.
    """

    name: str
    shape: tuple[Expr, ...]
    dtype: str = "float32"
    strides: tuple[Expr, ...] = ()
    elem_offset: Expr | None = None
    scope: str = "global"
    align: int = 64


@dataclass(frozen=True, eq=False)
class BufferRegion:
    """A box in a buffer: one Range a dimension."""

    buffer: Buffer
    region: tuple[Range, ...]
