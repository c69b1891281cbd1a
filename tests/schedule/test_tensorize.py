"""tensorize puts an intrinsic where a program does what it describes, and says what differs where it does not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import crossfarm as cf
from compiler_service.pipeline import run_pipeline
from crossfarm.errors import ScheduleError
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.interpreter import run
from crossfarm.ir.schedule import intrinsics
from crossfarm.ir.schedule.dot_products import dot_name
from crossfarm.ir.stmt import Block
from crossfarm.target import Target
from tests.compiler.native import Native
from tests.schedule.programs import arguments, check, schedule

DTYPES = ("int8", "uint8")


def tiled(lanes: int = 16, a: str = "uint8", b: str = "int8", update: str = "") -> str:
    """A matrix product of 8-bit integers whose second factor is packed for dot products of ``lanes`` sums."""
    update = update or (
        f'T.Cast("int32", A[vi, vk]) * T.Cast("int32", B[vj // {lanes}, vk // 4, vj % {lanes} * 4 + vk % 4])'
    )
    return f"""
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((3, 8), "{a}"), B: T.Buffer((2, 2, {4 * lanes}), "{b}"),
             C: T.Buffer((3, {2 * lanes}), "int32")):
        for i, jo, ko, ji, ki in T.grid(3, 2, 2, {lanes}, 4):
            with T.block("C"):
                vi = T.axis.spatial(3, i)
                vj = T.axis.spatial({2 * lanes}, jo * {lanes} + ji)
                vk = T.axis.reduce(8, ko * 4 + ki)
                with T.init():
                    C[vi, vj] = 0
                C[vi, vj] = C[vi, vj] + {update}
"""


def tensorize(program: str, intrinsic: str) -> cf.IRModule:
    sch = schedule(program)
    sch.tensorize(sch.get_loops(sch.get_block("C"))[3], intrinsic)
    check(sch, program)
    return sch.module


@pytest.mark.parametrize("b", DTYPES)
@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_a_tile_of_a_packed_product_becomes_a_dot_product(lanes: int, a: str, b: str) -> None:
    program = tiled(lanes, a, b)
    module = tensorize(program, dot_name(lanes, a, b))
    assert "T.dot4(" in module.script()
    first, second = arguments(module, "main", {}), arguments(module, "main", {})
    run(cf.parse(program), "main", first)
    Native(module)("main", *second)
    np.testing.assert_array_equal(first[2], second[2])


@pytest.mark.parametrize("name", intrinsics.names())
def test_every_built_in_intrinsic_does_what_it_describes(name: str) -> None:
    intrinsic = intrinsics.lookup(name)
    results = []
    for func in (intrinsic.desc, intrinsic.impl):
        module = cf.IRModule({"main": func})
        cf.verify(module)
        assert cf.structural_equal(cf.parse(module.script()), module)
        tensors = arguments(module, "main", {})
        run(module, "main", tensors)
        results.append(tensors[-1])
    np.testing.assert_array_equal(*results)
    compiled = arguments(module, "main", {})
    Native(module)("main", *compiled)
    np.testing.assert_array_equal(compiled[-1], results[0])


def test_factors_may_be_the_other_way_round() -> None:
    tensorize(
        tiled(update='T.Cast("int32", B[vj // 16, vk // 4, vj % 16 * 4 + vk % 4]) * T.Cast("int32", A[vi, vk])'),
        "dot_16x4_u8i8i32",
    )


def test_a_block_made_before_is_replaced_in_place() -> None:
    sch = schedule(tiled())
    outer = sch.blockize(sch.get_loops(sch.get_block("C"))[3])
    assert sch.tensorize(outer, "dot_16x4_u8i8i32") == outer
    check(sch, tiled())
    found = sch.get(outer)
    assert isinstance(found, Block)
    assert [match.buffer.name for match in found.match_buffers] == ["A", "B", "C"]
    assert "T.reads(A[vi_o, vk_o * 4:vk_o * 4 + 4], B[vj_o, vk_o, 0:64])" in sch.module.script()


@pytest.mark.parametrize(
    ("program", "loop", "intrinsic", "reason"),
    [
        (tiled(), 3, "dot_16x4_i8i8i32", "it computes uint8 where the description has int8"),
        (tiled(), 3, "dot_8x4_u8i8i32", "loop ji runs 16 times, the description's loop i 8"),
        (tiled(), 4, "dot_16x4_u8i8i32", "loop ki runs 4 times, the description's loop i 16"),
        (tiled(), 2, "dot_16x4_u8i8i32", "loop ko runs 2 times, the description's loop i 16"),
        (tiled(update='T.Cast("int32", A[vi, vk])'), 3, "dot_16x4_u8i8i32", "description has the operation mul"),
        (
            tiled(update='T.Cast("int32", A[vi, vk]) * T.Cast("int32", B[vj // 16, vk // 4, vj % 16 + vk % 4 * 16])'),
            3,
            "dot_16x4_u8i8i32",
            "index 2 of B follows the loops otherwise than B does",
        ),
        (
            tiled(update='T.Cast("int32", A[0, vk]) * T.Cast("int32", B[0, vk // 4, vj % 16 * 4 + vk % 4]) + 1'),
            3,
            "dot_16x4_u8i8i32",
            "description has",
        ),
    ],
)
def test_other_content_is_refused_with_what_differs(program: str, loop: int, intrinsic: str, reason: str) -> None:
    sch = schedule(program)
    before = sch.module
    with pytest.raises(ScheduleError, match=reason) as refused:
        sch.tensorize(sch.get_loops(sch.get_block("C"))[loop], intrinsic)
    assert refused.value.details["primitive"] == "tensorize"
    assert sch.module is before


def test_tiles_over_the_edge_are_refused() -> None:
    program = tiled().replace("with T.init()", "T.where(jo * 16 + ji < 30)\n                with T.init()")
    sch = schedule(program)
    with pytest.raises(ScheduleError, match="block C has a predicate, so not all of it is computed"):
        sch.tensorize(sch.get_loops(sch.get_block("C"))[3], "dot_16x4_u8i8i32")


def test_an_unknown_intrinsic_is_refused_with_those_there_are() -> None:
    sch = schedule(tiled())
    with pytest.raises(ScheduleError, match=r"no intrinsic 'dot_17'.*dot_16x4_u8i8i32"):
        sch.tensorize(sch.get_loops(sch.get_block("C"))[3], "dot_17")


# --- intrinsics of a user's own

DOUBLE = """
@T.prim_func
def main(X: T.Buffer((2, 4), "float32"), Y: T.Buffer((2, 4), "float32")):
    for i, j in T.grid(2, 4):
        with T.block("double"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * T.float32(2)
"""
BY_ADDING = """
@T.prim_func
def main(x: T.handle, y: T.handle):
    s0 = T.int32()
    s1 = T.int32()
    X = T.match_buffer(x, (2, 4), "float32", strides=(s0, s1))
    Y = T.match_buffer(y, (2, 4), "float32")
    for i in range(2):
        with T.block("row"):
            vi = T.axis.spatial(2, i)
            row = T.alloc_buffer((4,), "float32")
            for j in range(4):
                row[j] = X[vi, j]
            for j in range(4):
                Y[vi, j] = row[j] + row[j]
"""
USER = """
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((3, 8, 8), "float32"), B: T.Buffer((8, 8, 3), "float32")):
        C = T.alloc_buffer((3, 8, 8), "float32")
        for n, io, jo, ii, ji in T.grid(3, 4, 2, 2, 4):
            with T.block("first"):
                vn = T.axis.spatial(3, n)
                vi = T.axis.spatial(8, io * 2 + ii)
                vj = T.axis.spatial(8, jo * 4 + ji)
                C[vn, vi, vj] = A[vn, vi, vj] * T.float32(2)
        for n, io, jo, ii, ji in T.grid(3, 4, 2, 2, 4):
            with T.block("second"):
                vn = T.axis.spatial(3, n)
                vi = T.axis.spatial(8, io * 2 + ii)
                vj = T.axis.spatial(8, jo * 4 + ji)
                B[vi, vj, vn] = C[vn, vi, vj] * T.float32(2)
"""


def function(text: str) -> PrimFunc:
    return cf.parse(text)["main"]


@pytest.fixture
def double() -> Iterator[str]:
    before = dict(intrinsics._registered)
    intrinsics.register("double_2x4", function(DOUBLE), function(BY_ADDING))
    yield "double_2x4"
    intrinsics._registered.clear()
    intrinsics._registered.update(before)


def test_a_registered_intrinsic_is_used_as_often_as_it_fits(double: str) -> None:
    program = USER.replace("B[vi, vj, vn]", "B[vn, vi, vj]").replace("(8, 8, 3)", "(3, 8, 8)")
    sch = schedule(program)
    for name in ("first", "second"):
        sch.tensorize(sch.get_loops(sch.get_block(name))[3], double)
    check(sch, program)
    results = [arguments(sch.module, "main", {}) for _ in range(2)]
    run(cf.parse(program), "main", results[0])
    Native(sch.module)("main", *results[1])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_a_program_of_64_bit_indices_takes_an_intrinsic_of_32_bit_ones(double: str) -> None:
    program = """
@T.prim_func
def main(A: T.Buffer((T.int64(6), T.int64(4)), "float32"), B: T.Buffer((T.int64(6), T.int64(4)), "float32")):
    for io, ii, j in T.grid(T.int64(3), T.int64(2), T.int64(4)):
        with T.block("B"):
            vi = T.axis.spatial(T.int64(6), io * T.int64(2) + ii)
            vj = T.axis.spatial(T.int64(4), j)
            B[vi, vj] = A[vi, vj] * T.float32(2)
"""
    sch = schedule(program)
    sch.tensorize(sch.get_loops(sch.get_block("B"))[1], double)
    check(sch, program)
    lowered, _ = run_pipeline(sch.module, Target("llvm").resolved())
    cf.verify(lowered)
    a, b = arguments(sch.module, "main", {})
    Native(sch.module)("main", a, b)
    np.testing.assert_array_equal(b, 2 * a)


def test_a_buffer_laid_out_otherwise_is_refused(double: str) -> None:
    sch = schedule(USER)
    with pytest.raises(ScheduleError, match=r"index \d of B follows the loops otherwise"):
        sch.tensorize(sch.get_loops(sch.get_block("second"))[3], double)


def test_one_buffer_for_two_parameters_is_refused_where_it_is_written(double: str) -> None:
    program = USER.replace("= C[vn, vi, vj]", "= B[vn, vi, vj]").replace("B[vi, vj, vn]", "B[vn, vi, vj]")
    sch = schedule(program.replace("(8, 8, 3)", "(3, 8, 8)"))
    with pytest.raises(ScheduleError, match="Y and X are both B, which is written"):
        sch.tensorize(sch.get_loops(sch.get_block("second"))[3], double)


@pytest.mark.parametrize(
    ("desc", "impl", "reason"),
    [
        (DOUBLE, BY_ADDING.replace("(2, 4)", "(2, 5)"), "parameter X of desc is not like X of impl"),
        (DOUBLE, BY_ADDING.replace('Y = T.match_buffer(y, (2, 4), "float32")', 'Y = T.match_buffer(y, (2, 4), "int8")')
         .replace("row[j] + row[j]", 'T.Cast("int8", row[j])'), "parameter Y of desc is not like Y of impl"),
        (DOUBLE.replace("T.grid(2, 4)", "T.grid(2, 3)"), BY_ADDING, "desc does not touch all of X"),
        (DOUBLE, "@T.prim_func\ndef main(X: T.Buffer((2, 4), 'float32')):\n    T.evaluate(0)", "desc has 2 parameters"),
    ],
)  # fmt: skip
def test_functions_that_do_not_fit_each_other_are_not_registered(desc: str, impl: str, reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        intrinsics.register("does_not_fit", function(desc), function(impl))
    assert "does_not_fit" not in intrinsics.names()


def test_a_name_is_not_taken_twice_unless_asked(double: str) -> None:
    desc, impl = function(DOUBLE), function(BY_ADDING)
    for name in (double, "dot_16x4_u8i8i32"):
        with pytest.raises(ScheduleError, match=f"already an intrinsic {name!r}"):
            intrinsics.register(name, desc, impl)
    assert intrinsics.register(double, desc, impl, override=True) is intrinsics.lookup(double)
