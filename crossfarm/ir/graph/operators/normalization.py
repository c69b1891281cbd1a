"""Normalizations: elements against the others of their row, channel, group or neighbourhood.

Sums of float16 and bfloat16 are kept, and their elements worked with, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.precision import accumulator, check_floats
from crossfarm.ir.graph.operators.rows import shape_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor

EPSILON = Attribute("epsilon", "float", 1e-5)


class _Reduced:
    """Reductions of a tensor over some axes; results are indexed by the axes that are left."""

    def __init__(self, data: Tensor, axes: Sequence[int]) -> None:
        self.data, self.axes = data, tuple(axes)
        self.sums = accumulator(data.dtype)
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


def _wide(x: Array) -> Array:
    return x.astype(dt.to_numpy(accumulator(dt.from_numpy(x.dtype))))


def _optional(inputs: Sequence[Any], position: int) -> Any:
    return inputs[position] if position < len(inputs) else None


def _infer_same(name: str, *labels: str) -> Callable[[Sequence[TensorType], Attrs], Sequence[TensorType]]:
    """The type of the first of some float tensors, whose axis is checked."""

    def infer(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        check_floats(name, inputs, labels)
        if "axis" in attrs:
            dims.axis(attrs["axis"], inputs[0].ndim, f"{name}: axis")
        return [inputs[0]]

    return infer


def _softmax(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], [dims.axis(attrs["axis"], inputs[0].ndim)])
    largest = rows.each(te.max, lambda i, x: x, "largest")
    power = te.compute(inputs[0].shape, lambda *i: te.exp(rows.at(i) - largest[rows.row(i)]), name="power")
    total = _Reduced(power, rows.axes).each(te.sum, lambda i, x: x, "total")
    return _elements(out[0], lambda *i: power[i] / total[rows.row(i)], "softmax")


def _reference_softmax(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = _wide(inputs[0])
    power = np.exp(x - x.max(axis=attrs["axis"], keepdims=True))
    return [(power / power.sum(axis=attrs["axis"], keepdims=True)).astype(inputs[0].dtype)]


def _log_softmax(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], [dims.axis(attrs["axis"], inputs[0].ndim)])
    largest = rows.each(te.max, lambda i, x: x, "largest")
    total = rows.each(te.sum, lambda i, x: te.exp(x - largest[rows.row(i)]), "total")
    shift = te.compute(total.shape, lambda *i: largest[i] + te.log(total[i]), name="shift")
    return _elements(out[0], lambda *i: rows.at(i) - shift[rows.row(i)], "log_softmax")


def _reference_log_softmax(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = _wide(inputs[0])
    x = x - x.max(axis=attrs["axis"], keepdims=True)
    return [(x - np.log(np.exp(x).sum(axis=attrs["axis"], keepdims=True))).astype(inputs[0].dtype)]


def _infer_batch_norm(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    labels = ("data", "gamma", "beta", "moving_mean", "moving_var")
    data, *rest = inputs
    for label, given in zip(labels, inputs):
        if not dt.is_float(given.dtype):
            raise InvalidModule(f"nn.batch_norm takes tensors of floats; {label} is {given.dtype}")
    channels = data.shape[dims.axis(attrs["axis"], data.ndim, "nn.batch_norm: axis")]
    for label, given in zip(labels[1:], rest):
        _check_vector("nn.batch_norm", label, given, channels)
    return [data]


def _check_vector(name: str, label: str, given: TensorType, channels: Any) -> None:
    if not dims.same_shape(given.shape, (channels,)):
        raise InvalidModule(
            f"{name}: {label} has shape {dims.text(given.shape)}; it needs one element for each of "
            f"{dims.text([channels])[1:-1]} channels"
        )


def _batch_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, gamma, beta, mean, var = inputs
    axis, sums = dims.axis(attrs["axis"], data.ndim), accumulator(data.dtype)

    def element(*i: Any) -> Any:
        # what the channel alone decides comes out of the loops over its elements
        scale, shift, middle, spread = (t[i[axis]].astype(sums) for t in (gamma, beta, mean, var))
        return (data[i].astype(sums) - middle) * (scale * te.rsqrt(spread + attrs["epsilon"])) + shift

    return _elements(out[0], element, "batch_norm")


def _reference_batch_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data = _wide(inputs[0])
    shape = [1] * data.ndim
    shape[attrs["axis"]] = -1
    gamma, beta, mean, var = (x.astype(data.dtype).reshape(shape) for x in inputs[1:])
    return [((data - mean) / np.sqrt(var + data.dtype.type(attrs["epsilon"])) * gamma + beta).astype(inputs[0].dtype)]


def _infer_layer_norm(name: str) -> Callable[[Sequence[TensorType], Attrs], Sequence[TensorType]]:
    labels = ("data", "gamma", "beta")

    def infer(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        check_floats(name, inputs, labels)
        data = inputs[0]
        axes = dims.axes(attrs["axes"], data.ndim, f"{name}: axes")
        row = tuple(data.shape[n] for n in axes)
        if not axes:
            raise InvalidModule(f"{name} needs an axis to normalize along")
        for label, given in zip(labels[1:], inputs[1:]):
            if not dims.same_shape(given.shape, row):
                raise InvalidModule(
                    f"{name}: {label} has shape {dims.text(given.shape)}; what is normalized has {dims.text(row)}"
                )
        return [data]

    return infer


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
    x = _wide(inputs[0])
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
    x = _wide(inputs[0])
    axes = dims.axes(attrs["axes"], x.ndim)
    value = x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + attrs["epsilon"])
    return [_reference_scaled(value, inputs, axes).astype(inputs[0].dtype)]


def _infer_group_norm(name: str) -> Callable[[Sequence[TensorType], Attrs], Sequence[TensorType]]:
    labels = ("data", "gamma", "beta")

    def infer(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        check_floats(name, inputs, labels)
        data = inputs[0]
        if data.ndim < 2:
            raise InvalidModule(f"{name} takes a tensor of 2 dimensions at least, not {dims.text(data.shape)}")
        groups = attrs.get("num_groups")
        channels = dims.constant(data.shape[1])
        if groups is not None and (channels is None or groups < 1 or channels % groups):
            raise InvalidModule(f"{name} of {dims.text(data.shape)}: the channels do not make {groups} groups")
        if groups is None and data.ndim < 3:
            raise InvalidModule(f"{name} of {dims.text(data.shape)}: there is nothing after N C to normalize along")
        for label, given in zip(labels[1:], inputs[1:]):
            _check_vector(name, label, given, data.shape[1])
        return [data]

    return infer


def _instance_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], range(2, inputs[0].ndim))
    mean, squares = rows.moments()
    count = rows.count()

    def element(*i: Any) -> Any:
        row = rows.row(i)
        value = (rows.at(i) - mean[row]) * te.rsqrt(squares[row] / count + attrs["epsilon"])
        return _scaled(value, _optional(inputs, 1), _optional(inputs, 2), (i[1],))

    return _elements(out[0], element, "instance_norm")


def _reference_instance_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = _wide(inputs[0])
    axes = tuple(range(2, x.ndim))
    value = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + attrs["epsilon"])
    return [_reference_scaled(value, inputs, (1,)).astype(inputs[0].dtype)]


def _group_norm(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, groups = inputs[0], attrs["num_groups"]
    channels = dims.constant(data.shape[1])
    assert channels is not None
    size = channels // groups
    sums = accumulator(data.dtype)
    count = te.Value(dims.mul(dims.product(data.shape[2:]), size)).astype(sums)
    # channels first, then groups of them: what a channel has lies side by side
    rows = _Reduced(data, range(2, data.ndim))

    def of_groups(value: Callable[..., Any], name: str) -> Tensor:
        each = rows.each(te.sum, value, name) if rows.axes else None
        c = te.reduce_axis((0, size), "c")

        def element(n: Any, g: Any) -> Any:
            at = (n, g * size + c)
            return te.sum(value(at, rows.at(at)) if each is None else each[at], axis=c)

        total = te.compute((data.shape[0], groups), element, name=f"{name}_of_group")
        return te.compute(total.shape, lambda n, g: total[n, g] / count, name=f"mean_{name}")

    mean = of_groups(lambda i, x: x, "total")

    def square(i: Sequence[Any], x: Any) -> Any:
        distance = x - mean[i[0], i[1] // size]
        return distance * distance

    var = of_groups(square, "squares")

    def element(*i: Any) -> Any:
        row = (i[0], i[1] // size)
        value = (rows.at(i) - mean[row]) * te.rsqrt(var[row] + attrs["epsilon"])
        return _scaled(value, _optional(inputs, 1), _optional(inputs, 2), (i[1],))

    return _elements(out[0], element, "group_norm")


def _reference_group_norm(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = _wide(inputs[0])
    grouped = x.reshape(x.shape[0], attrs["num_groups"], -1)
    mean, var = grouped.mean(axis=2, keepdims=True), grouped.var(axis=2, keepdims=True)
    value = ((grouped - mean) / np.sqrt(var + attrs["epsilon"])).reshape(x.shape)
    return [_reference_scaled(value, inputs, (1,)).astype(inputs[0].dtype)]


def _infer_lrn(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    check_floats("nn.lrn", inputs, ("data",))
    if inputs[0].ndim < 2 or attrs["size"] < 1:
        raise InvalidModule(
            f"nn.lrn of {dims.text(inputs[0].shape)} over {attrs['size']} channels: it needs N C … and a size of 1 at "
            "least"
        )
    return [inputs[0]]


def _lrn(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (data,) = inputs
    sums, size = accumulator(data.dtype), attrs["size"]
    before, channels = (size - 1) // 2, te.Value(data.shape[1])
    k = te.reduce_axis((0, size), "k")

    def squares(*i: Any) -> Any:
        channel = i[1] + k - before
        x = te.if_then_else(
            te.all(channel >= 0, channel < channels), data[(i[0], channel, *i[2:])], te.const(0, data.dtype)
        ).astype(sums)
        return te.sum(x * x, axis=k)

    total = te.compute(data.shape, squares, name="squares")

    def element(*i: Any) -> Any:
        spread = te.const(attrs["bias"], sums) + total[i] * (attrs["alpha"] / size)
        return data[i].astype(sums) / te.pow(spread, te.const(attrs["beta"], sums))

    return _elements(out[0], element, "lrn")


def _reference_lrn(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x, size = _wide(inputs[0]), attrs["size"]
    before = (size - 1) // 2
    squares = np.pad(x * x, [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)])
    total = sum(squares[:, k : k + x.shape[1]] for k in range(size))
    return [(x / (attrs["bias"] + attrs["alpha"] / size * total) ** attrs["beta"]).astype(inputs[0].dtype)]


def _infer_lp(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if attrs["p"] not in (1, 2):
        raise InvalidModule(f"nn.lp_normalize: p is 1 or 2, not {attrs['p']}")
    return _infer_same("nn.lp_normalize", "data")(inputs, attrs)


def _lp(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], [dims.axis(attrs["axis"], inputs[0].ndim)])
    total = rows.each(te.sum, lambda i, x: te.abs(x) if attrs["p"] == 1 else x * x, "total")

    def element(*i: Any) -> Any:
        found = total[rows.row(i)]
        norm = found if attrs["p"] == 1 else te.sqrt(found)
        return te.select(norm == 0, te.const(0, rows.sums), rows.at(i) / norm)

    return _elements(out[0], element, "lp_normalize")


def _reference_lp(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = _wide(inputs[0])
    norm = np.linalg.norm(x, attrs["p"], axis=attrs["axis"], keepdims=True)
    return [np.where(norm == 0, 0, x / norm).astype(inputs[0].dtype)]


def _infer_mvn(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    check_floats("nn.mean_variance_normalize", inputs, ("data",))
    if not dims.axes(attrs["axes"], inputs[0].ndim, "nn.mean_variance_normalize: axes"):
        raise InvalidModule("nn.mean_variance_normalize needs an axis to normalize along")
    return [inputs[0]]


def _mvn(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    rows = _Reduced(inputs[0], dims.axes(attrs["axes"], inputs[0].ndim))
    mean, squares = rows.moments()
    count = rows.count()

    def element(*i: Any) -> Any:
        row = rows.row(i)
        return (rows.at(i) - mean[row]) / (te.sqrt(squares[row] / count) + attrs["epsilon"])

    return _elements(out[0], element, "mean_variance_normalize")


def _reference_mvn(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = _wide(inputs[0])
    axes = dims.axes(attrs["axes"], x.ndim)
    spread = x.std(axis=axes, keepdims=True) + x.dtype.type(attrs["epsilon"])
    return [((x - x.mean(axis=axes, keepdims=True)) / spread).astype(inputs[0].dtype)]


_AXIS, _AXES = Attribute("axis", "int", -1), Attribute("axes", "ints", (-1,))

OPERATORS = (
    Operator(
        "nn.softmax", 250, ("data",), _infer_same("nn.softmax", "data"), _softmax, _reference_softmax,
        "reduction", (_AXIS,),
    ),
    Operator(
        "nn.log_softmax", 251, ("data",), _infer_same("nn.log_softmax", "data"), _log_softmax, _reference_log_softmax,
        "reduction", (_AXIS,),
    ),
    # as it is used after training: with the mean and variance that it was given, one result
    Operator(
        "nn.batch_norm", 252, ("data", "gamma", "beta", "moving_mean", "moving_var"), _infer_batch_norm, _batch_norm,
        _reference_batch_norm, "broadcast", (Attribute("axis", "int", 1), EPSILON),
    ),
    Operator(
        "nn.layer_norm", 253, ("data", "gamma?", "beta?"), _infer_layer_norm("nn.layer_norm"), _layer_norm,
        _reference_layer_norm, "reduction", (_AXES, EPSILON),
    ),
    Operator(
        "nn.rms_norm", 254, ("data", "weight?"), _infer_layer_norm("nn.rms_norm"), _rms_norm, _reference_rms_norm,
        "reduction", (_AXES, EPSILON),
    ),
    # data N C …: each channel of each image on its own
    Operator(
        "nn.instance_norm", 255, ("data", "gamma?", "beta?"), _infer_group_norm("nn.instance_norm"), _instance_norm,
        _reference_instance_norm, "reduction", (EPSILON,),
    ),
    # data N C …: channels that follow one another together; gamma and beta have one element a channel
    Operator(
        "nn.group_norm", 256, ("data", "gamma?", "beta?"), _infer_group_norm("nn.group_norm"), _group_norm,
        _reference_group_norm, "reduction", (Attribute("num_groups", "int"), EPSILON),
    ),
    # data N C …: x / (bias + alpha / size * sum of squares of the size nearest channels) ** beta, as in ONNX
    Operator(
        "nn.lrn", 257, ("data",), _infer_lrn, _lrn, _reference_lrn, "reduction",
        (
            Attribute("size", "int"), Attribute("alpha", "float", 1e-4), Attribute("beta", "float", 0.75),
            Attribute("bias", "float", 1.0),
        ),
    ),
    # rows of zeros stay zeros
    Operator(
        "nn.lp_normalize", 258, ("data",), _infer_lp, _lp, _reference_lp, "reduction",
        (_AXIS, Attribute("p", "int", 2)),
    ),
    # epsilon is added to the standard deviation, as in ONNX
    Operator(
        "nn.mean_variance_normalize", 259, ("data",), _infer_mvn, _mvn, _reference_mvn, "reduction",
        (Attribute("axes", "ints", (0, 2, 3)), Attribute("epsilon", "float", 1e-9)),
    ),
)  # fmt: skip
