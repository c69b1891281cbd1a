"""What each pass on graph functions does, as text before and after."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from compiler_service.passes.base import Pass
from compiler_service.passes.graph import inline_functions
from compiler_service.passes.graph.eliminate_dead_code import EliminateDeadCode
from compiler_service.passes.graph.fold_batch_norm import FoldBatchNorm
from compiler_service.passes.graph.fold_constants import FoldConstants
from compiler_service.passes.graph.inline_functions import InlineFunctions
from compiler_service.passes.graph.resolve_casts import ResolveCasts
from compiler_service.passes.graph.resolve_conditionals import ResolveConditionals
from compiler_service.passes.graph.simplify_graph import SimplifyGraph
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Constant, Function, FunctionCall, GraphExpr
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.structural import explain_difference
from crossfarm.target import Target
from tests.compiler.graph.graphs import applied, assert_same, operators_of, tensor, weights

X = 'x: R.Tensor((4, 8), "float32")'


def module(text: str) -> IRModule:
    header = "from crossfarm.script import ir as I, relax as R, tir as T\n\n@I.ir_module\nclass Module:\n"
    return parse(header + textwrap.indent(textwrap.dedent(text), "    "))


def main(body: str, params: str = X) -> IRModule:
    """A module of one function, its body one dataflow block ending in ``return``."""
    *lines, last = textwrap.dedent(body).strip().splitlines()
    result = last.removeprefix("return ")
    names = [line.split(" = ")[0].split(":")[0] for line in lines]
    block = ["with R.dataflow():", *(f"    {line}" for line in lines), f"    R.output({', '.join(names)})"]
    return module(
        f"@R.function\ndef main({params}):\n"
        + textwrap.indent("\n".join([*(block if lines else []), f"return {result}"]), "    ")
    )


def check(step: Pass, before: IRModule, after: IRModule, *more: Pass) -> None:
    """That the pass, and those after it, make ``after`` of ``before``, which computes the same."""
    found = applied(before, step, *more)
    difference = explain_difference(found, after)
    assert difference is None, f"{difference}\n{found.script()}"
    if "main" in before.graph_functions:
        assert_same(before, found, exact=True)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('R.astype(x, dtype="float32")', "x"),
        ("R.reshape(x, (4, 8))", "x"),
        ("R.broadcast_to(x, (4, 8))", "x"),
        ("R.concat((x,), axis=0)", "x"),
        ("R.clip(x)", "x"),
        ("R.permute_dims(x, axes=(0, 1))", "x"),
        ('R.add(x, R.const(-0.0, "float32"))', "x"),
        ('R.subtract(x, R.const(0.0, "float32"))', "x"),
        ('R.multiply(R.const(1.0, "float32"), x)', "x"),
        ('R.divide(x, R.const([[1.0]], "float32"))', "x"),
        ('R.where(R.const(True, "bool"), x, R.const(1.0, "float32"))', "x"),
        ("R.expand_dims(x, axis=(1,))", "R.reshape(x, (4, 1, 8))"),
        ("R.flatten(x)", "R.reshape(x, (32,))"),
        ("R.squeeze(R.reshape(x, (1, 8, 4)), axis=(0,))", "R.reshape(x, (8, 4))"),
        ("R.reshape(R.reshape(x, (8, 4)), (4, 8))", "x"),
        ("R.permute_dims(R.permute_dims(x))", "x"),
        ("R.permute_dims(R.reshape(x, (4, 1, 8)), axes=(1, 0, 2))", "R.reshape(x, (1, 4, 8))"),
        ("R.add(x, R.broadcast_to(R.exp(R.sum(x)), (4, 8)))", "R.add(x, R.exp(R.sum(x)))"),
    ],
)
def test_calls_that_give_what_is_there(call: str, expected: str) -> None:
    check(SimplifyGraph(), main(nested(call)), main(nested(expected)), EliminateDeadCode())


@pytest.mark.parametrize(
    "call",
    [
        'R.add(x, R.const(0.0, "float32"))',
        'R.multiply(x, R.const(0.0, "float32"))',
        'R.add(x, R.const([[[-0.0]]], "float32"))',
        'R.where(R.const(False, "bool"), x, R.const(1.0, "float32"))',
        'R.astype(x, dtype="float64")',
        "R.permute_dims(x)",
    ],
)
def test_calls_that_look_like_it_and_are_not(call: str) -> None:
    before = main(nested(call))
    assert SimplifyGraph().apply(before, Target("llvm")) is before


def nested(call: str) -> str:
    """One binding a call, as the text of graph functions wants it where it is to be equal to what passes make."""
    return f"y = {call}\nreturn (x, y)" if call != "x" else "return (x, x)"


def test_one_call_for_the_same_call_again() -> None:
    check(
        SimplifyGraph(),
        main("""
            a = R.nn.softmax(x)
            b = R.nn.softmax(x, axis=-1)
            c = R.nn.softmax(x, axis=0)
            d = R.add(a, b)
            e = R.add(c, d)
            return e
        """),
        main("""
            a = R.nn.softmax(x)
            c = R.nn.softmax(x, axis=0)
            d = R.add(a, a)
            e = R.add(c, d)
            return e
        """),
    )


def test_constants_are_reshaped_without_being_read() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4, 8))
    elsewhere = Constant(ConstantData("float32", (2, 4), digest="ab" * 32), "w")
    here = Constant(ConstantData.of(weights(2, 4)), "v")
    y = b.op("matmul", x, b.op("reshape", elsewhere, shape=(8, 1)))
    z = b.op("matmul", x, b.op("squeeze", b.op("reshape", here, shape=(1, 8, 1)), axis=(0,)))
    found = applied(b.function([y, z]), SimplifyGraph(), EliminateDeadCode())
    made = [c.data for c in visit.constants(found)]
    assert [(c.shape, c.digest) for c in made] == [((8, 1), "ab" * 32), ((8, 1), here.data.digest)]
    assert [c.known for c in made] == [False, True]


def test_small_constants_fold_into_numbers() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4, 8))
    many = b.op("exp", b.constant(weights(8), "many"))
    y = b.op("multiply", x, b.op("max", many, axis=(0,)))
    z = b.op("add", x, many)
    function = b.function([y, z])
    found = applied(function, FoldConstants(), EliminateDeadCode())
    assert operators_of(found["main"]) == ["exp", "multiply", "add"], "what has several elements is left to the device"
    assert [c.data.shape for c in visit.constants(found)] == [(8,), ()]
    assert_same(IRModule({"main": function}), found)


def test_content_that_is_elsewhere_large_or_fails_does_not_fold() -> None:
    b = Builder()
    elsewhere = Constant(ConstantData("float32", (8,), digest="ab" * 32))
    zero = b.constant(np.int32(0))
    values = [
        b.op("max", elsewhere, axis=(0,)),
        b.op("max", b.constant(weights(2000)), axis=(0,)),
        b.op("floor_divide", b.constant(np.int32(1)), zero),
    ]
    before = IRModule({"main": b.function(values)})
    assert FoldConstants().apply(before, Target("llvm")) is before


def test_functions_become_part_of_their_callers() -> None:
    check(
        InlineFunctions(),
        module("""
            @R.function(private=True)
            def twice(a: R.Tensor(("n", "m"), "float32")):
                b = R.add(a, a)
                return b
            @R.function(private=True)
            def flat(a: R.Tensor(("n", "m"), "float32")):
                n = T.int64()
                m = T.int64()
                b = Module.twice(a)
                c = R.reshape(b, (n * m,))
                return c
            @R.function
            def main(x: R.Tensor((4, 8), "float32")):
                y = Module.flat(x)
                z = Module.twice(x)
                return (y, z)
        """),
        module("""
            @R.function
            def main(x: R.Tensor((4, 8), "float32")):
                b = R.add(x, x)
                c = R.reshape(b, (32,))
                d = R.add(x, x)
                return (c, d)
        """),
    )


def test_functions_that_call_themselves_are_told() -> None:
    circle = module("""
        @R.function
        def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
            y: R.Tensor((4,), "float32") = Module.other(x)
            return y
        @R.function(private=True)
        def other(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
            y: R.Tensor((4,), "float32") = Module.main(x)
            return y
    """)
    with pytest.raises(BuildFailed, match="main → other → main"):
        InlineFunctions().apply(circle, Target("llvm"))


def test_functions_that_call_one_another_twice_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    functions: dict[str, AnyFunction] = {}
    for depth in range(40):
        builder = Builder(functions)
        y: GraphExpr = builder.parameter("x", tensor(4))
        for _ in range(2):
            y = builder.bind(FunctionCall(f"f{depth - 1}", (y,))) if depth else builder.op("exp", y)
        functions[f"f{depth}"] = builder.function(y)
    monkeypatch.setattr(inline_functions, "MOST_BINDINGS", 1000)
    with pytest.raises(BuildFailed, match="more than 1000 bindings where those that it calls are written out"):
        InlineFunctions().apply(IRModule(functions), Target("llvm"))


BRANCHES = """
    @R.function
    def main(x: R.Tensor((4, 8), "float32"), c: R.Tensor((), "bool")):
        y = R.exp(x)
        if {condition}:
            a = R.add(y, y)
            w = R.negative(a)
        else:
            w = R.multiply(y, x)
        return w
"""


def test_a_known_condition_takes_a_branch() -> None:
    for value, op in ((True, "a = R.add(y, y)\n    w = R.negative(a)"), (False, "w = R.multiply(y, x)")):
        check(
            ResolveConditionals(),
            module(BRANCHES.format(condition=f'R.const({value}, "bool")')),
            module(f"@R.function\ndef main({X}, c: R.Tensor((), 'bool')):\n    y = R.exp(x)\n    {op}\n    return w"),
            EliminateDeadCode(),
        )


def test_of_an_unknown_condition_both_branches_are_computed() -> None:
    check(
        ResolveConditionals(),
        module(BRANCHES.format(condition="c")),
        module("""
            @R.function
            def main(x: R.Tensor((4, 8), "float32"), c: R.Tensor((), "bool")):
                y = R.exp(x)
                a = R.add(y, y)
                b = R.negative(a)
                d = R.multiply(y, x)
                w = R.where(c, b, d)
                return w
        """),
    )


def test_what_a_condition_may_guard_stays() -> None:
    before = module("""
        @R.function
        def main(x: R.Tensor((4,), "int32"), n: R.Tensor((), "int32"), c: R.Tensor((), "bool")):
            if c:
                w = R.floor_divide(x, n)
            else:
                w = R.add(x, x)
            return w
    """)
    assert ResolveConditionals().apply(before, Target("llvm")) is before


def test_casts_that_are_known_to_hold_are_gone() -> None:
    check(
        ResolveCasts(),
        module("""
            @R.function
            def main(x: R.Tensor((4, 8), "float32")):
                m = T.int64()
                y = R.match_cast(x, R.Tensor((4, m), "float32"))
                z = R.reshape(y, (m * 4,))
                return z
        """),
        module("""
            @R.function
            def main(x: R.Tensor((4, 8), "float32")):
                z = R.reshape(x, (32,))
                return z
        """),
    )


def test_what_is_not_used_is_not_computed() -> None:
    check(
        EliminateDeadCode(),
        main("""
            a = R.exp(x)
            b = R.add(a, x)
            c = R.negative(a)
            return a
        """),
        main("""
            a = R.exp(x)
            return a
        """),
    )


def norm(b: Builder, x: GraphExpr, channels: int, dtype: str = "float32") -> GraphExpr:
    return b.op("nn.batch_norm", x, *(b.constant(weights(channels, seed=n).astype(dtype)) for n in range(4)))


def folded(function: Function) -> list[str]:
    """What is left to be computed from inputs, checked to be the same up to rounding."""
    found = applied(function, FoldBatchNorm(), EliminateDeadCode())
    assert_same(IRModule({"main": function}), found, rtol=1e-4)
    after = found["main"]
    assert isinstance(after, Function)
    live = set(after.params)
    for binding in visit.bindings(after.body):
        if live & set(visit.uses(binding)):
            live.add(binding.var)
    made = zip(visit.bindings(after.body), operators_of(after))
    return [op for binding, op in made if binding.var in live]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_batch_norm_becomes_part_of_the_convolution(groups: int) -> None:
    b = Builder()
    x = b.parameter("x", tensor(2, 4, 5, 5))
    y = b.op("nn.conv2d", x, b.constant(weights(8, 4 // groups, 3, 3)), padding=(1,), groups=groups)
    assert folded(b.function(norm(b, y, 8))) == ["nn.conv2d", "add"]


@pytest.mark.parametrize(("groups", "expected"), [(1, ["add"]), (2, ["multiply", "add"])])
def test_so_it_does_of_a_transposed_one_without_groups(groups: int, expected: list[str]) -> None:
    b = Builder()
    x = b.parameter("x", tensor(1, 4, 5, 5))
    y = b.op("nn.conv2d_transpose", x, b.constant(weights(4, 6 // groups, 3, 3)), strides=(2, 2), groups=groups)
    assert folded(b.function(norm(b, y, 6))) == ["nn.conv2d_transpose", *expected]


def test_a_bias_before_it_is_scaled_along_and_one_after_it_added() -> None:
    b = Builder()
    x = b.parameter("x", tensor(1, 4, 5, 5))
    y = b.op("nn.conv2d", x, b.constant(weights(8, 4, 1, 1)), origin="Conv_0")
    y = b.op("add", y, b.constant(weights(8, seed=5).reshape(8, 1, 1)))
    y = b.op("add", norm(b, y, 8), b.constant(weights(8, seed=6).reshape(1, 8, 1, 1)))
    assert folded(b.function(b.op("nn.relu", y))) == ["nn.conv2d", "add", "nn.relu"]


def test_a_product_by_weights_takes_a_scale_of_its_columns() -> None:
    b = Builder()
    x = b.parameter("x", tensor(5, 4))
    y = b.op("add", b.op("matmul", x, b.constant(weights(4, 6))), b.constant(weights(6, seed=1)))
    assert folded(b.function(b.op("multiply", y, b.constant(weights(6, seed=2))))) == ["matmul", "add"]


def test_batch_norms_that_follow_nothing_are_a_multiple_and_a_sum() -> None:
    b = Builder()
    x = b.parameter("x", tensor(2, 4, 3, 3))
    assert folded(b.function(norm(b, x, 4))) == ["multiply", "add"]


def test_what_others_use_too_keeps_its_weights() -> None:
    b = Builder()
    x = b.parameter("x", tensor(1, 4, 5, 5))
    y = b.op("nn.conv2d", x, b.constant(weights(8, 4, 1, 1)))
    assert folded(b.function([norm(b, y, 8), y])) == ["nn.conv2d", "multiply", "add"]


def test_neither_inputs_nor_short_floats_nor_other_axes_are_folded() -> None:
    b = Builder()
    x, scale = b.parameter("x", tensor(1, 4, 5, 5)), b.parameter("scale", tensor(8, 1, 1))
    y = b.op("nn.conv2d", x, b.constant(weights(8, 4, 1, 1)))
    along = b.op("multiply", b.op("multiply", y, scale), b.constant(weights(5)))
    h = b.parameter("h", tensor(1, 4, 3, 3, dtype="float16"))
    function = b.function([along, norm(b, h, 4, "float16")])
    assert FoldBatchNorm().apply(before := IRModule({"main": function}), Target("llvm")) is before
