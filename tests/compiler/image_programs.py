"""Convolutions and pooling of any size, as ``tensor_programs`` are."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfarm import te
from tests.compiler.native import Array
from tests.compiler.tensor_programs import LOWEST, Expected, Program, Size, dot_error, positive, rounding


def convolution(
    image: tuple[Size, Size, Size, Size],
    filters: int,
    kernel: tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    dtype: str = "float32",
    epilogue: str = "",
) -> Program:
    """NCHW convolution with OIHW weights; ``epilogue`` as in ``matmul``, a bias for each filter."""
    batch, channels, height, width = image
    assert isinstance(channels, int)
    rows, columns = kernel
    own, each = channels // groups, filters // groups
    x = te.placeholder(image, dtype, "X")
    w = te.placeholder((filters, own, rows, columns), dtype, "W")
    source = _padded(x, padding, 0.0) if padding else x
    shape = (batch, filters, *_window(height, width, kernel, stride, padding, dilation))
    ci, ki, kj = (te.reduce_axis((0, e), name) for e, name in ((own, "ci"), (rows, "ki"), (columns, "kj")))

    def product(n: te.Value, o: te.Value, i: te.Value, j: te.Value) -> Any:
        channel = ci if groups == 1 else o // each * own + ci
        pixel = source[n, channel, i * stride + ki * dilation, j * stride + kj * dilation]
        return te.sum(pixel * w[o, ci, ki, kj], axis=[ci, ki, kj])

    result = te.compute(shape, product, name="conv")
    inputs = [x, w]
    if "bias" in epilogue:
        bias = te.placeholder((filters,), dtype, "bias")
        inputs.append(bias)
        result = te.compute(shape, lambda n, o, i, j, s=result: s[n, o, i, j] + bias[o], name="biased")
    if "relu" in epilogue:
        result = te.compute(shape, lambda *i, s=result: te.maximum(s[i], te.const(0, dtype)), name="relu")

    def reference(p: Array, q: Array, v: Array | None = None) -> list[Expected]:
        value, size = (_convolved(f(p), f(q), stride, padding, dilation, groups) for f in (np.asarray, abs))
        error = dot_error(own * rows * columns, size, dtype)
        if v is not None:
            value = value + v[:, None, None]
            error = error + rounding(value, dtype)
        return [(positive(value) if "relu" in epilogue else value, error)]

    return Program(tuple(inputs), (result,), reference)


def depthwise(
    image: tuple[Size, Size, Size, Size],
    multiplier: int,
    kernel: tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    dtype: str = "float32",
) -> Program:
    """Each channel convolved with ``multiplier`` filters of its own; NCHW."""
    batch, channels, height, width = image
    assert isinstance(channels, int)
    x = te.placeholder(image, dtype, "X")
    w = te.placeholder((channels, multiplier, *kernel), dtype, "W")
    source = _padded(x, padding, 0.0) if padding else x
    ki, kj = te.reduce_axis((0, kernel[0]), "ki"), te.reduce_axis((0, kernel[1]), "kj")

    def product(n: te.Value, o: te.Value, i: te.Value, j: te.Value) -> Any:
        channel, which = (o, 0) if multiplier == 1 else (o // multiplier, o % multiplier)
        pixel = source[n, channel, i * stride + ki * dilation, j * stride + kj * dilation]
        return te.sum(pixel * w[channel, which, ki, kj], axis=[ki, kj])

    shape = (batch, channels * multiplier, *_window(height, width, kernel, stride, padding, dilation))
    result = te.compute(shape, product, name="conv")

    def reference(p: Array, q: Array) -> list[Expected]:
        q = q.reshape(channels * multiplier, 1, *kernel)
        value, size = (_convolved(f(p), f(q), stride, padding, dilation, channels) for f in (np.asarray, abs))
        return [(value, dot_error(kernel[0] * kernel[1], size, dtype))]

    return Program((x, w), (result,), reference)


def pool(
    image: tuple[Size, Size, Size, Size], kernel: tuple[int, int], *, kind: str, stride: int = 1, padding: int = 0
) -> Program:
    """The largest element, or the mean with zeros around the image, of each window."""
    batch, channels, height, width = image
    x = te.placeholder(image, "float32", "X")
    source = _padded(x, padding, LOWEST if kind == "max" else 0.0) if padding else x
    ki, kj = te.reduce_axis((0, kernel[0]), "ki"), te.reduce_axis((0, kernel[1]), "kj")
    reduce = te.max if kind == "max" else te.sum
    shape = (batch, channels, *_window(height, width, kernel, stride, padding, 1))
    result = te.compute(
        shape, lambda n, c, i, j: reduce(source[n, c, i * stride + ki, j * stride + kj], axis=[ki, kj]), name="pool"
    )
    count = kernel[0] * kernel[1]
    if kind == "mean":
        result = te.compute(shape, lambda *i, s=result: s[i] / float(count), name="mean")

    def reference(p: Array) -> list[Expected]:
        windows = _windows(p, kernel, stride, padding, 1, LOWEST if kind == "max" else 0.0)
        if kind == "max":
            return [(windows.max(axis=(-1, -2)), 0.0)]
        return [(windows.mean(axis=(-1, -2)), dot_error(count, abs(windows).mean(axis=(-1, -2)), "float32"))]

    return Program((x,), (result,), reference)


def _padded(x: te.Tensor, padding: int, value: float) -> te.Tensor:
    n, c, h, w = x.shape
    height, width = te.Value(h), te.Value(w)

    def element(b: te.Value, k: te.Value, i: te.Value, j: te.Value) -> te.Value:
        inside = te.all(i >= padding, i < height + padding, j >= padding, j < width + padding)
        return te.if_then_else(inside, x[b, k, i - padding, j - padding], te.const(value, x.dtype))

    return te.compute((n, c, height + 2 * padding, width + 2 * padding), element, name="pad")


def _window(height: Size, width: Size, kernel: tuple[int, int], stride: int, padding: int, dilation: int) -> list[Size]:
    """How many windows there are along the rows and the columns of an image."""
    sizes = []
    for size, k in zip((height, width), kernel):
        last = size + (2 * padding - dilation * (k - 1) - 1)
        sizes.append(last // stride + 1)
    return sizes


def _windows(x: Array, kernel: tuple[int, int], stride: int, padding: int, dilation: int, value: float) -> Array:
    """Windows by batch, channel, row and column, their elements in two more dimensions."""
    around = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=value)
    reach = [dilation * (k - 1) + 1 for k in kernel]
    windows = np.lib.stride_tricks.sliding_window_view(around, reach, axis=(2, 3))
    found: Array = windows[:, :, ::stride, ::stride, ::dilation, ::dilation]
    return found


def _convolved(x: Array, w: Array, stride: int, padding: int, dilation: int, groups: int) -> Array:
    windows = _windows(x, w.shape[2:], stride, padding, dilation, 0)
    shared = np.split(windows, groups, axis=1)
    parts = [np.einsum("ncijkl,ockl->noij", v, q) for v, q in zip(shared, np.split(w, groups))]
    return np.concatenate(parts, axis=1)
