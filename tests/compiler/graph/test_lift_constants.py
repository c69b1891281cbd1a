"""Constants as parameters, and the function that prepares those that are computed."""

from __future__ import annotations

import numpy as np
import pytest

from compiler_service.passes.graph.lift_constants import LiftConstants, texts_of
from crossfarm.errors import InvalidModule
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Constant, Function, TupleExpr
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from tests.compiler.graph.graphs import Array, assert_same, operators_of, tensor


def lifted(function: Function, **others: Function) -> dict[str, Function]:
    module = LiftConstants().apply(IRModule({"main": function, **others}), Target("llvm"))
    return module.graph_functions


def weights(*shape: int, start: int = 0) -> Array:
    return np.arange(start, start + np.prod(shape), dtype="float32").reshape(shape)


def test_weights_become_trailing_parameters_each_content_once() -> None:
    b = Builder()
    x = b.parameter("x", tensor(2, 4))
    first = b.constant(weights(4, 4), "layer1.weight")
    same = b.constant(weights(4, 4), "layer2.weight")
    bias = b.constant(weights(4), "0:bias")
    y = b.op("add", b.op("matmul", b.op("matmul", x, first), same), bias)
    functions = lifted(b.function(y))
    main = functions["main"]
    assert set(functions) == {"main"}
    assert [p.name for p in main.params] == ["x", "layer1_weight", "v_0_bias"]
    assert texts_of(main) == tuple(f"sha256:{c.data.digest}" for c in (first, bias))
    assert not list(visit.constants(main))


def test_numbers_stay_and_results_that_are_constants_are_made_or_given() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4))
    half, two = b.constant(np.float32(0.5)), b.constant(np.float32(-0.0), "zero")
    many = b.constant(weights(4), "many")
    function = b.function([b.op("multiply", x, half), two, many, x])
    main = lifted(function)["main"]
    assert [c.data for c in visit.constants(main)] == [half.data]
    assert [p.name for p in main.params] == ["x", "many"]
    assert operators_of(main) == ["multiply", "full"]
    assert isinstance(main.body.result, TupleExpr)
    assert main.body.result.fields[2:] == (main.params[1], main.params[0])
    assert_same(IRModule({"main": function}), IRModule({"main": main}), exact=True)


def test_what_depends_on_constants_alone_is_computed_by_a_function_of_its_own() -> None:
    b = Builder()
    x = b.parameter("x", tensor(2, 4))
    w, scale = b.constant(weights(4, 4), "w"), b.constant(weights(4, start=1), "scale")
    folded = b.op("multiply", w, scale)
    doubled = b.op("add", folded, folded)
    y = b.op("add", b.op("matmul", x, folded), b.op("matmul", x, doubled))
    functions = lifted(b.function(y))
    main, prepare = functions["main"], functions["main_prepare"]
    assert operators_of(main) == ["matmul", "matmul", "add"]
    assert operators_of(prepare) == ["multiply", "add"]
    assert texts_of(main) == ("main_prepare:0", "main_prepare:1")
    assert [p.name for p in main.params] == ["x", "w_prepared", "w_prepared_1"]
    assert texts_of(prepare) == tuple(f"sha256:{c.data.digest}" for c in (w, scale))
    assert len(prepare.params) == 2, "all it takes are constants"
    assert isinstance(prepare.body.result, TupleExpr)
    assert not set(visit.defined(main)) & set(visit.defined(prepare)), "each has variables of its own"


def test_what_is_larger_than_what_it_comes_from_is_made_where_it_is_used() -> None:
    b = Builder()
    x = b.parameter("x", tensor(64, 64))
    row, column = b.constant(weights(64), "row"), b.constant(weights(64, 1), "column")
    outer = b.op("add", b.op("multiply", row, row), column)
    functions = lifted(b.function(b.op("add", x, outer)))
    assert operators_of(functions["main"]) == ["add", "add"]
    assert operators_of(functions["main_prepare"]) == ["multiply"]
    assert texts_of(functions["main"]) == ("main_prepare:0", f"sha256:{column.data.digest}")


def test_one_number_all_over_is_prepared_for_what_reads_it_in_memory() -> None:
    b = Builder()
    x = b.parameter("x", tensor(16, 16))
    weights, few = (b.op("full", shape=(16, n), value=0.5, dtype="float32") for n in (16, 2))
    total = b.op("add", b.op("matmul", x, weights), b.op("full", shape=(16, 16), value=1.0, dtype="float32"))
    function = b.function([total, b.op("matmul", x, few)])
    functions = lifted(function)
    # an addition writes the number into its program, and what is a line of memory is soon written
    assert sorted(operators_of(functions["main"])) == ["add", "full", "full", "matmul", "matmul"]
    assert operators_of(functions["main_prepare"]) == ["full"]
    assert texts_of(functions["main"]) == ("main_prepare:0",)


def test_content_that_is_elsewhere_is_not_needed() -> None:
    b = Builder()
    x = b.parameter("x", tensor(2, 4))
    w = Constant(ConstantData("float32", (4, 4), digest="ab" * 32), "w")
    one = Constant(ConstantData("float32", (), digest="cd" * 32), "one")
    main = lifted(b.function(b.op("add", b.op("matmul", x, w), one)))["main"]
    assert texts_of(main) == (f"sha256:{'ab' * 32}", f"sha256:{'cd' * 32}")


def test_every_public_function_has_its_own_and_a_second_time_changes_nothing() -> None:
    def function(private: bool) -> Function:
        b = Builder()
        w = b.op("multiply", b.constant(weights(4), "w"), b.constant(weights(4, start=3)))
        return b.function(b.op("add", b.parameter("x", tensor(4)), w), private=private)

    module = IRModule({"main": function(False), "other": function(False), "own": function(True)})
    once = LiftConstants().apply(module, Target("llvm"))
    assert list(once.functions) == ["main", "main_prepare", "other", "other_prepare", "own"]
    assert once["own"] is module["own"]
    assert LiftConstants().apply(once, Target("llvm")) is once


def test_a_function_of_constants_alone_is_not_split() -> None:
    b = Builder()
    functions = lifted(b.function(b.op("add", b.constant(weights(4), "a"), b.constant(weights(4, start=2), "b"))))
    assert set(functions) == {"main"}
    assert operators_of(functions["main"]) == ["add"]
    assert [p.name for p in functions["main"].params] == ["a", "b"]


def test_a_function_that_has_the_name_already_is_told() -> None:
    b = Builder()
    w = b.op("multiply", b.constant(weights(4)), b.constant(weights(4, start=3)))
    main = b.function(b.op("add", b.parameter("x", tensor(4)), w))
    c = Builder()
    with pytest.raises(InvalidModule, match="main_prepare"):
        lifted(main, main_prepare=c.function(c.parameter("x", tensor(4))))
