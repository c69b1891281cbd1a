"""Which operators become one program, and that schedule rules take them as one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler_service.passes.graph.fold_batch_norm import FoldBatchNorm
from compiler_service.passes.graph.fuse_operators import MOST_OPERATORS, FuseOperators
from compiler_service.passes.graph.lift_constants import LiftConstants
from compiler_service.passes.graph.lower_operators import LowerOperators
from compiler_service.schedules import choose_schedules
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import Function, GraphExpr
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from tests.compiler.graph.graphs import applied, assert_same, operators_of, tensor, weights

#: A function's steps on values, by a builder.
Steps = Callable[[Builder, GraphExpr], GraphExpr]


def function(shape: tuple[int, ...], steps: Steps) -> Function:
    b = Builder()
    return b.function(steps(b, b.parameter("x", tensor(*shape))))


def groups(function: Function) -> list[list[str]]:
    """The operators of each group, and of what is alone, in order; all is checked to compute the same still."""
    lifted = applied(function, LiftConstants())
    fused = applied(lifted, FuseOperators())
    assert_same(IRModule({"main": function}), fused, exact=True)
    lowered = applied(fused, LowerOperators())
    assert_same(IRModule({"main": function}), lowered)
    functions = fused.graph_functions
    return [operators_of(functions[c]) if c in functions else [c] for c in operators_of(functions["main"])]


def rules(function: Function, target: str = "llvm") -> list[tuple[str, int]]:
    """The rules that schedule the programs, and how many blocks each took."""
    lowered = applied(function, LiftConstants(), FuseOperators(), LowerOperators())
    found = choose_schedules(IRModule(lowered.prim_funcs), Target(target)).choices
    return [(choice.rule, len(choice.blocks)) for choice in found]


def conv(b: Builder, x: GraphExpr, channels: int, filters: int, size: int = 3, groups: int = 1) -> GraphExpr:
    w = b.constant(weights(filters, channels // groups, size, size, seed=filters), f"w{filters}")
    return b.op("nn.conv2d", x, w, padding=(size // 2,), groups=groups)


def bias(b: Builder, x: GraphExpr, filters: int) -> GraphExpr:
    return b.op("add", x, b.constant(weights(filters).reshape(-1, 1, 1)))


@pytest.mark.parametrize("target", ["llvm", "cuda"])
def test_a_convolution_takes_bias_and_activation_along(target: str) -> None:
    net = function((1, 8, 12, 12), lambda b, x: b.op("nn.relu", bias(b, conv(b, x, 8, 16), 16)))
    assert groups(net) == [["nn.conv2d", "add", "nn.relu"]]
    # the padding, the products, and all that follows as one block
    assert rules(net, target) == [("conv2d", 3)]


def test_a_shortcut_is_added_where_the_second_convolution_ends() -> None:
    def block(b: Builder, x: GraphExpr) -> GraphExpr:
        first = b.op("nn.relu", bias(b, conv(b, x, 8, 8), 8))
        second = bias(b, conv(b, first, 8, 8), 8)
        return b.op("nn.relu", b.op("add", second, x))

    assert groups(function((1, 8, 12, 12), block)) == [
        ["nn.conv2d", "add", "nn.relu"],
        ["nn.conv2d", "add", "add", "nn.relu"],
    ]


def test_a_shortcut_that_is_a_convolution_is_computed_before() -> None:
    def block(b: Builder, x: GraphExpr) -> GraphExpr:
        return b.op("nn.relu", b.op("add", conv(b, x, 8, 8), conv(b, x, 8, 8, size=1)))

    net = function((1, 8, 12, 12), block)
    assert groups(net) == [["nn.conv2d"], ["nn.conv2d", "add", "nn.relu"]]
    assert [rule for rule, _ in rules(net)] == ["conv2d", "conv2d"]


def test_paths_that_meet_again_go_along() -> None:
    def swish(b: Builder, x: GraphExpr) -> GraphExpr:
        y = bias(b, conv(b, x, 8, 8, groups=8), 8)
        y = b.op("multiply", y, b.op("sigmoid", y))
        half = b.op("multiply", y, b.constant(np.float32(0.5)))
        return b.op("multiply", half, b.op("add", b.op("erf", y), b.constant(np.float32(1))))

    net = function((1, 8, 12, 12), swish)
    assert groups(net) == [["nn.conv2d", "add", "sigmoid", "multiply", "multiply", "erf", "add", "multiply"]]
    assert rules(net) == [("depthwise", 3)]
    lowered = applied(net, LiftConstants(), FuseOperators(), LowerOperators())
    assert lowered.script().count("T.sigmoid") == 1, "what two paths use is computed once"


def test_squeeze_and_excite_is_stretched_outside_of_the_products() -> None:
    def block(b: Builder, x: GraphExpr) -> GraphExpr:
        squeezed = b.op("mean", x, axis=(2, 3), keepdims=True)
        gate = b.op("sigmoid", bias(b, conv(b, squeezed, 8, 8, size=1), 8))
        return b.op("multiply", x, gate)

    assert groups(function((1, 8, 12, 12), block)) == [["mean"], ["nn.conv2d", "add", "sigmoid"], ["multiply"]]


@pytest.mark.parametrize("target", ["llvm", "cuda"])
def test_attention_is_products_and_a_softmax_of_scaled_rows(target: str) -> None:
    def attention(b: Builder, x: GraphExpr) -> GraphExpr:
        scores = b.op("matmul", x, b.op("permute_dims", x, axes=(0, 2, 1)))
        scaled = b.op("multiply", scores, b.constant(np.float32(0.125)))
        masked = b.op("add", scaled, b.constant(weights(16, 16), "mask"))
        return b.op("matmul", b.op("nn.softmax", masked), x)

    net = function((4, 16, 16), attention)
    assert groups(net) == [["permute_dims"], ["matmul", "multiply", "add"], ["nn.softmax"], ["matmul"]]
    assert [rule for rule, _ in rules(net, target)].count("rows") == 1
    assert ("matmul", 2) in rules(net, target)


@pytest.mark.parametrize("target", ["llvm", "cuda"])
def test_maps_go_into_the_reduction_that_reads_them_and_what_follows_too(target: str) -> None:
    def chain(b: Builder, x: GraphExpr) -> GraphExpr:
        scaled = b.op("multiply", b.op("add", x, x), b.constant(np.float32(0.3)))
        return b.op("add", b.op("nn.softmax", scaled), b.constant(weights(64)))

    net = function((32, 64), chain)
    assert groups(net) == [["add", "multiply", "nn.softmax", "add"]]
    assert [rule for rule, _ in rules(net, target)] == ["rows"]


def test_views_and_transposes_are_alone() -> None:
    def steps(b: Builder, x: GraphExpr) -> GraphExpr:
        y = b.op("reshape", b.op("nn.relu", x), shape=(8, 8))
        return b.op("tanh", b.op("permute_dims", b.op("exp", y)))

    assert groups(function((4, 16), steps)) == [["nn.relu"], ["reshape"], ["exp"], ["permute_dims"], ["tanh"]]


def test_what_others_read_leaves_its_group() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4, 8))
    used = b.op("nn.relu", b.op("exp", x))
    twice = b.op("tanh", b.op("negative", used))
    net = b.function([used, twice, twice])
    assert groups(net) == [["exp", "nn.relu"], ["negative", "tanh"]]


def test_groups_are_limited() -> None:
    def steps(b: Builder, x: GraphExpr) -> GraphExpr:
        for _ in range(MOST_OPERATORS + 4):
            x = b.op("negative", x)
        return x

    assert [len(group) for group in groups(function((4, 8), steps))] == [MOST_OPERATORS, 4]

    def sums(b: Builder, x: GraphExpr) -> GraphExpr:
        for n in range(10):
            x = b.op("add", x, b.constant(weights(8, seed=n)))
        return x

    assert [len(group) for group in groups(function((4, 8), sums))] == [6, 4]


def test_sizes_of_a_group_are_told_by_its_tensors() -> None:
    b = Builder()
    n = Var("n", "int64")
    x = b.parameter("x", tensor(n, 8))
    y = b.parameter("y", tensor(dims.mul(n, 2), 8))
    told = b.op("nn.relu", b.op("exp", x))
    untold = b.op("nn.relu", b.op("exp", y))
    total = b.op("nn.relu", b.op("sum", y, axis=(0,)))  # what leaves it has no such size, only what it takes
    found = [["exp", "nn.relu"], ["exp"], ["nn.relu"], ["sum"], ["nn.relu"]]
    assert groups(b.function([told, untold, total])) == found


def test_a_group_says_where_it_is_from() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4))
    module = applied(b.function(b.op("nn.relu", b.op("exp", x, origin="Exp_3"), origin="Relu_4")), FuseOperators())
    group = module["fused_exp_relu"]
    assert isinstance(group, Function)
    assert (dict(group.attrs), group.private) == ({"primitive": True, "origin": "Exp_3, Relu_4"}, True)


def test_a_batch_norm_is_gone_when_groups_are_made() -> None:
    def steps(b: Builder, x: GraphExpr) -> GraphExpr:
        y = conv(b, x, 8, 8)
        return b.op("nn.relu", b.op("nn.batch_norm", y, *(b.constant(weights(8, seed=n)) for n in range(4))))

    folded = applied(function((1, 8, 6, 6), steps), FoldBatchNorm())["main"]
    assert isinstance(folded, Function)
    lifted = applied(folded, LiftConstants(), FuseOperators())
    assert operators_of(lifted["fused_conv2d_add_relu"]) == ["nn.conv2d", "add", "nn.relu"]
