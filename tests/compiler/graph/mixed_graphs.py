"""Random graph functions of operators of all kinds, ranks and dtypes, and what they give for inputs of any batch size.

Floats are small whole numbers as long as operators keep them so: then a result is exact however it is summed, and what
decides by them decides alike. Other values are marked, and only take part where a rounding is no other decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from crossfarm.errors import Error
from crossfarm.ir.expr import Expr, IntImm, Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import Constant, Function, GraphExpr
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.visitor import substitute, walk

Array = np.ndarray[Any, np.dtype[Any]]
#: What the symbolic size is while a function is drawn.
BATCH = 3
_FLOATS = ("float32", "float32", "float32", "float16")
_NUMBERS = (*_FLOATS, "int32", "int64")
#: Values beyond that are used no more: sums of products of smaller ones are exact.
_LARGEST = {"float16": 60, "float32": 2000}

_EXACT_UNARY = ("nn.relu", "negative", "abs", "sign", "square")
_ROUNDED_UNARY = ("sigmoid", "tanh", "nn.silu", "nn.gelu", "erf", "nn.hardswish")
_BINARY = ("add", "add", "multiply", "multiply", "subtract", "maximum", "minimum")
_COMPARISONS = ("equal", "less", "greater_equal", "not_equal")


@dataclass(frozen=True)
class Held:
    """A value of the function: what it is for a batch of BATCH, and whether that is exact."""

    expr: GraphExpr
    type: TensorType
    array: Array
    exact: bool

    @property
    def fixed(self) -> tuple[int, ...] | None:
        return dims.constants(self.type.shape)


@dataclass(frozen=True)
class Mixed:
    """A function, and which of its results are exact."""

    function: Function
    exact: tuple[bool, ...]


class _Maker:
    """A function in the making. ``draw`` decides."""

    def __init__(self, draw: st.DrawFn, symbolic: bool) -> None:
        self.draw, self.b = draw, Builder()
        self.n: Any = Var("n", "int64") if symbolic else draw(st.sampled_from((0, 1, 2, 3)))
        self.values: list[Held] = []
        self.seed = 0

    def numbers(self, shape: tuple[int, ...], dtype: str) -> Array:
        self.seed += 1
        return numbers(shape, dtype, self.seed)

    def pick(self, wanted: Callable[[Held], bool] = lambda v: True) -> Held | None:
        found = [v for v in self.values if wanted(v)]
        # recent ones more often: graphs are deep rather than wide
        return self.draw(st.sampled_from([*found, *found[-3:]])) if found else None

    def choose(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def constant(self, shape: tuple[int, ...], dtype: str) -> Held:
        array = self.numbers(shape, dtype)
        same = [v for v in self.values if isinstance(v.expr, Constant) and v.fixed == shape and v.type.dtype == dtype]
        if same and self.choose(True, False):
            return same[0]
        held = Held(self.b.constant(array, self.choose("", "w")), TensorType(dims.dims(shape), dtype), array, True)
        self.values.append(held)
        return held

    def given(self, array: Array) -> Held:
        """A constant of that content, for one use."""
        kind = TensorType(dims.dims(array.shape), array.dtype.name)
        return Held(self.b.constant(array), kind, array, True)

    def parameter(self, shape: tuple[Any, ...], dtype: str) -> None:
        kind = TensorType(dims.dims(shape), dtype)
        array = self.numbers(tuple(BATCH if s is self.n and not isinstance(s, int) else s for s in shape), dtype)
        self.values.append(Held(self.b.parameter("x", kind), kind, array, True))

    def op(self, name: str, *args: Held, rounds: bool = False, **attrs: Any) -> list[Held]:
        """The results of an operator; none where it refuses its operands, or gives what is no use."""
        row = operators.get(name)
        try:
            infer = row.infer([a.type for a in args], row.complete(attrs))
            plain = {k: tuple(self._known(d) for d in v) if isinstance(v, tuple) else v for k, v in attrs.items()}
            with np.errstate(all="ignore"):
                arrays = row.reference([a.array for a in args], row.complete(plain))
        except (Error, ValueError):  # the latter by numpy, of operands that have no such result
            return []
        for kind, array in zip(infer, arrays):
            top = _LARGEST.get(kind.dtype, 1 << 30)
            if array.size and not (np.abs(array.astype("float64")) <= top).all():
                return []
            if array.size > 4000 or kind.ndim > 5:
                return []
        made = self.b.op(name, *(a.expr for a in args), **attrs)
        exprs = self.b.items(made) if not isinstance(made.type, TensorType) else [made]
        exact = all(a.exact for a in args) and not rounds
        held = [
            Held(e, k, np.asarray(a), exact or k.dtype in ("bool", "int32", "int64"))
            for e, k, a in zip(exprs, infer, arrays)
        ]
        self.values.extend(held)
        return held

    @staticmethod
    def _known(size: Any) -> Any:
        """An attribute's part as it is for a batch of BATCH."""
        if not isinstance(size, Expr):
            return size
        known = {v: IntImm(BATCH, "int64") for v in walk(size) if isinstance(v, Var)}
        return dims.constant(dims.dim(substitute(size, known)))

    # --- steps

    def unary(self) -> None:
        v = self.pick(lambda v: v.type.dtype not in ("bool",))
        if v is None:
            return
        if v.type.dtype.startswith("float") and self.choose(True, False):
            self.op(self.choose(*_ROUNDED_UNARY), v, rounds=True)
        else:
            self.op(self.choose(*_EXACT_UNARY), v)

    def binary(self) -> None:
        a = self.pick(lambda v: v.type.dtype != "bool")
        if a is None:
            return
        c: Held | None
        dtype = a.type.dtype
        match self.choose("value", "value", "vector", "channel", "scalar", "neutral", "comparison"):
            case "value":
                c = self.pick(lambda v: v.type.dtype == dtype)
            case "vector" if a.fixed is not None and a.fixed:
                c = self.constant(a.fixed[-1:], a.type.dtype)
            case "channel" if len(a.array.shape) > 2:
                c = self.constant((a.array.shape[1], *[1] * (a.array.ndim - 2)), a.type.dtype)
            case "neutral":
                value = self.choose(0, 1, -0.0, 2)
                array = np.full(self.choose((), (1,)), value, a.type.dtype)
                c = self.given(array)
            case "comparison":
                c = self.pick(lambda v: v.type.dtype == dtype and v.exact)
                if c is not None and a.exact:
                    self.op(self.choose(*_COMPARISONS), a, c)
                return
            case _:
                c = self.constant(self.choose((), (1,), (1, 1)), a.type.dtype)
        if c is not None:
            a, c = (a, c) if self.choose(True, True, False) else (c, a)
            self.op(self.choose(*_BINARY), a, c)

    def divide(self) -> None:
        a = self.pick(lambda v: v.type.dtype != "bool")
        if a is None:
            return
        shape = a.array.shape[-1:] if a.fixed and self.choose(True, False) else ()
        array = np.where(self.numbers(shape, a.type.dtype) > 0, 2, -3).astype(a.type.dtype)
        c = self.given(array)
        if a.type.dtype.startswith("float"):
            self.op("divide", a, c, rounds=True)
        else:
            self.op(self.choose("floor_divide", "floor_mod", "divide"), a, c)

    def matmul(self) -> None:
        def fits(v: Held) -> bool:  # what is summed over is a constant, and not nothing
            sizes = dims.constants(v.type.shape[-2:])
            return v.array.ndim >= 1 and v.array.size > 0 and sizes is not None and v.type.dtype != "bool"

        a = self.pick(lambda v: fits(v) or (v.array.ndim > 1 and v.type.dtype != "bool" and v.array.shape[-1] > 0))
        if a is None or dims.constant(a.type.shape[-1]) is None:
            return
        inner, columns, dtype = a.array.shape[-1], self.choose(1, 2, 5, 16, 20), a.type.dtype
        if not fits(a) or self.choose(True, True, False):
            transposed = self.choose(True, False)
            w = self.constant((columns, inner) if transposed else (inner, columns), dtype)
            self.op("matmul", a, w, transpose_b=transposed)
        else:
            c = self.pick(lambda v: v.type.dtype == dtype and fits(v))
            if c is not None:
                self.op("matmul", a, c, transpose_a=self.choose(False, True), transpose_b=self.choose(False, True))

    def conv(self) -> None:
        a = self.pick(
            lambda v: v.array.ndim == 4 and v.type.dtype in _FLOATS and dims.constant(v.type.shape[1]) not in (None, 0)
        )
        if a is None:
            return
        channels = a.array.shape[1]
        size = self.choose(1, 3)
        if self.choose(True, True, True, False):
            groups = self.choose(1, channels) if self.choose(True, False) else 1
            filters = groups * self.choose(1, 2, 4)
            w = self.constant((filters, channels // groups, size, size), a.type.dtype)
            found = self.op(
                "nn.conv2d", a, w, padding=(self.choose(0, 1, size // 2),), strides=(self.choose(1, 2),), groups=groups
            )
        else:
            filters = self.choose(1, 3)
            w = self.constant((channels, filters, size, size), a.type.dtype)
            found = self.op("nn.conv2d_transpose", a, w, strides=(self.choose(1, 2),))
        for v in found:
            if self.choose(True, False):
                v = (self.op("add", v, self.constant((filters, 1, 1), v.type.dtype)) or [v])[0]
            self.normalized(v)

    def normalized(self, v: Held) -> None:
        if v.fixed == () or v.array.ndim < 2 or dims.constant(v.type.shape[1]) is None or v.type.dtype not in _FLOATS:
            return
        c = v.array.shape[1]
        gamma, beta, mean = (self.constant((c,), v.type.dtype) for _ in range(3))
        array = np.abs(self.numbers((c,), v.type.dtype)) + np.asarray(1, v.type.dtype)
        variance = self.given(array)
        self.op("nn.batch_norm", v, gamma, beta, mean, variance, rounds=True, epsilon=self.choose(1e-5, 0.5))

    def norm(self) -> None:
        v = self.pick()
        if v is not None:
            self.normalized(v)

    def pool(self) -> None:
        v = self.pick(lambda v: v.array.ndim == 4 and v.type.dtype in _FLOATS)
        if v is not None:
            name = self.choose("nn.max_pool2d", "nn.avg_pool2d")
            self.op(
                name,
                v,
                pool_size=(2, 2),
                strides=(self.choose(1, 2),),
                padding=(self.choose(0, 1),),
                ceil_mode=self.choose(True, False),
                rounds="avg" in name,
            )

    def rows(self) -> None:
        v = self.pick(lambda v: v.array.ndim >= 1 and v.array.size > 0 and v.type.dtype in _FLOATS)
        if v is not None:
            name = self.choose("nn.softmax", "nn.log_softmax", "nn.layer_norm", "nn.rms_norm")
            # a row whose elements are equal has a variance of rounding errors
            attrs = {"axis": self.axis(v)} if "softmax" in name else {"axes": (self.axis(v),), "epsilon": 0.1}
            self.op(name, v, rounds=True, **attrs)

    def axis(self, v: Held) -> int:
        return int(self.draw(st.integers(-v.array.ndim, v.array.ndim - 1)))

    def reduce(self) -> None:
        v = self.pick(lambda v: v.array.ndim >= 1 and v.type.dtype != "bool")
        if v is None:
            return
        name = self.choose("sum", "max", "min", "mean", "prod", "variance", "argmax", "logsumexp")
        if name == "argmax":
            if v.exact:
                self.op(name, v, axis=self.axis(v), keepdims=self.choose(True, False))
            return
        axis = self.choose(None, (self.axis(v),), tuple(sorted({self.axis(v) % v.array.ndim, 0})))
        self.op(
            name,
            v,
            axis=axis,
            keepdims=self.choose(True, False),
            rounds=name in ("mean", "variance", "logsumexp", "prod"),
        )

    def reshape(self) -> None:
        v = self.pick(lambda v: v.array.ndim >= 1)
        if v is None:
            return
        shape, k = list(v.type.shape), self.draw(st.integers(0, v.array.ndim - 1))
        match self.choose("flat", "merge", "split", "ones", "squeeze", "flatten"):
            case "flat":
                self.op("reshape", v, shape=(dims.product(shape),))
            case "merge" if k + 1 < len(shape):
                self.op("reshape", v, shape=(*shape[:k], dims.mul(shape[k], shape[k + 1]), *shape[k + 2 :]))
            case "split" if (dims.constant(shape[k]) or 1) % 2 == 0:
                self.op("reshape", v, shape=(*shape[:k], 2, v.array.shape[k] // 2, *shape[k + 1 :]))
            case "squeeze":
                self.op("squeeze", v)
            case "flatten":
                self.op("flatten", v)
            case _:
                self.op("expand_dims", v, axis=(self.axis(v),))

    def move(self) -> None:
        v = self.pick(lambda v: v.array.ndim >= 1)
        if v is None:
            return
        rank = v.array.ndim
        match self.choose("permute", "permute", "slice", "flip", "tile", "repeat", "pad", "broadcast", "cast", "clip"):
            case "permute":
                self.op("permute_dims", v, axes=self.choose(None, tuple(self.draw(st.permutations(range(rank))))))
            case "slice":
                k = self.axis(v) % rank
                size = dims.constant(v.type.shape[k])
                if size is None:
                    self.op("strided_slice", v, axes=(k,), begin=(0,), end=(v.type.shape[k],), strides=(2,))
                elif size > 0 and self.choose(True, False):
                    self.op("strided_slice", v, axes=(k,), begin=(size - 1,), end=(-1,), strides=(-1,))
                else:
                    begin = self.draw(st.integers(0, size))
                    end = self.draw(st.integers(begin, size))
                    self.op("strided_slice", v, axes=(k,), begin=(begin,), end=(end,), strides=(self.choose(1, 2),))
            case "flip":
                self.op("flip", v, axis=self.axis(v))
            case "tile":
                self.op("tile", v, repeats=tuple(self.choose(1, 1, 2) for _ in range(rank)))
            case "repeat":
                self.op("repeat", v, repeats=self.choose(1, 2), axis=self.axis(v))
            case "pad":
                mode = self.choose("constant", "edge", "reflect")
                self.op("nn.pad", v, pad_width=tuple(self.choose(0, 0, 1) for _ in range(2 * rank)), pad_mode=mode)
            case "broadcast":
                self.op("broadcast_to", v, shape=(self.choose(1, 2), *v.type.shape))
            case "cast":
                if v.exact:
                    self.op("astype", v, dtype=self.choose(*_NUMBERS, "bool"))
            case _:
                if v.type.dtype != "bool":
                    self.op("clip", v, min=self.choose(None, 0, -1), max=self.choose(None, 4))

    def join(self) -> None:
        v = self.pick(lambda v: v.array.ndim >= 1)
        if v is None:
            return
        k = self.axis(v) % v.array.ndim

        def fits(other: Held) -> bool:
            return (
                other.type.dtype == v.type.dtype
                and other.array.ndim == v.array.ndim
                and all(n == k or dims.same(a, c) for n, (a, c) in enumerate(zip(v.type.shape, other.type.shape)))
            )

        match self.choose("concat", "concat", "split", "stack"):
            case "concat":
                parts = [p for p in (v, self.pick(fits), self.pick(fits)) if p is not None]
                self.op("concat", *parts[: self.choose(1, 2, 3)], axis=k)
            case "split" if (size := dims.constant(v.type.shape[k])) is not None:
                at = self.draw(st.integers(0, size))
                self.op("split", v, sizes=(at, size - at), axis=k)
            case _:
                self.op("stack", v, v, axis=k)

    def pickup(self) -> None:
        v = self.pick(lambda v: v.array.ndim >= 1 and v.array.size > 0)
        if v is None:
            return
        k = self.axis(v) % v.array.ndim
        size = dims.constant(v.type.shape[k])
        if size is None or size == 0:
            return
        index = self.pick(lambda i: i.type.dtype in ("int32", "int64") and i.array.ndim <= 2)
        if index is None or self.choose(True, False):
            array = self.numbers(self.choose((2,), (1, 3), ()), "int64") % size
            self.op("take", v, self.given(array), axis=k)
        else:
            for clipped in self.op("clip", index, min=0, max=size - 1):
                self.op("take", v, clipped, axis=k)

    def where(self) -> None:
        c, a = self.pick(lambda v: v.type.dtype == "bool"), self.pick(lambda v: v.type.dtype != "bool")
        if a is None:
            return
        if c is None:
            zero = self.given(np.zeros((), a.type.dtype))
            found = self.op("greater_equal", a, zero) if a.exact else []
            if not found:
                return
            c = found[0]
        d = self.pick(lambda v: v.type.dtype == a.type.dtype)
        if d is not None:
            self.op("where", c, a, d)

    def cumsum(self) -> None:
        v = self.pick(lambda v: v.array.ndim >= 1 and v.type.dtype != "bool")
        if v is not None:
            if self.choose(True, False):
                self.op("cumsum", v, axis=self.axis(v))
            else:
                self.op("sort", v, axis=self.axis(v), descending=self.choose(True, False))


def numbers(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Small whole numbers, some of them 0."""
    found = np.random.default_rng(seed).integers(-3, 4, shape)
    return np.asarray(found % 2 == 0 if dtype == "bool" else found).astype(dtype)


_STEPS = (
    "unary", "unary", "binary", "binary", "binary", "divide", "matmul", "conv", "conv", "norm", "pool", "rows",
    "reduce", "reshape", "reshape", "move", "move", "move", "join", "join", "pickup", "where", "cumsum",
)  # fmt: skip


@st.composite
def mixed_graphs(draw: st.DrawFn, most: int = 14) -> Mixed:
    """Functions of one to three inputs, most with a batch of any size."""
    maker = _Maker(draw, draw(st.sampled_from((True, True, False))))
    n = maker.n
    shapes = [(n, 4, 5, 5), (n, 8), (n, 1), (2, 6), (n, 3, 4), (5,), (), (1, 1), (n,), (0, 3)]
    if not isinstance(n, int):
        maker.parameter((n, 4), "float32")  # which tells n
    for _ in range(draw(st.integers(1, 3))):
        maker.parameter(draw(st.sampled_from(shapes)), draw(st.sampled_from((*_NUMBERS, "bool"))))
    for _ in range(draw(st.integers(2, most))):
        getattr(maker, draw(st.sampled_from(_STEPS)))()
    results = [maker.pick() for _ in range(draw(st.integers(1, 3)))] + maker.values[-1:]
    found = [r for r in results if r is not None]
    return Mixed(maker.b.function([r.expr for r in found]), tuple(r.exact for r in found))


def inputs_for(function: Function, batch: int) -> list[Array]:
    """Small whole numbers for a batch of that size."""
    found = []
    for seed, param in enumerate(function.params):
        assert isinstance(param.type, TensorType)
        shape = tuple(d if (d := dims.constant(s)) is not None else batch for s in param.type.shape)
        found.append(numbers(shape, param.type.dtype, 100 + seed))
    return found


def assert_close(found: Array, expected: Array, exact: bool) -> None:
    """Equal where it is exact; else up to roundings of the largest element."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if exact or expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected)
        return
    scale = max(1.0, float(np.max(np.abs(np.where(np.isfinite(expected), expected, 0)), initial=0)))
    bound = 3e-2 if expected.dtype == np.float16 else 3e-4
    np.testing.assert_allclose(found.astype("float64"), expected.astype("float64"), rtol=bound, atol=bound * scale)
