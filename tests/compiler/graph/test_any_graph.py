"""Whatever the graph: passes keep what it computes, and what they leave is what the next step expects."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from compiler_service.passes.base import Pass
from compiler_service.passes.graph import LOWER_GRAPH_STEPS
from compiler_service.passes.graph.eliminate_dead_code import EliminateDeadCode
from compiler_service.passes.graph.fold_batch_norm import FoldBatchNorm
from compiler_service.passes.graph.fold_constants import FoldConstants
from compiler_service.passes.graph.fuse_operators import FuseOperators
from compiler_service.passes.graph.lift_constants import LiftConstants
from compiler_service.passes.graph.lower_graph import LowerGraph
from compiler_service.passes.graph.lower_operators import LowerOperators
from compiler_service.passes.graph.simplify_graph import SimplifyGraph
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import CallTIR, Function, OperatorCall
from crossfarm.ir.module import IRModule
from tests.compiler.graph.graphs import applied, assert_same, random_graphs

FEW = settings(max_examples=25, deadline=None, report_multiple_bugs=False)


@pytest.mark.parametrize(
    "step", [SimplifyGraph(), EliminateDeadCode(), LiftConstants(), FuseOperators()], ids=lambda s: s.name
)
@FEW
@given(function=random_graphs())
def test_no_bit_changes(step: Pass, function: Function) -> None:
    assert_same(IRModule({"main": function}), applied(function, step), exact=True)


@pytest.mark.parametrize("step", [FoldConstants(), FoldBatchNorm()], ids=lambda s: s.name)
@FEW
@given(function=random_graphs())
def test_the_same_up_to_rounding(step: Pass, function: Function) -> None:
    assert_same(IRModule({"main": function}), applied(function, step))


@FEW
@given(function=random_graphs())
def test_all_steps_leave_calls_of_programs_that_compute_the_same(function: Function) -> None:
    steps = [step for step in LOWER_GRAPH_STEPS if not isinstance(step, LowerGraph)]
    after = applied(function, *steps)
    assert_same(IRModule({"main": function}), after)
    for name, graph in after.graph_functions.items():
        assert name in ("main", "main_prepare")
        for binding in visit.bindings(graph.body):
            value = binding.value
            assert isinstance(value, CallTIR) or (isinstance(value, OperatorCall) and value.op == "reshape")
        assert not list(visit.constants(graph))


@FEW
@given(function=random_graphs())
def test_a_second_time_changes_nothing(function: Function) -> None:
    once = applied(function, SimplifyGraph(), EliminateDeadCode(), LiftConstants(), FuseOperators())
    for step in (SimplifyGraph(), EliminateDeadCode(), LiftConstants()):
        assert step.apply(once, None) is once  # type: ignore[arg-type]
    lowered = applied(once, LowerOperators())
    assert applied(lowered, LowerOperators()).functions == lowered.functions
