"""How a buffer that is larger than what a Vulkan device reaches through one descriptor is bound: in parts.

A device promises 128 MiB at least, and some have no more. A kernel for such a device takes several bindings for a
buffer of a larger constant size: each is a part of the same size, the last one what is left. The artifact says how
many, 0 for a buffer that is bound whole.
"""

from __future__ import annotations

#: Bytes of each part but the last: what every device reaches, a power of two.
PART_BYTES = 1 << 27


def part_count(size: int, most: int) -> int:
    """How many parts a buffer of ``size`` bytes has where one descriptor reaches ``most``; 0 where it reaches all."""
    return -(-size // PART_BYTES) if size > most >= PART_BYTES else 0


def parts_of(size: int, count: int) -> tuple[tuple[int, int], ...]:
    """The offset and the size of each of ``count`` parts, in bytes; the whole where ``count`` is 0."""
    starts = [k * PART_BYTES for k in range(max(count, 1))]
    ends = [*starts[1:], size]
    return tuple((start, end - start) for start, end in zip(starts, ends))
