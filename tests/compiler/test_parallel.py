"""Parallel loops in real libraries: right on any number of threads, and nothing left of them afterwards."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler_service.build import build_variant
from compiler_service.native_files import needed_libraries
from compiler_service.native_variant import RUNTIME
from compiler_service.runtime import runtime_object, zig_version
from crossfarm.errors import BuildFailed, ProgramError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.native import Native

OPTIONS = compiler_pb2.BuildOptions(schedule="none")
LINUX = sys.platform == "linux"
pytestmark = pytest.mark.skipif(not LINUX, reason="looks at Linux' list of threads")


def function(params: str, body: str) -> IRModule:
    head = f"from crossfarm.script import tir as T\n@T.prim_func\ndef f({params}):\n"
    head += "    T.func_attr({'tir.noalias': True})\n"
    return parse(head + textwrap.indent(textwrap.dedent(body), "    "))


#: A row's work grows with its number, and each row has temporaries of a symbolic and of a constant size.
UNEVEN = function(
    "a: T.handle, b: T.handle, scale: T.float32",
    """
    n = T.int64()
    m = T.int32()
    A = T.match_buffer(a, (n, m), "float32")
    B = T.match_buffer(b, (n, m), "float32")
    for i in T.parallel(n):
        with T.block("row"):
            vi = T.axis.spatial(n, i)
            row = T.alloc_buffer((m,), "float32")
            last = T.alloc_buffer((1,), "float32")
            for j in range(m):
                row[j] = A[vi, j] * scale
            last[0] = T.float32(0)
            for r in range(vi * vi):
                last[0] = last[0] * T.float32(0.5) + row[r % T.Cast("int64", m)]
            for j in range(m):
                B[vi, j] = row[m - 1 - j] + last[0]
    """,
)

DOUBLE = function(
    'A: T.Buffer((256,), "int32"), B: T.Buffer((256,), "int32")',
    """
    for i in T.parallel(256):
        B[i] = A[i] * 2
    """,
)


@pytest.fixture(scope="module")
def uneven() -> Iterator[Native]:
    native = Native(UNEVEN, schedule="none")
    yield native
    native.library.crossfarmrt_close()


@pytest.fixture
def double() -> Iterator[Native]:
    """A library of the test's own, that no thread runs in yet."""
    native = Native(DOUBLE, schedule="none")
    yield native
    native.library.crossfarmrt_close()


def set_threads(native: Native, count: int, *cpus: int) -> int:
    status: int = native.library.crossfarmrt_set_threads(count, (ctypes.c_int32 * len(cpus))(*cpus), len(cpus))
    return status


def threads() -> set[int]:
    """This process' threads, those that Python knows nothing of among them."""
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def assert_gone(started: set[int]) -> None:
    """A thread that has been joined is still listed for a moment."""
    deadline = time.monotonic() + 10
    while started & threads():
        assert time.monotonic() < deadline, f"threads {started & threads()} are still there"


def wait_until_placed(started: set[int], cpus: set[int]) -> None:
    """A thread places itself when it starts, which may be after a loop that others have done meanwhile."""
    deadline = time.monotonic() + 10
    while any(os.sched_getaffinity(thread) != cpus for thread in started & threads()):
        assert time.monotonic() < deadline


def is_mapped(address: int | None) -> bool:
    """Whether there is memory at an address of this process."""
    assert address is not None
    spans = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
    return any(int(first, 16) <= address < int(last, 16) for first, last in spans)


def check_double(native: Native) -> None:
    a, b = np.arange(256, dtype=np.int32), np.zeros(256, np.int32)
    native("f", a, b)
    np.testing.assert_array_equal(b, 2 * a)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("n", "m"), [(0, 5), (1, 3), (2, 1000), (37, 17), (90, 3000)])
def test_results_do_not_depend_on_the_number_of_threads(uneven: Native, count: int, n: int, m: int) -> None:
    assert set_threads(uneven, count) == 0
    a = np.random.default_rng(n).random((n, m), dtype=np.float32)
    b, expected = np.zeros_like(a), np.zeros_like(a)
    uneven("f", a, b, 0.75)
    if n * m < 5000:
        run(UNEVEN, "f", [a, expected, 0.75])
        np.testing.assert_allclose(b, expected, rtol=1e-6)
    else:
        set_threads(uneven, 1)
        uneven("f", a, expected, 0.75)
        np.testing.assert_array_equal(b, expected)


CASES = {
    "what is defined around the loop": """
        for k in range(3):
            flag: T.bool = k > 0
            half: T.float16 = T.Cast("float16", k)
            for i in T.parallel(4, 60):
                if flag:
                    B[i] = B[i] + A[i] * T.Cast("float32", half)
                else:
                    B[i] = A[63 - i]
    """,
    "a temporary of the function": """
        C = T.alloc_buffer((64,), "float32")
        D = T.alloc_buffer((5000,), "float32")
        for i in range(64):
            C[i] = A[i] + T.float32(1)
            D[i] = C[i] * T.float32(2)
        for i in T.parallel(64):
            B[i] = C[63 - i] + D[i]
    """,
    "loops in loops": """
        for i in T.parallel(8):
            for j in T.parallel(8):
                B[i * 8 + j] = A[j * 8 + i]
    """,
    "two loops, the second of the first's results": """
        C = T.alloc_buffer((64,), "float32")
        for i in T.parallel(64):
            C[i] = A[i] * A[i]
        for i in T.parallel(64):
            B[i] = C[63 - i] - C[i]
    """,
    "vectors and unrolled loops inside": """
        for i in T.parallel(8):
            for j in T.vectorized(4):
                B[i * 8 + j] = A[i * 8 + j] + T.float32(1)
            for j in T.unroll(4):
                B[i * 8 + 4 + j] = A[i * 8 + j] - T.float32(1)
    """,
    "a loop that does not run": """
        for i in T.parallel(T.Cast("int32", A[0])):
            B[i] = T.float32(1)
    """,
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES)
def test_a_loop_uses_what_is_around_it(body: str) -> None:
    module = function('A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")', body)
    a = np.random.default_rng(0).random(64, dtype=np.float32)
    got, expected = np.zeros_like(a), np.zeros_like(a)
    run(module, "f", [a, expected])
    native = Native(module, schedule="none")
    set_threads(native, 3)
    native("f", a, got)
    np.testing.assert_array_equal(got, expected)
    native.library.crossfarmrt_close()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_first_failing_iteration_decides_what_the_call_says(count: int) -> None:
    module = function(
        'A: T.Buffer((400,), "int32"), B: T.Buffer((400,), "int32")',
        """
        for i in T.parallel(400):
            assert A[i] >= 0, "negative"
            assert A[i] <= 9, "too large"
            B[i] = A[i]
        """,
    )
    native = Native(module, schedule="none")
    set_threads(native, count)
    for first, second, said in ((7, -7, "too large"), (-7, 7, "negative")):
        a = np.zeros(400, np.int32)
        a[150], a[151:] = 10 * first, 10 * second
        for _ in range(50):
            with pytest.raises(ProgramError, match=said):
                native("f", a, np.zeros_like(a))
    native.library.crossfarmrt_close()


def test_scratch_that_the_system_cannot_give_is_a_status_of_its_own() -> None:
    module = function(
        'n: T.int64, B: T.Buffer((4,), "float32")',
        """
        for i in T.parallel(4):
            with T.block("b"):
                vi = T.axis.spatial(4, i)
                row = T.alloc_buffer((n,), "float32")
                row[vi] = T.float32(1)
                B[vi] = row[vi]
        """,
    )
    native = Native(module, schedule="none")
    b = np.zeros(4, np.float32)
    native("f", 100_000, b)
    np.testing.assert_array_equal(b, 1)
    slots = (ctypes.c_uint64 * 3)(1 << 55, b.ctypes.data, 1 << 55)
    entry = getattr(native.library, native.entries["f"].native.symbol)
    assert entry(None, slots) == -1
    native("f", 100_000, b)
    native.library.crossfarmrt_close()


def test_a_library_without_parallel_loops_has_no_runtime() -> None:
    serial = parse(DOUBLE.script().replace("T.parallel(256)", "range(256)"))
    without, with_loops = (build_variant(m, Target("llvm"), OPTIONS) for m in (serial, DOUBLE))
    assert needed_libraries(without.code) == ()
    assert set(needed_libraries(with_loops.code)) == {"libc.so.6", "libpthread.so.0"}
    assert b"crossfarmrt" not in without.code
    assert b"crossfarmrt_set_threads\0" in with_loops.code
    assert b"crossfarmrt_parallel\0" not in with_loops.code, "what generated code calls is nobody else's"
    assert "zig" not in without.toolchain
    assert with_loops.toolchain["zig"] == zig_version()


@pytest.mark.parametrize("target", ["llvm", "raspberry-pi/4b", "aarch64-linux-android", "x86_64-linux-android"])
def test_every_platform_has_threads_and_the_same_bytes_each_time(target: str) -> None:
    first, second = (build_variant(UNEVEN, Target(target), OPTIONS).code for _ in range(2))
    assert first == second
    assert b"crossfarmrt_set_threads\0" in first
    assert len(needed_libraries(first)) <= 3


def test_there_is_a_runtime_for_each_architecture_and_none_where_it_cannot_be() -> None:
    for arch, machine in (("x86_64", 62), ("aarch64", 183), ("arm", 40), ("riscv64", 243)):
        for file in RUNTIME:
            assert runtime_object(arch, "linux", file)[18:20] == machine.to_bytes(2, "little")
    assert all(runtime_object("x86_64", "windows", file)[:2] == b"\x64\x86" for file in RUNTIME)
    with pytest.raises(BuildFailed, match="riscv64 on windows"):
        runtime_object("riscv64", "windows")


def test_no_thread_is_left_when_a_library_is_unloaded() -> None:
    native = Native(DOUBLE, schedule="none")
    before = threads()
    set_threads(native, 4)
    check_double(native)
    started = threads() - before
    assert len(started) == 3
    code = ctypes.cast(native.library.crossfarmrt_threads, ctypes.c_void_p).value
    assert is_mapped(code)
    _ctypes.dlclose(native.library._handle)
    assert_gone(started)
    assert not is_mapped(code)


def test_close_ends_the_threads_and_the_next_call_starts_them_anew(double: Native) -> None:
    for _ in range(3):
        before = threads()
        set_threads(double, 2)
        check_double(double)
        started = threads() - before
        assert len(started) == 1
        double.library.crossfarmrt_close()
        assert_gone(started)


def test_threads_start_with_the_first_loop_and_only_as_many_as_are_wanted(double: Native) -> None:
    before = threads()
    assert set_threads(double, 3) == 0
    assert threads() == before
    check_double(double)
    first = threads() - before
    assert set_threads(double, 3) == 0
    check_double(double)
    assert threads() - before == first, "the same settings again start nothing anew"
    set_threads(double, 1)
    check_double(double)
    assert_gone(first)
    assert double.library.crossfarmrt_threads() == 1


def test_idle_threads_sleep_and_take_no_signals(double: Native) -> None:
    before = threads()
    set_threads(double, 2)
    check_double(double)
    (thread,) = threads() - before
    status = Path(f"/proc/self/task/{thread}/status")
    deadline = time.monotonic() + 10
    while "S (sleeping)" not in status.read_text():
        assert time.monotonic() < deadline
    blocked = int(next(line for line in status.read_text().splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert blocked >> 9 & 1, "SIGUSR1"
    assert not blocked >> 10 & 1, "SIGSEGV is for the handlers of crashes"


def test_threads_run_on_the_cpus_that_were_given(double: Native) -> None:
    before = threads()
    usable = sorted(os.sched_getaffinity(0))
    assert set_threads(double, 3, *usable[-1:]) == 0
    check_double(double)
    wait_until_placed(threads() - before, {usable[-1]})
    assert set_threads(double, 2) == 0
    check_double(double)
    wait_until_placed(threads() - before, set(usable))
    assert os.sched_getaffinity(0) == set(usable), "the caller is not moved"


def test_what_cannot_be_is_refused_and_changes_nothing(double: Native) -> None:
    assert set_threads(double, 2) == 0
    impossible = max(os.sched_getaffinity(0)) + 1
    for count, cpus in ((-1, ()), (1025, ()), (2, (impossible,)), (2, (-1,)), (0, (1 << 30,))):
        assert set_threads(double, count, *cpus) == -2
    assert double.library.crossfarmrt_threads() == 2
    check_double(double)


def test_callers_at_once_all_get_their_results(uneven: Native) -> None:
    set_threads(uneven, 3)
    a = np.random.default_rng(0).random((40, 33), dtype=np.float32)
    expected = np.zeros_like(a)
    uneven("f", a, expected, 0.5)
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(100):
            b = np.zeros_like(a)
            uneven("f", a, b, 0.5)
            if not np.array_equal(b, expected):
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_child_of_fork_starts_threads_of_its_own(double: Native) -> None:
    set_threads(double, 3)
    check_double(double)
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            assert len(threads()) == 1
            check_double(double)
            started = threads() - {os.getpid()}
            assert len(started) == 2
            double.library.crossfarmrt_close()
            assert_gone(started)
            outcome = 0
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    check_double(double)


PRINT_THREADS = """
import os, sys
from pathlib import Path
import ctypes
os.sched_setaffinity(0, {int(sys.argv[2])})
library = ctypes.CDLL(sys.argv[1])
print(library.crossfarmrt_threads())
"""


def test_the_default_is_as_many_threads_as_the_process_may_use_cpus(double: Native, tmp_path: Path) -> None:
    library = tmp_path / "double.so"
    library.write_bytes(double.built.code)
    cpu = str(min(os.sched_getaffinity(0)))
    ran = subprocess.run(
        [sys.executable, "-c", PRINT_THREADS, library, cpu], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "1\n"


def test_inner_loops_of_a_parallel_loop_are_vectorized() -> None:
    module = function(
        'A: T.Buffer((64, 1024), "float32"), B: T.Buffer((64, 1024), "float32"), n: T.int32',
        """
        for i in T.parallel(n):
            for j in range(1024):
                B[i, j] = A[i, j] * T.float32(2) + B[i, j]
        """,
    )
    options: dict[str, Any] = {"keep_sources": True, "schedule": "none"}
    built = build_variant(module, Target("llvm cpu=x86-64-v3"), compiler_pb2.BuildOptions(**options))
    body = built.sources["assembly.s"].split("\ncrossfarm_f.parallel0.body:")[1].split("\n.Lfunc_end")[0]
    assert "vfmadd" in body
    assert "%ymm" in body
