"""Gathering, scattering, one-hot vectors, sorting: numpy's results, for indices of any sign and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.operators.indexing import REDUCTIONS
from crossfarm.ir.graph.types import TensorType
from tests.ir.graph_operators.by_onnx import by_onnx
from tests.ir.graph_operators.harness import Array, Case, array, check, same_values

N, M = Var("n", "int64"), Var("m", "int64")
X = array


def at(*shape: int, low: int = -3, high: int = 3, dtype: str = "int64") -> Array:
    return array(dtype, *shape, low=low, high=high, seed=1)


def gathers(dtype: str) -> list[Case]:
    data = X(dtype, 5, 4, 3)
    return [
        Case("take", (X(dtype, 5), at(2, 3, low=-7, high=7))),
        Case("take", (data, at(2, 3, low=-7, high=7, dtype="int32")), {"axis": 1}),
        Case("take", (data, at(dtype="uint8")), {"axis": -1}),
        Case("take", (data, at(4)), {"axis": 0}, ((N, 4, 3), (M,)), {N: 5, M: 4}),
        Case("gather_elements", (data, at(3, 7, 3)), {"axis": 1}),
        Case("gather_elements", (data, at(8, 4, 2, low=-9, high=9))),
        Case("gather_elements", (data, at(2, 4, 3)), {}, ((N, 4, 3), (M, 4, 3)), {N: 5, M: 2}),
        Case("gather_nd", (data, at(8, 2, low=-9, high=9))),
        Case("gather_nd", (data, at(2, 3))),
        Case("gather_nd", (data, at(2))),
        Case("gather_nd", (data, at(5, 2, 2)), {"batch_dims": 1}),
        Case("gather_nd", (data, at(6, 1)), {}, ((N, 4, 3), (M, 1)), {N: 5, M: 6}),
    ]


def scatters(dtype: str) -> list[Case]:
    data = X(dtype, 5, 4, 3)
    return [
        *(
            Case("scatter_elements", (data, at(3, 6, 3, low=-6, high=6), X(dtype, 3, 6, 3, seed=2)),
                 {"axis": 1, "reduction": reduction})
            for reduction in REDUCTIONS
        ),
        Case("scatter_elements", (data, at(2, 4, 3), X(dtype, 2, 4, 3, seed=2)), {},
             ((N, 4, 3), (M, 4, 3), (M, 4, 3)), {N: 5, M: 2}),
        Case("scatter_elements", (data, at(0, 4, 3), X(dtype, 0, 4, 3))),
        *(
            Case("scatter_nd", (data, at(3, 2, 2, low=-7, high=7), X(dtype, 3, 2, 3, seed=2)), {"reduction": reduction})
            for reduction in REDUCTIONS
        ),
        Case("scatter_nd", (data, at(4, 3), X(dtype, 4, seed=2))),
        Case("scatter_nd", (X(dtype, 5), at(1), X(dtype, seed=2))),
        Case("scatter_nd", (X(dtype, 5), at(0, 1), X(dtype, 0))),
        Case("scatter_nd", (data, at(6, 1), X(dtype, 6, 4, 3)), {}, ((N, 4, 3), (M, 1), (M, 4, 3)), {N: 5, M: 6}),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "uint8"])
def test_indexing(dtype: str) -> None:
    for case in (*gathers(dtype), *scatters(dtype)):
        check(case)


def test_truths_are_gathered_and_replaced() -> None:
    for case in (*gathers("bool"), Case("scatter_nd", (X("bool", 5, 4), at(6, 2), X("bool", 6)))):
        check(case)


def test_one_hot_vectors() -> None:
    for dtype in ("float32", "int64", "float16"):
        values = {"on_value": 3, "off_value": -1, "dtype": dtype}
        check(Case("one_hot", (at(3, 4, low=-7, high=7),), {"depth": 4, **values}))
    check(Case("one_hot", (at(3, 4, dtype="int32"),), {"depth": 5, "axis": 1}))
    check(Case("one_hot", (at(3),), {"depth": 5, "axis": 0, "dtype": "bool"}, ((N,),), {N: 3}))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "uint8"])
def test_sorting(dtype: str) -> None:
    x = X(dtype, 3, 7, 2)
    for axis in (0, 1, -1):
        for downward in (False, True):
            check(Case("topk", (x,), {"k": 2, "axis": axis, "largest": downward}))
            check(Case("sort", (x,), {"axis": axis, "descending": downward}))
            check(Case("argsort", (x,), {"axis": axis, "descending": downward, "dtype": "int32"}))
    check(Case("topk", (x,), {"k": 2, "axis": 1}, ((N, M, 2),), {N: 3, M: 7}))
    check(Case("topk", (x * 0,), {"k": 3, "axis": 1}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_the_best_are_the_first_of_equals(values: list[int], data: st.DataObject) -> None:
    x, k = np.array(values, np.int32), data.draw(st.integers(1, len(values)))
    check(Case("topk", (x,), {"k": k}))
    row = operators.get("topk")
    best, places = row.reference([x], row.complete({"k": k}))
    wanted = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert (best.tolist(), places.tolist()) == ([values[i] for i in wanted], wanted)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99), st.sampled_from(REDUCTIONS))
def test_any_scatter_is_onnxs(length: int, count: int, seed: int, reduction: str) -> None:
    """Without repeated indices for what depends on the order, which onnx leaves open."""
    rng = np.random.default_rng(seed)
    count = min(count, length) if reduction == "update" else count
    places = rng.permutation(length)[:count] if reduction == "update" else rng.integers(-length, length, count)
    x, updates = X("float32", length, 3), X("float32", count, 3, seed=2)
    attrs: dict[str, Any] = {"reduction": {"update": "none"}.get(reduction, reduction)}
    for name, op, index in (
        ("scatter_nd", "ScatterND", places[:, None]),
        ("scatter_elements", "ScatterElements", np.repeat(places[:, None], 3, axis=1)),
    ):
        check(Case(name, (x, index, updates), {"reduction": reduction}))
        row = operators.get(name)
        found = row.reference([x, index, updates], row.complete({"reduction": reduction}))[0]
        same_values(found, by_onnx(op, x, index, updates, **attrs)[0], name)


def test_what_is_gathered_is_onnxs() -> None:
    x = X("float32", 5, 4, 3)
    for name, op, index, attrs in (
        ("take", "Gather", at(2, 3), {"axis": 1}),
        ("gather_elements", "GatherElements", at(5, 7, 3), {"axis": 1}),
        ("gather_nd", "GatherND", at(5, 2, 2), {"batch_dims": 1}),
    ):
        row = operators.get(name)
        found = row.reference([x, index], row.complete(attrs))[0]
        same_values(found, by_onnx(op, x, index, **attrs)[0], name)


@pytest.mark.parametrize(
    ("operator", "shapes", "attrs", "said"),
    [
        ("take", ((3, 4), (2,)), {}, "a tensor of 2 dimensions is taken from along an axis"),
        ("gather_elements", ((3, 4), (4, 2)), {"axis": 1}, "none but 1 longer"),
        ("gather_elements", ((3, 4), (4,)), {"axis": 0}, "have the dimensions of the data"),
        ("gather_nd", ((3, 4), (2, 3)), {}, "indices (2, 3) are no tuples"),
        ("gather_nd", ((3, 4), (2, N)), {}, "indices (2, n) are no tuples"),
        ("gather_nd", ((3, 4), (2, 1)), {"batch_dims": 1}, "the first 1 dimensions"),
        ("scatter_elements", ((3, 4), (2, 2), (2, 3)), {}, "updates float32(2, 3) must have the shape (2, 2)"),
        ("scatter_nd", ((3, 4), (2, 1), (2, 3)), {}, "updates float32(2, 3) must have the shape (2, 4)"),
        ("scatter_nd", ((3, 4), (2, 1), (2, 4)), {"reduction": "mean"}, "reduction is one of update, add"),
        ("one_hot", ((3,),), {"depth": 0}, "depth is 1 at least, not 0"),
        ("topk", ((3, 4),), {"k": 5}, "there are no 5 best along dimension 1 of float32(3, 4)"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    operator: str, shapes: tuple[tuple[Any, ...], ...], attrs: dict[str, Any], said: str
) -> None:
    row = operators.get(operator)
    dtypes = ["int64" if name == "indices" else "float32" for name in row.inputs]
    with pytest.raises(InvalidModule) as refused:
        row.infer([TensorType(dims.dims(s), d) for s, d in zip(shapes, dtypes)], row.complete(attrs))
    assert refused.value.message.startswith(f"operator {operator}: ")
    assert said in refused.value.message


def test_indices_are_integers() -> None:
    row = operators.get("take")
    with pytest.raises(InvalidModule, match="indices are integers, not float32"):
        row.infer([TensorType(dims.dims((3,)), "float32")] * 2, row.complete({}))
