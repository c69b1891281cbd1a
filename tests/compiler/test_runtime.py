"""The runtime of parallel loops by itself: races, a system that refuses, CPU quotas; how it is compiled and kept."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from compiler_service import linker, runtime
from compiler_service.runtime import runtime_object

FOLDER = Path(runtime.__file__).parent
HERE = Path(__file__).parent / "runtime"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="compiled for and run on Linux")

BODY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

#: The runtime with its loops exported.
EXPORTED = """
#include "threads.c"
__attribute__((visibility("default")))
int32_t run(Body body, int64_t extent, int64_t bytes) { return crossfarmrt_parallel(body, NULL, extent, bytes); }
"""
#: The same for a system whose third thread and all after it do not start.
REFUSING = (
    """
#define _GNU_SOURCE
#include <pthread.h>
static int starts;
static int start(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x) {
    return ++starts > 2 ? 11 : pthread_create(t, a, f, x);
}
#define pthread_create start
"""
    + EXPORTED
)


def compiled(code: str, folder: Path, *flags: str) -> ctypes.CDLL:
    """``code`` as a library of this process."""
    source, made, library = folder / "code.c", folder / "code.o", folder / "code.so"
    source.write_text(code)
    command = [runtime.zig(), "cc", *runtime.FLAGS, f"-I{FOLDER}", *flags, "-c", str(source), "-o", str(made)]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    subprocess.run(command, check=True, env={**os.environ, **caches})
    subprocess.run([*linker._find_linker("ld.lld"), "-shared", str(made), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def quotas(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The runtime with its control groups in the working directory."""
    folder = tmp_path_factory.mktemp("quotas")
    return compiled('#include "threads.c"', folder, '-DCGROUPS="groups"', '-DOWN_CGROUPS="own"')


def test_a_stress_is_free_of_data_races(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc, whose ThreadSanitizer is at hand; zig would compile its own for a minute")
    program = tmp_path / "stress"
    flags = ["-g", "-O1", "-std=gnu11", "-fsanitize=thread", f"-I{FOLDER}"]
    subprocess.run([gcc, *flags, str(HERE / "stress.c"), "-o", str(program), "-lpthread"], check=True)
    ran = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_where_threads_do_not_start_loops_run_on_those_that_did(tmp_path: Path) -> None:
    library = compiled(REFUSING, tmp_path)
    seen: list[tuple[int, int]] = []

    @BODY
    def body(closure: int | None, begin: int, end: int, scratch: int | None) -> int:
        seen.append((begin, end))
        return 0

    library.run.argtypes = [BODY, ctypes.c_int64, ctypes.c_int64]
    library.crossfarmrt_set_threads(8, None, 0)
    for extent in (1, 100):
        seen.clear()
        assert library.run(body, extent, 64) == 0
        assert sorted(i for begin, end in seen for i in range(begin, end)) == list(range(extent))
    assert library.crossfarmrt_threads() == 3
    library.crossfarmrt_close()
    assert library.run(body, 100, 64) == 0, "and on one where none does"
    assert library.crossfarmrt_threads() == 1
    library.crossfarmrt_close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    """The runtime with loops on two threads."""
    library = compiled(EXPORTED, tmp_path_factory.mktemp("pair"))
    library.run.argtypes = [BODY, ctypes.c_int64, ctypes.c_int64]
    library.crossfarmrt_set_threads(2, None, 0)
    yield library
    library.crossfarmrt_close()


def test_a_thread_begins_with_the_same_iterations_in_every_loop(pair: ctypes.CDLL) -> None:
    both = threading.Barrier(2)
    seen: list[tuple[int, int]] = []

    @BODY
    def body(closure: int | None, begin: int, end: int, scratch: int | None) -> int:
        if begin in (0, 50):
            both.wait(timeout=60)  # nobody has been through with its share before the other began
            seen.append((begin, threading.get_ident()))
        return 0

    for _ in range(5):
        assert pair.run(body, 100, 0) == 0
    assert len(set(seen)) == 2, "what a loop has left in a core's cache is of use to the next one"
    assert (0, threading.get_ident()) in seen


def test_the_first_failure_in_the_order_of_the_loop_counts(pair: ctypes.CDLL) -> None:
    later = threading.Event()

    @BODY
    def body(closure: int | None, begin: int, end: int, scratch: int | None) -> int:
        if begin == 50:
            later.set()
            return 50
        if begin == 0:
            later.wait(timeout=60)
        return 49 if end == 50 else 0

    assert pair.run(body, 100, 0) == 49


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 1),
        ("0::/gone/in/a/container\n", {"cpu.max": "99000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "101000 100000\n"}, 2),
        ("12:pids:/\n4:cpu,cpuacct:/x\n1:name=systemd:/\n",
         {"cpu/x/cpu.cfs_quota_us": "20000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 1),
        ("4:cpuacct,cpu:/x\n0::/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpuset:/x\n", {"cpu/x/cpu.cfs_quota_us": "1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_the_default_respects_cpu_quotas(
    quotas: ctypes.CDLL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, str],
    expected: int | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own").write_text(groups)
    for name, text in files.items():
        file = Path("groups", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    cpus = len(os.sched_getaffinity(0))
    assert quotas.crossfarmrt_threads() == (cpus if expected is None else min(expected, cpus))


def test_objects_are_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFARM_CACHE", str(tmp_path))
    runtime_object.cache_clear()
    made = runtime_object("aarch64", "linux")
    (kept,) = (tmp_path / "runtime").iterdir()
    assert kept.read_bytes() == made
    runtime_object.cache_clear()
    monkeypatch.setattr(runtime, "_compile", lambda target: pytest.fail("it was compiled already"))
    assert runtime_object("aarch64", "linux") == made
    runtime_object.cache_clear()


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CROSSFARM_CACHE", str(tmp_path / "file"))
    runtime_object.cache_clear()
    assert runtime_object("x86_64", "linux")[:4] == b"\x7fELF"
    runtime_object.cache_clear()
