"""The matmul rule for 8-bit integers: exact for all inputs and shapes, by the target's dot products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossfarm as cf
from compiler_service.build import build_variant
from compiler_service.schedules import choose_schedules
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.structural import explain_difference
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.native import Native

DTYPES = ("int8", "uint8")
VNNI = "llvm arch=x86_64 cpu=x86-64-v4 features=+avx512vnni"
#: Targets of this machine: its baseline, and all it has.
HERE = ["llvm", "native"]


def matmul(m: int | str, n: int | str, k: int | str, a: str, b: str, *, transposed: bool = False) -> IRModule:
    """``C[m, n] = A[m, k] @ B``, B of shape (k, n) or transposed; sizes given as names are symbolic."""
    shape, at = ((n, k), "vj, vk") if transposed else ((k, n), "vk, vj")
    symbols = "".join(f"        {s} = T.int32()\n" for s in dict.fromkeys((m, n, k)) if isinstance(s, str))
    return cf.parse(
        f"""
@I.ir_module
class Module:
    @T.prim_func
    def main(a: T.handle, b: T.handle, c: T.handle):
        T.func_attr({{"tir.noalias": True}})
{symbols}
        A = T.match_buffer(a, ({m}, {k}), "{a}")
        B = T.match_buffer(b, ({shape[0]}, {shape[1]}), "{b}")
        C = T.match_buffer(c, ({m}, {n}), "int32")
        for i, j, k in T.grid({m}, {n}, {k}):
            with T.block("C"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    C[vi, vj] = 0
                C[vi, vj] = C[vi, vj] + T.Cast("int32", A[vi, vk]) * T.Cast("int32", B[{at}])
""".replace("for i, j, k in", "for i, j, l in").replace("[i, j, k]", "[i, j, l]")
    )


def tensors(m: int, n: int, k: int, a: str, b: str, *, transposed: bool = False) -> list[Any]:
    """Random bytes, extreme ones among them, and a result that is not zero yet."""
    rng = np.random.default_rng(m * 31 + n * 7 + k)
    arrays = []
    for dtype, shape in ((a, (m, k)), (b, (n, k) if transposed else (k, n))):
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        arrays.append(
            np.where(rng.random(shape) < 0.3, np.array(info.min if rng.random() < 0.5 else info.max, dtype), values)
        )
    return [*arrays, np.full((m, n), 77, np.int32)]


def product(a: Any, b: Any, *, transposed: bool = False) -> Any:
    exact = a.astype(np.int64) @ (b.T if transposed else b).astype(np.int64)
    return exact.astype(np.int32)


def rule_of(module: IRModule, target: str) -> str:
    (choice,) = choose_schedules(module, Target(target).resolved()).choices
    return choice.rule


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("b", DTYPES)
@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("target", HERE)
def test_every_sign_and_layout_is_exact(target: str, a: str, b: str, transposed: bool) -> None:
    module = matmul(37, 45, 31, a, b, transposed=transposed)
    assert rule_of(module, target) == "matmul_int8"
    arrays = tensors(37, 45, 31, a, b, transposed=transposed)
    Native(module, target)("main", *arrays)
    np.testing.assert_array_equal(arrays[2], product(*arrays[:2], transposed=transposed))


@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(4, 70), st.integers(1, 70), st.integers(1, 70)),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    target=st.sampled_from(HERE),
    transposed=st.booleans(),
)
def test_shapes_that_nothing_divides_are_exact(
    shape: tuple[int, int, int], dtypes: tuple[str, str], target: str, transposed: bool
) -> None:
    arrays = tensors(*shape, *dtypes, transposed=transposed)
    Native(matmul(*shape, *dtypes, transposed=transposed), target)("main", *arrays)
    np.testing.assert_array_equal(arrays[2], product(*arrays[:2], transposed=transposed))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (33, 20, 9), (64, 64, 64)])
def test_sizes_known_at_the_call_are_exact(sizes: tuple[int, int, int]) -> None:
    module = matmul("m", "n", "k", "uint8", "int8")
    assert rule_of(module, "native") == "matmul_int8"
    arrays = tensors(*sizes, "uint8", "int8")
    Native(module, "native")("main", *arrays)
    np.testing.assert_array_equal(arrays[2], product(*arrays[:2]))


@pytest.mark.parametrize(
    ("target", "instruction"),
    [(VNNI, "vpdpbusd"), ("llvm arch=aarch64 cpu=cortex-a76", "udot"), ("llvm arch=x86_64 cpu=x86-64-v3", "vpmaddwd")],
)
def test_the_kernel_is_the_targets_instruction(target: str, instruction: str) -> None:
    module = matmul(64, 64, 64, "uint8", "uint8" if instruction == "udot" else "int8")
    options = compiler_pb2.BuildOptions(keep_sources=True)
    text = build_variant(module, Target(target), options).sources["assembly.s"]
    assert text.count(instruction) >= 8


def test_its_trace_gives_the_same_program_again() -> None:
    module = matmul(37, 45, 31, "int8", "int8")
    chosen = choose_schedules(module, Target(VNNI).resolved())
    again = Schedule(module)
    chosen.traces["main"].apply_to(again)
    assert explain_difference(again.module, chosen.module) is None
    cf.verify(chosen.module)


def test_products_in_fewer_bits_are_left_to_others() -> None:
    text = matmul(37, 45, 31, "int8", "int8").script()
    narrow = text.replace(
        'T.Cast("int32", A[vi, vk]) * T.Cast("int32", B[vk, vj])', 'T.Cast("int32", A[vi, vk] * B[vk, vj])'
    )
    assert narrow != text
    module = cf.parse(narrow)
    assert rule_of(module, "native") != "matmul_int8"
    arrays = tensors(37, 45, 31, "int8", "int8")
    Native(module, "native")("main", *arrays)
    wrapped = (arrays[0][:, :, None] * arrays[1][None]).astype(np.int8)
    np.testing.assert_array_equal(arrays[2], wrapped.astype(np.int32).sum(axis=1, dtype=np.int32))
