"""Data types: their names, widths, numpy counterparts, and the vector form ``float32x8``.

A dtype is a plain string: ``bool``, ``int8`` … ``int64``, ``uint8`` … ``uint64``, ``float16``, ``bfloat16``,
``float32``, ``float64``, or ``handle`` (an opaque pointer; never arithmetic). ``xN`` after any but ``handle`` is a
vector of N lanes.

Answers are remembered: passes ask the same few questions all the time.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np

INTS = ("int8", "int16", "int32", "int64")
UINTS = ("uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
SCALARS = ("bool", *INTS, *UINTS, *FLOATS)

_VECTOR = re.compile(r"^(?P<scalar>[a-z]+?[0-9]*)(?:x(?P<lanes>[1-9][0-9]*))?$")
MAX_LANES = 1024


@cache
def split(dtype: str) -> tuple[str, int]:
    """``"float32x8"`` → ``("float32", 8)``; a scalar has 1 lane. Raises ValueError on an unknown dtype."""
    match = _VECTOR.match(dtype)
    if match is None:
        raise ValueError(f"unknown dtype {dtype!r}")
    scalar, lanes = match["scalar"], int(match["lanes"] or 1)
    if scalar not in SCALARS and scalar != "handle":
        raise ValueError(f"unknown dtype {dtype!r}: known are {', '.join(SCALARS)}")
    if lanes > MAX_LANES or (scalar == "handle" and lanes != 1):
        raise ValueError(f"dtype {dtype!r} has too many lanes (at most {MAX_LANES})")
    return scalar, lanes


def is_valid(dtype: str) -> bool:
    """True when ``split`` would accept it."""
    try:
        split(dtype)
    except ValueError:
        return False
    return True


@cache
def scalar_of(dtype: str) -> str:
    """Element dtype of a vector, or the dtype itself."""
    return split(dtype)[0]


@cache
def lanes_of(dtype: str) -> int:
    """Number of lanes, 1 for a scalar."""
    return split(dtype)[1]


@cache
def with_lanes(dtype: str, lanes: int) -> str:
    """The same element dtype with ``lanes`` lanes."""
    scalar = scalar_of(dtype)
    return scalar if lanes == 1 else f"{scalar}x{lanes}"


@cache
def bits(dtype: str) -> int:
    """Width in bits of one element in memory; bool takes 8, handle 64."""
    scalar = scalar_of(dtype)
    if scalar == "bool":
        return 8
    if scalar == "handle":
        return 64
    return int(re.sub(r"\D", "", scalar))


@cache
def itemsize(dtype: str) -> int:
    """Bytes of one element in memory, lanes included."""
    return bits(dtype) // 8 * lanes_of(dtype)


def is_float(dtype: str) -> bool:
    return scalar_of(dtype) in FLOATS


def is_int(dtype: str) -> bool:
    """Signed or unsigned integer; bool is neither."""
    return scalar_of(dtype) in INTS or scalar_of(dtype) in UINTS


def is_signed(dtype: str) -> bool:
    return scalar_of(dtype) in INTS


def is_unsigned(dtype: str) -> bool:
    return scalar_of(dtype) in UINTS


def is_bool(dtype: str) -> bool:
    return scalar_of(dtype) == "bool"


@cache
def int_range(dtype: str) -> tuple[int, int]:
    """Smallest and largest value of an integer or bool dtype."""
    scalar = scalar_of(dtype)
    if scalar == "bool":
        return 0, 1
    width = bits(scalar)
    return (-(1 << (width - 1)), (1 << (width - 1)) - 1) if scalar in INTS else (0, (1 << width) - 1)


@cache
def to_numpy(dtype: str) -> np.dtype[Any]:
    """numpy's dtype for a scalar dtype; bfloat16 needs the ``ml_dtypes`` package, imported only then."""
    scalar = scalar_of(dtype)
    if scalar == "bfloat16":
        import ml_dtypes  # only those who use bfloat16 need it: agents on boards move it as bytes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(scalar)


def from_numpy(dtype: np.dtype[Any] | type) -> str:
    """The dtype of a numpy dtype. Raises ValueError for one that crossfarm does not have."""
    name = np.dtype(dtype).name
    if name not in SCALARS:
        raise ValueError(f"numpy dtype {name!r} has no counterpart: known are {', '.join(SCALARS)}")
    return name
