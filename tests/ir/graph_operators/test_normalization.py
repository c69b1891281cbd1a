"""Normalizations: lowering and reference say the same in every float dtype, the reference what onnx says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.types import TensorType
from tests.ir.graph_operators.by_onnx import by_onnx
from tests.ir.graph_operators.harness import Array, Case, array, check, same_values

N, M = Var("n", "int64"), Var("m", "int64")
X = array


def cases(dtype: str) -> list[Case]:
    x, image = X(dtype, 3, 5, 6), X(dtype, 2, 6, 5, 2)
    gamma, beta = X(dtype, 6, seed=1), X(dtype, 6, seed=2)
    statistics = (gamma, beta, X(dtype, 6, seed=3), X(dtype, 6, low=0.1, seed=4))
    return [
        *(Case(f"nn.{name}", (x,), {"axis": axis}) for name in ("softmax", "log_softmax") for axis in (-1, 1, 0)),
        *(Case(f"nn.{name}", (x,), {}, ((N, M, 6),), {N: 3, M: 5}) for name in ("softmax", "log_softmax")),
        Case("nn.batch_norm", (image, *statistics)),
        Case("nn.batch_norm", (x, *statistics), {"axis": -1, "epsilon": 0.1}),
        Case("nn.batch_norm", (image, *statistics), {}, ((N, 6, M, 2), *((6,),) * 4), {N: 2, M: 5}),
        Case("nn.layer_norm", (x, gamma, beta)),
        Case("nn.layer_norm", (x, gamma)),
        Case("nn.layer_norm", (x,), {"axes": (1,)}),
        Case("nn.layer_norm", (x, X(dtype, 6, 5)), {"axes": (2, 1), "epsilon": 0.1}),
        Case("nn.layer_norm", (x, gamma, beta), {}, ((N, M, 6), (6,), (6,)), {N: 3, M: 5}),
        Case("nn.layer_norm", (x,), {"axes": (1, 2)}, ((3, N, M),), {N: 5, M: 6}),
        Case("nn.rms_norm", (x, gamma)),
        Case("nn.rms_norm", (x,), {"axes": (0, 2)}),
        Case("nn.instance_norm", (image, gamma, beta)),
        Case("nn.instance_norm", (x, gamma), {"channel_axis": -1}),
        Case("nn.instance_norm", (image,), {"axes": (3,)}),
        Case("nn.group_norm", (image, gamma, beta), {"num_groups": 3}),
        Case("nn.group_norm", (image, gamma), {"num_groups": 2}, ((N, 6, M, 2), (6,)), {N: 2, M: 5}),
        Case("nn.group_norm", (x, gamma), {"num_groups": 3, "channel_axis": -1}),
        Case("nn.group_norm", (X(dtype, 3, 6), gamma, beta), {"num_groups": 3}),
        Case("nn.lrn", (image,), {"size": 3, "alpha": 0.1}),
        Case("nn.lrn", (image,), {"size": 4, "alpha": 0.1, "axis": -2, "beta": 0.5, "bias": 2.0}),
        *(Case("nn.lp_normalize", (x,), {"p": p, "axis": axis}) for p in (1, 2) for axis in (-1, 0)),
        Case("nn.lp_normalize", (x * 0,)),
        Case("nn.mean_variance_normalize", (image,)),
        Case("nn.mean_variance_normalize", (x,), {"axes": (0, 1)}),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_normalizations(dtype: str) -> None:
    for case in cases(dtype):
        check(case)


def test_large_values_do_not_overflow() -> None:
    for name in ("nn.softmax", "nn.log_softmax"):
        check(Case(name, (X("float32", 2, 5, low=-1e4, high=1e4),)))
        check(Case(name, (X("float16", 2, 5, low=-6e4, high=6e4),)))


def test_statistics_of_narrow_floats_are_exact() -> None:
    # a sum of 4096 of them in float16 would end at 2048, their squares would be infinite
    x = np.where(np.arange(4096) % 2, 300, 302).astype(np.float16)[None]
    check(Case("nn.layer_norm", (x,)))
    row = operators.get("nn.layer_norm")
    same_values(row.reference([x], row.complete({}))[0], np.where(x > 301, 1, -1).astype(np.float16), "layer_norm")


def test_data_may_be_narrower_than_its_statistics() -> None:
    check(Case("nn.batch_norm", (X("float16", 2, 3, 4), *(X("float32", 3, low=0.1, seed=k) for k in range(4)))))


def test_the_references_are_onnxs() -> None:
    x, gamma, beta = X("float32", 2, 6, 5, 4), X("float32", 6, seed=1), X("float32", 6, seed=2)
    mean, var = X("float32", 6, seed=3), X("float32", 6, low=0.1, seed=4)
    scale, shift = X("float32", 4, seed=1), X("float32", 4, seed=2)
    for name, inputs, attrs, wanted in (
        ("nn.softmax", (x,), {"axis": 1}, by_onnx("Softmax", x, axis=1)),
        ("nn.log_softmax", (x,), {}, by_onnx("LogSoftmax", x)),
        ("nn.batch_norm", (x, gamma, beta, mean, var), {}, by_onnx("BatchNormalization", x, gamma, beta, mean, var)),
        ("nn.layer_norm", (x, scale, shift), {}, by_onnx("LayerNormalization", x, scale, shift)),
        ("nn.rms_norm", (x, scale), {}, by_onnx("RMSNormalization", x, scale, opset=23)),
        ("nn.instance_norm", (x, gamma, beta), {}, by_onnx("InstanceNormalization", x, gamma, beta)),
        ("nn.group_norm", (x, gamma, beta), {"num_groups": 3},
         by_onnx("GroupNormalization", x, gamma, beta, opset=21, num_groups=3)),
        ("nn.lp_normalize", (x,), {"axis": 2}, by_onnx("LpNormalization", x, axis=2, p=2)),
        ("nn.mean_variance_normalize", (x,), {}, by_onnx("MeanVarianceNormalization", x)),
    ):  # fmt: skip
        row = operators.get(name)
        given: list[Array] = list(inputs)
        same_values(row.reference(given, row.complete(attrs))[0], wanted[0], name, (1e-4, 1e-5))


@pytest.mark.parametrize(
    ("operator", "shapes", "attrs", "said"),
    [
        ("nn.softmax", ((3, 4),), {"axis": 2}, "axis 2 is outside a tensor of 2 dimensions"),
        ("nn.batch_norm", ((1, 3, 4), *((4,),) * 4), {}, "gamma is float32(4); it needs one element for each of 3"),
        ("nn.layer_norm", ((3, 4), (3,)), {}, "gamma is float32(3); what is normalized has the shape (4)"),
        ("nn.layer_norm", ((3, 4),), {"axes": ()}, "it needs an axis to normalize along"),
        ("nn.instance_norm", ((3, 4),), {}, "is not normalized along (), with channels along 1"),
        ("nn.group_norm", ((1, 6, 5),), {"num_groups": 4}, "dimension 1 of float32(1, 6, 5) is not 4 groups"),
        ("nn.group_norm", ((1, N, 5),), {"num_groups": 4}, "dimension 1 of float32(1, n, 5) is not 4 groups"),
        ("nn.lrn", ((1, 6, 5),), {"size": 0}, "its size is 1 at least, not 0"),
        ("nn.lp_normalize", ((1, 6),), {"p": 3}, "p is 1 or 2, not 3"),
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


def test_integers_are_refused() -> None:
    row = operators.get("nn.softmax")
    with pytest.raises(InvalidModule, match="it takes floats, not int32"):
        row.infer([TensorType(dims.dims((3, 4)), "int32")], row.complete({}))
