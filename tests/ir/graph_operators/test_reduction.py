"""Reductions are numpy's along any dimensions, of narrow dtypes, and of nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.operators import reduction
from crossfarm.ir.graph.types import TensorType
from tests.ir.graph_operators.harness import Case, array, by_operator, check_all

N, M = Var("n", "int64"), Var("m", "int64")
FLOATS = ("float32", "float16", "bfloat16", "float64")
NUMBERS = (*FLOATS, "int32", "int64", "int8", "uint8")
#: For each row its dtypes, and the range of its values.
ROWS: dict[str, tuple[tuple[str, ...], float, float]] = {
    **dict.fromkeys(("sum", "mean", "max", "min", "sum_of_squares", "reduce_l1"), (NUMBERS, -40, 40)),
    "prod": (NUMBERS, -3, 3),
    "any": (("bool",), 0, 1),
    "all": (("bool",), 0, 1),
    **dict.fromkeys(("reduce_l2", "logsumexp", "variance"), (FLOATS, -9, 9)),
    "log_sum": (FLOATS, 0.1, 9),
}


def cases() -> Iterator[Case]:
    for name, (dtypes, low, high) in ROWS.items():
        for dtype in dtypes:
            yield Case(name, (array(dtype, 3, 4, 5, low=low, high=high),), {"axis": (1,)}, tolerance=_tolerance(dtype))
        x = array(dtypes[0], 3, 4, 5, low=low, high=high)
        for attrs in ({}, {"keepdims": True}, {"axis": (-1, 0)}, {"axis": (2, 0), "keepdims": True}, {"axis": ()}):
            yield Case(name, (x,), attrs)
        yield Case(name, (array(dtypes[0], low=low, high=high),))
        for dtype in dtypes[:1] if name in ("mean", "variance") else dtypes:
            yield Case(name, (array(dtype, 3, 0),), {"axis": (1,)})
        yield Case(name, (array(dtypes[0], 0, 3),), {"axis": (1,)})
        yield Case(name, (x,), {"axis": (1,)}, shapes=((N, 4, M),), sizes={N: 3, M: 5})
        yield Case(name, (x,), {"axis": (0, 2), "keepdims": True}, shapes=((N, 4, M),), sizes={N: 3, M: 5})
        yield Case(name, (array(dtypes[0], 0, 3),), {"axis": (0,)}, shapes=((N, 3),), sizes={N: 0})
    for name in ("argmax", "argmin"):
        for dtype in NUMBERS:
            x = array(dtype, 4, 9, low=-3, high=3)
            x = x if x.dtype.kind in "iu" else np.rint(x.astype(np.float32)).astype(x.dtype)  # many are equal
            for last in (False, True):
                yield Case(name, (x,), {"axis": 1, "select_last_index": last})
        for attrs in ({}, {"keepdims": True}, {"axis": -2, "keepdims": True}, {"select_last_index": True}):
            yield Case(name, (x,), attrs)
        yield Case(name, (array("float32"),))
        yield Case(name, (np.full((2, 3), -np.inf, np.float32),), {"axis": 1, "select_last_index": True})
        yield Case(name, (array("float32", 3, 4, 2),), {"axis": 1}, shapes=((N, M, 2),), sizes={N: 3, M: 4})
        yield Case(name, (array("float32", 3, 4),), {}, shapes=((N, M),), sizes={N: 3, M: 4})
        yield Case(name, (array("int32", 0, 3),), {"axis": 1})
    # what only some values show
    yield Case("sum", (np.full(4000, 1, np.float16),))
    yield Case("sum", (np.full(300, 100, np.int8),))
    yield Case("mean", (np.full(300, 100, np.int8),))
    yield Case("mean", (np.array([-7, 0, 0], np.int32),))
    yield Case("mean", (np.full(300, 400, np.float16),))
    yield Case("mean", (array("int32", 2, 3),), {"axis": (1,)}, shapes=((2, N),), sizes={N: 3})
    for large in ([1000, 1001, 999], [-np.inf, -np.inf], [np.inf, 1], [-1000, -1001], [-np.inf, 3]):
        yield Case("logsumexp", (np.array(large, np.float32),))
    yield Case("variance", (array("float32", 50, low=1000, high=1001),), tolerance=(1e-3, 1e-6))


def _tolerance(dtype: str) -> tuple[float, float] | None:
    """Sums of numbers of either sign lose what the largest have."""
    return {"float32": (2e-5, 1e-4), "float64": (1e-9, 1e-9)}.get(dtype)


@by_operator(cases())
def test_reductions_are_numpys(cases: list[Case]) -> None:
    check_all(cases)


def test_every_row_has_a_case() -> None:
    assert {row.name for row in reduction.OPERATORS} == {case.operator for case in cases()}


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "attrs", "message"),
    [
        ("sum", (2, 3), "float32", {"axis": (2,)}, "operator sum: axes 2 is outside a tensor of 2 dimensions"),
        ("max", (2, 3), "float32", {"axis": (1, -1)}, "operator max: axes (1, -1) name a dimension twice"),
        (
            "mean",
            (2, 0),
            "int32",
            {"axis": (1,)},
            "operator mean: there is none of no elements: int32(2, 0) along (1,)",
        ),
        ("argmax", (0,), "float32", {}, "operator argmax: there is none of no elements: float32(0) along (0,)"),
        ("sum", (2,), "bool", {}, "operator sum: it takes numbers, not bool(2)"),
        ("any", (2,), "int32", {}, "operator any: it takes bool, not int32(2)"),
        ("logsumexp", (N,), "int32", {}, "operator logsumexp: it takes floats, not int32(n)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    name: str, shape: tuple[dims.Dim, ...], dtype: str, attrs: dict[str, Any], message: str
) -> None:
    row = operators.get(name)
    with pytest.raises(InvalidModule) as refused:
        row.infer([TensorType(dims.dims(shape), dtype)], row.complete(attrs))
    assert refused.value.message == message
