"""Shapes and places of elements: reshape, transpose, slice, pad, concat, split."""

from __future__ import annotations

from crossfarm.frontends.onnx import symbolic
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir import ops
from crossfarm.ir.graph import dims


@converter("Reshape")
def _reshape(node: Node) -> Tensor:
    value = node.tensor(0)
    target = node.sizes(node.tensor(1), "its shape")
    return node.reshape(value, symbolic.resolve_reshape(value.shape, target, bool(node.attr("allowzero", 0))))


@converter("Flatten")
def _flatten(node: Node) -> Tensor:
    value = node.tensor(0)
    axis = int(node.attr("axis", 1))
    axis = axis + value.ndim if axis < 0 else axis
    return node.reshape(value, (dims.product(value.shape[:axis]), dims.product(value.shape[axis:])))


@converter("Transpose")
def _transpose(node: Node) -> Tensor:
    value = node.tensor(0)
    return node.transpose(value, node.attr("perm", tuple(reversed(range(value.ndim)))))


@converter("Unsqueeze")
def _unsqueeze(node: Node) -> Tensor:
    value, axes = node.tensor(0), node.axes(1)
    if axes is None:
        node.fail("it has no axes")
    rank = value.ndim + len(axes)
    places = dims.axes(axes, rank)
    rest = iter(value.shape)
    return node.reshape(value, [1 if i in places else next(rest) for i in range(rank)])


@converter("Squeeze")
def _squeeze(node: Node) -> Tensor:
    value, axes = node.tensor(0), node.axes(1)
    if axes is None:
        places = tuple(i for i, d in enumerate(value.shape) if d == 1)
    else:
        places = dims.axes(axes, value.ndim)
    for place in places:
        if dims.constant(value.shape[place]) not in (None, 1):
            node.fail(f"dimension {place} of {dims.text(value.shape)} is not 1 and cannot be dropped")
    if any(dims.constant(value.shape[p]) is None for p in places):
        node.fail(
            f"it drops a dimension of {dims.text(value.shape)} that may be other than 1",
            hint="fix that dimension with shapes=",
        )
    return node.reshape(value, [d for i, d in enumerate(value.shape) if i not in places])


@converter("Expand")
def _expand(node: Node) -> Tensor:
    value = node.tensor(0)
    return stretched(node, value, node.sizes(node.tensor(1), "its shape"))


def stretched(node: Node, value: Tensor, shape: tuple[dims.Dim, ...]) -> Tensor:
    """``value`` stretched together with ``shape``."""
    target = dims.broadcast(value.shape, shape)
    return value if dims.same_shape(value.shape, target) else node.op("broadcast_to", value, shape=target)


@converter("Concat")
def _concat(node: Node) -> Tensor:
    tensors = node.tensors
    return tensors[0] if len(tensors) == 1 else node.op("concat", *tensors, axis=int(node.attr("axis", 1)))


@converter("Split")
def _split(node: Node) -> list[Tensor]:
    value = node.tensor(0)
    axis = dims.axis(int(node.attr("axis", 0)), value.ndim)
    count = len(node.proto.output)
    given = node.optional(1)
    lengths: tuple[dims.Dim, ...] | None = node.attr("split")
    if given is not None:
        lengths = node.sizes(given, "its split")
    return pieces(node, value, axis, even(node, value.shape[axis], count) if lengths is None else lengths)


def even(node: Node, extent: dims.Dim, count: int) -> tuple[dims.Dim, ...]:
    """``count`` lengths that make ``extent``, the last one shorter where they do not come out even."""
    number = dims.constant(extent)
    if number is None:
        each = symbolic.quotient(extent, count)
        if each is None:
            node.fail(f"{dims.text([extent])[1:-1]} may not come out even in {count} parts")
        return (each,) * count
    part = -(-number // count)
    return tuple(max(min(part, number - i * part), 0) for i in range(count))


def pieces(node: Node, value: Tensor, axis: int, lengths: tuple[dims.Dim, ...]) -> list[Tensor]:
    """``value`` cut along an axis into pieces of ``lengths``."""
    found, begin = [], dims.dim(0)
    for length in lengths:
        end = dims.add(begin, length)
        whole = len(lengths) == 1 and dims.same(length, value.shape[axis])
        found.append(value if whole else node.slice(value, axis, begin, end))
        begin = end
    return found


@converter("Slice")
def _slice(node: Node) -> Tensor:
    value = node.tensor(0)
    if node.version < 10:
        starts, ends = tuple(node.attr("starts")), tuple(node.attr("ends"))
        axes = tuple(node.attr("axes", range(len(starts))))
        steps = (1,) * len(starts)
    else:
        starts = node.sizes(node.tensor(1), "its starts")
        ends = node.sizes(node.tensor(2), "its ends")
        given = node.optional(3)
        axes = tuple(range(len(starts))) if given is None else node.ints(given, "its axes")
        strides = node.optional(4)
        steps = (1,) * len(starts) if strides is None else node.ints(strides, "its steps")
    axes = dims.axes(axes, value.ndim)
    begin, end = [], []
    for start, stop, axis, step in zip(starts, ends, axes, steps):
        if step == 0:
            node.fail("its step is 0")
        extent = value.shape[axis]
        low: dims.Dim = 0 if step > 0 else -1
        high: dims.Dim = extent if step > 0 else dims.sub(extent, 1)
        begin.append(_place(start, extent, 0, high))
        end.append(_place(stop, extent, low, high))
    return window(node, value, axes, begin, end, steps)


def window(
    node: Node, value: Tensor, axes: tuple[int, ...], begin: list[dims.Dim], end: list[dims.Dim],
    steps: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """From ``begin`` to before ``end``, which are within the tensor; an end of -1 is before its first element."""
    keep = [
        i for i, axis in enumerate(axes)
        if not (steps[i] == 1 and dims.same(begin[i], 0) and dims.same(end[i], value.shape[axis]))
    ]  # fmt: skip
    if not keep:
        return value
    return node.op(
        "strided_slice", value, axes=tuple(axes[i] for i in keep), begin=tuple(begin[i] for i in keep),
        end=tuple(end[i] for i in keep), strides=tuple(steps[i] for i in keep),
    )  # fmt: skip


def _place(index: dims.Dim, extent: dims.Dim, low: dims.Dim, high: dims.Dim) -> dims.Dim:
    """An index of ONNX's Slice, which may count from the end and lie outside, as one that does neither."""
    number = dims.constant(index)
    if number is not None:
        if number < 0:
            if number < -(1 << 31):
                return low
            index = dims.add(extent, number)
        elif number >= (1 << 31) - 1:
            return high
    else:
        if symbolic.bounds(index)[1] < 0:
            index = dims.add(extent, index)
    return _clamped(index, low, high)


def _clamped(index: dims.Dim, low: dims.Dim, high: dims.Dim) -> dims.Dim:
    """``index`` within bounds, worked out where that is certain for all sizes."""
    below, above = dims.constant(dims.sub(index, low)), dims.constant(dims.sub(high, index))
    if not (below is not None and below >= 0) and symbolic.bounds(dims.sub(index, low))[0] < 0:
        index = low if below is not None else dims.dim(ops.maximum(dims.dim(index), dims.dim(low)))
    if not (above is not None and above >= 0) and symbolic.bounds(dims.sub(high, index))[0] < 0:
        index = high if above is not None else dims.dim(ops.minimum(dims.dim(index), dims.dim(high)))
    return index if (c := dims.constant(index)) is None else c


@converter("Tile")
def _tile(node: Node) -> Tensor:
    value, repeats = node.tensor(0), node.sizes(node.tensor(1), "its repeats")
    known = dims.constants(repeats)
    if known is not None:
        return node.op("tile", value, repeats=known)
    pairs = [(n, d) for n, d in zip(repeats, value.shape)]
    split = node.reshape(value, [x for _, d in pairs for x in (1, d)])
    wide = node.op("broadcast_to", split, shape=tuple(x for pair in pairs for x in pair))
    return node.reshape(wide, [dims.mul(n, d) for n, d in pairs])


@converter("Pad")
def _pad(node: Node) -> Tensor:
    value = node.tensor(0)
    if node.version < 11:
        widths: tuple[dims.Dim, ...] = tuple(node.attr("pads"))
        fill = node.like(node.attr("value", 0.0), value)
    else:
        widths = node.sizes(node.tensor(1), "its pads")
        given = node.optional(2)
        fill = node.like(0, value) if given is None else given
    axes = node.axes(3)
    if axes is not None:
        places = dims.axes(axes, value.ndim)
        spread: list[dims.Dim] = [0] * (2 * value.ndim)
        for i, place in enumerate(places):
            spread[place], spread[place + value.ndim] = widths[i], widths[i + len(places)]
        widths = tuple(spread)
    return padded(node, value, widths, node.attr("mode", "constant"), fill)


def padded(node: Node, value: Tensor, widths: tuple[dims.Dim, ...], mode: str, fill: Tensor) -> Tensor:
    """``value`` with ``widths`` more elements at the fronts, then at the backs of dimensions; fewer where negative."""
    rank = value.ndim
    front, back = list(widths[:rank]), list(widths[rank:])
    begin: list[dims.Dim] = [0] * rank
    end = list(value.shape)
    for axis in range(rank):  # cut first: the operator only adds
        if symbolic.bounds(front[axis])[1] < 0:
            begin[axis], front[axis] = dims.sub(0, front[axis]), 0
        if symbolic.bounds(back[axis])[1] < 0:
            end[axis], back[axis] = dims.add(end[axis], back[axis]), 0
    value = window(node, value, tuple(range(rank)), begin, end, (1,) * rank)
    if all(dims.same(w, 0) for w in (*front, *back)):
        return value
    between = tuple(w for pair in zip(front, back) for w in pair)
    if mode == "constant" and not fill.numeric:
        inside = node.op("nn.pad", node.full(True, "bool", value.shape), pad_width=between, pad_value=0)
        whole = node.op("nn.pad", value, pad_width=between, pad_value=0)
        return node.op("where", inside, whole, node.reshape(fill, ()))
    number = node.numbers(fill, "its value").reshape(-1)[0].item() if mode == "constant" else 0
    return node.op("nn.pad", value, pad_width=between, pad_mode=mode, pad_value=number)


@converter("CenterCropPad")
def _center(node: Node) -> Tensor:
    value = node.tensor(0)
    wanted = node.ints(node.tensor(1), "its shape")
    axes = dims.axes(node.attr("axes"), value.ndim)
    widths: list[dims.Dim] = [0] * (2 * value.ndim)
    for axis, length in zip(axes, wanted):
        extent = dims.constant(value.shape[axis])
        if extent is None:
            node.fail("the axes must have known lengths")
        if extent > length:
            before = (extent - length) // 2
            widths[axis], widths[axis + value.ndim] = -before, -(extent - length - before)
        else:
            before = (length - extent) // 2
            widths[axis], widths[axis + value.ndim] = before, length - extent - before
    return padded(node, value, tuple(widths), "constant", node.like(0, value))


@converter("DepthToSpace")
def _depth_to_space(node: Node) -> Tensor:
    block, mode = int(node.attr("blocksize")), str(node.attr("mode", "DCR"))
    return node.op("depth_to_space", node.tensor(0), block=block, mode=mode)


@converter("SpaceToDepth")
def _space_to_depth(node: Node) -> Tensor:
    value, block = node.tensor(0), int(node.attr("blocksize"))
    if node.attr("mode", "DCR") == "DCR":
        return node.op("space_to_depth", value, block=block)
    n, c, h, w = value.shape
    down, across = dims.floordiv(h, block), dims.floordiv(w, block)
    found = node.transpose(node.reshape(value, (n, c, down, block, across, block)), (0, 1, 3, 5, 2, 4))
    return node.reshape(found, (n, dims.mul(c, block * block), down, across))


@converter("Trilu")
def _trilu(node: Node) -> Tensor:
    value, given = node.tensor(0), node.optional(1)
    upper = bool(node.attr("upper", 1))
    if given is None or given.numeric:
        k = 0 if given is None else node.ints(given, "its k")[0]
        return node.op("trilu", value, k=k, upper=upper)
    rows, columns = value.shape[-2:]
    down, across = node.reshape(node.iota(rows), (rows, 1)), node.reshape(node.iota(columns), (1, columns))
    edge = node.op("add", down, node.reshape(given, ()))
    kept = node.op("greater_equal" if upper else "less_equal", across, edge)
    return node.op("where", kept, value, node.like(0, value))


@converter("Shape")
def _shape(node: Node) -> Tensor:
    shape = node.tensor(0).shape
    return node.importer.emitter.sizes(shape[slice(node.attr("start", 0), node.attr("end"))])


@converter("Size")
def _size(node: Node) -> Tensor:
    return node.importer.emitter.sizes([dims.product(node.tensor(0).shape)], ())


@converter("ReverseSequence")
def _reverse_sequence(node: Node) -> Tensor:
    value, lengths = node.tensors
    return node.op(
        "reverse_sequence", value, node.cast(lengths, "int64"),
        time_axis=int(node.attr("time_axis", 0)), batch_axis=int(node.attr("batch_axis", 1)),
    )  # fmt: skip
