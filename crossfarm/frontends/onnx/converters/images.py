"""Images: resizing, sampling at places, columns back to images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

import numpy as np

from crossfarm.frontends.onnx.converters.contraction import constants
from crossfarm.frontends.onnx.converters.resampling import Taps, taps
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims


@converter("Upsample")
def _upsample(node: Node) -> Tensor:
    value = node.tensor(0)
    given = node.attr("scales")
    scales = [float(v) for v in (given if node.version < 9 else node.numbers(node.tensor(1), "its scales"))]
    sizes = [_scaled(extent, scale) for extent, scale in zip(value.shape, scales)]
    return node.op(
        "image.resize", value, size=tuple(sizes), scales=tuple(scales), method=_METHODS[node.attr("mode", "nearest")],
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


#: ONNX's modes, those of its oldest resizing among them.
_METHODS = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}


def _scaled(extent: dims.Dim, scale: float) -> dims.Dim:
    """``floor(extent * scale)``; scales are float32, and 1/3 means a third."""
    number = dims.constant(extent)
    if number is not None:
        return math.floor(number * scale)
    factor = Fraction(scale).limit_denominator(1 << 12)
    return dims.floordiv(dims.mul(extent, factor.numerator), factor.denominator)


@converter("Resize")
def _resize(node: Node) -> Tensor:
    value = node.tensor(0)
    region, scaling, sizing = (1, 2, 3) if node.version >= 11 else (9, 1, 9)
    axes = dims.axes(node.attr("axes"), value.ndim)
    wanted, given = node.optional(sizing), node.optional(scaling)
    sizes, scales = list(value.shape), [1.0] * value.ndim
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    by_scale = wanted is None or not wanted.static_size
    if by_scale and given is None:
        node.fail("it has neither scales nor sizes")
    if by_scale and given is not None:
        for axis, scale in zip(axes, node.numbers(given, "its scales").reshape(-1)):
            sizes[axis], scales[axis] = _scaled(value.shape[axis], float(scale)), float(scale)
    elif wanted is not None:
        for axis, size in zip(axes, node.sizes(wanted, "its sizes")):
            sizes[axis] = size
        if policy != "stretch":
            _keep_aspect(node, value, axes, sizes, scales, policy)
            by_scale = True
    old = node.version < 11
    transformation = str(node.attr("coordinate_transformation_mode", "asymmetric" if old else "half_pixel"))
    rounding = "floor" if old else str(node.attr("nearest_mode", "round_prefer_floor"))
    method = str(node.attr("mode", "nearest"))
    crop = None
    rois = node.optional(region)
    if transformation == "tf_crop_and_resize" and rois is not None:
        corners = [float(v) for v in node.numbers(rois, "its roi").reshape(-1)]
        crop = [(0.0, 1.0)] * value.ndim
        for i, axis in enumerate(axes):
            crop[axis] = corners[i], corners[i + len(axes)]
    # the operator stretches corners over the whole elements that a scale makes, ONNX over the fraction beside them too
    cut = by_scale and transformation == "align_corners" and dims.constants(value.shape) is not None
    if node.attr("antialias", 0) or transformation == "tf_half_pixel_for_nn" or cut:
        return _by_taps(node, value, sizes, scales if by_scale else None, method, transformation, rounding)
    first = next((i for i, d in enumerate(sizes) if crop or not dims.same(d, value.shape[i])), value.ndim)
    if first == value.ndim:
        return value
    return node.op(
        "image.resize", value, size=tuple(sizes[first:]), scales=tuple(scales[first:]) if by_scale else (),
        roi=() if crop is None else tuple(ends[i] for i in range(2) for ends in crop[first:]), method=method,
        coordinate_transformation_mode=transformation, nearest_mode=rounding,
        cubic_coeff_a=float(node.attr("cubic_coeff_a", -0.75)), exclude_outside=bool(node.attr("exclude_outside", 0)),
        extrapolation_value=float(node.attr("extrapolation_value", 0.0)),
    )  # fmt: skip


def _keep_aspect(
    node: Node, value: Tensor, axes: Sequence[int], sizes: list[dims.Dim], scales: list[float], policy: str
) -> None:
    """One scale for all axes, the one that makes nothing larger, or nothing smaller, than was asked for."""
    extents = constants(node, [value.shape[a] for a in axes], "the resized axes")
    wanted = constants(node, [sizes[a] for a in axes], "its sizes")
    ratios = [w / e for w, e in zip(wanted, extents)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    for axis, extent in zip(axes, extents):
        sizes[axis], scales[axis] = math.floor(scale * extent + 0.5), scale


def _by_taps(
    node: Node, value: Tensor, sizes: Sequence[dims.Dim], scales: Sequence[float] | None, method: str,
    transformation: str, rounding: str,
) -> Tensor:  # fmt: skip
    """One axis after the other, each as sums of its elements."""
    extents = constants(node, value.shape, "the shape of what is resized with antialias")
    lengths = constants(node, sizes, "its sizes")
    for axis, (extent, length) in enumerate(zip(extents, lengths)):
        if extent == length:
            continue
        found = taps(
            extent, length, length / extent if scales is None else scales[axis], method, transformation, rounding,
            cubic=float(node.attr("cubic_coeff_a", -0.75)), exclude=bool(node.attr("exclude_outside", 0)),
            antialias=bool(node.attr("antialias", 0)),
        )  # fmt: skip
        value = _resampled(node, value, axis, found)
    return value


def _resampled(node: Node, value: Tensor, axis: int, found: Taps) -> Tensor:
    """One axis as weighted sums of its elements."""
    dtype = value.dtype
    if found.weights is None:
        return node.op("take", value, node.const(found.places[0]), axis=axis)
    shape = [1] * value.ndim
    shape[axis] = found.places.shape[1]
    wide = value if dt.is_float(dtype) else node.cast(value, "float32")
    terms = []
    for places, weights in zip(found.places, found.weights):
        weight = node.const(weights.reshape(shape), wide.dtype)
        terms.append(node.op("multiply", node.op("take", wide, node.const(places), axis=axis), weight))
    total = reduce(lambda a, b: node.op("add", a, b), terms)
    return node.cast(total, dtype)


@converter("Col2Im")
def _col2im(node: Node) -> Tensor:
    value = node.tensor(0)
    image = node.ints(node.tensor(1), "its image_shape")
    block = node.ints(node.tensor(2), "its block_shape")
    rank = len(image)
    strides = tuple(node.attr("strides", (1,) * rank))
    dilation = tuple(node.attr("dilations", (1,) * rank))
    pads = tuple(node.attr("pads", (0,) * 2 * rank))
    batch, columns, _ = constants(node, value.shape, "the input's shape")
    channels = columns // math.prod(block)
    padded = [image[i] + pads[i] + pads[rank + i] for i in range(rank)]
    places = np.zeros((), np.int64)
    counts = []
    for i in range(rank):
        count = (padded[i] - (block[i] - 1) * dilation[i] - 1) // strides[i] + 1
        counts.append(count)
        at = np.arange(block[i])[:, None] * dilation[i] + np.arange(count)[None, :] * strides[i]
        view = [1] * 2 * rank
        view[i], view[rank + i] = block[i], count
        places = places * padded[i] + at.reshape(view)
    size = math.prod(padded)
    flat = places.reshape(-1)
    rows = node.reshape(value, (batch * channels, len(flat)))
    zeros = node.zeros((batch * channels, size), value)
    index = node.const(np.ascontiguousarray(np.broadcast_to(flat, (batch * channels, len(flat)))))
    found = node.op("scatter_elements", zeros, index, rows, axis=1, reduction="add")
    found = node.reshape(found, (batch, channels, *padded))
    for i in range(rank):
        if pads[i] or pads[rank + i]:
            found = node.slice(found, 2 + i, pads[i], pads[i] + image[i])
    return found


@converter("GridSample")
def _grid_sample(node: Node) -> Tensor:
    value, grid = node.tensors
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(m := str(node.attr("mode", "linear")), m)
    padding = str(node.attr("padding_mode", "zeros"))
    aligned = bool(node.attr("align_corners", 0))
    extents = constants(node, value.shape, "the input's shape")
    points = constants(node, grid.shape[1:-1], "the grid's shape")
    batch, channels, *image = extents
    rank = len(image)
    total = math.prod(points)
    grid = node.reshape(grid, (grid.shape[0], total, rank))
    coordinates = []
    for i in range(rank):
        at = node.slice(grid, 2, rank - 1 - i, rank - i)  # x comes first, and is the last dimension
        half = (image[i] - 1) / 2 if aligned else image[i] / 2
        at = node.op("multiply", node.op("add", at, node.like(1, at)), node.like(half, at))
        at = at if aligned else node.op("subtract", at, node.like(0.5, at))
        if padding == "border" and mode != "cubic":
            at = node.op("clip", at, min=0.0, max=float(image[i] - 1))
        if padding == "reflection" and mode != "cubic":
            at = _reflected(node, at, image[i], aligned)
        coordinates.append(at)
    flat = node.reshape(value, (batch, channels, math.prod(image)))
    steps = {"nearest": 1, "linear": 2, "cubic": 4}[mode]
    sides = [_sides(node, at, mode) for at in coordinates]
    result: Tensor | None = None
    for choice in np.ndindex(*(steps,) * rank):
        index, weight, inside = None, None, None
        for i, side in enumerate(choice):
            place, part = sides[i][side]
            if mode == "cubic" and padding == "reflection":
                place = node.op("round", _reflected(node, place, image[i], aligned))
            clipped = node.op("clip", place, min=0.0, max=float(image[i] - 1))
            if padding == "zeros":
                good = node.op("equal", clipped, place)
                inside = good if inside is None else node.op("logical_and", inside, good)
            at = node.cast(clipped, "int64")
            index = at if index is None else node.op("add", node.op("multiply", index, node.const(image[i])), at)
            if part is not None:
                weight = part if weight is None else node.op("multiply", weight, part)
        assert index is not None
        wide = node.op("broadcast_to", node.reshape(index, (batch, 1, total)), shape=(batch, channels, total))
        seen = node.op("gather_elements", flat, wide, axis=2)
        if inside is not None:
            seen = node.op("where", node.reshape(inside, (batch, 1, total)), seen, node.like(0, seen))
        if weight is not None:
            seen = node.op("multiply", seen, node.cast(node.reshape(weight, (batch, 1, total)), seen.dtype))
        result = seen if result is None else node.op("add", result, seen)
    assert result is not None
    return node.reshape(result, (batch, channels, *points))


def _reflected(node: Node, at: Tensor, extent: int, aligned: bool) -> Tensor:
    """A coordinate outside as its mirror image inside."""
    low, high = (0.0, float(extent - 1)) if aligned else (-0.5, extent - 0.5)
    span = high - low
    if span <= 0:
        return node.op("multiply", at, node.like(0, at))
    away = node.op("abs", node.op("subtract", at, node.like(low, at)))
    inside = node.op("floor_mod", away, node.like(2 * span, at))
    back = node.op("subtract", node.like(2 * span, at), inside)
    return node.op("add", node.op("minimum", inside, back), node.like(low, at))


def _sides(node: Node, at: Tensor, mode: str) -> list[tuple[Tensor, Tensor | None]]:
    """Places around a coordinate and their weights."""
    if mode == "nearest":
        return [(node.op("round", at), None)]
    below = node.op("floor", at)
    part = node.op("subtract", at, below)
    one = node.like(1, at)
    if mode == "linear":
        return [(below, node.op("subtract", one, part)), (node.op("add", below, one), part)]

    def polynomial(t: Tensor, *factors: float) -> Tensor:
        found = node.op("multiply", t, node.like(factors[0], t))
        for factor in factors[1:-1]:
            found = node.op("multiply", node.op("add", found, node.like(factor, t)), t)
        return node.op("add", found, node.like(factors[-1], t))

    a = -0.75

    def near(t: Tensor) -> Tensor:
        return polynomial(t, a + 2, -(a + 3), 0.0, 1.0)

    def far(t: Tensor) -> Tensor:
        return polynomial(t, a, -5 * a, 8 * a, -4 * a)

    rest = node.op("subtract", one, part)
    weights = [far(node.op("add", part, one)), near(part), near(rest), far(node.op("add", rest, one))]
    return [(node.op("add", below, node.like(i - 1, at)), w) for i, w in enumerate(weights)]
