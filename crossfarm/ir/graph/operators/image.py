"""Images and their kin: the last dimensions of a tensor made longer or shorter.

Where an element of the result lies in the operand is a fraction, ``(a * o + b) / c`` of its index ``o``, worked out in
integers: neighbours are right to the element at any size, and on devices whose division of floats is not exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import described, named, one_dtype, shape_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor

METHODS = ("nearest", "linear", "cubic")
#: Where elements lie; names and meaning are those of ONNX's Resize.
MODES = (
    "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric", "tf_crop_and_resize",
)  # fmt: skip
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
#: A factor this near to a fraction of small numbers is meant to be it: float32 does not hold 1/3.
_FACTOR_ERROR, _SMALL, _LARGEST = 1e-6, 1 << 12, 1 << 22


@dataclass(frozen=True)
class _Axis:
    """One resized dimension: element ``o`` of the result lies at ``(scale * o + shift) / unit`` of the operand."""

    size: dims.Dim
    length: dims.Dim
    scale: dims.Dim
    shift: dims.Dim
    unit: dims.Dim

    @property
    def changes(self) -> bool:
        """False where elements stay where they are."""
        places = ((self.scale, self.unit), (self.shift, 0), (self.size, self.length))
        return not all(dims.same(a, b) for a, b in places)

    def numerator(self, o: Any) -> Any:
        return o * _value(self.scale) + _value(self.shift)

    def rounded(self, o: Any, nearest: str) -> Any:
        """Index of the element that is nearest, inside the operand."""
        scale, shift, unit = self.scale, self.shift, self.unit
        if nearest == "ceil":
            shift = dims.sub(dims.add(shift, unit), 1)
        elif nearest != "floor":
            more = unit if nearest == "round_prefer_ceil" else dims.sub(unit, 1)
            scale, shift, unit = dims.mul(scale, 2), dims.add(dims.mul(shift, 2), more), dims.mul(unit, 2)
        numbers = dims.constants((scale, shift, unit, self.size, self.length))
        if numbers is None:
            found = (o * _value(scale) + _value(shift)) // _value(unit)
            return te.minimum(te.maximum(found, 0), _value(dims.sub(self.size, 1)))
        a, b, c, size, length = numbers
        common = math.gcd(a, c)
        a, b, c = a // common, b // common, c // common  # a floor in b's place: it is divided by c afterwards
        found = o if a == 1 else o * a
        found = found if b == 0 else found + b
        found = found if c == 1 else found // c
        found = found if b // c >= 0 else te.maximum(found, 0)
        return found if ((length - 1) * a + b) // c < size else te.minimum(found, size - 1)


def _value(number: dims.Dim) -> Any:
    known = dims.constant(number)
    return te.Value(dims.dim(number)) if known is None else known


def _axes(shape: Sequence[dims.Dim], attrs: Attrs) -> list[_Axis]:
    """Of the last dimensions of the operand."""
    sizes = shape[len(shape) - len(attrs["size"]) :]
    factors: list[Fraction | None] = [_factor(s) for s in attrs["scales"]] or [None] * len(sizes)
    roi = attrs["roi"] or (0.0,) * len(sizes) + (1.0,) * len(sizes)
    crops = zip(roi[: len(sizes)], roi[len(sizes) :])
    mode = attrs["coordinate_transformation_mode"]
    return [_axis(*given, mode) for given in zip(sizes, attrs["size"], factors, crops)]


def _factor(scale: float) -> Fraction:
    small = Fraction(scale).limit_denominator(_SMALL)
    return (
        small if abs(small - Fraction(scale)) <= _FACTOR_ERROR * scale else Fraction(scale).limit_denominator(_LARGEST)
    )


def _axis(size: dims.Dim, length: dims.Dim, factor: Fraction | None, crop: tuple[float, float], mode: str) -> _Axis:
    add, sub, mul = dims.add, dims.sub, dims.mul
    longer, shorter = (length, size) if factor is None else (factor.numerator, factor.denominator)
    single = dims.constant(length) == 1
    match mode:
        case "half_pixel" | "pytorch_half_pixel" if not (single and mode == "pytorch_half_pixel"):
            place = mul(shorter, 2), sub(shorter, longer), mul(longer, 2)
        case "half_pixel_symmetric":
            moved = sub(mul(size, longer), mul(length, shorter))
            place = mul(shorter, 2), add(moved, sub(shorter, longer)), mul(longer, 2)
        case "asymmetric":
            place = dims.dim(shorter), dims.dim(0), dims.dim(longer)
        case "align_corners" if not single:
            place = sub(size, 1), dims.dim(0), sub(length, 1)
        case "tf_crop_and_resize":
            start, end = (Fraction(c).limit_denominator(_SMALL) for c in crop)
            unit = math.lcm(start.denominator, end.denominator)
            first, last = int(start * unit), int(end * unit)
            known = dims.constant(length)
            assert known is not None  # infer refused anything else
            if single:
                place = dims.dim(0), mul(sub(size, 1), first + last), dims.dim(2 * unit)
            else:
                steps = known - 1
                place = mul(sub(size, 1), last - first), mul(sub(size, 1), first * steps), dims.dim(unit * steps)
        case _:
            place = dims.dim(0), dims.dim(0), dims.dim(1)
    numbers = dims.constants(place)
    if numbers is not None:
        common = math.gcd(*numbers)
        a, b, c = (dims.dim(n // common) for n in numbers)
        place = a, b, c
    return _Axis(size, length, *place)


def _infer(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (data,) = inputs
    one_dtype(inputs, "numbers")
    size, mode = attrs["size"], attrs["coordinate_transformation_mode"]
    for name, allowed in (
        ("method", METHODS), ("coordinate_transformation_mode", MODES), ("nearest_mode", NEAREST),
    ):  # fmt: skip
        if attrs[name] not in allowed:
            raise InvalidModule(f"{name} is one of {', '.join(allowed)}, not {attrs[name]!r}")
    if not 1 <= len(size) <= data.ndim or any((c := dims.constant(s)) is not None and c < 1 for s in size):
        raise InvalidModule(f"the last dimensions of {described(data)} cannot become {dims.text(size)}")
    if len(attrs["scales"]) not in (0, len(size)) or any(s <= 0 for s in attrs["scales"]):
        raise InvalidModule(f"scales {attrs['scales']} are not {len(size)} positive factors, or none")
    crops = mode == "tf_crop_and_resize"
    if crops and (len(attrs["roi"]) != 2 * len(size) or dims.constants(size) is None):
        raise InvalidModule(
            f"to crop needs a constant size, and a roi of {len(size)} starts and ends, not {dims.text(size)} and "
            f"{attrs['roi']}"
        )
    return [TensorType((*data.shape[: data.ndim - len(size)], *dims.dims(size)), data.dtype)]


def _resize(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (data,) = inputs
    axes = _axes(data.shape, attrs)
    outer = data.ndim - len(axes)
    crops = attrs["coordinate_transformation_mode"] == "tf_crop_and_resize"
    if attrs["method"] == "nearest":

        def nearest(*i: Any) -> Any:
            places = [a.rounded(o, attrs["nearest_mode"]) if a.changes else o for a, o in zip(axes, i[outer:])]
            return data[(*i[:outer], *places)]

        found: Callable[..., Any] = nearest
    else:
        exact = "float64" if data.dtype == "float64" else "float32"
        mixed = data
        for n, axis in enumerate(axes):
            mixed = _mixed(mixed, outer + n, axis, attrs, exact) if axis.changes else mixed

        if mixed.dtype == data.dtype and mixed is not data and not crops:
            return [mixed]

        def rounded(*i: Any) -> Any:
            return data[i] if mixed is data else _as_element(mixed[i], data.dtype)

        found = rounded

    def cropped(*i: Any) -> Any:
        outside = []
        for axis, o in zip(axes, i[outer:]):
            if axis.changes:
                at = axis.numerator(o)
                outside += [at < 0, at > _value(dims.mul(dims.sub(axis.size, 1), axis.unit))]
        beyond = te.const(attrs["extrapolation_value"], out[0].dtype)
        return te.if_then_else(te.any(*outside), beyond, found(*i)) if outside else found(*i)

    return [te.compute(shape_of(out[0]), cropped if crops else found, name="resize")]


def _as_element(x: Any, dtype: str) -> Any:
    """Integers are rounded, and the nearest that the dtype holds."""
    if not dt.is_int(dtype):
        return x.astype(dtype)
    low, high = dt.int_range(dtype)
    x = te.maximum(te.nearbyint(x), float(low))
    if dt.bits(dtype) <= 16:
        return te.minimum(x, float(high)).astype(dtype)
    # the largest number is no float: what reaches it is not converted
    return te.if_then_else(x >= float(high), te.const(high, dtype), x.astype(dtype))


def _mixed(data: Tensor, place: int, axis: _Axis, attrs: Attrs, exact: str) -> Tensor:
    """One dimension resized: of each element the neighbours by their weights, which are worked out once."""
    taps = 2 if attrs["method"] == "linear" else 4
    before = taps // 2 - 1
    last = _value(dims.sub(axis.size, 1))

    def whole(o: Any) -> Any:
        return axis.numerator(o) // _value(axis.unit) - before

    def weight(o: Any, tap: int | Any) -> Any:
        rest = (axis.numerator(o) % _value(axis.unit)).astype(exact) / _float(axis.unit, exact)
        weights = [_kernel(te.abs(rest + float(before - t)), attrs["cubic_coeff_a"], taps) for t in range(taps)]
        if attrs["exclude_outside"]:
            first = whole(o)
            inside = [te.all(first + t >= 0, first + t <= last) for t in range(taps)]
            weights = [te.select(there, w, te.const(0, exact)) for there, w in zip(inside, weights)]
        chosen, total = weights[-1], weights[-1]
        for t in range(taps - 1):
            chosen, total = te.select(tap == t, weights[t], chosen), total + weights[t]
        return chosen / total if attrs["exclude_outside"] else chosen

    start = te.compute((axis.length,), whole, name="start")
    weights = te.compute((axis.length, taps), weight, name="weights")

    def element(*i: Any) -> Any:
        o = i[place]
        total: Any = None
        for t in range(taps):
            at = te.minimum(te.maximum(start[o] + t if t else start[o], 0), last)
            part = data[(*i[:place], at, *i[place + 1 :])].astype(exact) * weights[o, t]
            total = part if total is None else total + part
        return total

    shape = (*data.shape[:place], axis.length, *data.shape[place + 1 :])
    return te.compute(tuple(dims.dim(d) for d in shape), element, name="mixed")


def _float(number: dims.Dim, dtype: str) -> Any:
    known = dims.constant(number)
    return te.Value(dims.dim(number)).astype(dtype) if known is None else te.const(float(known), dtype)


def _kernel(distance: Any, a: float, taps: int) -> Any:
    """The weight of an element at a distance below 1 (of 2 taps) or 2 (of 4: the cubic kernel of Keys)."""
    if taps == 2:
        return 1.0 - distance
    near = ((distance * (a + 2) - (a + 3)) * distance) * distance + 1.0
    far = ((distance * a - 5 * a) * distance + 8 * a) * distance - 4 * a
    return te.select(distance <= 1.0, near, far)


def _reference(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (data,) = inputs
    axes = _axes(data.shape, attrs)
    outer = data.ndim - len(axes)
    taps = {"nearest": 1, "linear": 2, "cubic": 4}[attrs["method"]]
    result = data if taps == 1 else data.astype(np.float64)
    beyond = np.zeros([_constant(a.length) for a in axes], bool)
    for n, axis in enumerate(axes):
        size, scale, shift, unit = (_constant(d) for d in (axis.size, axis.scale, axis.shift, axis.unit))
        numerators = np.arange(_constant(axis.length), dtype=np.int64) * scale + shift
        outside = (numerators < 0) | (numerators > (size - 1) * unit)
        beyond |= outside.reshape([-1 if k == n else 1 for k in range(len(axes))])
        if taps == 1:
            result = result.take(_nearest(numerators, unit, attrs["nearest_mode"]).clip(0, size - 1), axis=outer + n)
        elif axis.changes:
            places = numerators[:, None] // unit + np.arange(taps) - (taps // 2 - 1)
            distances = np.abs((numerators / unit)[:, None] - places)
            weights = _kernel_array(distances, attrs["cubic_coeff_a"], taps)
            if attrs["exclude_outside"]:
                weights = np.where((places >= 0) & (places < size), weights, 0)
                weights = weights / weights.sum(axis=1, keepdims=True)
            seen = result.take(places.clip(0, size - 1), axis=outer + n)
            result = (seen * weights.reshape(*weights.shape, *[1] * (data.ndim - outer - n - 1))).sum(
                axis=outer + n + 1
            )
    if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
        result = np.where(beyond, np.asarray(attrs["extrapolation_value"], result.dtype), result)
    name = dt.from_numpy(data.dtype)
    if taps > 1 and dt.is_int(name):
        low, high = dt.int_range(name)
        return [
            np.array([min(max(int(x), low), high) for x in np.rint(result).flat]).reshape(result.shape).astype(name)
        ]
    return [result.astype(data.dtype)]


def _nearest(numerators: Array, unit: int, mode: str) -> Array:
    match mode:
        case "floor":
            return np.asarray(numerators // unit)
        case "ceil":
            return np.asarray(-(-numerators // unit))
        case "round_prefer_floor":
            return np.asarray(-((unit - 2 * numerators) // (2 * unit)))
        case _:
            return np.asarray((2 * numerators + unit) // (2 * unit))


def _kernel_array(distance: Array, a: float, taps: int) -> Array:
    if taps == 2:
        return np.asarray(1 - distance)
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return np.where(distance <= 1, near, a * (distance**3 - 5 * distance**2 + 8 * distance - 4))


def _constant(number: dims.Dim) -> int:
    known = dims.constant(number)
    assert known is not None
    return known


OPERATORS = (
    # the last len(size) dimensions; scales, where given, are what coordinates go by instead of the sizes' quotients;
    # roi has the starts of these dimensions, then the ends, in parts of them
    Operator(
        "image.resize", 300, ("data",), named("image.resize", _infer), _resize, _reference, "injective",
        (
            Attribute("size", "dims"), Attribute("scales", "floats", ()), Attribute("roi", "floats", ()),
            Attribute("method", "text", "linear"), Attribute("coordinate_transformation_mode", "text", "half_pixel"),
            Attribute("nearest_mode", "text", "round_prefer_floor"), Attribute("cubic_coeff_a", "float", -0.75),
            Attribute("exclude_outside", "bool", False), Attribute("extrapolation_value", "float", 0.0),
        ),
    ),
)  # fmt: skip
