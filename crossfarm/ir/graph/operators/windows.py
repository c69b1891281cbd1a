"""Windows that slide over the last dimensions of a tensor: what convolutions and pooling have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs
from crossfarm.ir.graph.operators.rows import described
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor

#: What every sliding window has; each may be one number for all dimensions. ``padding``: as many as there are
#: dimensions, or those at the beginnings, then those at the ends.
STRIDES = Attribute("strides", "ints", (1,))
PADDING = Attribute("padding", "ints", (0,))
DILATION = Attribute("dilation", "ints", (1,))


@dataclass(frozen=True)
class Window:
    """How a window slides along one dimension.

    Attributes:
        size: elements that it sees.
        stride: from one place to the next.
        dilation: from one of its elements to the next.
        before, after: padding at both ends.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """From its first element to after its last."""
        return (self.size - 1) * self.dilation + 1

    def places(self, length: dims.Dim, ceil: bool = False) -> Expr:
        """In how many places it is; ``ceil``: also where its end is beyond the padding, if its start is not."""
        room = dims.add(length, self.before + self.after - self.reach)
        if not ceil:
            return dims.add(dims.floordiv(room, self.stride), 1)
        count = dims.add(dims.ceildiv(room, self.stride), 1)
        if self.after + self.stride <= self.reach:
            return count  # a window that starts in the padding at the end is not counted with them
        return dims.minimum(count, dims.ceildiv(dims.add(length, self.before), self.stride))

    def element(self, place: Any, step: Any) -> Any:
        """Index, in what is padded, of what it sees in a place at a step."""
        start = place if self.stride == 1 else place * self.stride
        return start + (step if self.dilation == 1 else step * self.dilation)


def windows(attrs: Attrs, sizes: Sequence[int]) -> tuple[Window, ...]:
    """One a dimension, from the attributes above. Raises InvalidModule where they are no window."""
    count = len(sizes)
    strides, dilation = (each(label, attrs[label], count) for label in ("strides", "dilation"))
    padding = attrs["padding"]
    before, after = padding, padding
    if len(padding) == 2 * count:
        before, after = padding[:count], padding[count:]
    elif len(padding) not in (1, count):
        raise InvalidModule(f"padding {padding} is not 1, {count} or {2 * count} numbers")
    before, after = each("padding", before, count), each("padding", after, count)
    found = tuple(map(Window, sizes, strides, dilation, before, after))
    for window in found:
        if min(window.size, window.stride, window.dilation) < 1 or min(window.before, window.after) < 0:
            raise InvalidModule(
                f"a window of {window.size} elements with stride {window.stride}, dilation {window.dilation} "
                f"and padding {window.before}, {window.after} cannot slide"
            )
    return found


def each(label: str, values: Sequence[int], count: int) -> tuple[int, ...]:
    """One number a dimension. Raises InvalidModule for another number of them."""
    if len(values) not in (1, count):
        raise InvalidModule(f"{label} {tuple(values)} is not 1 or {count} numbers")
    return tuple(values) if len(values) == count else (values[0],) * count


def check_places(data: TensorType, places: Sequence[Expr]) -> None:
    """Raises InvalidModule where a window surely fits nowhere."""
    if any((c := dims.constant(p)) is not None and c < 1 for p in places):
        raise InvalidModule(f"the window is longer than what it slides over: {described(data)} and its padding")


def padded(
    tensor: Tensor, before: Sequence[int], sizes: Sequence[dims.Dim], value: Any, name: str = "padded"
) -> Tensor:
    """The last dimensions with ``value`` around: ``before`` at the beginning (cut there where negative), to ``sizes``.

    The tensor itself where that changes nothing.
    """
    outer = tensor.ndim - len(sizes)
    lengths = tensor.shape[outer:]
    if not any(before) and all(dims.same(a, b) for a, b in zip(lengths, sizes)):
        return tensor

    def element(*i: Any) -> Any:
        places, inside = [], []
        for z, first, length, size in zip(i[outer:], before, lengths, sizes):
            places.append(z - first if first else z)
            if first > 0:
                inside.append(first <= z)
            end = dims.constant(dims.sub(size, dims.add(length, first)))
            if end is None or end > 0:
                inside.append(z < te.Value(dims.add(length, first)))
        found = tensor[(*i[:outer], *places)]
        return te.if_then_else(te.all(*inside), found, te.const(value, tensor.dtype)) if inside else found

    shape = (*tensor.shape[:outer], *(dims.dim(s) for s in sizes))
    return te.compute(shape, element, name="padded")


def reference_windows(data: Array, found: Sequence[Window], value: Any, ceil: bool = False) -> Array:
    """What each window sees: outer dimensions, places, steps."""
    outer = data.ndim - len(found)
    lengths = data.shape[outer:]
    places = [_number(w.places(n, ceil)) for w, n in zip(found, lengths)]
    needed = [(p - 1) * w.stride + w.reach for w, p in zip(found, places)]
    widths = [(w.before, max(e - w.before - n, 0)) for w, n, e in zip(found, lengths, needed)]
    data = np.pad(data, [(0, 0)] * outer + widths, constant_values=value)
    seen = np.lib.stride_tricks.sliding_window_view(data, [w.reach for w in found], tuple(range(outer, data.ndim)))
    starts = [slice(0, (p - 1) * w.stride + 1, w.stride) for w, p in zip(found, places)]
    return seen[(*[slice(None)] * outer, *starts, *(slice(None, None, w.dilation) for w in found))]


def _number(dimension: Expr) -> int:
    number = dims.constant(dimension)
    assert number is not None
    return number
