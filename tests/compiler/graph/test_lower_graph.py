"""Functions of calls as tensor programs: their parameters, their memory, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler_service.build import build_variant
from compiler_service.passes.graph.lower_graph import LowerGraph
from compiler_service.passes.workspace import workspace_plan
from compiler_service.pipeline import run_pipeline
from crossfarm.errors import Error, InvalidModule
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import calls_of, element_of
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.expr import CallTIR, Conditional, Constant, PrimValue
from crossfarm.ir.graph.types import TupleType
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.printer import print_module
from crossfarm.ir.structural import structural_equal
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import Parameter
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from tests.compiler.graph.programs import PROGRAMS, Calls, tensor, with_programs

LLVM = Target("llvm")


def lowered(module: IRModule) -> IRModule:
    result = LowerGraph().apply(module, LLVM)
    verify(result)
    assert structural_equal(parse(print_module(result), "lowered"), result)
    return result


def doubled_twice(**fields: object) -> IRModule:
    b = Calls()
    x = b.parameter("x", tensor(b.n))
    return b.module(b.call("double", b.call("double", x, out=tensor(b.n)), out=tensor(b.n)), **fields)


def test_values_in_between_are_buffers_and_results_are_written_where_they_belong() -> None:
    module = lowered(doubled_twice())
    main = module.prim_func("main")
    first, second = calls_of(main)
    x, output = main.params
    places = [[element_of(a).buffer for a in call.args[:2]] for call in (first, second)]
    assert places[0][0] is x
    assert places[0][1] is places[1][0]
    assert places[1][1] is output
    assert [p.name for p in main.params] == ["x", "output"]
    assert "copy_float32" not in module.functions


def test_after_each_pass_the_program_computes_the_same() -> None:
    b = Calls()
    x = b.parameter("x", tensor(b.n, 2000))
    y = b.call("mirrored", x, out=tensor(b.n, 2000))
    module = b.module(y, x)
    value = np.random.default_rng(0).integers(-4, 5, (3, 2000)).astype(np.float32)
    expected = value + (value / 8).sum(1)[::-1, None]

    def check(name: str, module: IRModule) -> None:
        if module.graph_functions:
            return
        verify(module)
        outputs = [np.zeros_like(value) for _ in range(2)]
        run(module, "main", [value, *outputs])
        np.testing.assert_allclose(outputs[0], expected, err_msg=name)
        np.testing.assert_array_equal(outputs[1], value, err_msg=name)

    run_pipeline(module, LLVM, check)


def test_parameters_are_called_what_the_model_calls_them() -> None:
    module = doubled_twice(attrs={"input_names": ("input.1",), "output_names": ("487/out",)})
    built = build_variant(module, LLVM, BuildOptions())
    (entry,) = built.variant.entry_points
    assert [(p.name, p.role) for p in entry.parameters] == [("input.1", Parameter.IN), ("487/out", Parameter.OUT)]
    verify(LowerGraph().apply(module, LLVM))


def test_steps_say_what_of_the_model_they_are_and_kernels_are_there_once() -> None:
    b = Calls()
    x = b.parameter("x", tensor(b.n))
    y = b.call("double", b.call("double", x, out=tensor(b.n), origin="Mul_0"), out=tensor(b.n), origin="Mul_1")
    built = build_variant(b.module(y), Target("opencl"), BuildOptions())
    (entry,) = built.variant.entry_points
    assert [(step.function, step.origin, step.launches) for step in entry.steps] == [
        ("double", "Mul_0", 1),
        ("double", "Mul_1", 1),
    ]
    assert [launch.kernel for launch in entry.launch.launches] == ["double_kernel", "double_kernel"]
    assert [(k.name, list(k.functions)) for k in built.variant.kernels] == [("double_kernel", ["main"])]
    assert built.code.count(b"__kernel") == 1


def test_constants_that_no_pass_took_care_of_are_parameters_once() -> None:
    b = Calls()
    w, again = b.constant(np.ones(64, np.float32), "w"), b.constant(np.ones(64, np.float32))
    module = lowered(b.module(b.call("add", w, again, out=tensor(64))))
    main = module.prim_func("main")
    assert [p.name for p in main.params] == ["output", "w"]
    assert isinstance(w, Constant)
    assert main.attrs["constants"] == (f"sha256:{w.data.digest}",)


def test_sizes_that_are_constants_are_planned_to_the_byte() -> None:
    """A chain of layers that shrink: what lives at once is the first two."""
    b = Calls()
    x = b.parameter("x", tensor(1 << 14))
    value = x
    for length in (1 << 13, 1 << 12, 1 << 11, 1 << 10):
        value = b.call("repeated", value, out=tensor(length), sizes=(dims.dim(1),))
    module, _ = run_pipeline(b.module(value), LLVM)
    assert const_int(workspace_plan(module.prim_func("main")).size) == 4 * ((1 << 13) + (1 << 12))


def conditional(b: Calls) -> IRModule:
    c, x = b.parameter("c", tensor(dtype="bool")), b.parameter("x", tensor(4))
    branch = Calls()
    then = branch.seq(branch.call("double", x, out=tensor(4)))
    return b.module(b.bind(Conditional(c, then, Calls().seq(x))))


def wrong_count(b: Calls) -> IRModule:
    return b.module(b.call("double", b.parameter("x", tensor(4)), b.parameter("y", tensor(4)), out=tensor(4)))


def wrong_dtype(b: Calls) -> IRModule:
    return b.module(b.call("double", b.parameter("x", tensor(4, dtype="int32")), out=tensor(4)))


def wrong_size(b: Calls) -> IRModule:
    return b.module(b.call("halve", b.parameter("x", tensor(65)), out=tensor(64)))


def wrong_result(b: Calls) -> IRModule:
    return b.module(b.call("double", b.parameter("x", tensor(4)), out=tensor(5)))


def number_for_tensor(b: Calls) -> IRModule:
    return b.module(b.call("double", PrimValue(dims.dim(4)), out=tensor(4)))


def nobody(b: Calls) -> IRModule:
    return IRModule({"main": b.function(b.call("nobody", b.parameter("x", tensor(4)), out=tensor(4)))})


def unknown_size(b: Calls) -> IRModule:
    return b.module(b.call("double", b.parameter("x", tensor(4)), out=tensor(Var("m", "int64"))))


def tuple_parameter(b: Calls) -> IRModule:
    return b.module(b.items(b.parameter("x", TupleType((tensor(4),))))[0])


def operator(b: Calls) -> IRModule:
    x = b.parameter("x", tensor(4))
    return b.module(b.op("add", x, x))


def names(b: Calls) -> IRModule:
    return b.module(b.parameter("x", tensor(4)), attrs={"output_names": ("a", "b")})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (conditional, "decides by data what to run"),
        (wrong_count, "'double' with 3 arguments and results; it takes 2"),
        (wrong_dtype, r"with int32\(4\) for 'A', which is a float32 tensor of 1 dimensions"),
        (wrong_size, "with 65 for dimension 0 of 'A', which is 64"),
        (wrong_result, "with 5 for dimension 0 of 'B', which is 4"),
        (number_for_tensor, "with a number for 'A'"),
        (nobody, "has no tensor program 'nobody'"),
        (unknown_size, "uses a size 'm' that no parameter defines"),
        (tuple_parameter, "parameter 'x' of function 'main' is a TupleType"),
        (operator, "still has 'add', which is no call of a tensor program"),
        (names, "2 names for its 1 outputs"),
    ],
)
def test_what_does_not_fit_is_said(make: Callable[[Calls], IRModule], said: str) -> None:
    with pytest.raises(Error, match=said):
        LowerGraph().apply(make(Calls()), LLVM)


def test_programs_from_outside_call_nothing() -> None:
    with pytest.raises(InvalidModule, match="function 'main' of module 'Module' calls another one"):
        build_variant(LowerGraph().apply(doubled_twice(), LLVM), LLVM, BuildOptions())


def test_programs_that_nobody_calls_stay_and_public_ones_keep_their_own_code() -> None:
    b = Calls()
    main = b.function(b.call("halve", b.parameter("x", tensor(64)), out=tensor(64)))
    module = LowerGraph().apply(IRModule({**PROGRAMS.functions, "main": main}), LLVM)
    assert set(module.functions) == {*PROGRAMS.functions, "main", "halve_called"}
    assert module["halve"] is PROGRAMS["halve"]
    assert module["halve_called"].private
    assert LowerGraph().apply(PROGRAMS, LLVM) is PROGRAMS


def test_strides_of_a_callee_are_refused() -> None:
    script = """
from crossfarm.script import tir as T

@T.prim_func(private=True)
def rows(A: T.Buffer((4, 4), strides=(8, 1)), B: T.Buffer((4,))):
    for i in range(4):
        B[i] = A[i, 0]
"""
    b = Calls()
    rows = parse(script).prim_funcs
    b.functions = dict(rows)
    main = b.function(b.bind(CallTIR("rows", (b.parameter("x", tensor(4, 4)),), (tensor(4),))))
    with pytest.raises(InvalidModule, match="'A' has strides or an offset"):
        LowerGraph().apply(IRModule({**rows, "main": main}), LLVM)


def test_a_module_of_programs_alone_has_no_new_functions() -> None:
    b = Calls()
    x = b.parameter("x", tensor(b.n))
    module = lowered(with_programs(b.function([b.view(x, b.n, 1), x])))
    assert [c.function for c in calls_of(module.prim_func("main"))] == ["copy_float32", "copy_float32"]
    assert all(isinstance(p, Buffer) for p in module.prim_func("copy_float32").params)
