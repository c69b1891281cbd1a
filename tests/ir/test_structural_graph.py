"""Equality, hash and difference of graph functions: what counts and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Constant, Function, GraphVar, OperatorCall
from crossfarm.ir.module import IRModule
from crossfarm.ir.structural import explain_difference, structural_equal
from tests.ir.graph_programs import calls, dense, every_graph_node, modules, tensor, weights
from tests.ir.test_structural import same


class Renamed(visit.GraphMutator):
    """Other names, other notes, other sizes and variables."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[Var, Var] = {}

    def mutate_definition(self, var: GraphVar) -> GraphVar:
        new = GraphVar(f"{var.name}_too", self.mutate_type(var.type))
        self.variables[var] = new
        return new

    def mutate_dim(self, value):  # type: ignore[no-untyped-def]
        return self.sizes.setdefault(value, Var(f"{value.name}_too", value.dtype)) if isinstance(value, Var) else value

    def mutate_Constant(self, node: Constant) -> Constant:
        return replace(node, note="elsewhere")

    def mutate_OperatorCall(self, node: OperatorCall) -> OperatorCall:
        return replace(self.mutate_children(node), origin="elsewhere")


@given(modules())
@settings(max_examples=40, deadline=None)
def test_names_and_where_nodes_came_from_do_not_count(mod: IRModule) -> None:
    other = IRModule({"main": Renamed().mutate_function(mod.graph_functions["main"])}, name="Other")
    assert same(mod, other)


@given(modules(), modules())
@settings(max_examples=40, deadline=None)
def test_equality_hash_and_difference_agree(a: IRModule, b: IRModule) -> None:
    same(a, b)


def test_constants_are_equal_by_content() -> None:
    assert same(dense(4), dense(4))
    assert same(ConstantData.of(weights(3)), ConstantData.of(weights(3)))
    assert not same(ConstantData.of(weights(4)), ConstantData.of(weights(2, 2)))
    assert not same(ConstantData.of(np.zeros(4, "float32")), ConstantData.of(np.zeros(4, "int32")))
    known = ConstantData.of(weights(3))
    assert same(Constant(known), Constant(ConstantData("float32", (3,), digest=known.digest)))


def test_attributes_that_are_left_out_are_the_defaults() -> None:
    x = GraphVar("x", tensor(4, 4))
    given = OperatorCall("matmul", (x, x), {"out_dtype": None})
    assert same(given, OperatorCall("matmul", (x, x)))
    assert not same(given, OperatorCall("matmul", (x, x), {"out_dtype": "float64"}))


def test_an_unknown_operator_is_compared_as_it_is_written() -> None:
    x = GraphVar("x", tensor(4))
    assert same(OperatorCall("no.such", (x,), {"k": 1}), OperatorCall("no.such", (x,), {"k": 1}))
    assert not same(OperatorCall("no.such", (x,), {"k": 1}), OperatorCall("no.such", (x,)))


@pytest.mark.parametrize("changes", [{"private": True}, {"pure": False}, {"attrs": {"k": 1}}, {"result": tensor(2)}])
def test_everything_about_a_function_counts(changes: dict[str, object]) -> None:
    main = dense()["main"]
    assert not same(main, replace(main, **changes))  # type: ignore[type-var,arg-type]


def test_which_variable_and_which_size_counts() -> None:
    def program(swap: bool, fixed: bool) -> Function:
        b = Builder()
        n = Var("n", "int64")
        x, y = b.parameter("x", tensor(n)), b.parameter("y", tensor(IntImm(4, "int64") if fixed else n))
        return b.function([y, x] if swap else [x, y])

    assert same(program(False, False), program(False, False))
    assert not same(program(False, False), program(True, False))
    assert not same(program(False, False), program(False, True))


def test_the_first_difference_is_told_by_its_place() -> None:
    class Other(visit.GraphMutator):
        def mutate_binding(self, binding: visit.AnyBinding) -> Sequence[visit.AnyBinding]:
            found = super().mutate_binding(binding)
            if not isinstance(binding.value, OperatorCall) or binding.value.op != "add":
                return found
            return [replace(found[0], value=replace(binding.value, op="multiply"))]

    main = dense()["main"]
    assert isinstance(main, Function)
    told = explain_difference(main, Other().mutate_function(main))
    assert told == "body.blocks[0].bindings[1].value: operator_call add 2 here, operator_call multiply 2 there"


def test_modules_with_both_kinds_of_functions_compare() -> None:
    assert same(calls(), calls())
    assert same(every_graph_node(), every_graph_node())
    assert not structural_equal(calls(), IRModule({**calls().functions, "square": calls()["twice"]}))
