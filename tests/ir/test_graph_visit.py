"""Traversal of graph functions finds what is there, and rebuilds only what changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.graph import dims, visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import Binding, CallTIR, Function, GraphVar, OperatorCall, ShapeExpr
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import IRModule
from crossfarm.ir.serialize import dumps, loads
from tests.ir.graph_programs import calls, dense, tensor


def main_of(mod: IRModule) -> Function:
    return mod.graph_functions["main"]


def test_uses_are_counted_in_branches_too() -> None:
    main = main_of(calls())
    counts = [(var.name, count) for var, count in visit.uses(main).items()]
    assert counts == [("c", 1), ("x", 2), ("inside", 1), ("inside", 1), ("chosen", 2), ("again", 1)]
    assert [v.name for v in visit.defined(main)] == ["x", "c", "inside", "inside", "chosen", "again"]


def test_constants_of_a_module_are_all_there() -> None:
    assert [c.note for c in visit.constants(dense())] == ["w", "b"]
    assert not list(visit.constants(calls()))


def test_sizes_are_those_of_types_and_those_in_calls() -> None:
    main = main_of(calls())
    assert [s.name for s in visit.sizes(main)] == ["n", "k"]
    n, m = Var("n", "int64"), Var("m", "int64")
    assert set(visit.sizes(ShapeExpr((dims.mul(n, m), n)))) == {n, m}
    assert visit.sizes(OperatorCall("full", (), {"shape": (n, 2)})) == (n,)
    assert visit.sizes(CallTIR("f", (), (tensor(2),), (m,))) == (m,)


def test_a_size_becomes_a_number_everywhere() -> None:
    main = main_of(dense())
    (n,) = visit.sizes(main)
    fixed = visit.substitute(main, sizes={n: IntImm(4, "int64")})
    assert visit.sizes(fixed) == ()
    shapes = [dims.constants(v.type.shape) for v in visit.defined(fixed) if isinstance(v.type, TensorType)]
    assert shapes == [(4, 512), (4, 8), (4, 8)]
    assert set(visit.uses(fixed)) <= set(visit.defined(fixed))
    assert isinstance(fixed.result, TensorType)
    assert dims.constants(fixed.result.shape) == (4, 8)


def test_what_does_not_change_is_kept() -> None:
    main = main_of(calls())
    assert visit.substitute(main) is main
    assert visit.substitute(main, sizes={Var("n", "int64"): IntImm(1, "int64")}) is main
    assert visit.GraphMutator().mutate_function(main) is main


def test_uses_of_a_variable_are_replaced_in_branches_too() -> None:
    main = main_of(calls())
    new = GraphVar("z", main.params[0].type)
    body = visit.substitute(main.body, {main.params[0]: new})
    counts = {var.name: count for var, count in visit.uses(body).items()}
    assert counts["z"] == 2
    assert "x" not in counts


def test_a_body_that_is_to_stand_twice_gets_variables_of_its_own() -> None:
    main = main_of(calls())
    again = visit.fresh(main.body)
    assert not set(visit.defined(again)) & set(visit.defined(main.body))
    assert set(visit.uses(again)) <= set(visit.defined(again)) | set(main.params)
    assert [v.name for v in visit.defined(again)] == [v.name for v in visit.defined(main.body)]


def test_bindings_may_be_dropped_and_inserted() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4))
    function = b.function(b.op("add", b.op("multiply", x, x, label="square"), x, label="sum"))

    class Drop(visit.GraphMutator):
        """x * x + x as x + x, with x named first."""

        def mutate_binding(self, binding: visit.AnyBinding) -> Sequence[visit.AnyBinding]:
            if binding.var.name == "square":
                self.variables[binding.var] = x
                return ()
            named = GraphVar("named", x.type)
            return (Binding(named, x), *super().mutate_binding(binding))

    new = Drop().mutate_function(function)
    assert [b.var.name for b in visit.bindings(new.body)] == ["named", "sum"]
    assert visit.uses(new) == {x: 3, new.body.result: 1}


def test_contents_are_filled_in_by_digest() -> None:
    mod = loads(dumps(dense()))
    large, small = (c.data for c in visit.constants(dense()))
    assert [c.data.known for c in visit.constants(mod)] == [False, True]
    assert visit.with_contents(mod, {}).functions == mod.functions
    filled = visit.with_contents(mod, {large.digest: np.frombuffer(large.view, np.uint8), "other": small.array})
    np.testing.assert_array_equal(next(visit.constants(filled)).data.array, large.array)


def test_blocks_that_became_empty_are_left_out() -> None:
    class DropAll(visit.GraphMutator):
        def mutate_binding(self, binding: visit.AnyBinding) -> Sequence[visit.AnyBinding]:
            self.variables[binding.var] = function.params[0]
            return ()

    function = main_of(calls())
    assert DropAll().mutate_function(function).body.blocks == ()
