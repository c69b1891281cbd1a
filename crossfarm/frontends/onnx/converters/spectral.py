"""Fourier transforms: products with constant matrices."""

from __future__ import annotations

import numpy as np

from crossfarm.frontends.onnx.converters.contraction import constants
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir.graph import dims


@converter("DFT")
def _dft(node: Node) -> Tensor:
    value = node.tensor(0)
    given = node.optional(1)
    if node.version >= 20:
        at = node.optional(2)
        axis = -2 if at is None else node.ints(at, "its axis")[0]
    else:
        axis = int(node.attr("axis", 1))
    axis = dims.axis(axis, value.ndim)
    (extent,) = constants(node, [value.shape[axis]], "the transformed axis")
    inverse, one_sided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    length = 2 * (extent - 1) if inverse and one_sided else extent
    if given is not None:
        (length,) = node.ints(given, "its dft_length")
    return _transformed(node, value, axis, length, inverse, one_sided)


def _transformed(node: Node, value: Tensor, axis: int, length: int, inverse: bool, one_sided: bool) -> Tensor:
    """The transform of real (last dimension 1) or complex (2) numbers along an axis."""
    (extent, parts) = constants(node, [value.shape[axis], value.shape[-1]], "the transformed axis")
    halved = inverse and one_sided  # half of a spectrum whose other half mirrors it, of a real signal
    used = min(extent, length // 2 + 1 if halved else length)
    outputs = length // 2 + 1 if one_sided and not inverse else length
    node.length(outputs * used, "its matrix")
    turns = np.outer(np.arange(outputs), np.arange(used)) % length
    angle = (2 if inverse else -2) * np.pi * turns / length
    factor = np.full(used, 1 / length if inverse else 1.0)
    if halved:
        mirrored = np.full(used, 2.0)
        mirrored[0] = 1.0
        if length % 2 == 0 and used == length // 2 + 1:
            mirrored[-1] = 1.0
        factor = factor * mirrored
    real, imaginary = np.cos(angle) * factor, np.sin(angle) * factor
    order = [*(i for i in range(value.ndim) if i not in (axis, value.ndim - 1)), axis, value.ndim - 1]
    moved = node.slice(node.transpose(value, order), value.ndim - 2, 0, used)
    batch = moved.shape[:-2]
    # a row of (element, part) times a matrix gives a row of (element, part)
    into = 1 if halved else 2
    matrix = np.zeros((used, parts, outputs, into))
    matrix[:, 0, :, 0] = real.T
    if into == 2:
        matrix[:, 0, :, 1] = imaginary.T
    if parts == 2:
        matrix[:, 1, :, 0] = -imaginary.T
        if into == 2:
            matrix[:, 1, :, 1] = real.T
    flat = node.reshape(moved, (*batch, used * parts))
    found = node.op("matmul", flat, node.const(matrix.reshape(used * parts, outputs * into), value.dtype))
    found = node.reshape(found, (*batch, outputs, into))
    back = [order.index(i) for i in range(value.ndim)]
    return node.transpose(found, back)


@converter("STFT")
def _stft(node: Node) -> Tensor:
    signal = node.tensor(0)
    (step,) = node.ints(node.tensor(1), "its frame_step")
    window = node.optional(2)
    given = node.optional(3)
    if given is not None:
        (length,) = node.ints(given, "its frame_length")
    elif window is not None:
        (length,) = constants(node, window.shape, "its window")
    else:
        node.fail("it has neither a window nor a frame_length")
    if signal.ndim == 2:
        signal = node.reshape(signal, (*signal.shape, 1))
    (extent,) = constants(node, [signal.shape[1]], "the signal's length")
    count = (extent - length) // step + 1
    node.length(count * length, "its frames")
    places = np.arange(count)[:, None] * step + np.arange(length)[None, :]
    frames = node.op("take", signal, node.const(places.astype(np.int64)), axis=1)
    if window is not None:
        frames = node.op("multiply", frames, node.reshape(window, (length, 1)))
    return _transformed(node, frames, 2, length, False, bool(node.attr("onesided", 1)))
