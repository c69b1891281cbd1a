"""``T.dot4`` is exact for all signs and lengths on every target, and one instruction where the target has it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from compiler_service.build import build_variant
from crossfarm.errors import VerifyError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import interpreter
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from crossfarm.target.cpu import host_cpu_features
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.dots import LANES, SIGNS, dot_of, dot_program, factors
from tests.compiler.native import Native

#: x86 targets by what they have for it.
X86 = {
    "llvm arch=x86_64 cpu=x86-64": "pmaddwd",
    "llvm arch=x86_64 cpu=x86-64-v3": "vpmaddwd",
    "llvm arch=x86_64 cpu=x86-64-v3 features=+avxvnni": "vpdpbusd",
    "llvm arch=x86_64 cpu=x86-64-v3 features=+avxvnni,+avxvnniint8": "vpdpbssd",
    "llvm arch=x86_64 cpu=x86-64-v4 features=+avx512vnni": "vpdpbusd",
}
ARM = {
    "llvm arch=aarch64 cpu=cortex-a53": ("smull", "smull"),
    "llvm arch=aarch64 cpu=cortex-a76": ("sdot", "udot"),
    "llvm arch=aarch64 cpu=neoverse-v1": ("sdot", "usdot"),
}


def _runs_here(target: str) -> bool:
    resolved = Target(target).resolved()
    same = resolved.attributes["arch"] == Target("llvm").attributes["arch"]
    return same and resolved.enabled_features() <= host_cpu_features()


@cache
def _native(lanes: int, target: str) -> Native:
    return Native(dot_program(lanes), target)


def _assembly(lanes: int, target: str) -> str:
    options = compiler_pb2.BuildOptions(keep_sources=True)
    return build_variant(dot_program(lanes), Target(target).resolved(), options).sources["assembly.s"]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("signs", SIGNS)
def test_the_interpreter_adds_exact_products_and_wraps_around(signs: str, lanes: int) -> None:
    built = dot_program(lanes)
    verify(built)
    a, b, c = factors(signs, lanes)
    expected = dot_of(a, b, c)
    interpreter.run(built, signs, [a, b, c])
    np.testing.assert_array_equal(c, expected)


@pytest.mark.parametrize("target", ["llvm", *(t for t in X86 if _runs_here(t))])
@pytest.mark.parametrize("lanes", LANES)
def test_compiled_code_gives_the_same_integers_with_and_without_the_instruction(lanes: int, target: str) -> None:
    for signs in SIGNS:
        for seed in range(4):
            a, b, c = factors(signs, lanes, seed)
            expected = dot_of(a, b, c)
            _native(lanes, target)(signs, a, b, c)
            np.testing.assert_array_equal(c, expected, err_msg=signs)


@pytest.mark.parametrize("target", X86)
def test_an_x86_target_uses_the_instruction_that_it_has(target: str) -> None:
    assert X86[target] in _assembly(16, target)


def test_the_512_bit_instruction_takes_sixteen_lanes_at_once() -> None:
    text = _assembly(16, "llvm arch=x86_64 cpu=x86-64-v4 features=+avx512vnni")
    lines = [line for line in text.splitlines() if "vpdpbusd" in line]
    assert lines
    assert all("zmm" in line for line in lines)


@pytest.mark.parametrize("target", ARM)
def test_an_arm_target_uses_the_instruction_that_it_has(target: str) -> None:
    text = _assembly(4, target)
    assert all(instruction in text for instruction in ARM[target])


@pytest.mark.parametrize("target", [*X86, "llvm arch=x86_64 cpu=x86-64-v4", *ARM])
def test_four_bytes_that_meet_many_others_compile_in_no_time(target: str) -> None:
    lanes = 16
    functions = [
        f"""
    @T.prim_func
    def {signs}(a: T.Buffer((64,), "{a}"), b: T.Buffer(({4 * lanes},), "{b}"), c: T.Buffer(({lanes},), "int32")):
        for r in range(16):
            c[T.Ramp(0, 1, {lanes})] = T.dot4(
                c[T.Ramp(0, 1, {lanes})],
                T.reinterpret("{a}x{4 * lanes}", T.Broadcast(T.reinterpret("int32", a[T.Ramp(r * 4, 1, 4)]), {lanes})),
                b[T.Ramp(0, 1, {4 * lanes})])
"""
        for signs, (a, b) in SIGNS.items()
    ]
    module = parse("\n@I.ir_module\nclass Module:" + "".join(functions))
    if not _runs_here(target):
        build_variant(module, Target(target).resolved(), compiler_pb2.BuildOptions())
        return
    native = Native(module, target)
    for signs in SIGNS:
        a, b, c = (x[:n] for x, n in zip(factors(signs, lanes), (64, 4 * lanes, lanes)))
        expected = c + sum(
            (np.tile(a[4 * r : 4 * r + 4], lanes).astype(np.int32) * b).reshape(-1, 4).sum(1) for r in range(16)
        )
        native(signs, a, b, c)
        np.testing.assert_array_equal(c, expected.astype(np.int32), err_msg=signs)


@pytest.mark.parametrize(
    "call",
    [
        "T.dot4(c[0], a[0], b[T.Ramp(0, 1, 4)])",
        'T.dot4(T.Cast("int64", c[0]), a[T.Ramp(0, 1, 4)], b[T.Ramp(0, 1, 4)])',
        'T.dot4(c[0], T.Cast("int16x4", a[T.Ramp(0, 1, 4)]), b[T.Ramp(0, 1, 4)])',
        "T.dot4(c[T.Ramp(0, 1, 2)], a[T.Ramp(0, 1, 4)], b[T.Ramp(0, 1, 4)])",
    ],
)
def test_other_widths_and_lengths_are_refused(call: str) -> None:
    program = f"""
@T.prim_func
def main(a: T.Buffer((4,), "int8"), b: T.Buffer((4,), "int8"), c: T.Buffer((4,), "int32")):
    T.evaluate({call})
"""
    with pytest.raises(VerifyError, match="dot-product"):
        verify(parse(program))


def test_four_bytes_and_an_int32_are_the_same_bits_lowest_lane_lowest() -> None:
    program = parse("""
@T.prim_func
def main(a: T.Buffer((8,), "int8"), words: T.Buffer((3,), "int32"), back: T.Buffer((12,), "uint8")):
    words[0] = T.reinterpret("int32", a[T.Ramp(0, 1, 4)])
    words[T.Ramp(1, 1, 2)] = T.reinterpret("int32x2", a[T.Ramp(0, 1, 8)])
    back[T.Ramp(0, 1, 4)] = T.reinterpret("uint8x4", words[0])
    back[T.Ramp(4, 1, 8)] = T.reinterpret("uint8x8", words[T.Ramp(1, 1, 2)])
""")
    verify(program)
    a = np.array([1, -2, 3, -4, 5, 6, 7, -128], np.int8)
    for call in (
        lambda *args: interpreter.run(program, "main", list(args)),
        lambda *args: Native(program)("main", *args),
    ):
        words, back = np.zeros(3, np.int32), np.zeros(12, np.uint8)
        call(a, words, back)
        assert words.tolist() == [*a[:4].view(np.int32).tolist(), *a.view(np.int32).tolist()]
        assert back.tolist() == [*a[:4].view(np.uint8).tolist(), *a.view(np.uint8).tolist()]
