"""Operators as tensor programs: what is called, with what, and what the programs compute."""

from __future__ import annotations

import numpy as np

from compiler_service.passes.graph.lower_operators import LowerOperators
from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import Binding, CallTIR, Function
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from tests.compiler.graph.graphs import tensor


def lowered(function: Function) -> IRModule:
    module = LowerOperators().apply(IRModule({"main": function}), Target("llvm"))
    verify(IRModule(module.prim_funcs))
    return module


def calls(module: IRModule) -> list[CallTIR]:
    main = module["main"]
    assert isinstance(main, Function)
    values = [b.value for block in main.body.blocks for b in block.bindings if isinstance(b, Binding)]
    return [v for v in values if isinstance(v, CallTIR)]


def test_each_operator_is_a_call_of_a_private_program() -> None:
    b = Builder()
    x, w = b.parameter("x", tensor(4, 8)), b.parameter("w", tensor(8, 3))
    module = lowered(b.function(b.op("add", b.op("matmul", x, w, origin="MatMul_0"), b.parameter("c", tensor(3)))))
    first, second = calls(module)
    assert [c.function for c in (first, second)] == ["matmul", "add"]
    assert (first.args, first.origin, first.sizes) == ((x, w), "MatMul_0", ())
    assert all(f.private for f in module.prim_funcs.values())
    a, c = np.ones((4, 8), "float32"), np.arange(24, dtype="float32").reshape(8, 3)
    out = np.zeros((4, 3), "float32")
    run(IRModule({"main": module.prim_func("matmul")}), "main", [a, c, out])
    np.testing.assert_allclose(out, a @ c)


def test_equal_programs_are_there_once_and_unequal_ones_are_numbered() -> None:
    b = Builder()
    x, y = b.parameter("x", tensor(4)), b.parameter("y", tensor(4))
    z, s = b.parameter("z", tensor(5)), b.parameter("s", tensor(4, dtype="int32"))
    values = [b.op("add", x, y), b.op("add", y, x), b.op("add", z, z), b.op("add", s, s)]
    module = lowered(b.function(values))
    assert [c.function for c in calls(module)] == ["add", "add", "add_1", "add_2"]
    assert len(calls(module)[2].args) == 1, "what is taken twice is passed once"
    assert set(module.prim_funcs) == {"add", "add_1", "add_2"}


def test_constants_of_one_element_are_part_of_the_program() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4))
    half = b.constant(np.float32(0.5))
    third = b.constant(np.array([[3.0]], "float32"))
    module = lowered(b.function([b.op("multiply", x, half), b.op("add", x, third)]))
    assert [c.args for c in calls(module)] == [(x,), (x,)]
    out = np.zeros(4, "float32")
    run(IRModule({"main": module.prim_func("multiply")}), "main", [np.arange(4, dtype="float32"), out])
    np.testing.assert_array_equal(out, [0, 0.5, 1, 1.5])


def test_sizes_that_no_dimension_tells_are_scalar_arguments() -> None:
    b = Builder()
    n = Var("n", "int64")
    doubled = dims.mul(n, 2)
    x, y = b.parameter("x", tensor(n)), b.parameter("y", tensor(doubled, 4))
    module = lowered(b.function([b.op("add", x, x), b.op("add", y, y)]))
    first, second = calls(module)
    assert (first.sizes, second.sizes) == ((), (n,))
    program = module.prim_func(second.function)
    assert isinstance(program.params[-1], Var)
    assert program.params[-1] is not n, "a program has sizes of its own"
    out = np.zeros((6, 4), "float32")
    run(IRModule({"main": program}), "main", [np.ones((6, 4), "float32"), out, 3])
    assert (out == 2).all()


def test_a_module_of_tensor_programs_is_left_alone() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4))
    programs = IRModule(lowered(b.function(b.op("add", x, x))).prim_funcs)
    assert LowerOperators().apply(programs, Target("llvm")) is programs
    assert isinstance(programs["add"], PrimFunc)
