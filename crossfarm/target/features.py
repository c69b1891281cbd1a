"""What kernels may need of a device beyond the least that its kind has: a vocabulary of one-word names.

A variant of an artifact lists what its kernels need, a device what it has (attribute ``features``, separated by commas).
"""

from __future__ import annotations

#: Name → what it means.
FEATURES: dict[str, str] = {
    "float64": "Arithmetic on float64.",
    "float16": "Arithmetic on float16.",
    "int64": "Arithmetic on 64-bit integers.",
    "int16": "Arithmetic on 16-bit integers.",
    "int8": "Arithmetic on 8-bit integers.",
    "storage16": "16-bit elements in buffers.",
    "storage8": "8-bit elements in buffers.",
}
