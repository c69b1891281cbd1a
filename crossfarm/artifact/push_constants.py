"""Where a kernel's scalar arguments lie in the bytes that a Vulkan launch passes as push constants.

In order of the kernel's scalar parameters. A scalar takes 4 bytes, or 8 where its dtype has 64 bits, and lies at a
multiple of that. Integers are sign- or zero-extended to 32 bits, bool is 0 or 1, float16 and bfloat16 are their bits in
the low half of a word: small members would ask for features that many devices lack.

One word follows: the number that is added to a group's index along x. Devices run 65535 groups in one dispatch, or
more; a larger grid is dispatched in parts, and this says where a part begins. It is 0 where there is one part.
"""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.ir import dtype as dt

_WORD = 4
#: Thread groups along one axis that every device runs in one dispatch.
GROUPS_EVERYWHERE = 65535


def push_constant_layout(dtypes: Sequence[str]) -> tuple[tuple[int, ...], int]:
    """The byte offset of each scalar, and that of the word after them, a multiple of 4.

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


def pack_push_constants(dtypes: Sequence[str], bits: Sequence[int], first_group: int = 0) -> bytes:
    """All bytes, laid out as above; gaps are zeros.

    Args:
        bits: one a dtype: the scalar's bits as an unsigned integer of the dtype's width.
        first_group: where the part of the grid begins.
    """
    offsets, size = push_constant_layout(dtypes)
    data = bytearray(size)
    for dtype, offset, word in zip(dtypes, offsets, bits):
        width, room = dt.bits(dtype), _size(dtype)
        if dt.is_signed(dtype) and word >> (width - 1):
            word += (1 << 8 * room) - (1 << width)
        data[offset : offset + room] = word.to_bytes(room, "little")
    return bytes(data) + first_group.to_bytes(_WORD, "little")


def _size(dtype: str) -> int:
    return 8 if dt.bits(dtype) == 64 else _WORD
