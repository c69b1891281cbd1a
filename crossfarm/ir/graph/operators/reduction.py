"""Many elements of one input to one: ``axis`` says along which dimensions, None along all, () along none.

Along none each element is reduced alone: its sum of squares is its square. Of no elements at all the result is what
changes nothing: 0 for a sum, the lowest value for a maximum, NaN for a mean. 16-bit floats are summed in float32, 8 and
16-bit integers in 32 bits, and rounded at the end; a sum that does not fit an integer wraps around.

``max`` and ``min`` of elements among which there is a NaN may or may not be it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops, te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import block_name, described, named, one_dtype, shape_of, wide
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor, Value

AXES = (Attribute("axis", "optional ints", None), Attribute("keepdims", "bool", False))
ARG = (
    Attribute("axis", "optional int", None),
    Attribute("keepdims", "bool", False),
    Attribute("select_last_index", "bool", False),
)
#: From a value, the number of values it is made of.
Finish = Callable[[Value, Value], Value]


def reduced_shape(shape: Sequence[Expr], axes: Sequence[int], keepdims: bool) -> tuple[Expr, ...]:
    """What is left of a shape: dimensions in ``axes`` are 1, or gone."""
    one = dims.dim(1)
    return tuple(one if a in axes else d for a, d in enumerate(shape) if keepdims or a not in axes)


def accumulator(dtype: str) -> str:
    """The dtype that elements of ``dtype`` are summed in."""
    if dt.is_int(dtype) and dt.bits(dtype) < 32:
        return "int32" if dt.is_signed(dtype) else "uint32"
    return wide(dtype)


class Reducing:
    """One input's dimensions, some of them reduced over.

    Attributes:
        axes: those that are.
        count: how many elements make one result.
        empty: none do, known when the program is made.
        kept: dimensions of a result.
    """

    def __init__(self, x: Tensor, axes: Sequence[int], keepdims: bool) -> None:
        self.x = x
        self.axes = tuple(sorted(axes))
        self.keepdims = keepdims
        self.count = dims.product(x.shape[a] for a in self.axes)
        self.empty = any(dims.constant(x.shape[a]) == 0 for a in self.axes)
        self.kept = tuple(shape_of(TensorType(reduced_shape(x.shape, self.axes, keepdims), x.dtype)))

    @property
    def may_be_empty(self) -> bool:
        """A size that is known only at the call might be 0."""
        return any(dims.constant(self.x.shape[a]) is None for a in self.axes)

    def reduce(self, reducer: Callable[..., Any], of: Callable[[tuple[Value, ...]], Any], name: str) -> Any:
        """The tensor of reduced elements; ``of`` gives what is reduced at an index of the input."""
        axes, at = self.along()
        return te.compute(self.kept, lambda *i: reducer(of(at(i)), axis=axes), name=name)

    def along(self) -> tuple[list[Any], Callable[[Sequence[Value]], tuple[Value, ...]]]:
        """New axes to reduce over, and what makes an index of the input from one of a result."""
        axes = [te.reduce_axis((0, self.x.shape[a]), f"k{a}") for a in self.axes]
        return axes, lambda i: self._index(i, axes)

    def _index(self, i: Sequence[Value], along: Sequence[Value]) -> tuple[Value, ...]:
        inner, outer = iter(along), iter(i)
        found = []
        for a in range(self.x.ndim):
            if a not in self.axes:
                found.append(next(outer))
                continue
            if self.keepdims:
                next(outer)
            found.append(next(inner))
        return tuple(found)


def _reduction(
    name: str,
    number: int,
    reducer: Callable[..., Any],
    reference: Callable[[Array, tuple[int, ...] | None, bool], Any],
    domain: str = "numbers",
    *,
    identity: Callable[[str], float],
    each: Callable[[Value], Value] = lambda x: x,
    finish: Finish | None = None,
    accumulate: Callable[[str], str] = accumulator,
) -> Operator:
    """A row that reduces ``each`` element in the dtype ``accumulate`` gives; ``finish`` makes the result of that.

    ``identity``: the result where there are no elements, from the dtype.
    """

    def infer(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        (x,), dtype = inputs, one_dtype(inputs, domain)
        axes = dims.axes(attrs["axis"], x.ndim)
        if any(dims.constant(x.shape[a]) == 0 for a in axes) and dt.is_int(dtype) and math.isnan(identity(dtype)):
            raise InvalidModule(f"there is none of no elements: {described(x)} along {axes}")
        return [TensorType(reduced_shape(x.shape, axes, attrs["keepdims"]), dtype)]

    def compute(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
        (x,), dtype = inputs, out[0].dtype
        over = Reducing(x, dims.axes(attrs["axis"], x.ndim), attrs["keepdims"])
        nothing = te.const(identity(dtype) if dt.is_float(dtype) or not math.isnan(identity(dtype)) else 0, dtype)
        label = block_name(name)
        if over.empty:
            return [te.compute(over.kept, lambda *i: nothing, name=label)]
        held = accumulate(dtype)

        def finished(value: Value, count: Value) -> Value:
            return (finish(value, count) if finish else value).astype(dtype)

        if not over.axes:
            one = te.const(1, "int64")
            return [te.compute(over.kept, lambda *i: finished(each(x[i].astype(held)), one), name=label)]
        total = over.reduce(reducer, lambda i: each(x[i].astype(held)), label)
        if finish is None and held == dtype and not over.may_be_empty:
            return [total]
        count = Value(over.count)

        def element(*i: Value) -> Value:
            if not over.may_be_empty:
                return finished(total[i], count)
            return te.if_then_else(count == 0, nothing, finished(total[i], count))

        return [te.compute(over.kept, element, name=f"{label}_finish")]

    def refer(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        (x,) = inputs
        exact = x if x.dtype.kind in "iub" else x.astype(np.float64)
        axes = dims.axes(attrs["axis"], x.ndim)
        return [np.asarray(reference(exact, axes, attrs["keepdims"])).astype(x.dtype)]

    return Operator(name, number, ("x",), named(name, infer), compute, refer, "reduction", AXES)


def _mean(total: Value, count: Value) -> Value:
    if dt.is_float(total.dtype):
        return total / count.astype(total.dtype)
    return Value(ops.div(total.expr, count.astype(total.dtype).expr))


def _means(x: Array, axes: Any, keepdims: bool) -> Any:
    total = np.sum(x, axes, keepdims=keepdims, dtype=np.float64 if x.dtype.kind == "f" else np.int64)
    count = math.prod(x.shape[a] for a in axes)
    return total / count if x.dtype.kind == "f" else np.sign(total) * (np.abs(total) // count)


def _logsumexps(x: Array, axes: Any, keepdims: bool) -> Any:
    reduce: Any = np.logaddexp.reduce  # numpy's stubs know a keepdims that is constant
    return reduce(x, axes, keepdims=keepdims) if axes else x


def _variances(x: Array, axes: Any, keepdims: bool) -> Any:
    return _means(np.square(x - _means(x, axes, True)), axes, keepdims)


def _lowest(dtype: str) -> float:
    return -math.inf if dt.is_float(dtype) else dt.int_range(dtype)[0]


def _highest(dtype: str) -> float:
    return math.inf if dt.is_float(dtype) else dt.int_range(dtype)[1]


def _extremes(function: Any, start: Callable[[str], float]) -> Callable[[Array, Any, bool], Any]:
    return lambda x, axes, keepdims: function(x, axes, keepdims=keepdims, initial=start(x.dtype.name))


def _square(x: Value) -> Value:
    return te.let(x, lambda x: x * x)


_ANY = te.comm_reducer(lambda a, b: a | b, lambda dtype: te.const(False, dtype), "any")
_ALL = te.comm_reducer(lambda a, b: a & b, lambda dtype: te.const(True, dtype), "all")


# logsumexp and variance go over the input twice


def _infer_floats(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (x,), dtype = inputs, one_dtype(inputs, "floats")
    return [TensorType(reduced_shape(x.shape, dims.axes(attrs["axis"], x.ndim), attrs["keepdims"]), dtype)]


def _logsumexp(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    """``log(sum(exp(x - m))) + m`` with ``m`` the largest, so that no exp overflows."""
    (x,), dtype = inputs, out[0].dtype
    over, held = Reducing(x, dims.axes(attrs["axis"], x.ndim), attrs["keepdims"]), wide(out[0].dtype)
    if over.empty or not over.axes:
        nothing = te.const(-math.inf, dtype)
        return [te.compute(over.kept, lambda *i: nothing if over.empty else x[i], name="logsumexp")]
    largest = over.reduce(te.max, lambda i: x[i].astype(held), "logsumexp_max")

    def base(i: Sequence[Value]) -> Value:
        """Infinities are no base to subtract."""
        return te.let(largest[tuple(i)], lambda m: te.select(te.isfinite(m), m, te.const(0, held)))

    axes, at = over.along()
    total = te.compute(
        over.kept,
        lambda *i: te.sum(te.exp(x[at(i)].astype(held) - base(i)), axis=axes),
        name="logsumexp_sum",
    )
    count = Value(over.count)

    def element(*i: Value) -> Value:
        found = (te.log(total[i]) + base(i)).astype(dtype)
        return te.if_then_else(count == 0, te.const(-math.inf, dtype), found) if over.may_be_empty else found

    return [te.compute(over.kept, element, name="logsumexp")]


def _variance(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    """The mean square of what is left after the mean is taken off."""
    (x,), dtype = inputs, out[0].dtype
    over, held = Reducing(x, dims.axes(attrs["axis"], x.ndim), attrs["keepdims"]), wide(out[0].dtype)
    if over.empty:
        return [te.compute(over.kept, lambda *i: te.const(math.nan, dtype), name="variance")]
    if not over.axes:
        return [te.compute(over.kept, lambda *i: te.let(x[i], lambda v: v - v), name="variance")]
    count = Value(over.count).astype(held)
    total = over.reduce(te.sum, lambda i: x[i].astype(held), "variance_sum")
    mean = te.compute(over.kept, lambda *i: total[i] / count, name="variance_mean")
    axes, at = over.along()
    squares = te.compute(
        over.kept,
        lambda *i: te.sum(_square(x[at(i)].astype(held) - mean[i]), axis=axes),
        name="variance_squares",
    )
    whole = Value(over.count)

    def element(*i: Value) -> Value:
        found = (squares[i] / count).astype(dtype)
        return te.if_then_else(whole == 0, te.const(math.nan, dtype), found) if over.may_be_empty else found

    return [te.compute(over.kept, element, name="variance")]


def _by_numpy(function: Callable[[Array, Any, bool], Any]) -> Callable[[Sequence[Array], Attrs], Sequence[Array]]:
    def reference(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        (x,) = inputs
        axes = dims.axes(attrs["axis"], x.ndim)
        return [np.asarray(function(x.astype(np.float64), axes, attrs["keepdims"])).astype(x.dtype)]

    return reference


# the index of the largest or smallest


def _infer_arg(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (x,) = inputs
    one_dtype(inputs, "numbers")
    axes = dims.axes(None if attrs["axis"] is None else (attrs["axis"],), x.ndim, "axis")
    if any(dims.constant(x.shape[a]) == 0 for a in axes):
        raise InvalidModule(f"there is none of no elements: {described(x)} along {axes}")
    return [TensorType(reduced_shape(x.shape, axes, attrs["keepdims"]), "int64")]


def _arg(name: str, number: int, numpy: Callable[..., Any]) -> Operator:
    largest = name == "argmax"

    def better(a: Value, b: Value) -> Value:
        return a > b if largest else a < b

    def combine(left: tuple[Value, Value], right: tuple[Value, Value]) -> tuple[Value, Value]:
        """As ``te.argmax``, but the later of two that are equal."""
        first = better(left[1], right[1]) | ((left[1] == right[1]) & (left[0] > right[0]))
        return te.select(first, left[0], right[0]), te.select(better(left[1], right[1]), left[1], right[1])

    def start(index: str, value: str) -> tuple[Value, Value]:
        return te.const(dt.int_range(index)[0], index), te.const((_lowest if largest else _highest)(value), value)

    last = te.comm_reducer(combine, start, name)

    def compute(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
        (x,) = inputs
        over = Reducing(x, dims.axes(None if attrs["axis"] is None else (attrs["axis"],), x.ndim), attrs["keepdims"])
        if not over.axes:
            return [te.compute(over.kept, lambda *i: te.const(0, "int64"), name=name)]

        def pair(i: tuple[Value, ...]) -> tuple[Value, Value]:
            position = te.const(0, "int64")
            for k, a in enumerate(over.axes):
                position = i[a] if not k else position * x.shape[a] + i[a]
            return position, x[i]

        reducer = last if attrs["select_last_index"] else te.argmax if largest else te.argmin
        index, _ = over.reduce(reducer, pair, name)
        return [index]

    def reference(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        (x,), axis, keepdims = inputs, attrs["axis"], attrs["keepdims"]
        if not attrs["select_last_index"]:
            return [np.asarray(numpy(x, axis, keepdims=keepdims), np.int64)]
        size = x.size if axis is None else x.shape[axis]
        return [np.asarray(size - 1 - numpy(np.flip(x, axis), axis, keepdims=keepdims), np.int64)]

    return Operator(name, number, ("x",), named(name, _infer_arg), compute, reference, "reduction", ARG)


OPERATORS = (
    _reduction("sum", 100, te.sum, lambda x, a, k: np.sum(x, a, keepdims=k, dtype=x.dtype), identity=lambda _: 0),
    _reduction("mean", 101, te.sum, _means, identity=lambda _: math.nan, finish=_mean,
               accumulate=lambda dtype: "int64" if dt.is_int(dtype) and dt.bits(dtype) > 16 else accumulator(dtype)),
    _reduction("prod", 102, te.prod, lambda x, a, k: np.prod(x, a, keepdims=k, dtype=x.dtype), identity=lambda _: 1),
    _reduction("max", 103, te.max, _extremes(np.max, _lowest), identity=_lowest, accumulate=lambda dtype: dtype),
    _reduction("min", 104, te.min, _extremes(np.min, _highest), identity=_highest, accumulate=lambda dtype: dtype),
    _arg("argmax", 105, np.argmax),
    _arg("argmin", 106, np.argmin),
    _reduction("any", 107, _ANY, lambda x, a, k: np.any(x, a, keepdims=k), "bool", identity=lambda _: 0),
    _reduction("all", 108, _ALL, lambda x, a, k: np.all(x, a, keepdims=k), "bool", identity=lambda _: 1),
    _reduction("sum_of_squares", 109, te.sum, lambda x, a, k: np.sum(x * x, a, keepdims=k, dtype=x.dtype),
               identity=lambda _: 0, each=_square),
    _reduction("reduce_l1", 110, te.sum, lambda x, a, k: np.sum(np.abs(x), a, keepdims=k, dtype=x.dtype),
               identity=lambda _: 0, each=te.abs),
    _reduction("reduce_l2", 111, te.sum, lambda x, a, k: np.sqrt(np.sum(x * x, a, keepdims=k)), "floats",
               identity=lambda _: 0, each=_square, finish=lambda total, count: te.sqrt(total)),
    Operator("logsumexp", 112, ("x",), named("logsumexp", _infer_floats), _logsumexp, _by_numpy(_logsumexps),
             "reduction", AXES),
    _reduction("log_sum", 113, te.sum, lambda x, a, k: np.log(np.sum(x, a, keepdims=k)), "floats",
               identity=lambda _: -math.inf, finish=lambda total, count: te.log(total)),
    Operator("variance", 114, ("x",), named("variance", _infer_floats), _variance,
             _by_numpy(_variances), "reduction", AXES),
)  # fmt: skip
