"""Tensor expressions: what they compute is what numpy says, in well-formed functions; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossfarm as cf
from crossfarm import te
from crossfarm.ir import dtype as dt
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from tests.compiler.native import Native

Array = np.ndarray[Any, Any]
ROWS, COLUMNS = 5, 7


def evaluate(args: Sequence[Any], inputs: Sequence[Array], outputs: Sequence[Array], *, native: bool = True) -> None:
    """Fills ``outputs`` by the interpreter; the module verifies, reads back, and gives the same natively."""
    module = IRModule({"main": te.create_prim_func(args)})
    cf.verify(module)
    assert cf.structural_equal(cf.parse(module.script()), module)
    copies = [np.full_like(o, 1) for o in outputs]
    run(module, "main", [*inputs, *outputs])
    if native:
        Native(module)("main", *inputs, *copies)
        for got, want in zip(copies, outputs):
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=1e-5, atol=1e-6)


def matrix(dtype: str = "float32", seed: int = 0, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> Array:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    low, high = (0, 100) if dtype.startswith("u") else (-50, 50)
    return (rng.random(shape) * (high - low) + low).astype(dt.to_numpy(dtype))


def test_elements_are_computed_from_their_indices_and_other_tensors() -> None:
    a = te.placeholder((ROWS, COLUMNS), name="A")
    b = te.compute((ROWS, COLUMNS), lambda i, j: te.exp(a[i, j] * 0.1) + te.cast(i - j, "float32") / 2, name="B")
    x, out = matrix(), np.empty((ROWS, COLUMNS), np.float32)
    evaluate([a, b], [x], [out])
    i, j = np.indices(x.shape)
    np.testing.assert_allclose(out, np.exp(x * np.float32(0.1)) + (i - j) / 2, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int32", "int64", "uint8"])
@pytest.mark.parametrize(
    ("reduce", "reference"),
    [(te.sum, np.sum), (te.max, np.max), (te.min, np.min), (te.prod, np.prod)],
    ids=["sum", "max", "min", "prod"],
)
def test_reductions_are_numpys(reduce: Callable[..., Any], reference: Any, dtype: str) -> None:
    a = te.placeholder((ROWS, COLUMNS), dtype, "A")
    k = te.reduce_axis((0, COLUMNS))
    b = te.compute((ROWS,), lambda i: reduce(a[i, k], axis=k), name="B")
    x = matrix(dtype)
    out = np.empty(ROWS, x.dtype)
    with np.errstate(over="ignore"):
        evaluate([a, b], [x], [out])
        want = reference(x, axis=1, **({"dtype": x.dtype} if reduce in (te.sum, te.prod) else {}))
    np.testing.assert_allclose(out, want, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=9), largest=st.booleans())
def test_the_first_of_equal_extremes_is_found_with_its_value(values: list[int], largest: bool) -> None:
    x = np.array(values, np.float32)
    a = te.placeholder((te.var("n"),), name="A")
    k = te.reduce_axis((0, a.shape[0]))
    index, value = te.compute((), lambda: (te.argmax if largest else te.argmin)((k, a[k]), axis=k), name="found")
    at, what = np.empty((), np.int64), np.empty((), np.float32)
    evaluate([a, index, value], [x], [at, what], native=False)
    assert at == (x.argmax() if largest else x.argmin())
    assert what == x[at]


def test_a_value_that_is_used_often_is_computed_once() -> None:
    a = te.placeholder((ROWS, COLUMNS), name="A")
    b = te.compute((ROWS, COLUMNS), lambda i, j: te.let(te.exp(a[i, j] / 9), lambda t: t * t + t), name="B")
    x, out = matrix(), np.empty((ROWS, COLUMNS), np.float32)
    evaluate([a, b], [x], [out])
    np.testing.assert_allclose(out, np.exp(x / 9) ** 2 + np.exp(x / 9), rtol=1e-5)
    assert cf.IRModule({"main": te.create_prim_func([a, b])}).script().count("T.exp") == 1


def test_an_index_may_be_a_value_that_is_computed_once() -> None:
    a, at = te.placeholder((COLUMNS,), name="A"), te.placeholder((ROWS,), "int32", "I")
    b = te.compute((ROWS,), lambda i: a[te.let(at[i], lambda t: te.select(t < 0, t + COLUMNS, t))], name="B")
    x, indices, out = matrix(shape=(COLUMNS,)), np.array([3, -1, 0, -7, 6], np.int32), np.empty(ROWS, np.float32)
    evaluate([a, at, b], [x, indices], [out])
    np.testing.assert_array_equal(out, x[indices])


def test_the_extreme_of_infinities_alone_has_an_index() -> None:
    a = te.placeholder((3,), name="A")
    k = te.reduce_axis((0, 3))
    index, _ = te.compute((1,), lambda i: te.argmax((k, a[k]), axis=k))
    out = np.empty(1, np.int64)
    evaluate([a, index], [np.full(3, -np.inf, np.float32)], [out])
    assert out[0] == 0


def test_several_values_make_several_tensors() -> None:
    a = te.placeholder((ROWS, COLUMNS), name="A")
    low, high = te.compute((ROWS, COLUMNS), lambda *i: (te.minimum(a[i], 0), te.maximum(a[i], 0)), name="halves")
    x = matrix()
    outs = [np.empty_like(x), np.empty_like(x)]
    evaluate([a, low, high], [x], outs)
    np.testing.assert_array_equal(outs[0], np.minimum(x, 0))
    np.testing.assert_array_equal(outs[1], np.maximum(x, 0))


def test_a_reduction_may_have_several_axes_a_start_and_a_condition() -> None:
    a = te.placeholder((ROWS, COLUMNS), name="A")
    i, j = te.reduce_axis((1, ROWS), "i"), te.reduce_axis((0, COLUMNS), "j")
    b = te.compute((), lambda: te.sum(a[i, j], axis=[i, j], where=a[i, j] > 0), name="B")
    x, out = matrix(), np.empty((), np.float32)
    evaluate([a, b], [x], [out])
    np.testing.assert_allclose(out, x[1:][x[1:] > 0].sum(), rtol=1e-5)


def test_a_reduction_of_ones_own_combines_as_it_says() -> None:
    longest = te.comm_reducer(
        lambda a, b: te.maximum(te.abs(a), te.abs(b)), lambda dtype: te.const(0, dtype), "longest"
    )
    a = te.placeholder((ROWS, COLUMNS), name="A")
    k = te.reduce_axis((0, COLUMNS))
    b = te.compute((ROWS,), lambda i: longest(a[i, k], axis=k))
    x, out = matrix(), np.empty(ROWS, np.float32)
    evaluate([a, b], [x], [out])
    np.testing.assert_array_equal(out, np.abs(x).max(1))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(0, 9), m=st.integers(1, 9), k=st.integers(1, 9))
def test_symbolic_sizes_are_those_of_the_call(n: int, m: int, k: int) -> None:
    rows, columns, inner = te.var("n"), te.var("m", "int32"), te.var("k")
    a, b = te.placeholder((rows, inner), name="A"), te.placeholder((inner, columns), name="B")
    axis = te.reduce_axis((0, inner), "k")
    c = te.compute((rows, columns), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name="C")
    d = te.compute((rows, columns), lambda i, j: c[i, j] * te.cast(columns, "float32"), name="D")
    x, y, out = matrix(shape=(n, k)), matrix(shape=(k, m), seed=1), np.empty((n, m), np.float32)
    evaluate([a, b, d], [x, y], [out], native=False)
    np.testing.assert_allclose(out, x @ y * m, rtol=1e-4, atol=1e-3)


def test_a_scalar_argument_is_a_variable_that_is_listed() -> None:
    scale = te.var("scale", "float32")
    a = te.placeholder((COLUMNS,), name="A")
    b = te.compute((COLUMNS,), lambda i: a[i] * scale)
    module = IRModule({"main": te.create_prim_func([a, scale, b])})
    cf.verify(module)
    x, out = matrix(shape=(COLUMNS,)), np.empty(COLUMNS, np.float32)
    run(module, "main", [x, 2.5, out])
    np.testing.assert_array_equal(out, x * np.float32(2.5))


@pytest.mark.parametrize(
    ("part", "reference"),
    [
        (lambda a: a[2], lambda x: x[2]),
        (lambda a: a[1:4], lambda x: x[1:4]),
        (lambda a: a[:, 3], lambda x: x[:, 3]),
        (lambda a: a[1:, 2:7:2], lambda x: x[1:, 2:7:2]),
        (lambda a: a[1:4][1][2:], lambda x: x[1:4][1][2:]),
    ],
)
def test_parts_of_tensors_are_tensors_that_are_not_stored(part: Any, reference: Any) -> None:
    a = te.placeholder((ROWS, COLUMNS), name="A")
    view = part(a)
    b = te.compute(view.shape, lambda *i: view[i] + 1, name="B")
    x = matrix()
    want = reference(x) + 1
    out = np.empty_like(want)
    evaluate([a, b], [x], [out])
    np.testing.assert_array_equal(out, want)


def test_a_guarded_index_is_read_only_where_the_guard_holds() -> None:
    a = te.placeholder((COLUMNS,), name="A")
    b = te.compute(
        (COLUMNS + 2,), lambda i: te.if_then_else(te.all(i >= 1, i < COLUMNS + 1), a[i - 1], -1.0), name="padded"
    )
    x, out = matrix(shape=(COLUMNS,)), np.empty(COLUMNS + 2, np.float32)
    evaluate([a, b], [x], [out])
    np.testing.assert_array_equal(out, np.pad(x, 1, constant_values=-1))


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "float16"])
def test_comparisons_and_bits_are_those_of_the_dtype(dtype: str) -> None:
    a, b = te.placeholder((ROWS,), dtype, "A"), te.placeholder((ROWS,), dtype, "B")
    makes: list[Any] = [lambda i: a[i] == b[i], lambda i: a[i] != b[i]]
    wants: list[Any] = [np.equal, np.not_equal]
    if dtype != "bool":
        makes += [lambda i: (a[i] < b[i]) | (a[i] >= 3)]
        wants += [lambda x, y: (x < y) | (x >= 3)]
    if not dtype.startswith("float"):
        makes += [lambda i: a[i] & b[i], lambda i: a[i] | b[i], lambda i: ~a[i]]
        wants += [np.bitwise_and, np.bitwise_or, lambda x, y: ~x]
    x, y = matrix(dtype, 0, (ROWS,)), matrix(dtype, 1, (ROWS,))
    results = [te.compute((ROWS,), make, name=f"r{k}") for k, make in enumerate(makes)]
    expected = [want(x, y) for want in wants]
    outs = [np.empty_like(w) for w in expected]
    evaluate([a, b, *results], [x, y], outs)
    for got, want in zip(outs, expected):
        np.testing.assert_array_equal(got, want)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_integer_expressions_are_numpys(data: st.DataObject) -> None:
    x, y = matrix("int32"), matrix("int32", 1)
    a, b = te.placeholder(x.shape, "int32", "A"), te.placeholder(y.shape, "int32", "B")

    def build(depth: int) -> tuple[Callable[..., Any], Any]:
        if depth == 0:
            return data.draw(
                st.sampled_from(
                    [
                        (lambda i, j: a[i, j], x),
                        (lambda i, j: b[i, j], y),
                        (lambda i, j: te.const(3, "int32"), np.int32(3)),
                        (lambda i, j: te.cast(i, "int32"), np.indices(x.shape)[0].astype(np.int32)),
                    ]
                )
            )
        left, left_value = build(depth - 1)
        right, right_value = build(depth - 1)
        op = data.draw(st.sampled_from(["+", "-", "*", "max", "where", "//", "%"]))
        plain: dict[str, Any] = {
            "+": (lambda p, q: p + q, np.add), "-": (lambda p, q: p - q, np.subtract),
            "*": (lambda p, q: p * q, np.multiply), "max": (te.maximum, np.maximum),
            "where": (lambda p, q: te.if_then_else(p < q, p, q), np.minimum),
            "//": (lambda p, q: p // 7, lambda p, q: p // np.int32(7)),
            "%": (lambda p, q: p % 5, lambda p, q: p % np.int32(5)),
        }  # fmt: skip
        make, reference = plain[op]
        return (lambda i, j: make(left(i, j), right(i, j))), reference(left_value, right_value)

    make, want = build(data.draw(st.integers(1, 3)))
    c = te.compute(x.shape, make, name="C")
    out = np.empty(x.shape, np.int32)
    evaluate([a, b, c], [x, y], [out], native=False)
    np.testing.assert_array_equal(out, np.broadcast_to(want, x.shape))


def test_names_may_repeat_and_blocks_still_have_names_of_their_own() -> None:
    a = te.placeholder((4,), name="A")
    b = te.compute((4,), lambda i: a[i] + 1, name="step")
    c = te.compute((4,), lambda i: b[i] + 1, name="step")
    text = IRModule({"main": te.create_prim_func([a, c])}).script()
    assert 'T.block("step")' in text
    assert 'T.block("step_1")' in text


A = te.placeholder((ROWS, COLUMNS), name="A")
K = te.reduce_axis((0, COLUMNS), "k")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: te.compute((3,), lambda i, j: A[i, j]), "takes 2 indices, the shape has 1"),
        (lambda: te.compute((3,), lambda i: A[i]), "needed here, not View"),
        (lambda: te.compute((3,), lambda i: None), "returns nothing"),
        (lambda: te.compute((3,), lambda i: te.sum(A[i, K], axis=K) + 1), "whole value of an element"),
        (lambda: te.compute((3,), lambda i: (te.sum(A[i, K], axis=K), 1)), "beside other results"),
        (lambda: te.compute((3,), lambda i: 1 if A[i, 0] > 0 else 2), "known only when the program runs"),
        (lambda: te.compute((3,), lambda i: A[i, 9]), "index 9 is outside dimension 1 of tensor A"),
        (lambda: te.compute((3,), lambda i: A[i, 0, 0]), "has 2 dimensions, not 3"),
        (lambda: te.compute((3,), lambda i: A[i, 0.5]), "indexed with float32"),
        (lambda: te.compute((3,), lambda i: i / 2), "/ of two int64"),
        (lambda: te.compute((-1,), lambda i: i), "an extent of -1"),
        (lambda: te.compute((0.5,), lambda i: i), "an extent is an integer"),
        (lambda: te.placeholder((3,), "float31"), "'float31' is no dtype"),
        (lambda: te.sum(A[0, K], axis=A), "not made by te.reduce_axis"),
        (lambda: te.sum(A[0, K], axis=[K, K]), "named twice"),
        (lambda: te.reduce_axis((3, 3)), "is empty"),
        (lambda: list(A), "cannot be iterated"),
        (lambda: te.sum(A[0, K] > 0, axis=K), "add is not defined on bool"),
        (lambda: te.create_prim_func([A]), "nothing to compute"),
        (lambda: te.create_prim_func([te.compute((3,), lambda i: A[i, 0])]), "placeholder A is used"),
        (lambda: te.create_prim_func([A, A, te.compute((3,), lambda i: A[i, 0])]), "listed twice"),
        (
            lambda: te.create_prim_func([A, te.compute((3,), lambda i: A[i, K], "C")]),
            "compute C: k is none of its axes",
        ),
        (lambda: te.create_prim_func([te.compute((3,), lambda i: i * te.var("m"), "C")]), "m is none of its axes"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(cf.InvalidModule, match=reason.replace("(", r"\(")):
        make()
