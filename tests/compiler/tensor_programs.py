"""Programs of the kinds that schedules are made for, of any size, with what numpy says in float64 that they compute.

Each function makes a ``Program`` from sizes; a size is a number, or a name where only the call knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from crossfarm import te
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Var
from crossfarm.ir.module import IRModule
from tests.compiler.native import Array

#: Below every input, and the same number in every float type.
LOWEST = -1024.0
Size = int | te.Value
#: A result in float64 (or exact integers) and by how much each element may differ from it.
Expected = tuple[Array, Array | float]


@dataclass(frozen=True, repr=False)
class Program:
    """A function ``main`` of arrays.

    Attributes:
        inputs, outputs: its parameters in order.
        reference: from the inputs, floats in float64, the results and their allowed absolute errors.
    """

    inputs: tuple[te.Tensor, ...]
    outputs: tuple[te.Tensor, ...]
    reference: Callable[..., list[Expected]]

    def __repr__(self) -> str:
        return self.module.script()

    @property
    def module(self) -> IRModule:
        return IRModule({"main": te.create_prim_func([*self.inputs, *self.outputs])})

    def arguments(self, seed: int = 0, **sizes: int) -> list[Array]:
        """Inputs of the sizes given, from -2 to 2, any bytes, or small integers."""
        rng = np.random.default_rng(seed)
        return [_random(rng, tuple(_size(d, sizes) for d in t.shape), t.dtype) for t in self.inputs]


def epsilon(dtype: str) -> float:
    """The distance from 1 to the next number."""
    return float(ml_dtypes.finfo(dt.to_numpy(dtype)).eps)


def dot_error(terms: int, magnitude: Array, dtype: str) -> Array:
    """How far a sum of ``terms`` products in any order may be from exact, whose sizes add up to ``magnitude``.

    Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1: to first order ``terms * eps / 2``. Twice
    that here, for the terms of higher order.
    """
    if not dt.is_float(dtype):
        return np.zeros_like(magnitude)
    tiny = float(ml_dtypes.finfo(dt.to_numpy(dtype)).smallest_subnormal)
    error: Array = (terms + 2) * (epsilon(dtype) * magnitude + tiny)
    return error


def _product_error(value: Array, factors: int, dtype: str) -> Array:
    """How far a product in any order may be from exact; a part of a small one may lose its last digits on the way."""
    small = float(ml_dtypes.finfo(dt.to_numpy(dtype)).smallest_normal) ** 0.5
    error: Array = np.maximum(abs(value) * factors * epsilon(dtype), np.where(abs(value) < small, small, 0))
    return error


def matmul(
    m: Size,
    n: Size,
    k: Size,
    *,
    layout: str = "NN",
    batch: tuple[Size, ...] = (),
    shared: bool = False,
    dtype: str = "float32",
    out: str = "",
    epilogue: str = "",
) -> Program:
    """``C = op(A) @ op(B)``; by ``epilogue`` then plus a bias for each column, relu or gelu, all of them with ``+``.

    Args:
        layout: whether each factor is as it is (N) or transposed (T).
        shared: the right factor has no batch dimensions.
        out: dtype of the sum; the factors' for "".
    """
    out = out or dtype
    rank = len(batch)
    a = te.placeholder((*batch, *((m, k) if layout[0] == "N" else (k, m))), dtype, "A")
    b = te.placeholder((*(() if shared else batch), *((k, n) if layout[1] == "N" else (n, k))), dtype, "B")
    r = te.reduce_axis((0, k), "r")

    def product(*index: te.Value) -> Any:
        outer, (i, j) = index[:rank], index[rank:]
        left = a[(*outer, *((i, r) if layout[0] == "N" else (r, i)))]
        right = b[(*(() if shared else outer), *((r, j) if layout[1] == "N" else (j, r)))]
        return te.sum(left.astype(out) * right.astype(out) if out != dtype else left * right, axis=r)

    shape = (*batch, m, n)
    result = te.compute(shape, product, name="C")
    inputs = [a, b]
    steps = [s for s in epilogue.split("+") if s]
    for step in steps:
        source = result
        if step == "bias":
            bias = te.placeholder((n,), out, "bias")
            inputs.append(bias)
            result = te.compute(shape, lambda *i, s=source, v=bias: s[i] + v[i[-1]], name="biased")
        elif step == "relu":
            result = te.compute(shape, lambda *i, s=source: te.maximum(s[i], te.const(0, out)), name="relu")
        else:
            result = te.compute(shape, lambda *i, s=source: _gelu(s[i]), name="gelu")

    def reference(x: Array, y: Array, v: Array | None = None) -> list[Expected]:
        x = np.swapaxes(x, -1, -2) if layout[0] == "T" else x
        y = np.swapaxes(y, -1, -2) if layout[1] == "T" else y
        value, error = x @ y, dot_error(x.shape[-1], abs(x) @ abs(y), out)
        for step in steps:
            if step == "bias":
                assert v is not None
                value = value + v
                error = error + rounding(value, out)
            elif step == "relu":
                value = positive(value)
            else:
                value, error = _gelu_of(value), 1.2 * error + 16 * rounding(value, out)
        return [(value, error)]

    return Program(tuple(inputs), (result,), reference)


def softmax(rows: tuple[Size, ...], length: Size, *, log: bool = False, dtype: str = "float32") -> Program:
    """Along the last axis, as three or four blocks: maximum, exponentials, their sum, the quotient."""
    x = te.placeholder((*rows, length), dtype, "X")
    k, r = te.reduce_axis((0, length), "k"), te.reduce_axis((0, length), "r")
    top = te.compute(rows, lambda *i: te.max(x[(*i, k)], axis=k), name="top")
    if log:
        total = te.compute(rows, lambda *i: te.sum(te.exp(x[(*i, r)] - top[i]), axis=r), name="total")
        result = te.compute(x.shape, lambda *i: x[i] - top[i[:-1]] - te.log(total[i[:-1]]), name="result")
    else:
        powers = te.compute(x.shape, lambda *i: te.exp(x[i] - top[i[:-1]]), name="powers")
        total = te.compute(rows, lambda *i: te.sum(powers[(*i, r)], axis=r), name="total")
        result = te.compute(x.shape, lambda *i: powers[i] / total[i[:-1]], name="result")

    def reference(v: Array) -> list[Expected]:
        shifted = v - v.max(axis=-1, keepdims=True)
        sums = np.exp(shifted).sum(axis=-1, keepdims=True)
        value = shifted - np.log(sums) if log else np.exp(shifted) / sums
        return [(value, (v.shape[-1] + 16) * epsilon(dtype) * (1 + abs(value) if log else value))]

    return Program((x,), (result,), reference)


def norm(rows: tuple[Size, ...], length: int, *, centered: bool = True) -> Program:
    """Layer norm with scale and shift where ``centered``, else RMS norm with scale."""
    x = te.placeholder((*rows, length), "float32", "X")
    scale, shift = te.placeholder((length,), "float32", "scale"), te.placeholder((length,), "float32", "shift")
    k, r = te.reduce_axis((0, length), "k"), te.reduce_axis((0, length), "r")
    inputs = (x, scale, shift) if centered else (x, scale)
    squares = te.compute(rows, lambda *i: te.sum(x[(*i, r)] * x[(*i, r)], axis=r), name="squares")
    if centered:
        sums = te.compute(rows, lambda *i: te.sum(x[(*i, k)], axis=k), name="sums")

        def element(*i: te.Value) -> te.Value:
            mean = sums[i[:-1]] / float(length)
            spread = te.rsqrt(squares[i[:-1]] / float(length) - mean * mean + 1e-1)
            return (x[i] - mean) * spread * scale[i[-1]] + shift[i[-1]]
    else:

        def element(*i: te.Value) -> te.Value:
            return x[i] * te.rsqrt(squares[i[:-1]] / float(length) + 1e-1) * scale[i[-1]]

    result = te.compute(x.shape, element, name="result")

    def reference(v: Array, s: Array, t: Array | None = None) -> list[Expected]:
        mean = v.mean(axis=-1, keepdims=True) if centered else np.zeros((*v.shape[:-1], 1))
        value = (v - mean) / np.sqrt((v * v).mean(axis=-1, keepdims=True) - mean * mean + 1e-1) * s
        # the variance loses what the mean square and the squared mean share: at most 4 / 0.1 of it here
        return [(value + t if t is not None else value, 40 * (length + 16) * epsilon("float32") * 8)]

    return Program(inputs, (result,), reference)


def reduction(shape: tuple[Size, ...], axes: Sequence[int], *, kind: str, dtype: str = "float32") -> Program:
    """``kind`` (sum, max, min, prod, argmax, argmin) over any axes; the arg kinds over one, with the value."""
    x = te.placeholder(shape, dtype, "X")
    reduced = {axis: te.reduce_axis((0, shape[axis]), f"k{axis}") for axis in axes}
    kept = [d for axis, d in enumerate(shape) if axis not in reduced]

    def index(i: tuple[te.Value, ...]) -> tuple[te.Value, ...]:
        others = iter(i)
        return tuple(reduced[axis] if axis in reduced else next(others) for axis in range(len(shape)))

    function = getattr(te, kind)
    over = [reduced[axis] for axis in axes]
    if kind.startswith("arg"):
        found = te.compute(kept, lambda *i: function((over[0], x[index(i)]), axis=over), name="found")
        outputs = tuple(found)
    else:
        outputs = (te.compute(kept, lambda *i: function(x[index(i)], axis=over), name="reduced"),)

    def reference(v: Array) -> list[Expected]:
        where = tuple(axes)
        if kind.startswith("arg"):
            best = v.max(axis=where) if kind == "argmax" else v.min(axis=where)
            return [(getattr(np, kind)(v, axis=where[0]), 0.0), (best, 0.0)]
        value = getattr(np, kind)(v, axis=where)
        if not dt.is_float(dtype):
            return [(value.astype(np.int64).astype(dt.to_numpy(dtype)), 0.0)]
        count = int(np.prod([v.shape[a] for a in where]))
        if kind == "sum":
            return [(value, dot_error(count, abs(v).sum(axis=where), dtype))]
        return [(value, _product_error(value, count, dtype) if kind == "prod" else 0.0)]

    return Program((x,), outputs, reference)


def transposed(shape: tuple[Size, ...], order: Sequence[int], dtype: str = "float32") -> Program:
    """``numpy.transpose(X, order)``."""
    x = te.placeholder(shape, dtype, "X")

    def element(*i: te.Value) -> te.Value:
        at = dict(zip(order, i))
        return x[tuple(at[axis] for axis in range(len(shape)))]

    result = te.compute([shape[axis] for axis in order], element, name="result")
    return Program((x,), (result,), lambda v: [(v.transpose(order), 0.0)])


def concatenated(rows: Size, first: Size, second: Size) -> Program:
    """Two matrices side by side."""
    a, b = te.placeholder((rows, first), "float32", "A"), te.placeholder((rows, second), "float32", "B")

    def element(i: te.Value, j: te.Value) -> te.Value:
        return te.if_then_else(j < first, a[i, j], b[i, j - first])

    result = te.compute((rows, first + second), element, name="result")
    return Program((a, b), (result,), lambda x, y: [(np.concatenate([x, y], axis=1), 0.0)])


def gathered(rows: Size, columns: Size, picks: Size) -> Program:
    """Rows of a table of at least three by number; numbers are taken modulo 3 here, so that any table has them."""
    table = te.placeholder((rows, columns), "float32", "T")
    which = te.placeholder((picks,), "int32", "which")
    result = te.compute((picks, columns), lambda i, j: table[te.abs(which[i]) % 3, j], name="result")
    return Program((table, which), (result,), lambda t, w: [(t[abs(w.astype(np.int64)) % 3], 0.0)])


def sliced(rows: Size, columns: Size, step: int) -> Program:
    """Every ``step``-th element of a matrix that has as many, from the second on, in reverse order of rows."""
    x = te.placeholder((rows, columns * step + 1), "float32", "X")
    result = te.compute((rows, columns), lambda i, j: x[rows - 1 - i, j * step + 1], name="result")
    return Program((x,), (result,), lambda v: [(v[::-1, 1::step], 0.0)])


def chain(shape: tuple[Size, ...], dtype: str = "float32") -> Program:
    """Several maps one after the other, with vectors along the first and the last axis and a scalar broadcast."""
    x = te.placeholder(shape, dtype, "X")
    column, row, scalar = (
        te.placeholder(s, dtype, name) for s, name in (((shape[0],), "u"), ((shape[-1],), "v"), ((), "s"))
    )
    added = te.compute(shape, lambda *i: x[i] + row[i[-1]], name="added")
    scaled = te.compute(shape, lambda *i: added[i] * column[i[0]], name="scaled")
    result = te.compute(shape, lambda *i: te.maximum(scaled[i] - scalar[()], te.const(0, dtype)), name="result")

    def reference(v: Array, a: Array, b: Array, c: Array) -> list[Expected]:
        a = a.reshape(-1, *(1,) * (v.ndim - 1))
        value = (v + b) * a - c
        error = 4 * epsilon(dtype) * ((abs(v) + abs(b)) * abs(a) + abs(c)) if dt.is_float(dtype) else 0.0
        return [(positive(value), error)]

    return Program((x, column, row, scalar), (result,), reference)


def converted(shape: tuple[Size, ...], dtype: str, to: str) -> Program:
    """A cast."""
    x = te.placeholder(shape, dtype, "X")
    result = te.compute(shape, lambda *i: te.cast(x[i], to), name="result")
    return Program((x,), (result,), lambda v: [(v.astype(dt.to_numpy(dtype)).astype(dt.to_numpy(to)), 0.0)])


def statistics(rows: Size, columns: Size) -> Program:
    """Several results of one tensor, of different shapes, one used by another."""
    x = te.placeholder((rows, columns), "float32", "X")
    k, r = te.reduce_axis((0, columns), "k"), te.reduce_axis((0, rows), "r")
    total = te.compute((rows,), lambda i: te.sum(x[i, k], axis=k), name="total")
    top = te.compute((columns,), lambda j: te.max(x[r, j], axis=r), name="top")
    both, difference = te.compute((rows, columns), lambda i, j: (x[i, j] + top[j], x[i, j] - total[i]), name="pair")

    def reference(v: Array) -> list[Expected]:
        sums, error = v.sum(axis=1), dot_error(v.shape[1], abs(v).sum(axis=1), "float32")
        tops, eps = v.max(axis=0), 4 * epsilon("float32")
        return [
            (sums, error),
            (tops, 0.0),
            (v + tops, eps),
            (v - sums[:, None], (error + eps * (abs(sums) + 2))[:, None]),
        ]

    return Program((x,), (total, top, both, difference), reference)


def expected(program: Program, inputs: Sequence[Array]) -> list[Expected]:
    """The reference's results: floats are looked at in float64, integers in int64."""
    wide = [v.astype(np.float64 if v.dtype.kind not in "iub" else np.int64) for v in inputs]
    with np.errstate(all="ignore"):
        return program.reference(*wide)


def assert_within(got: Array, value: Array, error: Array | float, name: str) -> None:
    """Each element is as far from ``value`` as ``error`` allows, and NaN or infinite where ``value`` is."""
    wide = got.astype(value.dtype)
    with np.errstate(invalid="ignore"):
        near = np.abs(wide - value) <= error if value.dtype.kind == "f" else wide == value
    same = near | (wide == value) | ((wide != wide) & (value != value))
    if not same.all():
        at = tuple(np.argwhere(~same)[0])
        allowed = np.broadcast_to(error, value.shape)[at]
        raise AssertionError(f"{(~same).sum()} elements: {name}{at} is {wide[at]}, not {value[at]} within {allowed}")


def _gelu(x: te.Value) -> te.Value:
    return x * 0.5 * (te.erf(x * 0.7071067811865476) + 1.0)


def _gelu_of(x: Array) -> Array:
    from math import erf

    return x * 0.5 * (np.vectorize(erf, otypes=[float])(x * 0.7071067811865476) + 1.0)


def positive(x: Array) -> Array:
    """``max(x, 0)`` as the IR means it: 0 where x is NaN."""
    return np.where(x > 0, x, 0)


def rounding(value: Array, dtype: str) -> Array:
    return abs(value) * epsilon(dtype) if dt.is_float(dtype) else np.zeros_like(value)


def _size(extent: Any, sizes: dict[str, int]) -> int:
    """A shape's extent with its names replaced."""
    from crossfarm.ir.expr import Binary, IntImm

    match extent:
        case IntImm(value=value):
            return int(value)
        case Var(name=name):
            return sizes[name]
        case Binary(op=op, a=a, b=b):
            x, y = _size(a, sizes), _size(b, sizes)
            return {"add": x + y, "sub": x - y, "mul": x * y, "floordiv": x // y if y else 0}[op]
    raise AssertionError(f"a size made of {extent!r}")


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    kind = dt.to_numpy(dtype)
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    if dt.is_float(dtype):
        return np.asarray(rng.uniform(-2, 2, shape)).astype(kind)
    if dt.bits(dtype) == 8:
        return np.asarray(rng.integers(*dt.int_range(dtype), shape, kind, endpoint=True))
    return np.asarray(rng.integers(0 if dtype.startswith("u") else -100, 100, shape)).astype(kind)
