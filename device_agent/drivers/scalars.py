"""Scalar arguments of kernels, as their bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfarm.artifact import Signature
from crossfarm.artifact.launches import LaunchOf, ParameterOf, Place
from crossfarm.ir import dtype as dt
from device_agent.drivers.base import CallArgument


def scalar_argument(
    launch: LaunchOf, position: int, signature: Signature, arguments: Sequence[CallArgument]
) -> np.generic:
    """The scalar at ``position`` of a launch, as an unsigned integer of its dtype's size that holds its bits."""
    dtype = launch.kernel.parameters[position].dtype
    value = launch.values[position]
    assert not isinstance(value, Place)
    if isinstance(value, ParameterOf):
        given = arguments[value.index]
        assert isinstance(given, (int, float))
        bits = signature.scalar_bits(value.index, given)
    else:
        bits = value
    size = dt.itemsize(dtype)
    return np.frombuffer((bits & ((1 << (8 * size)) - 1)).to_bytes(size, "little"), f"u{size}")[0]
