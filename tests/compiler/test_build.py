"""What a build gives, refuses, and promises."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler_service import linker
from compiler_service.build import build_variant
from compiler_service.native_files import needed_libraries
from compiler_service.pipeline import PIPELINES
from crossfarm.errors import BuildFailed, UnsupportedTarget
from crossfarm.frontends.tvmscript import parse
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2, compiler_pb2
from tests.compiler.native import Native
from tests.compiler.test_each_pass import function
from tests.conftest import ROOT

Parameter = artifact_pb2.Parameter
OPTIONS = compiler_pb2.BuildOptions()
EXP = "for i in range(64):\n    B[i] = T.exp(A[i]) + T.erf(A[i])"
#: What still comes from libm.
ASINH = "for i in range(64):\n    B[i] = T.asinh(A[i])"
COPY = "for i in range(64):\n    B[i] = A[i]"


def test_progress_names_every_step_in_order() -> None:
    steps: list[tuple[str, int, int]] = []
    built = build_variant(function(COPY), Target("llvm"), OPTIONS, lambda *step: steps.append(step))
    names = [name for name, _, _ in steps]
    assert names[0] == "refuse_thread_bindings"
    assert names[-4:] == ["codegen", "optimize", "emit", "link"]
    assert [index for _, index, _ in steps] == list(range(len(steps)))
    assert {count for _, _, count in steps} == {len(steps)}
    assert [name for name, _ in built.steps] == names
    assert set(built.toolchain) == {"crossfarm", "llvm", "linker"}


def test_the_variant_says_what_it_needs() -> None:
    built = build_variant(function(ASINH), Target("llvm arch=x86_64 cpu=x86-64-v2"), OPTIONS)
    requires = built.variant.requires
    assert (requires.arch, requires.os, requires.native_abi) == ("x86_64", "linux", 1)
    assert "sse4.2" in requires.cpu_features
    assert "avx2" not in requires.cpu_features
    assert list(requires.libraries) == ["libm.so.6"]
    assert not build_variant(function(COPY.replace("64", "4")), Target("llvm"), OPTIONS).variant.requires.libraries
    android = build_variant(function(ASINH), Target("aarch64-linux-android"), OPTIONS).variant.requires
    assert (android.arch, android.os, list(android.libraries)) == ("aarch64", "android", ["libm.so"])


@pytest.mark.parametrize("target", ["llvm", "raspberry-pi/4b"])
def test_the_same_input_gives_the_same_bytes_in_two_processes(target: str) -> None:
    program = (
        "import hashlib, sys\n"
        "from tests.compiler.test_build import EXP, OPTIONS, function, build_variant, Target\n"
        "built = build_variant(function(EXP), Target(sys.argv[1]), OPTIONS)\n"
        "print(hashlib.sha256(built.code + built.variant.SerializeToString(deterministic=True)).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program, target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for _ in range(2)
    }
    built = build_variant(function(EXP), Target(target), OPTIONS)
    own = hashlib.sha256(built.code + built.variant.SerializeToString(deterministic=True)).hexdigest()
    assert digests == {f"{own}\n"}


def test_sources_are_kept_where_asked() -> None:
    assert not build_variant(function(COPY), Target("llvm"), OPTIONS).sources
    sources = build_variant(function(COPY), Target("llvm"), compiler_pb2.BuildOptions(keep_sources=True)).sources
    assert {"llvm.ll", "llvm-optimized.ll", "assembly.s"} <= set(sources)
    lowered = next(text for name, text in sources.items() if name.endswith("lower_blocks.py"))
    assert "T.block" not in lowered
    parse(lowered)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_optimization_level_gives_the_same_results(level: int) -> None:
    native = Native(function(EXP), opt_level=level, opt_level_set=True)
    a, b = np.linspace(-2, 2, 64, dtype=np.float32), np.zeros(64, np.float32)
    native("f", a, b)
    np.testing.assert_allclose(b, [math.exp(x) + math.erf(x) for x in a], rtol=1e-5)


def test_an_unknown_optimization_level_is_refused() -> None:
    with pytest.raises(BuildFailed, match="no optimization level 7"):
        build_variant(function(COPY), Target("llvm"), compiler_pb2.BuildOptions(opt_level=7))


def test_a_target_without_code_generation_is_refused() -> None:
    with pytest.raises(UnsupportedTarget, match="cannot build for it yet"):
        build_variant(function(COPY), Target("x86_64-apple-darwin"), OPTIONS)


def test_a_private_function_is_no_entry_point() -> None:
    text = """
from crossfarm.script import ir as I, tir as T
@I.ir_module
class Module:
    @T.prim_func(private=True)
    def helper(A: T.Buffer((4,), "float32")):
        A[0] = T.float32(1)
    @T.prim_func
    def main(A: T.Buffer((4,), "float32")):
        A[0] = T.float32(2)
"""
    built = build_variant(parse(text), Target("llvm"), OPTIONS)
    assert [e.name for e in built.variant.entry_points] == ["main"]
    assert b"helper" not in built.code
    with pytest.raises(BuildFailed, match="no public function"):
        build_variant(parse(text.split("    @T.prim_func\n")[0]), Target("llvm"), OPTIONS)


def test_only_entry_points_are_exported() -> None:
    built = build_variant(function(EXP), Target("llvm"), OPTIONS)
    assert b"crossfarm_f\0" in built.code
    assert b"crossfarm_f.body" not in built.code


def test_names_that_c_knows_do_not_clash() -> None:
    text = """
from crossfarm.script import tir as T
@T.prim_func
def exp(A: T.Buffer((4,), "float32")):
    A[0] = T.exp(A[1])
"""
    a = np.zeros(4, np.float32)
    Native(parse(text))("exp", a)
    assert a[0] == 1


ROLES = {
    "for i in range(64):\n    B[i] = A[i]": ("IN", "OUT"),
    "for i in range(64):\n    B[i] = B[i] + A[i]": ("IN", "INOUT"),
    "for i in range(64):\n    B[i] = T.float32(0)\nfor i in range(64):\n    B[i] = B[i] + A[i]": ("IN", "OUT"),
    "for i in range(64):\n    B[i] = A[i]\n    A[i] = B[i]": ("INOUT", "OUT"),
    "for i in range(63):\n    B[i] = A[i]\n    A[i] = B[i + 1]": ("INOUT", "INOUT"),
    "for i in range(32):\n    B[i] = A[i]\nfor i in range(64):\n    A[i] = B[i]": ("INOUT", "INOUT"),
    "for i in range(64):\n    if A[i] > T.float32(0):\n        B[i] = A[i]\n    A[i] = B[i]": ("INOUT", "INOUT"),
    "B[0] = T.float32(1)": ("IN", "OUT"),
    'T.evaluate(T.call_extern("handle", "memcpy", T.address_of(B[0]), T.address_of(A[0]), 256))': ("IN", "OUT"),
    "for i in range(64):\n    for k in range(4):\n        if k == 0:\n            B[i] = T.float32(0)\n"
    "        B[i] = B[i] + A[i]": ("IN", "INOUT"),
}


@pytest.mark.parametrize("body", ROLES)
def test_a_buffer_is_out_only_if_nothing_of_the_callers_can_be_read(body: str) -> None:
    built = build_variant(function(body), Target("llvm"), OPTIONS)
    (entry,) = built.variant.entry_points
    assert tuple(Parameter.Role.Name(p.role) for p in entry.parameters) == ROLES[body]


def test_debug_output_shows_the_module_after_each_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSFARM_DEBUG", "passes,verify")
    build_variant(function(COPY), Target("llvm"), OPTIONS)
    printed = capsys.readouterr().err
    assert "# after lower_blocks\n" in printed
    assert printed.count("@T.prim_func") == len(PIPELINES["llvm"])


def test_the_systems_newest_linker_serves_where_there_is_no_ziglang_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, does in {"ld.lld-99": f"exec {linker._zig()} ld.lld", "ld.lld-9": "exit 1 #"}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\n{does} "$@"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(linker, "_zig", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for cached in (linker._find_linker, linker._version):
        cached.cache_clear()
    try:
        built = build_variant(function(ASINH), Target("raspberry-pi/4b"), OPTIONS)
        assert needed_libraries(built.code) == ("libm.so.6",)
        assert built.toolchain["linker"].startswith("LLD")
    finally:
        for cached in (linker._find_linker, linker._version):
            cached.cache_clear()


def test_a_linker_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ld.lld-99"
    fake.write_text("#!/bin/sh\necho 'ld.lld: error: no room' >&2\nexit 1\n")
    fake.chmod(0o755)
    build_variant(function(COPY), Target("llvm"), OPTIONS)  # its stubs are made by now
    monkeypatch.setattr(linker, "_zig", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    linker._find_linker.cache_clear()
    try:
        with pytest.raises(BuildFailed, match=r"linker failed with status 1: ld\.lld: error: no room"):
            build_variant(function(COPY), Target("llvm"), OPTIONS)
    finally:
        linker._find_linker.cache_clear()
