"""Reductions along axes: one value from many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Expr, IntImm, Range, Var
from crossfarm.ir.stmt import IterVar
from crossfarm.ir.te.value import Operand, Value, if_then_else, maximum, minimum, select, unwrap


class ReduceAxis(Value):
    """An axis that a reduction runs over; in the reduction's value, the index along it."""

    def __init__(self, axis: IterVar) -> None:
        super().__init__(axis.var)
        self.axis = axis


Axes = ReduceAxis | Sequence[ReduceAxis]
#: From two sides, each with one value a part, the combined parts; from dtypes, the parts that change nothing.
Combine = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Reduction:
    """What a ``compute`` returns for elements that are reductions. It is the whole element: take it on in another.

    Attributes:
        values: what is reduced, one a part, in terms of the reduced axes.
        identity: where each part starts.
        axes: what is reduced over.
    """

    name: str
    combine: Callable[[tuple[Value, ...], tuple[Value, ...]], tuple[Value, ...]]
    identity: tuple[Expr, ...]
    values: tuple[Expr, ...]
    axes: tuple[IterVar, ...]

    def _refuse(self, *_: object) -> NoReturn:
        raise InvalidModule(
            f"te.{self.name}(…) is the whole value of an element and cannot be part of an expression",
            hint="give the reduction a compute of its own, and use that tensor here",
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __bool__ = __and__ = __or__ = __xor__ = __invert__ = astype = __getitem__ = _refuse


def reduce_axis(dom: tuple[Operand, Operand] | Range, name: str = "k") -> ReduceAxis:
    """An axis from ``dom[0]`` up to, not including, ``dom[1]``; its index is the value itself.

    Where a size known only at the call makes it empty, what reduces over it is not written, not even with the identity.
    """
    if isinstance(dom, Range):
        start, extent = dom.min, dom.extent
    else:
        if not isinstance(dom, Sequence) or len(dom) != 2:
            raise InvalidModule(f"reduce_axis {name}: {dom!r} is no (first, end)")
        first, last = _bounds(unwrap(dom[0]), unwrap(dom[1]))
        start, extent = first, last if const_int(first) == 0 else ops.sub(last, first)
        if isinstance(first, IntImm) and isinstance(last, IntImm):
            extent = ops.const(last.value - first.value, last.dtype)
    if isinstance(extent, IntImm) and extent.value <= 0:
        raise InvalidModule(f"reduce_axis {name} is empty", hint="an axis has at least one index")
    if not dt.is_int(start.dtype):
        raise InvalidModule(f"reduce_axis {name}: its bounds are integers, not {start.dtype}")
    return ReduceAxis(IterVar(Var(name, start.dtype), Range(start, extent), "reduce"))


def _bounds(first: ops.Operand, last: ops.Operand) -> tuple[Expr, Expr]:
    if isinstance(first, Expr) or isinstance(last, Expr):
        return ops.unify(first, last, "reduce_axis")
    return ops.const(first, "int64"), ops.const(last, "int64")


def comm_reducer(fcombine: Combine, fidentity: Combine, name: str = "reduce") -> Callable[..., Reduction]:
    """A reduction of one's own.

    Args:
        fcombine: from two values their combination; or from two tuples of values a tuple. It must be associative and
            commutative: schedules combine in any order.
        fidentity: from the dtype (one for each part) the value that combines with any other to that other.
        name: for messages.

    Returns:
        A function of ``(value or tuple of values, axis, where=None)``.
    """

    def reducer(value: Any, axis: Axes, where: Operand | None = None) -> Reduction:
        several = isinstance(value, (tuple, list))
        parts = tuple(ops.as_expr(unwrap(v)) for v in (value if several else (value,)))
        identity = fidentity(*(p.dtype for p in parts))
        starts = tuple(
            ops.cast(unwrap(i), p.dtype) for i, p in zip(identity if several else (identity,), parts, strict=True)
        )
        if where is not None:
            parts = tuple(ops.as_expr(unwrap(if_then_else(where, p, s))) for p, s in zip(parts, starts))

        def combine(left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
            combined = fcombine(left, right) if several else (fcombine(left[0], right[0]),)
            if len(combined) != len(parts):
                raise InvalidModule(f"te.{name}: combines to {len(combined)} values where there are {len(parts)}")
            for part, result in zip(parts, combined):
                if result.dtype != part.dtype:
                    raise InvalidModule(f"te.{name}: combining {part.dtype} gives {result.dtype}")
            return tuple(combined)

        sides = [tuple(Value(p) for p in parts)] * 2
        combine(*sides)  # what does not fit is told here, where it was written
        return Reduction(name, combine, starts, parts, _axes(axis, name))

    reducer.__name__ = name
    return reducer


def _axes(axis: Axes, name: str) -> tuple[IterVar, ...]:
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if not axes:
        raise InvalidModule(f"te.{name}: there is no axis to reduce over")
    for a in axes:
        if not isinstance(a, ReduceAxis):
            raise InvalidModule(f"te.{name}: {a!r} is not made by te.reduce_axis")
    if len({id(a.axis) for a in axes}) < len(axes):
        raise InvalidModule(f"te.{name}: an axis is named twice")
    return tuple(a.axis for a in axes)


def lowest(dtype: str) -> Expr:
    """What no value of ``dtype`` is below."""
    return ops.const(-math.inf if dt.is_float(dtype) else dt.int_range(dtype)[0], dtype)


def highest(dtype: str) -> Expr:
    """What no value of ``dtype`` is above."""
    return ops.const(math.inf if dt.is_float(dtype) else dt.int_range(dtype)[1], dtype)


def _arg(better: Callable[[Value, Value], Value], worst: Callable[[str], Expr], name: str) -> Callable[..., Reduction]:
    def combine(left: tuple[Value, Value], right: tuple[Value, Value]) -> tuple[Value, Value]:
        first = better(left[1], right[1]) | ((left[1] == right[1]) & (left[0] < right[0]))
        return select(first, left[0], right[0]), select(better(left[1], right[1]), left[1], right[1])

    return comm_reducer(combine, lambda index, value: (highest(index), worst(value)), name)


sum = comm_reducer(lambda a, b: a + b, lambda dtype: ops.const(0, dtype), "sum")
prod = comm_reducer(lambda a, b: a * b, lambda dtype: ops.const(1, dtype), "prod")
max = comm_reducer(maximum, lowest, "max")
min = comm_reducer(minimum, highest, "min")
#: Of ``(index, value)``: both of the largest value; the smallest such index where several are equal.
argmax = _arg(lambda a, b: a > b, lowest, "argmax")
#: Of ``(index, value)``: both of the smallest value; the smallest such index where several are equal.
argmin = _arg(lambda a, b: a < b, highest, "argmin")
