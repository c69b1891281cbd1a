"""Sums of products: matrix products, convolutions, einsum."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir.graph import dims


@converter("MatMul")
def _matmul(node: Node) -> Tensor:
    return node.op("matmul", *node.tensors)


@converter("Gemm")
def _gemm(node: Node) -> Tensor:
    a, b = node.tensor(0), node.tensor(1)
    c = node.optional(2)
    found = node.op("matmul", a, b, transpose_a=bool(node.attr("transA", 0)), transpose_b=bool(node.attr("transB", 0)))
    alpha, beta = float(node.attr("alpha", 1.0)), float(node.attr("beta", 1.0))
    if alpha != 1.0:
        found = node.op("multiply", found, node.like(alpha, found))
    if c is None or beta == 0.0:
        return found
    return node.op("add", found, c if beta == 1.0 else node.op("multiply", c, node.like(beta, c)))


# convolutions


def window(node: Node, value: Tensor, kernel: Sequence[int], transposed: bool = False) -> dict[str, tuple[int, ...]]:
    """Strides, dilation and padding (all beginnings, then all ends) of a sliding window."""
    rank = len(kernel)
    strides = tuple(node.attr("strides", (1,) * rank))
    dilation = tuple(node.attr("dilations", (1,) * rank))
    padding = tuple(node.attr("pads", (0,) * 2 * rank))
    mode = node.attr("auto_pad", "NOTSET")
    if mode == "VALID":
        padding = (0,) * 2 * rank
    elif mode in ("SAME_UPPER", "SAME_LOWER") and not transposed:
        padding = same_padding(node, value.shape[2:], kernel, strides, dilation, mode == "SAME_LOWER")
    return {"strides": strides, "dilation": dilation, "padding": padding}


def same_padding(
    node: Node, shape: Sequence[dims.Dim], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int],
    lower: bool,
) -> tuple[int, ...]:  # fmt: skip
    """Padding with which there are as many places as elements, divided by the stride; the odd one at the ``lower``."""
    begins, ends = [], []
    for extent, size, stride, step in zip(shape, kernel, strides, dilation):
        reach = (size - 1) * step + 1
        number = dims.constant(extent)
        if number is None:
            if stride != 1:
                node.fail(
                    f"its padding (SAME) depends on the symbolic size {dims.text([extent])[1:-1]}",
                    hint="fix that size with shapes=, or export the model with explicit padding",
                )
            total = reach - 1
        else:
            total = max((-(-number // stride) - 1) * stride + reach - number, 0)
        begins.append((total + 1) // 2 if lower else total // 2)
        ends.append(total - begins[-1])
    return (*begins, *ends)


def constants(node: Node, values: Sequence[dims.Dim], what: str) -> tuple[int, ...]:
    """Dimensions that must be numbers."""
    found = dims.constants(values)
    if found is None:
        node.fail(f"{what} must be known, not {dims.text(values)}")
    return found


@converter("Conv")
def _conv(node: Node) -> Tensor:
    value, weight, bias = node.tensor(0), node.tensor(1), node.optional(2)
    found = convolved(node, value, weight)
    return found if bias is None else node.op("add", found, along(node, bias, 1, found.ndim))


def convolved(node: Node, value: Tensor, weight: Tensor, out_dtype: str | None = None) -> Tensor:
    """The convolution without its bias, by the node's attributes."""
    rank = value.ndim - 2
    kernel = constants(node, weight.shape[2:], "the kernel's shape")
    attrs = {} if out_dtype is None else {"out_dtype": out_dtype}
    return node.op(
        f"nn.conv{rank}d", value, weight, **window(node, value, kernel), groups=int(node.attr("group", 1)), **attrs
    )


def along(node: Node, value: Tensor, axis: int, rank: int) -> Tensor:
    """A vector as a tensor of ``rank`` dimensions that runs along ``axis``."""
    shape: list[dims.Dim] = [1] * rank
    shape[axis] = value.shape[0]
    return node.reshape(value, shape)


@converter("ConvTranspose")
def _conv_transpose(node: Node) -> Tensor:
    value, weight, bias = node.tensor(0), node.tensor(1), node.optional(2)
    rank = value.ndim - 2
    kernel = constants(node, weight.shape[2:], "the kernel's shape")
    attrs = window(node, value, kernel, transposed=True)
    strides, dilation, padding = attrs["strides"], attrs["dilation"], attrs["padding"]
    extra = tuple(node.attr("output_padding", (0,) * rank))
    wanted = node.attr("output_shape")
    mode = node.attr("auto_pad", "NOTSET")
    if wanted is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
        extents = constants(node, value.shape[2:], "the input's shape")
        shape = tuple(wanted)[-rank:] if wanted is not None else tuple(e * s for e, s in zip(extents, strides))
        begins, ends = [], []
        for i in range(rank):
            total = strides[i] * (extents[i] - 1) + extra[i] + (kernel[i] - 1) * dilation[i] + 1 - shape[i]
            if total < 0:  # longer than what it makes: the rest are zeros at the end
                extra = (*extra[:i], extra[i] - total, *extra[i + 1 :])
                total = 0
            half = total // 2
            begins.append(half if mode == "SAME_UPPER" else total - half)
            ends.append(total - begins[-1])
        padding = (*begins, *ends)
    found = node.op(
        f"nn.conv{rank}d_transpose", value, weight, strides=strides, dilation=dilation, padding=padding,
        output_padding=extra, groups=int(node.attr("group", 1)),
    )  # fmt: skip
    return found if bias is None else node.op("add", found, along(node, bias, 1, found.ndim))


# einsum


@converter("Einsum")
def _einsum(node: Node) -> Tensor:
    tensors = node.tensors
    inputs, _, output = node.attr("equation").replace(" ", "").partition("->")
    terms = [_labels(node, term, tensor) for term, tensor in zip(inputs.split(","), tensors)]
    if len(terms) != len(tensors):
        node.fail(f"its equation has {len(inputs.split(','))} terms for {len(tensors)} tensors")
    if "->" in node.attr("equation"):
        rest = sorted({x for term in terms for x in term if x.startswith(".")}, key=lambda x: -int(x[1:]))
        before, dots, after = output.partition("...")
        result = [*before, *(rest if dots else ()), *after]
    else:
        counts: dict[str, int] = {}
        for label in (x for term in terms for x in term):
            counts[label] = counts.get(label, 0) + 1
        rest = sorted((x for x in counts if x.startswith(".")), key=lambda x: -int(x[1:]))
        result = rest + sorted(x for x, n in counts.items() if n == 1 and not x.startswith("."))
    pairs = [_diagonal(node, tensor, term) for tensor, term in zip(tensors, terms)]
    while len(pairs) > 1:
        (a, left), (b, right), *others = pairs
        needed = {*result, *(x for _, term in others for x in term)}
        pairs = [_contracted(node, a, left, b, right, needed), *others]
    value, labels = _summed(node, *pairs[0], set(result))
    return node.transpose(value, [labels.index(x) for x in result])


def _labels(node: Node, term: str, tensor: Tensor) -> list[str]:
    """One label a dimension; those of the dots are ".1" for the last of them, ".2" for the one before."""
    before, dots, after = term.partition("...")
    hidden = tensor.ndim - len(before) - len(after)
    if hidden < 0 or (hidden and not dots):
        node.fail(f"its term {term!r} does not fit a tensor of {tensor.ndim} dimensions")
    return [*before, *(f".{i}" for i in range(hidden, 0, -1)), *after]


def _diagonal(node: Node, value: Tensor, labels: list[str]) -> tuple[Tensor, list[str]]:
    """Labels that a term has twice: only where both indices are equal."""
    labels = list(labels)
    for label in [x for x in dict.fromkeys(labels) if labels.count(x) > 1]:
        first = labels.index(label)
        second = labels.index(label, first + 1)
        order = [i for i in range(value.ndim) if i not in (first, second)]
        value = node.transpose(value, [*order, first, second])
        extent = value.shape[-1]
        here = node.iota(extent)
        same = node.op("equal", node.reshape(here, (extent, 1)), node.reshape(here, (1, extent)))
        value = node.op("where", same, value, node.like(0, value))
        value = node.op("sum", value, axis=(value.ndim - 1,), keepdims=False)
        labels = [*(labels[i] for i in order), label]
    return value, labels


def _summed(node: Node, value: Tensor, labels: list[str], keep: set[str]) -> tuple[Tensor, list[str]]:
    gone = tuple(i for i, x in enumerate(labels) if x not in keep)
    if gone:
        value = node.op("sum", value, axis=gone, keepdims=False)
    return value, [x for x in labels if x in keep]


def _contracted(
    node: Node, a: Tensor, left: list[str], b: Tensor, right: list[str], needed: set[str]
) -> tuple[Tensor, list[str]]:
    """Two terms as one batched matrix product."""
    a, left = _summed(node, a, left, needed | set(right))
    b, right = _summed(node, b, right, needed | set(left))
    both = [x for x in left if x in right and x in needed]
    inner = [x for x in left if x in right and x not in needed]
    rows = [x for x in left if x not in right]
    columns = [x for x in right if x not in left]
    extent = {**dict(zip(right, b.shape)), **dict(zip(left, a.shape))}
    for label, length in zip(right, b.shape):  # a dimension of 1 is stretched to the other's
        if dims.constant(extent[label]) == 1:
            extent[label] = length

    def matrix(value: Tensor, labels: list[str], order: list[str], groups: list[list[str]]) -> Tensor:
        value = node.transpose(value, [labels.index(x) for x in order])
        wanted = [extent[x] for x in order]
        if not dims.same_shape(value.shape, wanted):
            value = node.op("broadcast_to", value, shape=tuple(wanted))
        return node.reshape(value, [*(extent[x] for x in both), *(dims.product(extent[x] for x in g) for g in groups)])

    first = matrix(a, left, [*both, *rows, *inner], [rows, inner])
    second = matrix(b, right, [*both, *inner, *columns], [inner, columns])
    found = node.op("matmul", first, second)
    order = [*both, *rows, *columns]
    return node.reshape(found, [extent[x] for x in order]), order
