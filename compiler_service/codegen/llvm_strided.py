"""Vectors of every second, third or fourth element: whole vectors are loaded, and the lanes wanted put together.

LLVM makes two instructions of two loads' lanes, where it loads lanes that are given one by one each for itself.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler_service.codegen.llvm_text import Builder, Value, register_type
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Ramp

#: Beyond this most of what would be loaded is not wanted.
LARGEST_STRIDE = 4


def small_stride(buffer: Buffer, indices: tuple[Expr, ...], last_stride: Expr) -> int | None:
    """The distance of the lanes' elements, 2 to LARGEST_STRIDE; None for any other access.

    Args:
        last_stride: distance in memory of neighbours in the buffer's last dimension.
    """
    if not indices or dt.is_bool(buffer.dtype) or any(dt.lanes_of(i.dtype) > 1 for i in indices[:-1]):
        return None
    last = indices[-1]
    stride = const_int(last.stride) if isinstance(last, Ramp) and const_int(last_stride) == 1 else None
    return stride if stride is not None and 2 <= stride <= LARGEST_STRIDE else None


def strided_load(b: Builder, load: Callable[[int, str], Value], dtype: str, stride: int) -> Value:
    """The elements at 0, ``stride``, ``2 * stride``, … Nothing before the first or behind the last one is read.

    Args:
        load: a vector from that many elements behind the first one.
        dtype: of the result.
    """
    lanes = dt.lanes_of(dtype)
    last = stride * (lanes - 1) + 1 - lanes  # where the last vector starts that ends with the last element
    starts = [min(part * lanes, last) for part in range(stride)]
    result = load(starts[0], dtype)
    have = range(0, lanes, stride)  # elements that the result has so far, in its first lanes or all in place
    count = len(have)
    mask = [stride * lane if lane < count else 0 for lane in range(lanes)]
    for number, start in enumerate(starts[1:]):
        more = load(start, dtype)
        picked = []
        for lane in range(lanes):
            at = stride * lane
            if lane < count:
                picked.append(mask[lane] if number == 0 else lane)
            elif start <= at < start + lanes:
                picked.append(lanes + at - start)
            else:
                picked.append(0)
        count = sum(1 for lane in range(lanes) if stride * lane < start + lanes)
        lanes_text = ", ".join(f"i32 {lane}" for lane in picked)
        mask_text = f"<{lanes} x i32> <{lanes_text}>"
        result = b.value(dtype, f"shufflevector {result.typed}, {register_type(dtype)} {more.text}, {mask_text}")
    return result
