"""What is said of graph functions that are not well-formed; each rule's own violation is tried in test_verify.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from crossfarm.errors import VerifyError
from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import Conditional, FunctionCall, GraphVar, OperatorCall, Seq, ShapeExpr
from crossfarm.ir.graph.types import ShapeType
from crossfarm.ir.module import IRModule
from crossfarm.ir.verify import verify
from tests.ir.graph_programs import calls, dense, every_graph_node, identity, modules, tensor
from tests.ir.graph_violations import MESSAGES, X, value


@pytest.mark.parametrize("said", MESSAGES)
def test_what_is_wrong_with_a_graph_function_is_said(said: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(MESSAGES[said]())
    assert said in caught.value.message


@pytest.mark.parametrize("mod", [dense(), dense(4), calls(), every_graph_node()])
def test_well_formed_graph_functions_pass(mod: IRModule) -> None:
    verify(mod)


@given(modules())
@settings(max_examples=30, deadline=None)
def test_what_the_builder_makes_is_well_formed(mod: IRModule) -> None:
    verify(mod)


def test_sizes_of_a_branch_end_with_it() -> None:
    b = Builder()
    x, c = b.parameter("x", tensor(Var("n", "int64"))), b.parameter("c", tensor(dtype="bool"))
    inner = Builder()
    k = Var("k", "int64")
    inner.match_cast(x, tensor(k))
    b.bind(Conditional(c, inner.seq(x), Seq((), x)))
    mod = IRModule({"main": b.function(ShapeExpr((k,)))})
    with pytest.raises(VerifyError, match="the size k is used outside the branch that defines it"):
        verify(mod)


def test_values_of_a_branch_end_with_it() -> None:
    b = Builder()
    x, c = b.parameter("x", tensor(4)), b.parameter("c", tensor(dtype="bool"))
    inner = Builder()
    inside = inner.op("add", x, x, label="inside")
    b.bind(Conditional(c, inner.seq(inside), Seq((), x)))
    with pytest.raises(VerifyError, match="inside is used outside the branch that binds it"):
        verify(IRModule({"main": b.function(inside)}))


def test_a_size_may_come_from_a_later_parameter() -> None:
    b = Builder()
    n = Var("n", "int64")
    b.parameter("x", tensor(dims.mul(n, 2)))
    b.parameter("s", ShapeType((n,)))
    verify(IRModule({"main": b.function(ShapeExpr((n,)))}))


def test_a_long_circle_of_calls_is_told_whole() -> None:
    y = GraphVar("y", tensor(4))
    names = ["a", "b", "c"]
    functions = {n: identity(tensor(4)) for n in names}
    mod = value(FunctionCall("a", (X,)), **functions)
    verify(mod)
    for name, callee in zip(names, ["b", "c", "a"]):
        b = Builder(functions)
        parameter = b.parameter("p", y.type)
        functions[name] = b.function(b.bind(FunctionCall(callee, (parameter,))))
    with pytest.raises(VerifyError, match="a → b → c → a"):
        verify(IRModule({**mod.functions, **functions}))


def test_expressions_in_attributes_are_looked_at() -> None:
    call = OperatorCall("add", (X, X), {})
    main = value(call).graph_functions["main"]
    n = Var("n", "int64")
    mod = IRModule({"main": type(main)(main.params, main.body, main.result, {"k": (n, IntImm(1, "int64"))})})
    with pytest.raises(VerifyError, match="the size n is used and nothing defines it"):
        verify(mod)
