"""Libraries for other machines than this: built for every CPU target there is, loaded and run under emulators."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from compiler_service.build import build_variant
from compiler_service.codegen.llvm import Machine as LlvmMachine
from compiler_service.native_files import needed_libraries
from compiler_service.runtime import ZIG_TARGETS, runtime_object, support_objects
from crossfarm.errors import BuildFailed, UnsupportedTarget
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.module import IRModule
from crossfarm.target import TAGS, Target
from crossfarm.target.triples import HOSTS, llvm_triple
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.foreign import Machine
from tests.compiler.programs import module

OPTIONS = compiler_pb2.BuildOptions()
#: e_machine of an ELF file, and what its flags must say of the calling convention: hard float on arm and riscv64.
ELF = {"x86_64": (62, 0), "aarch64": (183, 0), "arm": (40, 0x400), "riscv64": (243, 0x4)}
#: What a library may need of a device, at most.
DEVICE_LIBRARIES = {
    "linux": {"libm.so.6", "libc.so.6", "libpthread.so.0"},
    "android": {"libm.so", "libc.so"},
    "windows": {"kernel32.dll", "api-ms-win-core-synch-l1-2-0.dll"},
}
DIVIDE = """
from crossfarm.script import tir as T
@T.prim_func
def divide(a: T.handle, b: T.handle, q: T.handle, r: T.handle):
    n = T.int64()
    A = T.match_buffer(a, (n,), "{dtype}")
    B = T.match_buffer(b, (n,), "{dtype}")
    Q = T.match_buffer(q, (n,), "{dtype}")
    R = T.match_buffer(r, (n,), "{dtype}")
    for i in range(n):
        Q[i] = A[i] // B[i]
        R[i] = A[i] % B[i]
"""


FLOATS = """
from crossfarm.script import tir as T
@T.prim_func
def norms(a: T.handle, b: T.handle, c: T.handle):
    n = T.int64()
    A = T.match_buffer(a, (n, 37), "float64")
    B = T.match_buffer(b, (n,), "float64")
    C = T.match_buffer(c, (n, 37), "float64")
    for i in T.parallel(n):
        with T.block("row"):
            vi = T.axis.spatial(n, i)
            total = T.alloc_buffer((1,), "float64")
            total[0] = T.float64(0)
            for j in range(37):
                total[0] = total[0] + T.exp(A[vi, j]) * T.sin(A[vi, j])
            B[vi] = T.sqrt(T.abs(total[0])) + T.Cast("float64", vi // T.int64(3))
            for j in range(37):
                C[vi, j] = T.pow(T.abs(A[vi, j]), T.float64(0.3)) + T.asinh(A[vi, j]) + B[vi]
"""


TRIPLES = [llvm_triple(*host) for host in HOSTS]


def cpu_tags() -> list[str]:
    """Tags of CPUs and of devices with one, each with the parts that are for a CPU."""
    return [tag for tag in TAGS if all(part.kind == "llvm" for part in Target(tag).variants())]


def corpus_module(corpus: Path, name: str) -> IRModule:
    return parse((corpus / f"{name}.py").read_text(), name)


@pytest.mark.parametrize("word", [*cpu_tags(), *TRIPLES])
def test_every_cpu_target_builds_a_library_that_needs_no_more_than_its_system_has(corpus: Path, word: str) -> None:
    assert Target(word).buildable_reason() is None
    for part in Target(word).variants():
        arch, system = str(part.attributes["arch"]), str(part.attributes["os"])
        for name in ("matmul_2d", "softmax_last"):
            built = build_variant(corpus_module(corpus, name), part, OPTIONS)
            requires = built.variant.requires
            assert (requires.arch, requires.os) == (arch, system)
            assert set(requires.cpu_features) == part.enabled_features()
            assert list(requires.libraries) == list(needed_libraries(built.code))
            assert set(requires.libraries) <= DEVICE_LIBRARIES[system]
            if system == "windows":
                assert built.code[:2] == b"MZ"
                continue
            machine, flags = struct.unpack_from("<H", built.code, 18)[0], ELF[arch][1]
            assert (built.code[:4], machine) == (b"\x7fELF", ELF[arch][0])
            wide = built.code[4] == 2
            hard_float = struct.unpack_from("<I", built.code, 48 if wide else 36)[0] & flags
            assert hard_float == (0 if system == "android" and arch == "arm" else flags)


@pytest.mark.parametrize("word", ["aarch64-windows", "x86_64-darwin", "llvm arch=riscv64 os=android"])
def test_a_host_that_nothing_links_for_is_refused_by_its_name(word: str) -> None:
    arch, system = (Target(word).attributes[name] for name in ("arch", "os"))
    with pytest.raises(UnsupportedTarget, match=f"no linking for {arch} on {system} yet"):
        build_variant(module(), Target(word), OPTIONS)


def test_there_is_a_runtime_for_every_host() -> None:
    assert set(HOSTS) == set(ZIG_TARGETS)
    for arch, system in HOSTS:
        assert LlvmMachine.of(Target(f"llvm arch={arch} os={system}"), 3).triple == llvm_triple(arch, system)


@pytest.mark.slow
def test_a_dll_is_the_same_bytes_whoever_compiled_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = []
    for compiled_anew in (False, True):
        if compiled_anew:
            monkeypatch.setenv("CROSSFARM_CACHE", str(tmp_path))
        for kept in (runtime_object, support_objects):
            kept.cache_clear()
        options = compiler_pb2.BuildOptions(schedule="none")
        libraries.append(build_variant(parse(FLOATS), Target("windows-x86-64"), options).code)
    assert len(list((tmp_path / "runtime").iterdir())) == 2
    assert libraries[0] == libraries[1]
    assert b"crossfarm_norms\0" in libraries[0]
    assert b"crossfarm-program.dll\0" in libraries[0]
    assert b"crossfarmrt_parallel" not in libraries[0]


def test_a_missing_emulator_is_a_failure_in_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="make system-packages"):
        Machine("riscv64", "linux", tmp_path)


def test_a_function_that_nothing_links_against_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler_service.native_variant.support_objects", lambda arch, system: ())
    with pytest.raises(BuildFailed, match=r"undefined symbol: __aeabi_u?ldivmod"):
        build_variant(parse(DIVIDE.format(dtype="int64")), Target("armv7-linux-generic"), OPTIONS)
