"""Normalizations: elements against the others of their row, channel, group or neighbourhood.

Sums of float16 and bfloat16 are kept, and their elements worked with, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs
from crossfarm.ir.graph.operators.rows import described, one_dtype, operator, shape_of, wide, wide_array
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor

EPSILON = Attribute("epsilon", "float", 1e-5)


class _Reduced:
    """Reductions of a tensor over some axes; results are indexed by the axes that are left."""

    def __init__(self, data: Tensor, axes: Sequence[int]) -> None:
        self.data, self.axes = data, tuple(axes)
        self.sums = wide(data.dtype)
        self.kept = [n for n in range(data.ndim) if n not in self.axes]
        self.shape = tuple(data.shape[n] for n in self.kept)

    def row(self, i: Sequence[Any]) -> tuple[Any, ...]:
        """Of an element's indices those of its row."""
        return tuple(i[n] for n in self.kept)

    def each(self, reduce: Any, value: Callable[..., Any], name: str) -> Tensor:
        """Of each row the reduction of ``value(element's indices, element)``."""
        steps = {n: te.reduce_axis((0, self.data.shape[n]), f"k{n}") for n in self.axes}

        def element(*rows: Any) -> Any:
            at = {**dict(zip(self.kept, rows)), **steps}
            whole = tuple(at[n] for n in range(self.data.ndim))
            return reduce(value(whole, self.at(whole)), axis=list(steps.values()))

        return te.compute(self.shape, element, name=name)

    def at(self, i: Sequence[Any]) -> Any:
        return self.data[tuple(i)].astype(self.sums)

    def mean(self, total: Tensor, name: str = "mean") -> Tensor:
        count = self.count()
        return te.compute(total.shape, lambda *i: total[i] / count, name=name)

    def count(self) -> Any:
        """How many elements a row has, as a float."""
        number = dims.product(self.data.shape[n] for n in self.axes)
        known = dims.constant(number)
        return te.Value(number).astype(self.sums) if known is None else te.const(float(known), self.sums)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Of each row the mean, and the sum of squared distances from it."""
        mean = self.mean(self.each(te.sum, lambda i, x: x, "total"))

        def square(i: Sequence[Any], x: Any) -> Any:
            distance = x - mean[self.row(i)]
            return distance * distance

        return mean, self.each(te.sum, square, "squares")


def _elements(out: TensorType, element: Callable[..., Any], name: str) -> list[Tensor]:
    """The result, rounded to its dtype."""
    return [te.compute(shape_of(out), lambda *i: element(*i).astype(out.dtype), name=name)]


def _optional(inputs: Sequence[Any], position: int) -> Any:
    return inputs[position] if position < len(inputs) else None


def _infer_along(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    """The type of the operand, which has the axis or axes."""
    one_dtype(inputs, "floats")
    if "axis" in attrs:
        dims.axis(attrs["axis"], inputs[0].ndim)
    elif not dims.axes(attrs["axes"], inputs[0].ndim):
        raise InvalidModule("it needs an axis to normalize along")
    return [inputs[0]]


def _softmax(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], [dims.axis(attrs["axis"], inputs[0].ndim)])
    largest = rows.each(te.max, lambda i, x: x, "largest")
    power = te.compute(inputs[0].shape, lambda *i: te.exp(rows.at(i) - largest[rows.row(i)]), name="power")
    total = _Reduced(power, rows.axes).each(te.sum, lambda i, x: x, "total")
    return _elements(out[0], lambda *i: power[i] / total[rows.row(i)], "softmax")


def _reference_softmax(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = wide_array(inputs[0])
    power = np.exp(x - x.max(axis=attrs["axis"], keepdims=True))
    return [(power / power.sum(axis=attrs["axis"], keepdims=True)).astype(inputs[0].dtype)]


def _log_softmax(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], [dims.axis(attrs["axis"], inputs[0].ndim)])
    largest = rows.each(te.max, lambda i, x: x, "largest")
    total = rows.each(te.sum, lambda i, x: te.exp(x - largest[rows.row(i)]), "total")
    shift = te.compute(total.shape, lambda *i: largest[i] + te.log(total[i]), name="shift")
    return _elements(out[0], lambda *i: rows.at(i) - shift[rows.row(i)], "log_softmax")


def _reference_log_softmax(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = wide_array(inputs[0])
    x = x - x.max(axis=attrs["axis"], keepdims=True)
    return [(x - np.log(np.exp(x).sum(axis=attrs["axis"], keepdims=True))).astype(inputs[0].dtype)]


def _infer_batch_norm(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    data, *rest = inputs
    one_dtype([data], "floats")
    one_dtype(rest, "floats")  # statistics of 16-bit data may be float32
    channels = data.shape[dims.axis(attrs["axis"], data.ndim)]
    for label, given in zip(("gamma", "beta", "moving_mean", "moving_var"), rest):
        _check_vector(label, given, channels)
    return [data]


def _check_vector(label: str, given: TensorType, channels: Any) -> None:
    if not dims.same_shape(given.shape, (channels,)):
        raise InvalidModule(
            f"{label} is {described(given)}; it needs one element for each of {dims.text([channels])[1:-1]} channels"
        )


def _batch_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, gamma, beta, mean, var = inputs
    axis, sums = dims.axis(attrs["axis"], data.ndim), wide(data.dtype)

    def element(*i: Any) -> Any:
        # what the channel alone decides comes out of the loops over its elements
        scale, shift, middle, spread = (t[i[axis]].astype(sums) for t in (gamma, beta, mean, var))
        return (data[i].astype(sums) - middle) * (scale * te.rsqrt(spread + attrs["epsilon"])) + shift

    return _elements(out[0], element, "batch_norm")


def _reference_batch_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data = wide_array(inputs[0])
    shape = [1] * data.ndim
    shape[attrs["axis"]] = -1
    gamma, beta, mean, var = (x.astype(data.dtype).reshape(shape) for x in inputs[1:])
    return [((data - mean) / np.sqrt(var + data.dtype.type(attrs["epsilon"])) * gamma + beta).astype(inputs[0].dtype)]


def _infer_layer_norm(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    _infer_along(inputs, attrs)
    data = inputs[0]
    row = tuple(data.shape[n] for n in dims.axes(attrs["axes"], data.ndim))
    for label, given in zip(("gamma", "beta"), inputs[1:]):
        if not dims.same_shape(given.shape, row):
            raise InvalidModule(f"{label} is {described(given)}; what is normalized has the shape {dims.text(row)}")
    return [data]


def _scaled(value: Any, gamma: Tensor | None, beta: Tensor | None, at: tuple[Any, ...]) -> Any:
    value = value if gamma is None else value * gamma[at].astype(value.dtype)
    return value if beta is None else value + beta[at].astype(value.dtype)


def _layer_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    axes = dims.axes(attrs["axes"], inputs[0].ndim)
    rows = _Reduced(inputs[0], axes)
    mean, squares = rows.moments()
    count = rows.count()

    def element(*i: Any) -> Any:
        row = rows.row(i)
        value = (rows.at(i) - mean[row]) * te.rsqrt(squares[row] / count + attrs["epsilon"])
        return _scaled(value, _optional(inputs, 1), _optional(inputs, 2), tuple(i[n] for n in axes))

    return _elements(out[0], element, "layer_norm")


def _reference_layer_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = wide_array(inputs[0])
    axes = dims.axes(attrs["axes"], x.ndim)
    value = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + attrs["epsilon"])
    return [_reference_scaled(value, inputs, axes).astype(inputs[0].dtype)]


def _reference_scaled(value: Array, inputs: Sequence[Array], axes: Sequence[int]) -> Array:
    """Times gamma, plus beta, whose dimensions are ``axes`` in that order."""

    def along(x: Array) -> Array:
        order = np.argsort(axes)
        shape = [value.shape[n] if n in axes else 1 for n in range(value.ndim)]
        return x.astype(value.dtype).transpose(order).reshape(shape)

    gamma, beta = _optional(inputs, 1), _optional(inputs, 2)
    value = value if gamma is None else value * along(gamma)
    return value if beta is None else value + along(beta)


def _rms_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    axes = dims.axes(attrs["axes"], inputs[0].ndim)
    rows = _Reduced(inputs[0], axes)
    squares = rows.each(te.sum, lambda i, x: x * x, "squares")
    count = rows.count()

    def element(*i: Any) -> Any:
        value = rows.at(i) * te.rsqrt(squares[rows.row(i)] / count + attrs["epsilon"])
        return _scaled(value, _optional(inputs, 1), None, tuple(i[n] for n in axes))

    return _elements(out[0], element, "rms_norm")


def _reference_rms_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = wide_array(inputs[0])
    axes = dims.axes(attrs["axes"], x.ndim)
    value = x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + attrs["epsilon"])
    return [_reference_scaled(value, inputs, axes).astype(inputs[0].dtype)]


def _infer_channels(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    """The type of data whose channels, or groups of them, are normalized."""
    one_dtype(inputs, "floats")
    data, groups = inputs[0], attrs.get("num_groups")
    axis = dims.axis(attrs["channel_axis"], data.ndim, "channel_axis")
    channels = dims.constant(data.shape[axis])
    if groups is not None and (channels is None or groups < 1 or channels % groups):
        raise InvalidModule(f"dimension {axis} of {described(data)} is not {groups} groups of channels")
    axes = _others(data.ndim, attrs)
    if axis in axes or (groups is None and not axes):
        raise InvalidModule(f"{described(data)} is not normalized along {axes}, with channels along {axis}")
    for label, given in zip(("gamma", "beta"), inputs[1:]):
        _check_vector(label, given, data.shape[axis])
    return [data]


def _others(ndim: int, attrs: Attrs) -> tuple[int, ...]:
    """The dimensions that are normalized: without axes, all but the first and the channels'."""
    if attrs["axes"] is not None:
        return dims.axes(attrs["axes"], ndim)
    return tuple(n for n in range(1, ndim) if n != attrs["channel_axis"] % ndim)


def _instance_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    channel = dims.axis(attrs["channel_axis"], inputs[0].ndim)
    rows = _Reduced(inputs[0], _others(inputs[0].ndim, attrs))
    mean, squares = rows.moments()
    count = rows.count()

    def element(*i: Any) -> Any:
        row = rows.row(i)
        value = (rows.at(i) - mean[row]) * te.rsqrt(squares[row] / count + attrs["epsilon"])
        return _scaled(value, _optional(inputs, 1), _optional(inputs, 2), (i[channel],))

    return _elements(out[0], element, "instance_norm")


def _reference_instance_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = wide_array(inputs[0])
    axes = _others(x.ndim, attrs)
    value = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + attrs["epsilon"])
    return [_reference_scaled(value, inputs, (attrs["channel_axis"] % x.ndim,)).astype(inputs[0].dtype)]


def _group_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, groups = inputs[0], attrs["num_groups"]
    channel = dims.axis(attrs["channel_axis"], data.ndim)
    channels = dims.constant(data.shape[channel])
    assert channels is not None
    size = channels // groups
    # channels first, then groups of them: what a channel has lies side by side
    rows = _Reduced(data, _others(data.ndim, attrs))
    place = rows.kept.index(channel)
    shape = (*rows.shape[:place], groups, *rows.shape[place + 1 :])
    count = te.Value(dims.mul(dims.product(data.shape[n] for n in rows.axes), size)).astype(rows.sums)

    def of_groups(value: Callable[..., Any], name: str) -> Tensor:
        each = rows.each(te.sum, value, name) if rows.axes else None
        c = te.reduce_axis((0, size), "c")

        def element(*row: Any) -> Any:
            at = (*row[:place], row[place] * size + c, *row[place + 1 :])
            return te.sum(value(at, rows.at(at)) if each is None else each[at], axis=c)

        total = te.compute(shape, element, name=f"{name}_of_group")
        return te.compute(shape, lambda *row: total[row] / count, name=f"mean_{name}")

    def group(i: Sequence[Any]) -> tuple[Any, ...]:
        row = rows.row(i)
        return (*row[:place], row[place] // size, *row[place + 1 :])

    mean = of_groups(lambda i, x: x, "total")

    def square(i: Sequence[Any], x: Any) -> Any:
        distance = x - mean[group(i)]
        return distance * distance

    var = of_groups(square, "squares")

    def element(*i: Any) -> Any:
        value = (rows.at(i) - mean[group(i)]) * te.rsqrt(var[group(i)] + attrs["epsilon"])
        return _scaled(value, _optional(inputs, 1), _optional(inputs, 2), (i[channel],))

    return _elements(out[0], element, "group_norm")


def _reference_group_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x, channel = wide_array(inputs[0]), attrs["channel_axis"] % inputs[0].ndim
    axes = (channel + 1, *(n + (n > channel) for n in _others(x.ndim, attrs)))
    grouped = x.reshape(*x.shape[:channel], attrs["num_groups"], -1, *x.shape[channel + 1 :])
    mean, var = grouped.mean(axis=axes, keepdims=True), grouped.var(axis=axes, keepdims=True)
    value = ((grouped - mean) / np.sqrt(var + attrs["epsilon"])).reshape(x.shape)
    return [_reference_scaled(value, inputs, (channel,)).astype(inputs[0].dtype)]


def _infer_lrn(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if attrs["size"] < 1:
        raise InvalidModule(f"its size is 1 at least, not {attrs['size']}")
    return _infer_along(inputs, attrs)


def _lrn(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (data,) = inputs
    sums, size, axis = wide(data.dtype), attrs["size"], dims.axis(attrs["axis"], data.ndim)
    before, channels = (size - 1) // 2, te.Value(data.shape[axis])
    k = te.reduce_axis((0, size), "k")

    def squares(*i: Any) -> Any:
        channel = i[axis] + k - before
        there = te.all(channel >= 0, channel < channels)
        x = te.if_then_else(there, data[(*i[:axis], channel, *i[axis + 1 :])], te.const(0, data.dtype)).astype(sums)
        return te.sum(x * x, axis=k)

    total = te.compute(data.shape, squares, name="squares")

    def element(*i: Any) -> Any:
        spread = te.const(attrs["bias"], sums) + total[i] * (attrs["alpha"] / size)
        return data[i].astype(sums) / te.pow(spread, te.const(attrs["beta"], sums))

    return _elements(out[0], element, "lrn")


def _reference_lrn(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x, size = np.moveaxis(wide_array(inputs[0]), attrs["axis"], -1), attrs["size"]
    before = (size - 1) // 2
    squares = np.pad(x * x, [(0, 0)] * (x.ndim - 1) + [(before, size - 1 - before)])
    total = np.lib.stride_tricks.sliding_window_view(squares, size, -1).sum(axis=-1)
    found = x / (attrs["bias"] + attrs["alpha"] / size * total) ** attrs["beta"]
    return [np.moveaxis(found, -1, attrs["axis"]).astype(inputs[0].dtype)]


def _infer_lp(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if attrs["p"] not in (1, 2):
        raise InvalidModule(f"p is 1 or 2, not {attrs['p']}")
    return _infer_along(inputs, attrs)


def _lp(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], [dims.axis(attrs["axis"], inputs[0].ndim)])
    total = rows.each(te.sum, lambda i, x: te.abs(x) if attrs["p"] == 1 else x * x, "total")

    def element(*i: Any) -> Any:
        found = total[rows.row(i)]
        norm = found if attrs["p"] == 1 else te.sqrt(found)
        return te.select(norm == 0, te.const(0, rows.sums), rows.at(i) / norm)

    return _elements(out[0], element, "lp_normalize")


def _reference_lp(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = wide_array(inputs[0])
    norm = np.linalg.norm(x, attrs["p"], axis=attrs["axis"], keepdims=True)
    return [np.where(norm == 0, 0, x / norm).astype(inputs[0].dtype)]


def _mvn(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], dims.axes(attrs["axes"], inputs[0].ndim))
    mean, squares = rows.moments()
    count = rows.count()

    def element(*i: Any) -> Any:
        row = rows.row(i)
        return (rows.at(i) - mean[row]) / (te.sqrt(squares[row] / count) + attrs["epsilon"])

    return _elements(out[0], element, "mean_variance_normalize")


def _reference_mvn(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = wide_array(inputs[0])
    axes = dims.axes(attrs["axes"], x.ndim)
    spread = x.std(axis=axes, keepdims=True) + x.dtype.type(attrs["epsilon"])
    return [((x - x.mean(axis=axes, keepdims=True)) / spread).astype(inputs[0].dtype)]


_AXIS, _AXES = Attribute("axis", "int", -1), Attribute("axes", "ints", (-1,))
_CHANNEL, _OTHERS = Attribute("channel_axis", "int", 1), Attribute("axes", "optional ints", None)
_SCALED = ("data", "gamma?", "beta?")

OPERATORS = (
    operator("nn.softmax", 250, ("data",), _infer_along, _softmax, _reference_softmax, "reduction", _AXIS),
    operator("nn.log_softmax", 251, ("data",), _infer_along, _log_softmax, _reference_log_softmax, "reduction", _AXIS),
    # as it is used after training: with the mean and variance that it is given, and one result
    operator(
        "nn.batch_norm", 252, ("data", "gamma", "beta", "moving_mean", "moving_var"), _infer_batch_norm, _batch_norm,
        _reference_batch_norm, "broadcast", Attribute("axis", "int", 1), EPSILON,
    ),
    operator(
        "nn.layer_norm", 253, _SCALED, _infer_layer_norm, _layer_norm, _reference_layer_norm, "reduction", _AXES,
        EPSILON,
    ),
    operator(
        "nn.rms_norm", 254, ("data", "weight?"), _infer_layer_norm, _rms_norm, _reference_rms_norm, "reduction", _AXES,
        EPSILON,
    ),
    # each channel of each image on its own
    operator(
        "nn.instance_norm", 255, _SCALED, _infer_channels, _instance_norm, _reference_instance_norm, "reduction",
        _CHANNEL, _OTHERS, EPSILON,
    ),
    # channels that follow one another together; gamma and beta have one element a channel
    operator(
        "nn.group_norm", 256, _SCALED, _infer_channels, _group_norm, _reference_group_norm, "reduction",
        Attribute("num_groups", "int"), _CHANNEL, _OTHERS, EPSILON,
    ),
    # x / (bias + alpha / size * sum of squares of the size nearest channels) ** beta, as in ONNX
    operator(
        "nn.lrn", 257, ("data",), _infer_lrn, _lrn, _reference_lrn, "reduction",
        Attribute("size", "int"), Attribute("axis", "int", 1),
        Attribute("alpha", "float", 1e-4), Attribute("beta", "float", 0.75), Attribute("bias", "float", 1.0),
    ),
    # rows of zeros stay zeros
    operator(
        "nn.lp_normalize", 258, ("data",), _infer_lp, _lp, _reference_lp, "reduction", _AXIS, Attribute("p", "int", 2),
    ),
    # epsilon is added to the standard deviation, as in ONNX
    operator(
        "nn.mean_variance_normalize", 259, ("data",), _infer_along, _mvn, _reference_mvn, "reduction",
        Attribute("axes", "ints", (0, 2, 3)), Attribute("epsilon", "float", 1e-9),
    ),
)  # fmt: skip
