"""Operators that work element by element are numpy's, in every dtype that they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.operators import activation, elementwise, logic, unary
from crossfarm.ir.graph.types import TensorType
from tests.ir.graph_operators.harness import Array, Case, array, by_operator, check, check_all

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTS = ("int32", "int64", "int8", "uint8")
NUMBERS = ("float32", "int32", "float16", "bfloat16", "uint8", "int64", "int8")
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-30, 88.0, -88.0], np.float32)
N, M = Var("n", "int64"), Var("m", "int64")

#: For each row of two inputs its dtypes, and the least value of the second input.
BINARY: dict[str, tuple[tuple[str, ...], float]] = {
    **dict.fromkeys(("add", "subtract", "multiply", "maximum", "minimum"), (NUMBERS, -4)),
    **dict.fromkeys(("divide", "floor_divide", "floor_mod", "trunc_mod"), (NUMBERS, 1)),
    "power": (NUMBERS, 0),
    **dict.fromkeys(("equal", "not_equal"), ((*NUMBERS, "bool"), -4)),
    **dict.fromkeys(("less", "less_equal", "greater", "greater_equal"), (NUMBERS, -4)),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor"), (("bool",), 0)),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), ((*INTS, "bool"), -4)),
    **dict.fromkeys(("left_shift", "right_shift"), (INTS, 0)),
}
#: For each row of one input its dtypes and the range of its values.
UNARY: dict[str, tuple[tuple[str, ...], float, float]] = {
    **dict.fromkeys(("negative", "abs", "sign", "square", "nn.relu"), (NUMBERS, -4, 4)),
    **dict.fromkeys(("floor", "ceil", "round", "trunc"), ((*FLOATS, "int32"), -4, 4)),
    "reciprocal": (FLOATS, 0.25, 4),
    **dict.fromkeys(("sqrt", "rsqrt", "log", "log1p"), (FLOATS, 0.01, 9)),
    **dict.fromkeys(("exp", "sin", "cos", "atan", "sinh", "cosh", "tanh", "asinh", "erf", "sigmoid"), (FLOATS, -4, 4)),
    **dict.fromkeys(("tan", "asin", "acos", "atanh"), (FLOATS, -0.9, 0.9)),
    "acosh": (FLOATS, 1.1, 9),
    **dict.fromkeys(("isnan", "isinf", "isfinite"), (FLOATS, -4, 4)),
    **dict.fromkeys((row.name for row in activation.OPERATORS if len(row.inputs) == 1), (FLOATS, -6, 6)),
    "logical_not": (("bool",), 0, 1),
    "bitwise_not": ((*INTS, "bool"), -4, 4),
    "clip": (NUMBERS, -4, 4),
}
#: Further uses: attributes that are not the defaults.
ATTRIBUTES: dict[str, list[dict[str, Any]]] = {
    "clip": [{"min": 1, "max": 3}, {"min": 2}, {"max": 2}, {"min": 3, "max": 1}],
    "isinf": [{"detect_negative": False}, {"detect_positive": 0}, {"detect_negative": 0, "detect_positive": False}],
    "nn.leakyrelu": [{"alpha": 0.3}],
    "nn.elu": [{"alpha": 2.0}],
    "nn.selu": [{"alpha": 2.0, "gamma": 3.0}],
    "nn.celu": [{"alpha": 2.0}],
    "nn.hardsigmoid": [{"alpha": 0.5, "beta": 0.6}],
    "nn.thresholdedrelu": [{"alpha": 2}],
    "nn.shrink": [{"bias": 1.5, "lambd": 1.5}],
}


def cases() -> Iterator[Case]:
    for name, (dtypes, least) in BINARY.items():
        # two stretched inputs of the dtype that is used most, then each dtype, scalars, nothing at all, and sizes
        kind = dtypes[0]
        yield Case(name, (array(kind, 2, 1, 3), array(kind, 4, 1, low=least, seed=1)))
        for dtype in dtypes:
            yield Case(name, (array(dtype, 9), array(dtype, 9, low=least, seed=1)))
        yield Case(name, (array(kind), array(kind, low=least, seed=1)))
        yield Case(name, (array(kind, 0, 3), array(kind, 1, low=least)))
        yield Case(name, (array(kind, 2, 3), array(kind, 1, 3, low=least)), shapes=((N, M), (1, M)), sizes={N: 2, M: 3})
    for name, (dtypes, low, high) in UNARY.items():
        for dtype in dtypes:
            yield Case(name, (array(dtype, 19, low=low, high=high),), ATTRIBUTES.get(name, [{}])[0])
        for attrs in ATTRIBUTES.get(name, ()):
            yield Case(name, (array(dtypes[0], 3, 5, low=low, high=high),), attrs)
        yield Case(name, (array(dtypes[0], low=low, high=high),))
        yield Case(name, (array(dtypes[0], 3, 0),))
        yield Case(name, (array(dtypes[0], 4, 2, low=low, high=high),), shapes=((N, 2),), sizes={N: 4})
        if "float32" in dtypes:
            yield Case(name, (SPECIAL,))
    for condition, *values in (
        ((2, 3), (2, 3), (2, 3)),
        ((3,), (2, 1), ()),
        ((4, 1, 1), (3, 1), (2,)),
        ((0, 1), (1,), (1,)),
    ):
        for dtype in ("float32", "bool", "int64", "float16"):
            given = (array("bool", *condition), array(dtype, *values[0], seed=1), array(dtype, *values[1], seed=2))
            yield Case("where", given)
    yield Case(
        "where", (array("bool", 2, 1), array("float32", 2, 3), array("float32")),
        shapes=((N, 1), (N, M), ()), sizes={N: 2, M: 3},
    )  # fmt: skip
    for source in ("bool", "int8", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"):
        for target in ("bool", "int8", "uint8", "int64", "float16", "bfloat16", "float32", "float64"):
            low = 0 if target == "uint8" else -4
            yield Case("astype", (array(source, 9, low=low),), {"dtype": target})
    yield Case("astype", (np.array([-1e9, 1e9, np.nan, -np.inf, 300, -1, 2.9, -2.9], np.float32),), {"dtype": "uint8"})
    yield Case("astype", (np.array([-1e30, 1e30, np.nan, 2.0**62], np.float32),), {"dtype": "int64"})
    yield Case("astype", (array("float32", 2, 0),), {"dtype": "int32"})
    yield Case("astype", (array("float32", 3),), {"dtype": "int32"}, shapes=((N,),), sizes={N: 3})
    for dtype in NUMBERS:
        yield Case("nn.prelu", (array(dtype, 2, 3, 4), array(dtype, 3, 1, seed=1)))
    yield Case("nn.prelu", (array("float32", 2, 3), array("float32")), shapes=((N, 3), ()), sizes={N: 2})
    # what only some values show
    pairs = np.array([np.nan, 1, -np.inf, np.nan, -0.5], np.float32), np.array([1, np.nan, 2, np.nan, 0.5], np.float32)
    for name in ("maximum", "minimum", "less", "equal", "add"):
        for dtype in ("float32", "float16", "bfloat16"):
            yield Case(name, tuple(p.astype(dtype if dtype != "bfloat16" else array(dtype).dtype) for p in pairs))
    sevens = np.array([7, -7, 7, -7, 6, -6, 0], np.int32), np.array([3, 3, -3, -3, 3, -2, 5], np.int32)
    for name in ("divide", "floor_divide", "floor_mod", "trunc_mod"):
        yield Case(name, sevens)
        yield Case(name, (sevens[0].astype(np.float32), sevens[1].astype(np.float32) + np.float32(0.25)))
    base, exponent = (
        np.array([3, 2, -3, 1, -1, 2, 0, -1, 7, 5], np.int64),
        np.array([41, 63, 3, -5, -5, -1, 0, 200, 1, 99]),
    )
    yield Case("power", (base, exponent))
    yield Case("power", (base.astype(np.int8), exponent.astype(np.int8)))
    yield Case("left_shift", (np.array([1, -1, 1], np.int8), np.array([7, 3, 9], np.int8)))
    yield Case("right_shift", (np.array([-128, 127, -1], np.int8), np.array([3, 3, 7], np.int8)))


@by_operator(cases())
def test_operators_are_numpys(cases: list[Case]) -> None:
    check_all(cases)


def test_every_row_has_a_case() -> None:
    rows = {row.name for family in (elementwise, logic, unary, activation) for row in family.OPERATORS}
    assert rows == {case.operator for case in cases()}


def tensor(dtype: str, *shape: dims.Dim) -> TensorType:
    return TensorType(dims.dims(shape), dtype)


@pytest.mark.parametrize(
    ("name", "inputs", "attrs", "message"),
    [
        ("add", (tensor("float32", 2), tensor("int32", 2)), {}, "operator add: tensors must be of one dtype, not float32(2) and int32(2)"),  # noqa: E501
        ("add", (tensor("bool", 2), tensor("bool", 2)), {}, "operator add: it takes numbers, not bool(2)"),
        ("sqrt", (tensor("int32", N),), {}, "operator sqrt: it takes floats, not int32(n)"),
        ("less", (tensor("float32", 2, 3), tensor("float32", 4)), {}, "operator less: shapes (2, 3) and (4) do not fit together: 3 and 4 at dimension -1"),  # noqa: E501
        ("add", (tensor("float32", N), tensor("float32", M)), {}, "operator add: shapes (n) and (m) do not fit together"),  # noqa: E501
        ("where", (tensor("int8", 2), tensor("int8", 2), tensor("int8", 2)), {}, "operator where: its condition is bool, not int8(2)"),  # noqa: E501
        ("clip", (tensor("int32", 2),), {"min": 0.5}, "operator clip: 0.5 is not a value of int32"),
        ("nn.prelu", (tensor("float32", 2), tensor("float32", 3, 1)), {}, "operator nn.prelu: alpha, float32(3, 1), must stretch to data, float32(2)"),  # noqa: E501
        ("logical_not", (tensor("int32"),), {}, "operator logical_not: it takes bool, not int32()"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(
    name: str, inputs: tuple[TensorType, ...], attrs: dict[str, Any], message: str
) -> None:
    row = operators.get(name)
    with pytest.raises(InvalidModule) as refused:
        row.infer(inputs, row.complete(attrs))
    assert message in refused.value.message


@pytest.mark.parametrize("name", ["nn.gelu", "nn.silu", "nn.softplus", "nn.mish"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_composites_of_narrow_floats_are_rounded_once(name: str, dtype: str) -> None:
    x: Array = array(dtype, 200, low=-6, high=6)
    exact = operators.get(name).reference([x.astype(np.float32)], {})[0]
    check(Case(name, (x,), tolerance=(2e-3 if dtype == "float16" else 8e-3, 1e-7)))
    np.testing.assert_array_equal(operators.get(name).reference([x], {})[0], exact.astype(x.dtype))
