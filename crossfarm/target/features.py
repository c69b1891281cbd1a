"""What kernels may need of a device beyond the least that its kind has: a vocabulary of one-word names.

A variant of an artifact lists what its kernels need, a device what it has: attribute ``features``, commas between.
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
    "float_controls": "NaN, infinities, signs of zeros and rounding to nearest, kept by floats of every width it has.",
}

#: Feature → attribute of target kind ``vulkan`` that promises it.
VULKAN_ATTRIBUTES: dict[str, str] = {
    **{name: name for name in ("int8", "int16", "int64", "storage8", "storage16", "float_controls")},
    "float64": "fp64",
    "float16": "fp16",
}
