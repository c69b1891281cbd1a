"""Pooling: lowering, reference and onnx's reference say the same, at any window."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.types import TensorType
from tests.ir.graph_operators.by_onnx import by_onnx
from tests.ir.graph_operators.harness import Case, array, check, same_values

N, M = Var("n", "int64"), Var("m", "int64")
X = array

CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("nn.max_pool2d", (1, 3, 9, 8), {"pool_size": (3,), "padding": (1,), "strides": (2,)}),
    ("nn.max_pool2d", (1, 3, 9, 8), {"pool_size": (3, 2), "strides": (2, 3), "ceil_mode": True, "dilation": (2, 1)}),
    ("nn.max_pool1d", (2, 3, 9), {"pool_size": (2,)}),
    ("nn.max_pool3d", (1, 2, 4, 5, 3), {"pool_size": (2,), "padding": (1, 0, 0, 0, 1, 1)}),
    ("nn.avg_pool2d", (1, 3, 9, 8), {"pool_size": (3,)}),
    ("nn.avg_pool2d", (1, 3, 9, 8), {"pool_size": (3,), "padding": (1, 0, 1, 1), "strides": (2,)}),
    ("nn.avg_pool1d", (2, 3, 9), {"pool_size": (4,), "padding": (2, 1), "strides": (3,), "ceil_mode": True}),
    ("nn.avg_pool3d", (1, 2, 4, 5, 3), {"pool_size": (3,), "padding": (1,), "count_include_pad": True}),
    ("nn.lp_pool1d", (2, 3, 9), {"pool_size": (3,), "padding": (1,)}),
    ("nn.lp_pool2d", (2, 3, 5, 6), {"pool_size": (3,), "p": 1}),
    ("nn.lp_pool3d", (1, 2, 4, 5, 3), {"pool_size": (2,), "p": 3, "ceil_mode": True, "strides": (2,)}),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pooling(dtype: str) -> None:
    for operator, shape, attrs in CASES:
        check(Case(operator, (X(dtype, *shape),), attrs))


def test_largest_integers() -> None:
    for dtype in ("uint8", "int8", "int32"):
        least = 0 if dtype == "uint8" else -90  # below zero everywhere, so that padding shows
        check(
            Case(
                "nn.max_pool2d",
                (X(dtype, 1, 3, 9, 8, low=least, high=least + 80),),
                {"pool_size": (3,), "padding": (1,)},
            )
        )


@pytest.mark.parametrize("operator", ["nn.max_pool1d", "nn.avg_pool1d", "nn.lp_pool1d"])
@pytest.mark.parametrize("ceil", [False, True])
def test_lengths_may_be_symbolic(operator: str, ceil: bool) -> None:
    for length in (3, 4, 6, 7, 8):
        for attrs in ({"padding": (1,), "strides": (3,)}, {"strides": (2,)}, {"padding": (2,), "strides": (1,)}):
            x = X("float32", 2, 3, length)
            shapes = ((N, 3, M),)
            check(Case(operator, (x,), {**attrs, "pool_size": (3,), "ceil_mode": ceil}, shapes, {N: 2, M: length}))


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """An image of two dimensions, and attributes of a window in it; as onnx has it, padding is shorter than windows."""
    image, begins, ends = [], [], []
    attrs: dict[str, list[int]] = {"pool_size": [], "strides": [], "dilation": []}
    for _ in range(2):
        size, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        reach = (size - 1) * dilation + 1
        before, after = draw(st.integers(0, min(size - 1, 2))), draw(st.integers(0, min(size - 1, 2)))
        image.append(max(reach - before - after, 1) + draw(st.integers(0, 6)))
        attrs["pool_size"].append(size)
        attrs["strides"].append(draw(st.integers(1, 4)))
        attrs["dilation"].append(dilation)
        begins.append(before)
        ends.append(after)
    found = {k: tuple(v) for k, v in attrs.items()}
    return tuple(image), {**found, "padding": (*begins, *ends), "ceil_mode": draw(st.booleans())}


@settings(max_examples=25, deadline=None)
@given(pools(), st.booleans())
def test_any_window_pools(given_pool: tuple[tuple[int, ...], dict[str, Any]], include: bool) -> None:
    image, attrs = given_pool
    x = X("float32", 1, 2, *image)
    check(Case("nn.max_pool2d", (x,), attrs))
    check(Case("nn.avg_pool2d", (x,), {**attrs, "count_include_pad": include}))


@settings(max_examples=25, deadline=None)
@given(pools(), st.booleans())
def test_the_references_are_onnxs(given_pool: tuple[tuple[int, ...], dict[str, Any]], include: bool) -> None:
    image, attrs = given_pool
    # onnx's reference moves the windows where they reach beyond the padding at the end; onnx itself does not
    assume(not attrs["ceil_mode"])
    # it takes the padding's begins and ends for pairs where windows neither stride nor are dilated
    assume(set(attrs["strides"] + attrs["dilation"]) != {1} or len(set(attrs["padding"])) == 1)
    # and takes an image shorter than the window for none at all
    reaches = [(k - 1) * d + 1 for k, d in zip(attrs["pool_size"], attrs["dilation"])]
    assume(all(n >= reach for n, reach in zip(image, reaches)))
    x = X("float32", 1, 2, *image)
    shared: dict[str, Any] = {"kernel_shape": attrs["pool_size"], "strides": attrs["strides"], "pads": attrs["padding"]}
    shared["dilations"] = attrs["dilation"]
    for name, op, more, own in (
        ("nn.max_pool2d", "MaxPool", {}, {}),
        ("nn.avg_pool2d", "AveragePool", {"count_include_pad": int(include)}, {"count_include_pad": include}),
        ("nn.lp_pool2d", "LpPool", {"p": 2}, {"p": 2}),
    ):
        row = operators.get(name)
        wanted = by_onnx(op, x, **shared, **more)[0]
        same_values(row.reference([x], row.complete(attrs | own))[0], wanted, name, (1e-5, 1e-5))


@pytest.mark.parametrize(
    ("operator", "shape", "attrs", "said"),
    [
        ("nn.max_pool2d", (1, 3, 9), {"pool_size": (3,)}, "N C and 2 dimensions to pool over, not float32(1, 3, 9)"),
        ("nn.max_pool2d", (1, 3, 2, 9), {"pool_size": (3,)}, "the window is longer than what it slides over"),
        ("nn.max_pool1d", (1, 3, 9), {"pool_size": (2,), "padding": (2,)}, "holds whole windows of 2"),
        ("nn.max_pool1d", (1, 3, 9), {"pool_size": (2, 2)}, "pool_size (2, 2) is not 1 or 1 numbers"),
        ("nn.lp_pool1d", (1, 3, 9), {"pool_size": (2,), "p": 0}, "p is 1 at least, not 0"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    operator: str, shape: tuple[int, ...], attrs: dict[str, Any], said: str
) -> None:
    row = operators.get(operator)
    with pytest.raises(InvalidModule) as refused:
        row.infer([TensorType(dims.dims(shape), "float32")], row.complete(attrs))
    assert refused.value.message.startswith(f"operator {operator}: ")
    assert said in refused.value.message


def test_averages_are_of_floats() -> None:
    row = operators.get("nn.avg_pool1d")
    with pytest.raises(InvalidModule, match="it takes floats, not int32"):
        row.infer([TensorType(dims.dims((1, 3, 9)), "int32")], row.complete({"pool_size": (2,)}))
