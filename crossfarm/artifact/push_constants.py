"""Where a kernel's scalar arguments lie in the bytes that a Vulkan launch passes as push constants.

In order of the kernel's scalar parameters. A scalar takes 4 bytes, or 8 where its dtype has 64 bits, and lies at a
multiple of that. Integers are sign- or zero-extended to 32 bits, bool is 0 or 1, float16 and bfloat16 are their bits in
the low half of a word: small members would ask for features that many devices lack.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from crossfarm.ir import dtype as dt


def push_constant_layout(dtypes: Sequence[str]) -> tuple[tuple[int, ...], int]:
    """The byte offset of each scalar, and how many bytes they take together, a multiple of 4.

    Args:
        dtypes: of the kernel's scalar parameters, in order.
    """
    offsets, end = [], 0
    for dtype in dtypes:
        size = _size(dtype)
        start = -(-end // size) * size
        offsets.append(start)
        end = start + size
    return tuple(offsets), end


def pack_push_constants(dtypes: Sequence[str], values: Sequence[int | float]) -> bytes:
    """The bytes of these values, laid out as above; gaps are zeros.

    Args:
        values: one a dtype; integers fit it.
    """
    offsets, size = push_constant_layout(dtypes)
    data = bytearray(size)
    for dtype, offset, value in zip(dtypes, offsets, values):
        data[offset : offset + _size(dtype)] = _bytes(dtype, value)
    return bytes(data)


def _size(dtype: str) -> int:
    return 8 if dt.bits(dtype) == 64 else 4


def _bytes(dtype: str, value: int | float) -> bytes:
    size = _size(dtype)
    if dt.is_float(dtype):
        return _float_bits(dtype, float(value)).to_bytes(size, "little")
    return (int(value) % (1 << (8 * size))).to_bytes(size, "little")


def _float_bits(dtype: str, value: float) -> int:
    """Rounded to nearest even; bfloat16 by hand, as agents need no package that knows it."""
    if dtype == "float64":
        return int(np.float64(value).view(np.uint64))
    with np.errstate(over="ignore"):
        if dtype == "float16":
            return int(np.float16(value).view(np.uint16))
        bits: int = struct.unpack("<I", np.float32(value).tobytes())[0]
    if dtype == "float32":
        return bits
    if value != value:
        return 0x7FC0
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
