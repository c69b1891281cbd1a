"""What the rules for matmuls promise: which one takes a program and why, sums in registers, and errors for demands that
a target cannot meet. That results are right at any size is tested with all rules together."""

from __future__ import annotations

import re

import numpy as np
import pytest

import compiler_service.schedules as schedules
from compiler_service.build import build_variant
from compiler_service.schedules import Choice, choose_schedules
from compiler_service.schedules.cpu.matmul import Matmul
from compiler_service.schedules.cpu.tiles import best_tile
from compiler_service.schedules.machines import Cpu
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.structural import structural_equal
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from tests.compiler.native import Native

#: Target → an instruction that multiplies vectors and adds.
FMA = {
    "x86-64-v3": r"vfmadd\d+ps\s.*%ymm",
    "x86-64-v4": r"vfmadd\d+ps\s.*%zmm",
    "llvm arch=aarch64 cpu=cortex-a72": r"fmla\s+v\d+\.4s",
}


def matmul(m: int, n: int, k: int, *, left: str = "ik", right: str = "kj", bias: bool = False) -> IRModule:
    """C[i, j] = sum over k; ``left`` and ``right`` name the dimensions of A and B in order."""
    size = {"i": m, "j": n, "k": k}
    shapes = [", ".join(str(size[a]) for a in axes) for axes in (left, right)]
    result = "D" if bias else "C"
    text = f"""
from crossfarm.script import tir as T

@T.prim_func
def main(A: T.Buffer(({shapes[0]}), "float32"), B: T.Buffer(({shapes[1]}), "float32"),
         E: T.Buffer(({n},), "float32"), C: T.Buffer(({m}, {n}), "float32")):
    T.func_attr({{"tir.noalias": True}})
    D = T.alloc_buffer(({m}, {n}), "float32")
    for i, j, k in T.grid({m}, {n}, {k}):
        with T.block("sum"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                {result}[vi, vj] = T.float32(0)
            {result}[vi, vj] = {result}[vi, vj] + A[{", ".join("v" + a for a in left)}] * \
B[{", ".join("v" + a for a in right)}]
"""
    if bias:
        text += f"""
    for i, j in T.grid({m}, {n}):
        with T.block("bias"):
            vi, vj = T.axis.remap("SS", [i, j])
            C[vi, vj] = T.max(D[vi, vj] + E[vj], T.float32(0))
"""
    return parse(text)


def chosen(module: IRModule, target: str = "x86-64-v3") -> list[Choice]:
    return list(choose_schedules(module, Target(target).resolved()).choices)


@pytest.mark.parametrize(
    ("module", "rule"),
    [
        (matmul(64, 64, 64), "matmul"),
        (matmul(64, 64, 64, left="ki", right="jk"), "matmul"),
        (matmul(61, 67, 71), "matmul"),
        (matmul(1, 256, 256), "skinny_matmul"),
        (matmul(8, 256, 256), "skinny_matmul"),
        (matmul(1, 256, 256, right="jk"), "dot_products"),
        (matmul(256, 1, 256), "dot_products"),
    ],
)
def test_the_rule_for_a_shape_and_a_layout(module: IRModule, rule: str) -> None:
    (choice,) = chosen(module)
    assert choice.rule == rule
    assert choice.reason


def test_a_bias_and_an_activation_are_computed_on_the_tile() -> None:
    (choice,) = chosen(matmul(64, 64, 64, bias=True))
    assert choice.blocks == ("sum", "bias")
    assert "with bias on each tile" in choice.reason


@pytest.mark.parametrize("target", FMA)
def test_sums_stay_in_registers_over_the_whole_loop(target: str) -> None:
    module, resolved = matmul(480, 480, 480), Target(target).resolved()
    tile = best_tile(Cpu.of(resolved), "float32", 480, 480)
    built = build_variant(module, resolved, BuildOptions(keep_sources=True))
    loops = re.split(r"^\S*L\S*:", built.sources["assembly.s"], flags=re.MULTILINE)
    kernel = max(loops, key=lambda text: len(re.findall(FMA[target], text)))
    *_, last = re.finditer(FMA[target], kernel)
    kernel = kernel[: last.end()]
    steps, rest = divmod(len(re.findall(FMA[target], kernel)), tile.rows * tile.vectors)
    assert steps >= 1
    assert rest == 0
    assert not re.search(r"%rsp|\[sp", kernel), "a sum was spilled to the stack"


@pytest.mark.parametrize(
    ("target", "registers"),
    [("x86-64-v2", 16), ("x86-64-v3", 16), ("x86-64-v4", 32), ("llvm arch=aarch64", 32)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
def test_a_tile_fits_the_registers_of_its_target_and_fills_most(target: str, registers: int, dtype: str) -> None:
    tile = best_tile(Cpu.of(Target(target).resolved()), dtype, None, None)
    assert registers // 2 < tile.registers <= registers


def test_a_tile_follows_the_size_of_the_result() -> None:
    cpu = Cpu.of(Target("x86-64-v4").resolved())
    for rows in (16, 24, 60, 480):
        tile = best_tile(cpu, "float32", rows, 512)
        assert -(-rows // tile.rows) * tile.rows <= rows * 1.07, "more than a few rows are padding"


def test_a_tile_that_exceeds_the_target_is_refused_with_the_numbers() -> None:
    target = Target("x86-64-v3").resolved()
    greedy = Matmul(rows=14, vectors=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(schedules.RULES, Cpu, (greedy,))
        with pytest.raises(BuildFailed, match=r"14 rows by 2 vectors needs 31 registers; .* has 16"):
            choose_schedules(matmul(64, 64, 64), target)


def test_a_rule_that_is_asked_for_but_does_not_fit_says_why() -> None:
    with pytest.raises(BuildFailed, match=r"'dot_products' fits no block .*main\.sum: 64 rows are not few"):
        choose_schedules(matmul(64, 64, 64), Target("x86-64-v3").resolved(), "dot_products")
    with pytest.raises(BuildFailed, match="there is no schedule 'fastest'") as failure:
        choose_schedules(matmul(64, 64, 64), Target("x86-64-v3").resolved(), "fastest")
    assert "matmul" in failure.value.hint


def test_a_function_that_somebody_scheduled_is_left_alone() -> None:
    sch = Schedule(matmul(64, 64, 64))
    loops = sch.get_loops(sch.get_block("sum"))
    sch.parallel(loops[0])
    result = choose_schedules(sch.module, Target("x86-64-v3").resolved())
    assert result.module is sch.module
    (choice,) = result.choices
    assert (choice.rule, choice.reason) == ("", "loop 'i' is parallel")


@pytest.mark.parametrize("module", [matmul(61, 67, 71, bias=True), matmul(3, 64, 64), matmul(3, 64, 64, right="jk")])
def test_the_trace_of_a_rule_replays_on_the_program(module: IRModule) -> None:
    result = choose_schedules(module, Target("x86-64-v3").resolved())
    sch = Schedule(module)
    result.traces["main"].apply_to(sch)
    assert structural_equal(sch.module, result.module)


def test_without_schedules_loops_run_as_written() -> None:
    assert choose_schedules(matmul(64, 64, 64), Target("llvm").resolved(), "none").module["main"]
    a, b = (np.random.default_rng(0).standard_normal((64, 64)).astype("float32") for _ in range(2))
    results = []
    for schedule in ("none", "matmul"):
        c = np.zeros((64, 64), "float32")
        Native(matmul(64, 64, 64), "llvm", schedule=schedule)("main", a, b, np.zeros(64, "float32"), c)
        results.append(c)
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)
