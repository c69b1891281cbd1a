"""Matrix products and convolutions: lowering, reference and onnx's reference say the same, at any window."""

from __future__ import annotations

from typing import Any

import numpy as np
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
#: Sums of products that cancel: what is left has the rounding of what was added.
SUMS = {"float32": (2e-5, 1e-4), "float16": None}
X = array


def matmul_cases(dtype: str) -> list[Case]:
    return [
        Case("matmul", (X(dtype, 5, 7), X(dtype, 7, 3))),
        Case("matmul", (X(dtype, 5, 7), X(dtype, 3, 7)), {"transpose_b": True}),
        Case("matmul", (X(dtype, 2, 7, 5), X(dtype, 3, 7)), {"transpose_a": True, "transpose_b": True}),
        Case("matmul", (X(dtype, 7), X(dtype, 7))),
        Case("matmul", (X(dtype, 7), X(dtype, 2, 7, 4))),
        Case("matmul", (X(dtype, 2, 5, 7), X(dtype, 7))),
        Case("matmul", (X(dtype, 2, 1, 5, 7), X(dtype, 1, 3, 7, 4))),
        Case("matmul", (X(dtype, 1, 5, 7), X(dtype, 3, 7, 4))),
        Case("matmul", (X(dtype, 3, 5, 7), X(dtype, 1, 7, 4)), shapes=((N, 5, 7), (1, 7, 4)), sizes={N: 3}),
        Case("matmul", (X(dtype, 3, 5), X(dtype, 5, 2)), shapes=((N, M), (M, 2)), sizes={N: 3, M: 5}),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32"])
def test_matrix_products(dtype: str) -> None:
    for case in matmul_cases(dtype):
        check(case)


def test_products_of_bytes_are_summed_in_the_dtype_that_is_asked_for() -> None:
    check(Case("matmul", (X("int8", 5, 70, high=100), X("int8", 70, 4, high=100)), {"out_dtype": "int32"}))
    check(Case("matmul", (X("float16", 5, 7), X("float16", 7, 4)), {"out_dtype": "float32"}))


def test_sums_of_narrow_floats_do_not_stop_growing() -> None:
    ones = np.ones((1, 4096), np.float16)
    row = operators.get("matmul")
    assert row.reference([ones, ones.T], row.complete({}))[0] == 4096  # a float16 sum of ones ends at 2048
    check(Case("matmul", (ones, ones.T)))


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 9, 8), (4, 3, 3, 3), {"padding": (1, 1, 1, 1), "strides": (2, 2)}),
    ((2, 4, 9, 8), (6, 2, 3, 2), {"padding": (1, 0, 2, 1), "strides": (1, 2), "dilation": (2, 1), "groups": 2}),
    ((2, 4, 9, 8), (4, 1, 3, 2), {"groups": 4}),
    ((2, 4, 9, 8), (8, 1, 3, 2), {"groups": 4, "padding": (1,)}),
    ((1, 1, 3, 3), (1, 1, 1, 1), {}),
    ((2, 4, 9), (8, 4, 3), {"padding": (2, 0)}),
    ((2, 2, 5, 4, 3), (3, 2, 2, 2, 2), {"padding": (1,), "strides": (2,)}),
]
TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5, 4), (3, 2, 3, 3), {"strides": (2,), "padding": (1,)}),
    ((2, 4, 5, 4), (4, 2, 4, 3), {"strides": (3, 2), "padding": (1, 0, 2, 1), "output_padding": (2, 1), "groups": 2}),
    ((2, 4, 5, 4), (4, 1, 4, 3), {"strides": (3, 2), "dilation": (2, 1), "groups": 4}),
    ((1, 2, 3, 3), (2, 3, 2, 2), {"strides": (3,)}),
    ((2, 4, 5), (4, 3, 4), {"strides": (2,), "padding": (3,)}),
    ((1, 2, 3, 2, 3), (2, 2, 2, 3, 2), {"strides": (2, 1, 2)}),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_convolutions(dtype: str) -> None:
    for data, weights, attrs in CONVOLUTIONS:
        check(
            Case(
                f"nn.conv{len(data) - 2}d", (X(dtype, *data), X(dtype, *weights, seed=1)), attrs, tolerance=SUMS[dtype]
            )
        )
    for data, weights, attrs in TRANSPOSED:
        check(
            Case(
                f"nn.conv{len(data) - 2}d_transpose",
                (X(dtype, *data), X(dtype, *weights, seed=1)),
                attrs,
                tolerance=SUMS[dtype],
            )
        )


def test_convolutions_of_bytes() -> None:
    tensors = X("uint8", 1, 3, 5, 5, high=250), X("uint8", 2, 3, 3, 3, high=250)
    check(Case("nn.conv2d", tensors, {"padding": (1,), "out_dtype": "int32"}))


def test_batch_and_image_may_be_symbolic() -> None:
    x, w = X("float32", 2, 3, 9, 8), X("float32", 4, 3, 3, 3)
    attrs = {"padding": (1, 2), "strides": (2,)}
    check(Case("nn.conv2d", (x, w), attrs, shapes=((N, 3, 9, 8), w.shape), sizes={N: 2}, tolerance=SUMS["float32"]))
    check(
        Case("nn.conv2d", (x, w), attrs, shapes=((2, 3, N, M), w.shape), sizes={N: 9, M: 8}, tolerance=SUMS["float32"])
    )
    y, v = X("float32", 2, 4, 5), X("float32", 4, 3, 4)
    attrs = {"padding": (1,), "strides": (2,)}
    check(
        Case(
            "nn.conv1d_transpose",
            (y, v),
            attrs,
            shapes=((N, 4, M), v.shape),
            sizes={N: 2, M: 5},
            tolerance=SUMS["float32"],
        )
    )


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Two dimensions of a window: sizes and attributes, and an image that it fits."""
    sizes, image, begins, ends = [], [], [], []
    attrs: dict[str, list[int]] = {"strides": [], "dilation": [], "output_padding": []}
    for _ in range(2):
        size, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        reach = (size - 1) * dilation + 1
        sizes.append(size)
        image.append(max(reach - before - after, 1) + draw(st.integers(0, 5)))
        attrs["strides"].append(draw(st.integers(1, 3)))
        attrs["dilation"].append(dilation)
        begins.append(before)
        ends.append(after)
        attrs["output_padding"].append(draw(st.integers(0, 3)))
    plain = {k: tuple(v) for k, v in attrs.items()}
    return {"sizes": tuple(sizes), "image": tuple(image), **plain, "padding": (*begins, *ends)}


@settings(max_examples=25, deadline=None)
@given(windows(), st.sampled_from([(1, 1, 1), (1, 2, 3), (2, 1, 1), (2, 2, 1), (3, 1, 2)]))
def test_any_window_convolves(window: dict[str, Any], channels: tuple[int, int, int]) -> None:
    groups, into, out = channels
    attrs = {k: window[k] for k in ("strides", "dilation", "padding")} | {"groups": groups}
    x = X("float32", 1, groups * into, *window["image"])
    w = X("float32", groups * out, into, *window["sizes"], seed=1)
    check(Case("nn.conv2d", (x, w), attrs, tolerance=SUMS["float32"]))
    row = operators.get("nn.conv2d")
    (wanted,) = by_onnx(
        "Conv", x, w, strides=window["strides"], dilations=window["dilation"], pads=window["padding"], group=groups
    )
    same_values(row.reference([x, w], row.complete(attrs))[0], wanted, "reference", (1e-5, 1e-4))


@settings(max_examples=25, deadline=None)
@given(windows(), st.sampled_from([(1, 1, 1), (1, 2, 3), (2, 1, 1), (2, 2, 1), (3, 1, 2)]))
def test_any_window_convolves_transposed(window: dict[str, Any], channels: tuple[int, int, int]) -> None:
    groups, into, out = channels
    attrs = {k: window[k] for k in ("strides", "dilation", "padding", "output_padding")} | {"groups": groups}
    x = X("float32", 1, groups * into, *window["image"])
    w = X("float32", groups * into, out, *window["sizes"], seed=1)
    row = operators.get("nn.conv2d_transpose")
    lengths = [
        (n - 1) * s + (k - 1) * d + 1 + more
        for n, s, k, d, more in zip(
            *(window[key] for key in ("image", "strides", "sizes", "dilation", "output_padding"))
        )
    ]
    assume(all(n > sum(window["padding"][k::2]) for k, n in enumerate(lengths)))  # else the padding takes away all
    check(Case(row.name, (x, w), attrs, tolerance=SUMS["float32"]))


@pytest.mark.parametrize(("data", "weights", "attrs"), [t for t in TRANSPOSED if t[2].get("groups", 1) == 1])
def test_the_reference_of_transposed_convolutions_is_onnxs(
    data: tuple[int, ...], weights: tuple[int, ...], attrs: dict[str, Any]
) -> None:
    rank = len(data) - 2
    row = operators.get(f"nn.conv{rank}d_transpose")
    x, w = X("float32", *data), X("float32", *weights)
    pads, strides = attrs.get("padding", (0,)), attrs["strides"]
    (wanted,) = by_onnx(
        "ConvTranspose", x, w, pads=pads * 2 * rank if len(pads) == 1 else pads,
        strides=strides * rank if len(strides) == 1 else strides,
    )  # fmt: skip
    same_values(row.reference([x, w], row.complete(attrs))[0], wanted, row.name, (1e-5, 1e-4))


@pytest.mark.parametrize(
    ("operator", "shapes", "attrs", "said"),
    [
        ("matmul", ((5, 7), (6, 3)), {}, "the inner dimensions of float32(5, 7) and float32(6, 3) differ: 7 and 6"),
        ("matmul", ((5, 7), (7,)), {"transpose_b": True}, "transpose_b of a vector float32(7)"),
        ("matmul", ((), (7,)), {}, "both tensors have a dimension at least, not float32() and float32(7)"),
        ("nn.conv2d", ((1, 4, 9, 9), (4, 3, 3, 3)), {}, "are for 3 channels; the data is float32(1, 4, 9, 9)"),
        ("nn.conv2d", ((1, 4, 9, 9), (3, 2, 3, 3)), {"groups": 2}, "do not make 2 groups"),
        ("nn.conv2d", ((1, 4, 2, 9), (4, 4, 3, 3)), {}, "the window is longer than what it slides over"),
        ("nn.conv2d", ((1, 4, 9, 9), (4, 4, 3, 3)), {"strides": (1, 1, 1)}, "strides (1, 1, 1) is not 1 or 2 numbers"),
        ("nn.conv2d", ((1, 4, 9, 9), (4, 4, 3, 3)), {"padding": (1, 1, 1)}, "padding (1, 1, 1) is not 1, 2 or 4"),
        ("nn.conv2d", ((1, 4, 9, 9), (4, 4, 3, 3)), {"dilation": (0,)}, "cannot slide"),
        ("nn.conv2d", ((1, 4, 9), (4, 4, 3)), {}, "data and weights have 4 dimensions each"),
        ("nn.conv2d", ((1, 4, 9, 9), (4, 4, N, 3)), {}, "dimensions of weights are constants"),
        ("nn.conv1d_transpose", ((1, 4, 9), (3, 4, 3)), {}, "are for 3 channels; the data is float32(1, 4, 9)"),
        ("nn.conv1d_transpose", ((1, 4, 9), (4, 4, 3)), {"output_padding": (-1,)}, "output_padding (-1,) is negative"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    operator: str, shapes: tuple[tuple[Any, ...], ...], attrs: dict[str, Any], said: str
) -> None:
    row = operators.get(operator)
    with pytest.raises(InvalidModule) as refused:
        row.infer([TensorType(dims.dims(s), "float32") for s in shapes], row.complete(attrs))
    assert refused.value.message.startswith(f"operator {operator}: ")
    assert said in refused.value.message
