"""For each rule about graph functions a module that breaks it, and it alone of those tried before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import (
    Binding,
    BindingBlock,
    CallTIR,
    Conditional,
    Constant,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    MatchCast,
    OperatorCall,
    Seq,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.types import TensorType, Type
from crossfarm.ir.graph.visit import in_blocks
from crossfarm.ir.module import IRModule
from tests.ir.graph_programs import doubled, identity, tensor, weights

FOUR = tensor(4)
X = GraphVar("x", FOUR)
Y = GraphVar("y", FOUR)
FLAG = GraphVar("flag", tensor(dtype="bool"))


def function(*bindings: Binding | MatchCast, result: GraphExpr = X, **changes: Any) -> Function:
    """``main(x, flag)`` of these bindings, which returns x unless told."""
    return replace(Function((X, FLAG), in_blocks(bindings, result), FOUR), **changes)


def module(*bindings: Binding | MatchCast, functions: dict[str, Any] | None = None, **changes: Any) -> IRModule:
    return IRModule({"main": function(*bindings, **changes), **(functions or {})})


def value(expr: GraphExpr, kind: Type = FOUR, **functions: Any) -> IRModule:
    """A function that binds ``expr`` to a variable of ``kind``."""
    return module(Binding(GraphVar("v", kind), expr), functions=functions)


def chosen(condition: GraphExpr) -> IRModule:
    return module(Binding(Y, Conditional(condition, Seq((), X), Seq((), X))))


def branches() -> IRModule:
    return module(Binding(Y, Conditional(FLAG, Seq((), X), Seq((), TupleExpr((X, X))))))


def of_size(*sizes: dims.Dim, dtype: str = "float32") -> IRModule:
    kind = TensorType(tuple(IntImm(s, "int64") if isinstance(s, int) else s for s in sizes), dtype)
    return IRModule({"main": identity(kind)})


GRAPH_VIOLATIONS: dict[str, Callable[[], IRModule]] = {
    "graph-parameters": lambda: module(params=(X, FLAG, GraphVar("x", FOUR))),
    "graph-body": lambda: IRModule({"main": replace(function(), body=X)}),
    "graph-names": lambda: module(Binding(GraphVar("a\nb", FOUR), X)),
    "value-defined": lambda: module(Binding(Y, GraphVar("z", FOUR))),
    "value-once": lambda: module(Binding(Y, X), Binding(Y, X)),
    "value-type": lambda: module(Binding(GraphVar("y", tensor(5)), X)),
    "cast-type": lambda: module(MatchCast(GraphVar("y", tensor(5)), X, tensor(5))),
    "result-type": lambda: module(result=FLAG),
    "block-not-empty": lambda: IRModule({"main": replace(function(), body=Seq((BindingBlock(()),), X))}),
    "atomic-result": lambda: module(result=OperatorCall("add", (X, X))),
    "condition": lambda: chosen(X),
    "branches-agree": branches,
    "operator-exists": lambda: value(OperatorCall("ad", (X, X))),
    "atomic-arguments": lambda: value(OperatorCall("add", (X, OperatorCall("add", (X, X))))),
    "operator-attributes": lambda: value(OperatorCall("add", (X, X), {"axis": 1})),
    "arguments-fit": lambda: value(OperatorCall("add", (X, FLAG))),
    "purity": lambda: value(FunctionCall("log", (X,)), log=replace(identity(FOUR), pure=False)),
    "tensor-program-fits": lambda: value(CallTIR("twice", (X,), (tensor(5),)), tensor(5), twice=doubled()),
    "no-recursion": lambda: value(FunctionCall("main", (X, FLAG))),
    "tensor-dtype": lambda: of_size(4, dtype="float32x4"),
    "dimensions": lambda: of_size(Var("n", "int32")),
    "size-defined": lambda: of_size(dims.add(Var("n", "int64"), 1)),
}

#: Module → what is said, for rules that can be broken in several ways.
MESSAGES: dict[str, Callable[[], IRModule]] = {
    "the condition is float32(4), not a bool scalar": lambda: chosen(X),
    "one branch gives float32(4), the other a tuple of float32(4), float32(4)": branches,
    "there is no operator 'multipl'; did you mean 'multiply'": lambda: value(OperatorCall("multipl", (X, X))),
    "operator add has no attribute 'axis'": lambda: value(OperatorCall("add", (X, X), {"axis": 1})),
    "tensors must be of one dtype, not float32(4) and bool()": lambda: value(OperatorCall("add", (X, FLAG))),
    "operator add takes (x1, x2), not 1 tensors": lambda: value(OperatorCall("add", (X,))),
    "operator add takes tensors, not a TupleType": lambda: value(OperatorCall("add", (X, TupleExpr((X,))))),
    "a tuple of 2 has no item 2": lambda: value(TupleItem(TupleExpr((X, X)), 2)),
    "only tuples have items, not a TensorType": lambda: value(TupleItem(X, 0)),
    "v is float32(4), its value float32(4, 4)": lambda: value(
        OperatorCall("multiply", (X, Constant(ConstantData.of(weights(4, 1)))))
    ),
    "the module has no graph function 'no'": lambda: value(FunctionCall("no", (X,))),
    "graph function 'same' takes float32(5, 1), not float32(4)": lambda: value(
        FunctionCall("same", (X,)), same=identity(tensor(5, 1))
    ),
    "the module has no tensor program 'no'": lambda: value(CallTIR("no", (X,), (FOUR,))),
    "tensor program 'twice' has 2 parameters, not 2 arguments, 1 results and 0 sizes": lambda: value(
        CallTIR("twice", (X, X), (FOUR,)), twice=doubled()
    ),
    "parameter B of tensor program 'twice' has a dimension of 4, given float32(5)": lambda: value(
        CallTIR("twice", (X,), (tensor(5),)), tensor(5), twice=doubled()
    ),
    "parameter A of tensor program 'twice' is float32, given bool()": lambda: value(
        CallTIR("twice", (FLAG,), (FOUR,)), twice=doubled()
    ),
    "main → main": lambda: value(FunctionCall("main", (X, FLAG))),
    "two parameters are called 'x'": lambda: module(params=(X, FLAG, GraphVar("x", FOUR))),
}
