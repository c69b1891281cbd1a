"""Elements by indices: gathering, scattering, one-hot vectors.

Negative indices count from the end. An index outside of the dimension never leaves memory: what is gathered is the
nearest element there is, what is scattered is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs
from crossfarm.ir.graph.operators.rows import described, one_dtype, operator, shape_of, wide, wide_array
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor
from crossfarm.ir.te.reduction import ReduceAxis

#: How updates meet what is there; "update": the last of a place replaces it.
REDUCTIONS = ("update", "add", "mul", "max", "min")


def _check_indices(indices: TensorType) -> None:
    if not dt.is_int(indices.dtype):
        raise InvalidModule(f"indices are integers, not {described(indices)}", hint="cast them by astype")


def _counted(index: Any, size: Expr) -> Any:
    """An index from the front; one that is outside stays outside."""
    index = index.astype("int64")
    return te.select(index < 0, index + te.Value(size), index)


def _inside(index: Any, size: Expr) -> Any:
    """An index from the front, the nearest that is inside."""
    return te.minimum(te.maximum(_counted(index, size), 0), te.Value(dims.sub(size, 1)))


def _counted_array(index: Array, size: int) -> Array:
    index = index.astype(np.int64)
    return np.where(index < 0, index + size, index)


def _inside_array(index: Array, size: int) -> Array:
    return np.clip(_counted_array(index, size), 0, size - 1)


def _infer_take(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    x, indices = inputs
    _check_indices(indices)
    axis = _take_axis(x.ndim, attrs)
    return [TensorType((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)]


def _take_axis(ndim: int, attrs: Attrs) -> int:
    if attrs["axis"] is None and ndim != 1:
        raise InvalidModule(f"a tensor of {ndim} dimensions is taken from along an axis", hint="give axis")
    return dims.axis(attrs["axis"] or 0, ndim)


def _take(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    x, indices = inputs
    axis = _take_axis(x.ndim, attrs)
    end = axis + indices.ndim

    def element(*i: Any) -> Any:
        return x[(*i[:axis], _inside(indices[tuple(i[axis:end])], x.shape[axis]), *i[end:])]

    return [te.compute(shape_of(out[0]), element, name="take")]


def _reference_take(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x, indices = inputs
    axis = _take_axis(x.ndim, attrs)
    return [np.take(x, _inside_array(indices, x.shape[axis]), axis=axis)]


def _infer_gather_elements(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    data, indices = inputs
    _check_indices(indices)
    axis = dims.axis(attrs["axis"], data.ndim)
    _check_beside(data, indices, axis)
    return [TensorType(indices.shape, data.dtype)]


def _check_beside(data: TensorType, indices: TensorType, axis: int) -> None:
    """Raises InvalidModule where indices along an axis are surely beyond the data along another."""
    beyond = False
    if data.ndim == indices.ndim:
        pairs = [dims.constants(p) for n, p in enumerate(zip(data.shape, indices.shape)) if n != axis]
        beyond = any(pair is not None and pair[1] > pair[0] for pair in pairs)
    if beyond or data.ndim != indices.ndim:
        raise InvalidModule(
            f"indices {described(indices)} have the dimensions of the data {described(data)}, none but {axis} longer"
        )


def _gather_elements(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, indices = inputs
    axis = dims.axis(attrs["axis"], data.ndim)

    def element(*i: Any) -> Any:
        return data[(*i[:axis], _inside(indices[i], data.shape[axis]), *i[axis + 1 :])]

    return [te.compute(shape_of(out[0]), element, name="gather_elements")]


def _reference_gather_elements(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data, indices = inputs
    axis = dims.axis(attrs["axis"], data.ndim)
    there = tuple(slice(n) if k != axis else slice(None) for k, n in enumerate(indices.shape))
    return [np.take_along_axis(data[there], _inside_array(indices, data.shape[axis]), axis)]


def _tuple_size(data: TensorType | Tensor, indices: TensorType | Tensor, batch: int) -> int:
    """Dimensions of the data that each index tuple chooses from. Raises InvalidModule where there are not so many."""
    size = dims.constant(indices.shape[-1]) if indices.ndim else None
    if size is None or not 1 <= size <= data.ndim - batch or not 0 <= batch < min(indices.ndim, data.ndim):
        raise InvalidModule(
            f"indices {dims.text(indices.shape)} are no tuples, along a last dimension of constant size, for the "
            f"dimensions of data {dims.text(data.shape)} after {batch} of batches"
        )
    return size


def _infer_gather_nd(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    data, indices = inputs
    _check_indices(indices)
    batch = attrs["batch_dims"]
    size = _tuple_size(data, indices, batch)
    if not dims.same_shape(data.shape[:batch], indices.shape[:batch]):
        raise InvalidModule(f"the first {batch} dimensions of {described(data)} and {described(indices)} differ")
    return [TensorType((*indices.shape[:-1], *data.shape[batch + size :]), data.dtype)]


def _gather_nd(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, indices = inputs
    batch = attrs["batch_dims"]
    size = _tuple_size(data, indices, batch)

    def element(*i: Any) -> Any:
        outer = i[: indices.ndim - 1]
        chosen = [_inside(indices[(*outer, k)], data.shape[batch + k]) for k in range(size)]
        return data[(*i[:batch], *chosen, *i[indices.ndim - 1 :])]

    return [te.compute(shape_of(out[0]), element, name="gather_nd")]


def _reference_gather_nd(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data, indices = inputs
    batch, size = attrs["batch_dims"], indices.shape[-1]
    chosen = [_inside_array(indices[..., k], data.shape[batch + k]) for k in range(size)]
    places: tuple[Array, ...] = np.indices(indices.shape[:-1], sparse=True)[:batch]
    return [data[(*places, *chosen)]]


def _check_updates(data: TensorType, updates: TensorType, shape: Sequence[Expr], attrs: Attrs) -> None:
    one_dtype((data, updates))
    if attrs["reduction"] not in REDUCTIONS:
        raise InvalidModule(f"reduction is one of {', '.join(REDUCTIONS)}, not {attrs['reduction']!r}")
    if attrs["reduction"] != "update":
        one_dtype((data, updates), "numbers")
    if not dims.same_shape(updates.shape, shape):
        raise InvalidModule(f"updates {described(updates)} must have the shape {dims.text(shape)}")


def _infer_scatter_elements(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    data, indices, updates = inputs
    _check_indices(indices)
    _check_beside(data, indices, dims.axis(attrs["axis"], data.ndim))
    _check_updates(data, updates, indices.shape, attrs)
    return [data]


def _infer_scatter_nd(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    data, indices, updates = inputs
    _check_indices(indices)
    size = _tuple_size(data, indices, 0)
    _check_updates(data, updates, (*indices.shape[:-1], *data.shape[size:]), attrs)
    return [data]


def _combined(
    data: Tensor,
    out: TensorType,
    reduction: str,
    steps: Sequence[ReduceAxis],
    hit: Callable[[Sequence[Any]], Any],
    update: Callable[[Sequence[Any]], Any],
) -> list[Tensor]:
    """Each element of the data with all its updates: ``hit`` and ``update`` of its indices, in terms of ``steps``."""
    reduce = {"add": te.sum, "mul": te.prod, "max": te.max, "min": te.min}[reduction]
    exact = wide(data.dtype) if reduction in ("add", "mul") else data.dtype

    def total(*i: Any) -> Any:
        return reduce(update(i).astype(exact), axis=steps, where=hit(i))

    found = te.compute(data.shape, total, name="updates_of")

    def element(*i: Any) -> Any:
        x, y = data[i].astype(exact), found[i]
        value = {"add": lambda: x + y, "mul": lambda: x * y, "max": lambda: te.maximum(x, y)}.get(
            reduction, lambda: te.minimum(x, y)
        )()
        return value.astype(out.dtype)

    return [te.compute(shape_of(out), element, name="scattered")]


def _scatter_elements(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, indices, updates = inputs
    axis, count = dims.axis(attrs["axis"], data.ndim), indices.shape
    if dims.constant(dims.product(count)) == 0:
        return [te.compute(shape_of(out[0]), lambda *i: data[i], name="scattered")]
    k = te.reduce_axis((0, count[axis]), "k")

    def at(i: Sequence[Any]) -> tuple[Any, ...]:
        return (*i[:axis], k, *i[axis + 1 :])

    def beside(i: Sequence[Any]) -> list[Any]:
        """Whether there are indices beside the element at all."""
        pairs = [(x, n) for d, (x, n) in enumerate(zip(i, count)) if d != axis and not dims.same(n, data.shape[d])]
        return [x < te.Value(n) for x, n in pairs]

    def hit(i: Sequence[Any]) -> Any:
        return te.all(*beside(i), _counted(indices[at(i)], data.shape[axis]) == i[axis])

    if attrs["reduction"] != "update":
        return _combined(data, out[0], attrs["reduction"], [k], hit, lambda i: updates[at(i)])

    last = te.compute(data.shape, lambda *i: te.max(_if(hit(i), k, -1), axis=k), name="last")

    def element(*i: Any) -> Any:
        return te.if_then_else(last[i] >= 0, updates[(*i[:axis], te.maximum(last[i], 0), *i[axis + 1 :])], data[i])

    return [te.compute(shape_of(out[0]), element, name="scattered")]


def _if(condition: Any, step: Any, other: int) -> Any:
    return te.if_then_else(condition, step, te.const(other, "int64"))


def _scatter_nd(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, indices, updates = inputs
    size = _tuple_size(data, indices, 0)
    outer = indices.shape[:-1]
    if dims.constant(dims.product(outer)) == 0:
        return [te.compute(shape_of(out[0]), lambda *i: data[i], name="scattered")]
    steps = [te.reduce_axis((0, n), f"k{d}") for d, n in enumerate(outer)] or [te.reduce_axis((0, 1), "k")]
    places = tuple(steps) if outer else ()

    def hit(i: Sequence[Any]) -> Any:
        return te.all(*(_counted(indices[(*places, n)], data.shape[n]) == i[n] for n in range(size)))

    if attrs["reduction"] != "update":
        return _combined(data, out[0], attrs["reduction"], steps, hit, lambda i: updates[(*places, *i[size:])])

    def flat() -> Any:
        number: Any = steps[0]
        for step, n in zip(steps[1:], outer[1:]):
            number = number * te.Value(n) + step
        return number

    # which update is the last of an element is the same for all elements behind an index
    last = te.compute(data.shape[:size], lambda *i: te.max(_if(hit(i), flat(), -1), axis=steps), name="last")

    def element(*i: Any) -> Any:
        found = last[tuple(i[:size])]
        rest, chosen = te.maximum(found, 0), list[Any]()
        for n in reversed(outer):
            chosen.insert(0, rest % te.Value(n))
            rest = rest // te.Value(n)
        return te.if_then_else(found >= 0, updates[(*chosen, *i[size:])], data[i])

    return [te.compute(shape_of(out[0]), element, name="scattered")]


def _apply(result: Array, place: Any, update: Array, reduction: str) -> None:
    combine = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}.get(reduction)
    result[place] = update if combine is None else combine(result[place], update)


def _reference_scatter_elements(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data, indices, updates = inputs
    axis = dims.axis(attrs["axis"], data.ndim)
    result = wide_array(data).copy()
    counted = _counted_array(indices, data.shape[axis])
    for place in np.ndindex(*indices.shape):
        if 0 <= counted[place] < data.shape[axis]:
            there = (*place[:axis], counted[place], *place[axis + 1 :])
            _apply(result, there, updates[place].astype(result.dtype), attrs["reduction"])
    return [result.astype(data.dtype)]


def _reference_scatter_nd(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data, indices, updates = inputs
    result = wide_array(data).copy()
    for place in np.ndindex(*indices.shape[:-1]):
        there = [int(_counted_array(np.asarray(index), n)) for index, n in zip(indices[place], data.shape)]
        if all(0 <= index < n for index, n in zip(there, data.shape)):
            _apply(result, tuple(there), updates[place].astype(result.dtype), attrs["reduction"])
    return [result.astype(data.dtype)]


def _infer_one_hot(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (indices,) = inputs
    _check_indices(indices)
    if attrs["depth"] < 1:
        raise InvalidModule(f"depth is 1 at least, not {attrs['depth']}")
    axis = dims.axis(attrs["axis"], indices.ndim + 1)
    return [TensorType((*indices.shape[:axis], dims.dim(attrs["depth"]), *indices.shape[axis:]), attrs["dtype"])]


def _one_hot(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (indices,) = inputs
    axis, dtype = dims.axis(attrs["axis"], indices.ndim + 1), out[0].dtype

    def element(*i: Any) -> Any:
        index = _counted(indices[(*i[:axis], *i[axis + 1 :])], dims.dim(attrs["depth"]))
        on, off = (te.const(attrs[name], dtype) for name in ("on_value", "off_value"))
        return te.select(index == i[axis], on, off)

    return [te.compute(shape_of(out[0]), element, name="one_hot")]


def _reference_one_hot(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (indices,) = inputs
    is_on = _counted_array(indices, attrs["depth"])[..., None] == np.arange(attrs["depth"])
    values = np.full(is_on.shape, attrs["off_value"], dt.to_numpy(attrs["dtype"]))
    values[is_on] = attrs["on_value"]
    return [np.moveaxis(values, -1, dims.axis(attrs["axis"], indices.ndim + 1))]


_AXIS, _REDUCTION = Attribute("axis", "int", 0), Attribute("reduction", "text", "update")

OPERATORS = (
    # without an axis of a vector only
    operator(
        "take", 270, ("x", "indices"), _infer_take, _take, _reference_take, "injective",
        Attribute("axis", "optional int", None),
    ),
    operator(
        "gather_elements", 271, ("data", "indices"), _infer_gather_elements, _gather_elements,
        _reference_gather_elements, "injective", _AXIS,
    ),
    operator(
        "gather_nd", 272, ("data", "indices"), _infer_gather_nd, _gather_nd, _reference_gather_nd, "injective",
        Attribute("batch_dims", "int", 0),
    ),
    operator(
        "scatter_elements", 273, ("data", "indices", "updates"), _infer_scatter_elements, _scatter_elements,
        _reference_scatter_elements, "opaque", _AXIS, _REDUCTION,
    ),
    operator(
        "scatter_nd", 274, ("data", "indices", "updates"), _infer_scatter_nd, _scatter_nd, _reference_scatter_nd,
        "opaque", _REDUCTION,
    ),
    # a vector of depth elements along a new axis for each index; all are off where it is outside
    operator(
        "one_hot", 275, ("indices",), _infer_one_hot, _one_hot, _reference_one_hot, "injective",
        Attribute("depth", "int"), Attribute("axis", "int", -1),
        Attribute("on_value", "number", 1), Attribute("off_value", "number", 0),
        Attribute("dtype", "dtype", "float32"),
    ),
)  # fmt: skip
