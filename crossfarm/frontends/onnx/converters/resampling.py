"""How ONNX's Resize makes an axis longer or shorter: which elements each new one is made of, and how much of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Taps:
    """A new axis from an old one.

    Attributes:
        places: (taps, new length) indices into the old axis.
        weights: of the same shape, None where each new element is one old one.
    """

    places: Array
    weights: Array | None


def taps(
    extent: int, length: int, scale: float, mode: str, transformation: str, rounding: str, *, cubic: float = -0.75,
    exclude: bool = False, antialias: bool = False,
) -> Taps:  # fmt: skip
    """The taps of an axis of ``extent`` elements that becomes one of ``length``.

    Args:
        scale: of the lengths, as ONNX computes coordinates with it.
        mode: nearest, linear or cubic; transformation and rounding: ONNX's ``coordinate_transformation_mode`` and
            ``nearest_mode``.
        exclude: weights outside the axis are 0, and the others make up for it.
        antialias: when it shrinks, each new element takes in all old ones that it covers.
    """
    at = _coordinates(np.arange(length, dtype=np.float64), extent, length, scale, transformation)
    if mode == "nearest":
        return Taps(np.clip(_ROUNDING[rounding](at), 0, extent - 1).astype(np.int64)[None], None)
    shrink = min(scale, 1.0) if antialias else 1.0
    reach = (1 if mode == "linear" else 2) / shrink
    count = 2 * int(np.ceil(reach))
    first = np.floor(at).astype(np.int64) - count // 2 + 1
    places = first[None] + np.arange(count)[:, None]
    distance = np.abs(places - at[None]) * shrink
    weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, cubic)
    if exclude or antialias:
        inside = (places >= 0) & (places < extent)
        if exclude:
            weights = weights * inside
    if exclude or antialias:
        weights = weights / weights.sum(0)
    return Taps(np.clip(places, 0, extent - 1), weights)


def _cubic(t: Array, a: float) -> Array:
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def _coordinates(new: Array, extent: int, length: int, scale: float, transformation: str) -> Array:
    """Where a new element lies on the old axis."""
    match transformation:
        case "align_corners":
            # what scale makes of the axis may be no whole number, and is not cut off here
            made = scale * extent
            return new * ((extent - 1) / (made - 1)) if made != 1 else np.zeros_like(new)
        case "asymmetric":
            return new / scale
        case "tf_half_pixel_for_nn":
            return (new + 0.5) / scale
        case "pytorch_half_pixel":
            return (new + 0.5) / scale - 0.5 if length > 1 else np.zeros_like(new)
        case "half_pixel_symmetric":
            # scale times extent may be no whole number: what is cut off is shared by both sides
            adjustment = length / (scale * extent)
            return extent / 2 * (1 - adjustment) + (new + 0.5) / scale - 0.5
        case _:
            return (new + 0.5) / scale - 0.5


_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
