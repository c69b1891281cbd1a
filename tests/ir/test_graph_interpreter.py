"""What a graph function returns, and what a caller is told who gives it something else."""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.errors import ArgumentError, InvalidModule, NoSuchFunction, NotFound, ProgramError
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import FloatImm, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import CallPacked, CallTIR, Constant, PrimValue, ShapeExpr, TupleExpr
from crossfarm.ir.graph.types import PrimType, ShapeType, TupleType
from crossfarm.ir.interpreter import evaluate, run
from crossfarm.ir.module import IRModule
from tests.ir.graph_programs import calls, dense, doubled, tensor, weights


def array(*shape: int, seed: int = 7) -> np.ndarray[Any, Any]:
    return weights(*shape, seed=seed)


def main(builder: Builder, result: Any, **functions: Any) -> IRModule:
    return IRModule({"main": builder.function(result), **functions})


def test_operators_and_constants_mean_what_numpy_says() -> None:
    x = array(3, 512)
    found = evaluate(dense(), "main", [x])
    np.testing.assert_array_equal(found, x @ weights(512, 8) + weights(8, seed=1))
    assert found.dtype == np.float32


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.booleans())
def test_conditionals_run_one_branch_and_call_other_functions(length: int, condition: bool) -> None:
    x = array(length)
    first, second = evaluate(calls(), "main", [x, condition])
    np.testing.assert_array_equal(first, x * 2 if condition else x * x)
    np.testing.assert_array_equal(second, first)


def test_a_tensor_program_gets_its_sizes_and_reads_arrays_of_any_layout() -> None:
    b = Builder()
    x = b.parameter("x", tensor(n := Var("n", "int64")))
    mod = main(b, b.bind(CallTIR("twice", (x,), (tensor(n),))), twice=doubled())
    np.testing.assert_array_equal(evaluate(mod, "main", [np.arange(8, dtype="float32")[::-2]]), [14, 10, 6, 2])


def test_sizes_are_worked_out_in_shapes_and_numbers() -> None:
    b = Builder()
    n = Var("n", "int64")
    b.parameter("x", tensor(n, 3))
    shape = ShapeExpr((dims.mul(n, 3), dims.floordiv(n, 2)))
    mod = main(b, TupleExpr((shape, PrimValue(dims.add(n, 1)), PrimValue(FloatImm(0.5, "float32")))))
    assert evaluate(mod, "main", [array(5, 3)]) == ((15, 2), 6, np.float32(0.5))


def test_parameters_may_be_tuples_shapes_and_numbers() -> None:
    b = Builder()
    n = Var("n", "int64")
    pair = b.parameter("pair", TupleType((tensor(n), tensor(n))))
    b.parameter("shape", ShapeType((n, dims.dim(2))))
    b.parameter("scale", PrimType("float32"))
    first, second = b.items(pair)
    mod = main(b, b.op("add", first, second))
    np.testing.assert_array_equal(evaluate(mod, "main", [(array(3), array(3)), (3, 2), 0.5]), array(3) * 2)
    with pytest.raises(
        ArgumentError, match=r"parameter shape was given shape \(4, 2\), in which size n is 4; it is 3 by"
    ):
        evaluate(mod, "main", [(array(3), array(3)), (4, 2), 0.5])
    with pytest.raises(ArgumentError, match="parameter pair was given 1 values where 2 belong"):
        evaluate(mod, "main", [(array(3),), (3, 2), 0.5])


def test_bfloat16_is_computed_as_bfloat16() -> None:
    b = Builder()
    x = b.parameter("x", tensor(2, dtype="bfloat16"))
    given = np.array([1, 257], dt.to_numpy("bfloat16"))
    found = evaluate(main(b, b.op("add", x, x)), "main", [given])
    assert found.dtype == dt.to_numpy("bfloat16")
    assert [float(v) for v in found] == [2.0, 512.0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "main takes 2 inputs (x, y), not 0"),
        ([array(3), array(4)], "parameter y was given shape (4,), in which size n is 4; it is 3 by parameter x"),
        ([array(3).astype("float64"), array(3)], "parameter x was given float64 where float32 belongs"),
        ([array(3, 1), array(3)], "parameter x was given 2 dimensions where 1 belong"),
        ([[1.0], array(1)], "parameter x was given a list where a tensor belongs"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: list[Any], message: str) -> None:
    b = Builder()
    n = Var("n", "int64")
    x, y = b.parameter("x", tensor(n)), b.parameter("y", tensor(n))
    with pytest.raises(ArgumentError, match=re.escape(message)):
        evaluate(main(b, b.op("add", x, y)), "main", inputs)


def test_dimensions_that_are_sums_are_checked() -> None:
    b = Builder()
    n = Var("n", "int64")
    b.parameter("x", tensor(n))
    y = b.parameter("y", tensor(dims.add(n, 1)))
    mod = main(b, y)
    np.testing.assert_array_equal(evaluate(mod, "main", [array(3), array(4)]), array(4))
    with pytest.raises(ArgumentError, match=r"parameter y was given shape \(3,\) where \(4,\) belongs"):
        evaluate(mod, "main", [array(3), array(3)])


def test_a_match_cast_that_does_not_hold_is_the_programs_error() -> None:
    b = Builder()
    x = b.parameter("x", tensor(Var("n", "int64")))
    mod = main(b, b.match_cast(x, tensor(4), "four"))
    np.testing.assert_array_equal(evaluate(mod, "main", [array(4)]), array(4))
    with pytest.raises(ProgramError, match=r"match_cast of four met shape \(5,\) where \(4,\) belongs"):
        evaluate(mod, "main", [array(5)])


def test_what_is_no_graph_function_is_said() -> None:
    mod = calls()
    with pytest.raises(InvalidModule, match="'twice' of module 'Module' is a tensor program"):
        evaluate(mod, "twice", [array(3)])
    with pytest.raises(InvalidModule, match="'main' of module 'Module' is a graph function"):
        run(mod, "main", [array(3)])
    with pytest.raises(NoSuchFunction, match="it has: twice, square, main"):
        evaluate(mod, "other", [])


def test_what_is_not_here_is_said() -> None:
    b = Builder()
    mod = main(b, Constant(ConstantData("float32", (2,), digest="ab" * 32)))
    with pytest.raises(NotFound, match="the content of constant abababababab"):
        evaluate(mod, "main", [])
    mod = main(b, b.bind(CallPacked("vm.builtin.print", (), (tensor(1),))))
    with pytest.raises(InvalidModule, match=r"'vm\.builtin\.print' is a function of the system"):
        evaluate(mod, "main", [])


def test_a_value_is_dropped_after_its_last_use() -> None:
    """A chain of fifty sums of a megabyte needs a few megabytes, not fifty."""
    b = Builder()
    x = b.parameter("x", tensor(1 << 18))
    value = x
    for _ in range(50):
        value = b.op("add", value, x)
    mod, given = main(b, value), np.ones(1 << 18, "float32")
    tracemalloc.start()
    try:
        found = evaluate(mod, "main", [given])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found[0] == 51
    assert peak < 5 << 20
