"""What graph operators become is what the schedule rules know, and computes the same when it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from crossfarm import te
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import BlockRealize
from tests.compiler.gpu_schedules import rules_of
from tests.compiler.native import Native
from tests.ir.graph_operators.harness import Case, array, check

N = Var("n", "int64")
CPU, GPU = "x86-64-v3", "opencl"


def made(operator: str, shapes: Sequence[Sequence[Any]], attrs: Mapping[str, Any], dtype: str) -> IRModule:
    """The operator's program."""
    row = operators.get(operator)
    complete = row.complete(attrs)
    types = [TensorType(dims.dims(s), dtype) for s in shapes]
    inputs = [te.placeholder(t.shape, dtype, f"x{k}") for k, t in enumerate(types)]
    results = row.compute(inputs, complete, row.infer(types, complete))
    return IRModule({"main": te.create_prim_func([*inputs, *results])})


PRODUCTS: list[tuple[Sequence[Sequence[Any]], dict[str, Any], str, str]] = [
    (((64, 64), (64, 64)), {}, "float32", "matmul"),
    (((64, 64), (64, 64)), {"transpose_a": True, "transpose_b": True}, "float32", "matmul"),
    (((64, 64), (64, 64)), {}, "float16", "matmul"),
    (((64, 64), (64, 64)), {"out_dtype": "int32"}, "int8", "matmul_int8"),
    (((12, 64, 64), (12, 64, 64)), {"transpose_b": True}, "float32", "matmul"),
    (((1, 128, 64), (64, 64)), {}, "float32", "matmul"),
    (((1, 64, 64), (1, 64, 64)), {}, "float32", "matmul"),
    (((8, 64, 64), (1, 64, 64)), {}, "float32", "matmul"),
    (((2, 8, 64, 64), (2, 1, 64, 64)), {"transpose_b": True}, "float32", "matmul"),
    (((N, 64), (64, 64)), {}, "float32", "matmul"),
    (((1, 1024), (1024, 1000)), {}, "float32", "skinny_matmul"),
    # a classifier's weights, a row a class, are read as they lie
    (((1, 1024), (1000, 1024)), {"transpose_b": True}, "float32", "dot_products"),
    (((256, 64), (64,)), {}, "float32", "dot_products"),
]


@pytest.mark.parametrize(("shapes", "attrs", "dtype", "rule"), PRODUCTS)
def test_matrix_products_go_to_the_rules_for_them(
    shapes: Sequence[Sequence[Any]], attrs: dict[str, Any], dtype: str, rule: str
) -> None:
    assert rules_of(made("matmul", shapes, attrs, dtype), CPU)["matmul"] == rule


IMAGE = (1, 16, 28, 28)
CONVOLUTIONS: list[tuple[str, Sequence[Sequence[Any]], dict[str, Any], str, str]] = [
    ("3x3", (IMAGE, (32, 16, 3, 3)), {"padding": (1,)}, "conv2d", "conv2d"),
    ("3x3, every other pixel", (IMAGE, (32, 16, 3, 3)), {"padding": (1,), "strides": (2,)}, "conv2d", "conv2d"),
    ("1x1", (IMAGE, (32, 16, 1, 1)), {}, "conv2d", "conv2d"),
    ("1x1, every other pixel", (IMAGE, (32, 16, 1, 1)), {"strides": (2,)}, "conv2d", "conv2d"),
    ("dilated", (IMAGE, (32, 16, 3, 3)), {"padding": (2,), "dilation": (2,)}, "conv2d", "conv2d"),
    ("any batch", ((N, *IMAGE[1:]), (32, 16, 3, 3)), {"padding": (1,)}, "conv2d", "conv2d"),
    ("in groups", ((1, 128, 28, 28), (128, 4, 3, 3)), {"padding": (1,), "groups": 32}, "conv2d", "conv2d"),
    ("one filter a channel", (IMAGE, (16, 1, 3, 3)), {"padding": (1,), "groups": 16}, "depthwise", "windows"),
    ("two filters a channel", (IMAGE, (32, 1, 3, 3)), {"padding": (1,), "groups": 16}, "conv2d", "windows"),
    ("of lines", ((1, 16, 128), (32, 16, 3)), {"padding": (1,)}, "conv2d", "conv2d"),
    ("of lines, one filter a channel", ((1, 16, 128), (16, 1, 3)), {"groups": 16}, "depthwise", "windows"),
    ("of volumes", ((1, 16, 8, 28, 28), (32, 16, 3, 3, 3)), {"padding": (1,)}, "conv2d", "conv2d"),
]


@pytest.mark.parametrize(
    ("shapes", "attrs", "cpu", "gpu"), [c[1:] for c in CONVOLUTIONS], ids=[c[0] for c in CONVOLUTIONS]
)
def test_convolutions_go_to_the_rules_for_them_with_their_padding(
    shapes: Sequence[Sequence[Any]], attrs: dict[str, Any], cpu: str, gpu: str
) -> None:
    module = made(f"nn.conv{len(shapes[0]) - 2}d", shapes, attrs, "float32")
    for target, rule in ((CPU, cpu), (GPU, gpu)):
        assert set(rules_of(module, target).values()) == {rule}


@pytest.mark.parametrize("name", ["3x3", "one filter a channel"])
def test_so_do_those_of_16_bits_whose_sums_are_wider(name: str) -> None:
    _, shapes, attrs, *rules = next(c for c in CONVOLUTIONS if c[0] == name)
    module = made("nn.conv2d", shapes, attrs, "float16")
    for target, rule in zip((CPU, GPU), rules):
        assert set(rules_of(module, target).values()) == {rule}


def test_a_transposed_convolution_multiplies_with_no_zeros_between_elements() -> None:
    module = made("nn.conv2d_transpose", (IMAGE, (16, 8, 4, 4)), {"strides": (2,), "padding": (1,)}, "float32")
    for target in (CPU, GPU):
        assert rules_of(module, target)["conv"] == "conv2d"
    root = module.prim_func("main").body
    assert isinstance(root, BlockRealize)
    # four filters of 2x2 for each of 4x4, one for each place between elements
    shapes = {b.name: dims.constants(b.shape) for b in root.block.alloc_buffers}
    assert shapes["filters"] == (32, 16, 2, 2)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("operator", "shapes"),
    [
        ("nn.softmax", ((4, 64, 128),)),
        ("nn.softmax", ((N, 128),)),
        ("nn.log_softmax", ((64, 128),)),
        ("nn.layer_norm", ((4, 64, 128), (128,), (128,))),
        ("nn.layer_norm", ((N, 128), (128,))),
        ("nn.rms_norm", ((64, 128), (128,))),
        ("nn.instance_norm", ((1, 16, 32, 32), (16,), (16,))),
        ("nn.lp_normalize", ((64, 128),)),
        ("nn.mean_variance_normalize", ((1, 16, 32, 32),)),
    ],
)
def test_rows_are_normalized_in_one_go(operator: str, shapes: Sequence[Sequence[Any]], dtype: str) -> None:
    attrs = {"axes": (2, 3)} if operator == "nn.mean_variance_normalize" else {}
    for target in (CPU, GPU):
        assert set(rules_of(made(operator, shapes, attrs, dtype), target).values()) == {"rows"}


@pytest.mark.parametrize("operator", ["nn.max_pool2d", "nn.avg_pool2d", "nn.lp_pool2d"])
def test_pools_are_one_kernel_with_their_padding(operator: str) -> None:
    module = made(operator, (IMAGE,), {"pool_size": (3,), "strides": (2,), "padding": (1,)}, "float32")
    for target, rule in ((CPU, "pooling"), (GPU, "windows")):
        assert set(rules_of(module, target).values()) == {rule}


@pytest.mark.parametrize(
    ("operator", "shape", "attrs"),
    [
        ("nn.max_pool2d", IMAGE, {"pool_size": (3,)}),
        ("nn.max_pool2d", (N, *IMAGE[1:]), {"pool_size": (2,), "strides": (2,)}),
        ("nn.max_pool1d", (1, 16, 40), {"pool_size": (3,), "strides": (2,), "padding": (1,)}),
        ("nn.avg_pool3d", (1, 4, 8, 14, 14), {"pool_size": (3,), "strides": (2,), "padding": (1,)}),
    ],
)
def test_cpus_pool_rows_of_pixels(operator: str, shape: Sequence[Any], attrs: dict[str, Any]) -> None:
    assert set(rules_of(made(operator, (shape,), attrs, "float32"), CPU).values()) == {"pooling"}


def test_a_window_over_whole_rows_is_a_reduction_like_any_other() -> None:
    assert rules_of(made("nn.avg_pool2d", (IMAGE,), {"pool_size": (28,)}, "float32"), CPU)["pool"] != "pooling"


def by_code(module: IRModule, args: Sequence[Any]) -> None:
    Native(module)("main", *args)


SUMS = (2e-5, 1e-4)
BUILT = [
    Case("matmul", (array("float32", 3, 1, 33), array("float32", 3, 40, 33)), {"transpose_b": True}, tolerance=SUMS),
    Case("matmul", (array("float16", 3, 20, 16), array("float16", 1, 16, 24))),
    Case(
        "nn.conv2d_transpose", (array("float32", 1, 4, 9, 9), array("float32", 4, 3, 4, 3)),
        {"strides": (2, 3), "padding": (1,), "output_padding": (1, 0), "groups": 2}, tolerance=SUMS,
    ),
    Case("nn.avg_pool2d", (array("float32", 1, 3, 9, 8),), {"pool_size": (3,), "padding": (1,), "ceil_mode": True}),
    Case("nn.max_pool2d", (array("float32", 2, 3, 14, 37),), {"pool_size": (3,), "strides": (2,), "padding": (1,)}),
    Case("nn.max_pool2d", (array("int8", 1, 5, 150, 130),), {"pool_size": (3, 2), "strides": (1, 3), "dilation": (2,)}),
    Case("nn.avg_pool1d", (array("float64", 2, 3, 41),), {"pool_size": (5,), "strides": (2,), "padding": (2,)}),
    Case("nn.avg_pool3d", (array("float16", 1, 2, 5, 7, 6),), {"pool_size": (2,), "strides": (2, 1, 3)}),
    # rows of no whole number of vectors
    Case("nn.lrn", (array("float32", 1, 9, 6, 27),), {"size": 5, "alpha": 0.1}, tolerance=(2e-5, 1e-5)),
    Case("tanh", (array("float32", 4, 70, 55),), tolerance=(2e-5, 1e-6)),
    Case("nn.group_norm", (array("float32", 2, 6, 5, 7), array("float32", 6)), {"num_groups": 3}),
    Case("nn.log_softmax", (array("float16", 5, 33),)),
    Case("gather_nd", (array("float32", 5, 4, 3), array("int64", 8, 2, low=-9, high=9))),
    Case(
        "scatter_nd", (array("float32", 5, 4, 3), array("int64", 6, 2, low=-9, high=9), array("float32", 6, 3)),
        {"reduction": "max"},
    ),
    Case("topk", (array("float32", 3, 17),), {"k": 5}),
    Case("image.resize", (array("float32", 2, 5, 4),), {"size": (9, 7), "method": "cubic"}, tolerance=(2e-5, 1e-5)),
]  # fmt: skip


@pytest.mark.parametrize("case", BUILT, ids=[c.operator for c in BUILT])
def test_what_is_built_computes_what_the_reference_says(case: Case) -> None:
    check(case, by_code)
