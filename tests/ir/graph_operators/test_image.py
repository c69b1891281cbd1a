"""Resizing: each method in each way of placing elements is onnx's, for larger, smaller and fractional sizes."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.operators.image import METHODS, MODES, NEAREST
from crossfarm.ir.graph.types import TensorType
from tests.ir.graph_operators.by_onnx import by_onnx
from tests.ir.graph_operators.harness import Array, Case, array, check, same_values

N, M = Var("n", "int64"), Var("m", "int64")
#: New sizes of an image of 5 by 4, and factors where they are not the quotients.
SIZES: list[tuple[tuple[int, int], tuple[float, ...]]] = [
    ((3, 7), ()), ((15, 2), (3.0, 0.5)), ((4, 5), (0.8125, 1.3)), ((1, 4), ()),
]  # fmt: skip


def attributes(method: str, mode: str, size: tuple[int, int], scales: tuple[float, ...], **more: Any) -> dict[str, Any]:
    crop = {"roi": (0.25, -0.125, 0.75, 1.125), "extrapolation_value": 7.0} if mode == "tf_crop_and_resize" else {}
    return {
        "size": size, "scales": scales, "method": method, "coordinate_transformation_mode": mode, **crop, **more,
    }  # fmt: skip


def onnx_resize(x: Array, attrs: dict[str, Any]) -> Array:
    roi = attrs.get("roi", ())
    scales = np.array([1, 1, *attrs["scales"]], np.float32) if attrs["scales"] else None
    return by_onnx(
        "Resize", x, np.array([0, 0, *roi[:2], 1, 1, *roi[2:]], np.float32) if roi else None, scales,
        np.array([*x.shape[:2], *attrs["size"]]) if scales is None else None, mode=attrs["method"],
        coordinate_transformation_mode=attrs["coordinate_transformation_mode"],
        nearest_mode=attrs.get("nearest_mode", "round_prefer_floor"),
        exclude_outside=int(attrs.get("exclude_outside", False)),
        extrapolation_value=attrs.get("extrapolation_value", 0.0),
    )[0]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_resizing(method: str, mode: str) -> None:
    x = array("float32", 1, 2, 5, 4)
    row = operators.get("image.resize")
    options: list[dict[str, Any]] = (
        [{"nearest_mode": n} for n in NEAREST] if method == "nearest" else [{"exclude_outside": method == "cubic"}]
    )
    for (size, scales), more in product(SIZES, options):
        attrs = attributes(method, mode, size, scales, **more)
        check(Case(row.name, (x,), attrs, tolerance=(2e-5, 1e-5)))
        # onnx's reference goes by the product of size and factor where onnx's text goes by the result's size
        by_product = mode in ("align_corners", "tf_crop_and_resize") and size == (4, 5)
        if not by_product and not (mode == "pytorch_half_pixel" and 1 in size):
            same_values(row.reference([x], row.complete(attrs))[0], onnx_resize(x, attrs), str(attrs), (1e-4, 1e-5))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "uint8", "int8", "int32"])
def test_dtypes(method: str, dtype: str) -> None:
    for size in ((10, 8), (5, 4)):
        check(Case("image.resize", (array(dtype, 2, 5, 4, low=-100, high=100),), {"size": size, "method": method}))


def test_overshooting_integers_stay_in_their_range() -> None:
    steps = np.array([[0, 0, 255, 255, 0, 0]], np.uint8)
    check(Case("image.resize", (steps,), {"size": (24,), "method": "cubic"}))
    row = operators.get("image.resize")
    found = row.reference([steps], row.complete({"size": (24,), "method": "cubic"}))[0]
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("method", METHODS)
def test_sizes_may_be_symbolic(method: str) -> None:
    x = array("float32", 2, 5, 4)
    for mode in MODES[:-1]:
        attrs = attributes(method, mode, (dims.mul(N, 2), M), ())  # type: ignore[arg-type]
        check(Case("image.resize", (x,), attrs, ((2, N, 4),), {N: 5, M: 7}, (2e-5, 1e-5)))


def test_one_and_three_dimensions() -> None:
    check(Case("image.resize", (array("float32", 5, 4),), {"size": (10, 8), "method": "cubic"}, tolerance=(2e-5, 1e-5)))
    check(Case("image.resize", (array("float32", 2, 3, 5),), {"size": (8,)}))
    check(Case("image.resize", (array("float32", 2, 3, 4, 5),), {"size": (8, 2, 7)}, tolerance=(2e-5, 1e-5)))


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"size": (8,), "method": "area"}, "method is one of nearest, linear, cubic, not 'area'"),
        ({"size": (8,), "nearest_mode": "up"}, "nearest_mode is one of"),
        ({"size": (8, 8, 8)}, "the last dimensions of float32(3, 4) cannot become (8, 8, 8)"),
        ({"size": (0,)}, "cannot become (0)"),
        ({"size": (8,), "scales": (2.0, 2.0)}, "scales (2.0, 2.0) are not 1 positive factors"),
        ({"size": (8,), "coordinate_transformation_mode": "tf_crop_and_resize"}, "a roi of 1 starts and ends"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(attrs: dict[str, Any], said: str) -> None:
    row = operators.get("image.resize")
    with pytest.raises(InvalidModule) as refused:
        row.infer([TensorType(dims.dims((3, 4)), "float32")], row.complete(attrs))
    assert refused.value.message.startswith("operator image.resize: ")
    assert said in refused.value.message
