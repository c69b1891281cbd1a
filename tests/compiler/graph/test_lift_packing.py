"""Weights in the order that a CPU's kernels want are made once: what moves where, and that the numbers stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compiler_service.passes.lift_packing import LiftPacking
from compiler_service.passes.packing_stages import packings_of, unpacked
from compiler_service.pipeline import steps_for
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import calls_of
from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import TupleExpr
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.printer import print_module
from crossfarm.ir.structural import explain_difference, structural_equal
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from tests.compiler.graph.graphs import tensor, weights

Array = np.ndarray[Any, np.dtype[Any]]

TARGET = Target("x86-64-v3").resolved()
#: Columns are no whole vectors: the factor is copied, however small it is.
ROWS, SUMS, COLUMNS = 12, 32, 44


def one_layer() -> IRModule:
    b = Builder()
    x, w = b.parameter("x", tensor(ROWS, SUMS)), b.constant(weights(SUMS, COLUMNS), "w")
    return IRModule({"main": b.function(b.op("nn.relu", b.op("matmul", x, w, origin="MatMul_1")))})


def stepped(module: IRModule) -> tuple[IRModule, IRModule]:
    """The module before the pass and after it, which is well-formed and reads as it prints."""
    for step in steps_for(module, TARGET):
        if isinstance(step, LiftPacking):
            break
        module = step.apply(module, TARGET)
    after = LiftPacking().apply(module, TARGET)
    verify(after)
    assert structural_equal(parse(print_module(after), "after"), after)
    return module, after


def texts(module: IRModule, name: str) -> tuple[str, ...]:
    found = module.prim_func(name).attrs.get("constants", ())
    assert isinstance(found, tuple)
    return tuple(map(str, found))


def called(module: IRModule, name: str = "main") -> list[str]:
    return [call.function for call in calls_of(module.prim_func(name))]


def numbers(module: IRModule, model: IRModule, name: str = "main") -> list[Array]:
    """What a function gives for ones, with its constants out of ``model`` or made by the functions that make them."""
    contents = {f"sha256:{c.data.digest}": c.data.array for c in visit.constants(model)}
    func = module.prim_func(name)
    from_where = texts(module, name)
    first = len(func.params) - len(from_where)
    count = func.attrs["crossfarm.outputs"]
    assert isinstance(count, int)
    args = []
    for index, param in enumerate(func.params):
        assert isinstance(param, Buffer)
        shape = [getattr(extent, "value", ROWS) for extent in param.shape]
        if index < first:
            args.append(np.ones(shape, param.dtype))
            continue
        text = from_where[index - first]
        maker, _, number = text.rpartition(":")
        array = contents[text] if maker == "sha256" else numbers(module, model, maker)[int(number)]
        args.append(np.ascontiguousarray(array).reshape(shape))
    run(module, name, args)
    return args[first - count : first]


def assert_same(model: IRModule, before: IRModule, after: IRModule) -> None:
    for expected, found in zip(numbers(before, model), numbers(after, model), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_weight_is_packed_by_main_prepare_and_taken_packed() -> None:
    model = one_layer()
    before, after = stepped(model)
    (raw,) = texts(before, "main")
    assert list(after.functions) == ["main", "main_prepare", "matmul_relu", "matmul_relu_pack"]
    assert texts(after, "main") == ("main_prepare:0",)
    assert texts(after, "main_prepare") == (raw,)
    assert after.prim_func("main").attrs["crossfarm.names"] == ("x", "output", "w_packed")
    assert after.prim_func("main_prepare").attrs["crossfarm.names"] == ("w_packed", "w")
    assert (called(after), called(after, "main_prepare")) == (["matmul_relu"], ["matmul_relu_pack"])
    assert [call.origin for call in calls_of(after.prim_func("main_prepare"))] == ["MatMul_1"]
    pack, *programs = (
        IRModule({"f": func}).script()
        for func in (
            after.prim_func("matmul_relu_pack"),
            after.prim_func("matmul_relu"),
            before.prim_func("matmul_relu"),
        )
    )
    assert "T.parallel" in pack, "it has the threads that its schedule gave it"
    assert ["w_pad = T.alloc_buffer" in program for program in programs] == [False, True]
    assert_same(model, before, after)


def test_one_weight_of_two_products_is_packed_once_and_two_of_one_program_twice() -> None:
    b = Builder()
    x, y = b.parameter("x", tensor(ROWS, SUMS)), b.parameter("y", tensor(ROWS, SUMS))
    shared, other = (b.constant(weights(SUMS, COLUMNS, seed=s), f"w{s}") for s in (0, 1))
    out = [b.op("nn.relu", b.op("matmul", x, shared)), b.op("matmul", y, shared), b.op("matmul", x, other)]
    model = IRModule({"main": b.function(TupleExpr(tuple(out)))})
    before, after = stepped(model)
    assert sorted(set(called(before))) == ["matmul", "matmul_relu"]
    assert called(after) == called(before)
    assert len(set(called(after, "main_prepare"))) == 1, "equal packs are one function"
    assert texts(after, "main") == ("main_prepare:0", "main_prepare:1")
    assert set(texts(after, "main_prepare")) == set(texts(before, "main"))
    assert_same(model, before, after)


def test_what_was_prepared_is_packed_there_and_no_result_of_its_own() -> None:
    b = Builder()
    x, gain = b.parameter("x", tensor(Var("n", "int64"), SUMS)), b.constant(weights(SUMS, COLUMNS, seed=1))
    made = b.op("multiply", b.constant(weights(SUMS, COLUMNS)), gain)
    bias = b.op("negative", b.constant(weights(COLUMNS)))
    model = IRModule({"main": b.function(b.op("add", b.op("matmul", x, made), bias))})
    before, after = stepped(model)
    assert len(texts(before, "main")) == 2
    assert texts(after, "main") == ("main_prepare:0", "main_prepare:1")
    assert after.prim_func("main_prepare").attrs["crossfarm.outputs"] == 2
    assert called(after, "main_prepare")[:-1] == called(before, "main_prepare")
    assert_same(model, before, after)


def test_a_weight_that_is_used_as_it_is_too_stays() -> None:
    b = Builder()
    x, w = b.parameter("x", tensor(ROWS, SUMS)), b.constant(weights(SUMS, COLUMNS), "w")
    model = IRModule(
        {"main": b.function(TupleExpr((b.op("matmul", x, w), b.op("add", b.parameter("y", tensor(COLUMNS)), w))))}
    )
    before, after = stepped(model)
    assert texts(after, "main") == (*texts(before, "main"), "main_prepare:0")
    assert_same(model, before, after)


def test_a_program_with_a_constant_here_and_none_there_is_two() -> None:
    b = Builder()
    x, w = b.parameter("x", tensor(ROWS, SUMS)), b.constant(weights(SUMS, COLUMNS), "w")
    v = b.parameter("v", tensor(SUMS, COLUMNS))
    model = IRModule({"main": b.function(TupleExpr((b.op("matmul", x, w), b.op("matmul", x, v))))})
    before, after = stepped(model)
    assert called(before) == ["matmul", "matmul"]
    assert called(after) == ["matmul_packed", "matmul"]
    assert structural_equal(after["matmul"], before["matmul"])
    assert_same(model, before, after)


def test_inputs_and_names_that_are_taken_are_left_alone() -> None:
    b = Builder()
    x, w = b.parameter("x", tensor(ROWS, SUMS)), b.parameter("w", tensor(SUMS, COLUMNS))
    before, after = stepped(IRModule({"main": b.function(b.op("matmul", x, w))}))
    assert after is before
    c = Builder()
    own = c.function(c.op("nn.relu", c.parameter("x", tensor(4))))
    _, after = stepped(IRModule({**one_layer().functions, "main_prepare": own}))
    assert texts(after, "main") == ("main_prepare_1:0",)
    assert called(after, "main_prepare") == ["relu"]


def test_programs_without_a_copy_of_their_own_are_left_alone() -> None:
    """Few rows: the weights are read in place."""
    b = Builder()
    w = b.constant(weights(SUMS, COLUMNS))
    before, after = stepped(IRModule({"main": b.function(b.op("matmul", b.parameter("x", tensor(1, SUMS)), w))}))
    assert after is before


PROGRAM = """
@T.prim_func
def f({params}):
{body}
"""
WHOLE = 'W: T.Buffer((6, 4), "float32"), R: T.Buffer((8, 4), "float32")'
MOVED = """
    for i, j in T.grid(4, 6):
        with T.block("moved"):
            x, y = T.axis.remap("SS", [i, j])
            moved[x, y] = W[y, x]
"""
PADDED = """
    for i in T.parallel(8):
        for j in range(4):
            with T.block("padded"):
                x, y = T.axis.remap("SS", [i, j])
                padded[x, y] = T.if_then_else(x < 6, moved[y, x], T.float32(0))
"""
RESULT = """
    for i, j in T.grid(8, 4):
        with T.block("result"):
            x, y = T.axis.remap("SS", [i, j])
            R[x, y] = padded[x, y] * T.float32(2)
"""
CLEARED = MOVED.replace('"moved"', '"cleared"').replace("moved[x, y] = W[y, x]", "W[y, x] = T.float32(0)")
SPREAD = MOVED.replace("(4, 6)", "(1024, 1024)").replace("moved[x, y] = W[y, x]", "spread[x, y] = W[0, 0]")


def program(*stages: str, params: str = WHOLE, temporaries: Sequence[str] = ()) -> PrimFunc:
    shapes = {"moved": (4, 6), "padded": (8, 4), "spread": (1 << 10, 1 << 10)}
    made = "".join(f'    {name} = T.alloc_buffer({shapes[name]}, "float32")\n' for name in temporaries)
    found = parse(PROGRAM.format(params=params, body=made + "".join(stages)), "program")
    (func,) = found.prim_funcs.values()
    return func


def test_copies_of_copies_go_together() -> None:
    func = program(MOVED, PADDED, RESULT, temporaries=("moved", "padded"))
    (packing,) = packings_of(func)
    pack = program(
        MOVED.replace('"moved"', '"packed_0"'),
        PADDED.replace('"padded"', '"packed_1"'),
        params='W: T.Buffer((6, 4), "float32"), padded: T.Buffer((8, 4), "float32")',
        temporaries=("moved",),
    )
    assert explain_difference(packing.function(func), replace(pack, private=True)) is None
    rest = unpacked(func, [packing], [0])
    wanted = program(RESULT, params='padded: T.Buffer((8, 4), "float32"), R: T.Buffer((8, 4), "float32")')
    assert explain_difference(rest.function, wanted) is None
    assert rest.kept == frozenset()


@pytest.mark.parametrize(
    ("stage", "temporary", "more"),
    [
        (MOVED.replace("W[y, x]", "W[y, x] * T.float32(2)"), "moved", ""),
        (MOVED.replace("W[y, x]", "T.Select(x < 2, W[y, x], V[y, x])"), "moved", ', V: T.Buffer((6, 4), "float32")'),
        (MOVED.replace("W[y, x]", "T.if_then_else(x < n, W[y, x], T.float32(0))"), "moved", ", n: T.int32"),
        (MOVED.replace("W[y, x]", "W[T.Cast('int32', W[0, 0]), x]"), "moved", ""),
        (MOVED + MOVED.replace('"moved"', '"again"'), "moved", ""),
        (MOVED + CLEARED, "moved", ""),
        (SPREAD, "spread", ""),
    ],
    ids=["computes", "two factors", "a scalar", "chosen by data", "written twice", "of what changes", "repeats"],
)
def test_stages_that_do_more_than_lay_out_stay(stage: str, temporary: str, more: str) -> None:
    use = RESULT.replace("padded[x, y]", f"{temporary}[y, x % 4]")
    assert packings_of(program(stage, use, params=WHOLE + more, temporaries=[temporary])) == ()


def test_groups_and_bytes_are_packed_too() -> None:
    b = Builder()
    image = b.parameter("image", tensor(1, 8, 6, 16))
    bytes_ = b.parameter("x", tensor(16, 48, dtype="int8"))
    filters = b.constant(weights(12, 4, 3, 3), "filters")
    small = b.constant((weights(48, 40) * 20).astype("int8"), "small")
    out = [b.op("nn.conv2d", image, filters, groups=2), b.op("matmul", bytes_, small, out_dtype="int32")]
    model = IRModule({"main": b.function(TupleExpr(tuple(out)))})
    before, after = stepped(model)
    assert texts(after, "main") == ("main_prepare:0", "main_prepare:1")
    assert_same(model, before, after)
