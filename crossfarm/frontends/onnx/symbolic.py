"""Operators on small tensors of sizes: arrays of objects, each an int or an int64 expression of symbolic sizes.

A size is never negative. What cannot be decided for every size is not worked out: the answer is None then, and the
operator stays one of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer, Interval
from crossfarm.ir.expr import Binary, Expr, Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.visitor import walk

Array = np.ndarray[Any, np.dtype[Any]]
#: Past this no size goes: enough room that sums and products of a few do not wrap around.
_LARGEST = 1 << 31
#: Operators that only move elements: their reference works on objects as it does on numbers.
_MOVING = (
    "reshape", "permute_dims", "expand_dims", "squeeze", "concat", "split", "strided_slice", "stack", "tile", "repeat",
    "flip", "broadcast_to", "take", "gather_elements", "gather_nd",
)  # fmt: skip


class _Undecided(Exception):
    """The answer depends on sizes."""


def evaluate(
    name: str, inputs: Sequence[Array], dtypes: Sequence[str], attrs: Mapping[str, Any], out: Sequence[str]
) -> list[Array] | None:
    """The results of an operator, ``out`` their dtypes; None where they cannot be told for all sizes."""
    try:
        if name in _MOVING:
            return _moved(name, inputs, attrs)
        if name in ("shape_to_tensor",):
            return None
        function = _FUNCTIONS.get(name)
        if function is None:
            return None
        return [_tidy(function(inputs, dtypes, attrs, out[0]))]
    except (_Undecided, TypeError, ValueError, ZeroDivisionError):
        return None


def _moved(name: str, inputs: Sequence[Array], attrs: Mapping[str, Any]) -> list[Array]:
    indexed = name in ("take", "gather_elements", "gather_nd")
    if indexed and inputs[1].dtype == object:
        raise _Undecided
    whole = inputs if indexed else [x.astype(object) for x in inputs]
    return [_tidy(np.asarray(r)) for r in operators.get(name).reference(whole, attrs)]


def _tidy(values: Array) -> Array:
    """As numbers where all are; the caller gives them the dtype."""
    values = np.asarray(values, object)
    flat = [_plain(v) for v in values.reshape(-1)]
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(values.shape)


def _plain(value: Any) -> Any:
    if isinstance(value, Expr):
        constant = dims.constant(value)
        return value if constant is None else constant
    return value.item() if isinstance(value, np.generic) else value


def is_numeric(values: Array) -> bool:
    """True where no element is symbolic."""
    return not any(isinstance(v, Expr) for v in values.reshape(-1))


def _analyzer(*exprs: Any) -> Analyzer:
    found = Analyzer()
    for expr in exprs:
        if isinstance(expr, Expr):
            for node in walk(expr):
                if isinstance(node, Var):
                    found.bind(node, Interval(0, _LARGEST))
    return found


def bounds(value: dims.Dim) -> tuple[int, int]:
    """What a size can be."""
    if isinstance(value, int):
        return value, value
    found = _analyzer(value).bounds(value)
    return found.low, found.high


def _compare(op: str, a: Any, b: Any) -> bool:
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return bool({"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[op])
    a, b = _whole(a), _whole(b)
    difference = dims.constant(dims.sub(a, b))
    if difference is not None:
        return _compare(op, difference, 0)
    decided = _analyzer(a, b).decide(Binary(op, dims.dim(a), dims.dim(b)))
    if decided is None:
        raise _Undecided
    return decided


def _whole(value: Any) -> Any:
    """A size, or a number that is whole, as one. Floats that are no whole numbers are not mixed with sizes."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _Undecided


def _divide(a: Any, b: Any, dtype: str) -> Any:
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return _number(a, b, dtype)
    b = _whole(b)
    exact = quotient(_whole(a), b)
    if exact is not None:
        return exact
    if dt.is_float(dtype) or bounds(a)[0] < 0 or bounds(b)[0] < 0:
        raise _Undecided
    return dims.floordiv(a, b)


def _number(a: Any, b: Any, dtype: str) -> Any:
    if dt.is_float(dtype):
        return a / b
    return int(Fraction(a) / Fraction(b))  # int() truncates, as ONNX divides integers


def factors(value: dims.Dim) -> tuple[int, list[Expr]]:
    """The constant and the symbolic factors of a product."""
    constant = dims.constant(value)
    if constant is not None:
        return constant, []
    assert isinstance(value, Expr)
    if isinstance(value, Binary) and value.op == "mul":
        (left, some), (right, others) = factors(value.a), factors(value.b)
        return left * right, [*some, *others]
    if isinstance(value, Binary) and value.op in ("add", "sub"):
        return 1, [value]
    return 1, [value]


def quotient(a: dims.Dim, b: dims.Dim) -> dims.Dim | None:
    """``a // b`` where ``b`` divides ``a`` whatever the sizes, by cancelling factors; None where that is not seen."""
    number, above = factors(dims.dim(a))
    divisor, below = factors(dims.dim(b))
    for factor in below:
        match = next((i for i, other in enumerate(above) if dims.same(other, factor)), None)
        if match is None:
            return None
        above.pop(match)
    if divisor == 0:
        return None
    if number % divisor == 0:
        return reduce(lambda x, y: dims.mul(x, y), above, dims.dim(number // divisor))
    if len(above) == 1 and number == 1:  # (2n + 4) // 2
        from crossfarm.ir.arith import affine

        whole, rest = affine(above[0]).split(divisor)
        if not rest.terms and rest.constant == 0:
            return dims.dim(whole.to_expr("int64"))
    return None


def _modulo(a: Any, b: Any) -> Any:
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return a % b
    if quotient(_whole(a), _whole(b)) is not None:
        return 0
    return dims.dim(ops.floormod(dims.dim(a), dims.dim(b)))


def _extreme(op: str, a: Any, b: Any) -> Any:
    try:
        return (a if _compare("ge", a, b) else b) if op == "max" else (a if _compare("le", a, b) else b)
    except _Undecided:
        a, b = dims.dim(_whole(a)), dims.dim(_whole(b))
        return dims.dim(ops.maximum(a, b) if op == "max" else ops.minimum(a, b))


def _arithmetic(op: Callable[[Any, Any], Any], symbolic: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    def apply(a: Any, b: Any) -> Any:
        if isinstance(a, Expr) or isinstance(b, Expr):
            return symbolic(_whole(a), _whole(b))
        return op(a, b)

    return _elementwise(apply)


def _elementwise(function: Callable[..., Any]) -> Callable[..., Array]:
    def whole(inputs: Sequence[Array], dtypes: Sequence[str], attrs: Mapping[str, Any], out: str) -> Array:
        found = np.frompyfunc(lambda *v: function(*(_plain(x) for x in v)), len(inputs), 1)(*inputs)
        return np.asarray(found, object)

    return whole


def _cast(inputs: Sequence[Array], dtypes: Sequence[str], attrs: Mapping[str, Any], out: str) -> Array:
    def one(value: Any) -> Any:
        if not isinstance(value, Expr):
            return dt.to_numpy(out).type(value).item()
        if out == "bool":
            return _compare("ne", value, 0)
        if out in ("int64", "int32", "float32", "float64"):
            return value
        raise _Undecided

    return _elementwise(one)(inputs, dtypes, attrs, out)


def _reduction(step: Callable[[Any, Any], Any], start: Any) -> Callable[..., Array]:
    def whole(inputs: Sequence[Array], dtypes: Sequence[str], attrs: Mapping[str, Any], out: str) -> Array:
        values = inputs[0].astype(object)
        axes = dims.axes(attrs.get("axis"), values.ndim)
        moved = np.moveaxis(values, axes, range(len(axes)))
        outer = moved.shape[len(axes) :]
        flat = moved.reshape(-1, *outer)
        found = np.empty(outer, object)
        for place in np.ndindex(*outer):
            items = [_plain(v) for v in flat[(slice(None), *place)]]
            if not items and start is None:
                raise _Undecided
            found[place] = reduce(step, items) if items else start
        if attrs.get("keepdims"):
            found = found.reshape([1 if i in axes else n for i, n in enumerate(values.shape)])
        return found

    return whole


def _where(inputs: Sequence[Array], dtypes: Sequence[str], attrs: Mapping[str, Any], out: str) -> Array:
    if inputs[0].dtype == object and not is_numeric(inputs[0]):
        raise _Undecided
    return _elementwise(lambda c, a, b: a if c else b)(inputs, dtypes, attrs, out)


def _same(value: Any) -> Any:
    _whole(value)
    return value


_add = _arithmetic(lambda a, b: a + b, dims.add)
_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": _add,
    "subtract": _arithmetic(lambda a, b: a - b, dims.sub),
    "multiply": _arithmetic(lambda a, b: a * b, dims.mul),
    "divide": lambda i, d, a, out: _elementwise(lambda x, y: _divide(x, y, out))(i, d, a, out),
    "floor_mod": _elementwise(_modulo),
    "maximum": _elementwise(lambda a, b: _extreme("max", a, b)),
    "minimum": _elementwise(lambda a, b: _extreme("min", a, b)),
    "negative": _elementwise(lambda a: dims.sub(0, a) if isinstance(a, Expr) else -a),
    "floor": _elementwise(_same),
    "ceil": _elementwise(_same),
    "round": _elementwise(_same),
    "trunc": _elementwise(_same),
    "equal": _elementwise(lambda a, b: _compare("eq", a, b)),
    "not_equal": _elementwise(lambda a, b: _compare("ne", a, b)),
    "less": _elementwise(lambda a, b: _compare("lt", a, b)),
    "less_equal": _elementwise(lambda a, b: _compare("le", a, b)),
    "greater": _elementwise(lambda a, b: _compare("gt", a, b)),
    "greater_equal": _elementwise(lambda a, b: _compare("ge", a, b)),
    "where": _where,
    "astype": _cast,
    "sum": _reduction(lambda a, b: dims.add(a, b) if isinstance(a, Expr) or isinstance(b, Expr) else a + b, 0),
    "prod": _reduction(lambda a, b: dims.mul(a, b) if isinstance(a, Expr) or isinstance(b, Expr) else a * b, 1),
    "max": _reduction(lambda a, b: _extreme("max", a, b), None),
    "min": _reduction(lambda a, b: _extreme("min", a, b), None),
}


def resolve_reshape(shape: Sequence[dims.Dim], target: Sequence[dims.Dim], allow_zero: bool) -> tuple[dims.Dim, ...]:
    """ONNX's target shape with its 0 (the input's dimension) and -1 (what is left over) worked out.

    Raises:
        InvalidModule: -1 twice, 0 where the input has no such dimension, or what is left over is no whole number.
    """
    found: list[dims.Dim] = []
    for position, value in enumerate(target):
        if dims.constant(value) == 0 and not allow_zero:
            if position >= len(shape):
                raise InvalidModule(f"dimension {position} is to be the input's, which has {len(shape)} dimensions")
            found.append(shape[position])
        else:
            found.append(value)
    open_ = [i for i, v in enumerate(found) if dims.constant(v) == -1]
    if len(open_) > 1:
        raise InvalidModule("more than one dimension is to be what is left over (-1)")
    if not open_:
        return tuple(found)
    others = dims.product(v for i, v in enumerate(found) if i != open_[0])
    whole = dims.product(shape)
    left = quotient(whole, others)
    if left is None:
        if (size := dims.constant(whole)) is not None and (rest := dims.constant(others)) is not None:
            if rest == 0 and size == 0:
                raise InvalidModule("what is left over (-1) of a tensor without elements cannot be told")
            raise InvalidModule(f"{size} elements do not fit shape {dims.text(target)}")
        left = dims.floordiv(whole, others)
    found[open_[0]] = left if (c := dims.constant(left)) is None else c
    return tuple(found)
