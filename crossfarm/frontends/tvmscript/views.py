"""Views: lowered text gives a buffer's memory a second shape (``T.decl_buffer((16,), data=A.data)``); here the element
of such a view is found in the buffer it is over, so that the IR knows one name for one memory."""

from __future__ import annotations

from crossfarm.errors import InvalidModule
from crossfarm.frontends.tvmscript.context import View
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.expr import Expr, IntImm


def element_of(view: View, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Indices in ``view.buffer`` of the element that ``indices`` name in the view; both are compact row-major.

    Raises InvalidModule for a vector index where the two shapes are not both of one dimension.
    """
    offset = _fold_mul_add(indices, view.shape)
    shape = view.buffer.shape
    if len(shape) == 1:
        return (offset,)
    if dt.lanes_of(offset.dtype) != 1:
        raise InvalidModule("a vector index into a reshaped view", hint="index the buffer itself")
    found: list[Expr] = []
    for extent in reversed(shape[1:]):
        found.append(_simple(ops.floormod(offset, extent)))
        offset = _simple(ops.floordiv(offset, extent))
    return (offset, *reversed(found)) if shape else ()


def _fold_mul_add(indices: tuple[Expr, ...], shape: tuple[Expr, ...]) -> Expr:
    result: Expr = ops.const(0)
    for position, (index, extent) in enumerate(zip(indices, shape)):
        result = index if position == 0 else ops.add(ops.mul(result, extent), index)
    return result


def _simple(value: Expr) -> Expr:
    """A literal where both sides are."""
    a, b = getattr(value, "a", None), getattr(value, "b", None)
    if isinstance(a, IntImm) and isinstance(b, IntImm) and b.value > 0:
        folded = a.value // b.value if getattr(value, "op", "") == "floordiv" else a.value % b.value
        return IntImm(folded, value.dtype)
    return value
