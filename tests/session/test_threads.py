"""Threads and CPUs of a call: asked for by the client, checked and used by the device."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk.device import Device
from compiler_service.build import build_variant
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.serialize import dumps
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are placed on Linux")

PROGRAM = """
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((64, 1024), "float32"), B: T.Buffer((64, 1024), "float32")):
        for i in T.parallel(64):
            for j in range(1024):
                B[i, j] = A[i, j] + T.float32(1)

    @T.prim_func
    def greedy(n: T.int64, B: T.Buffer((64,), "float32")):
        for i in T.parallel(64):
            with T.block("b"):
                vi = T.axis.spatial(64, i)
                row = T.alloc_buffer((n,), "float32")
                row[vi] = T.float32(1)
                B[vi] = row[vi]
"""
A = np.random.default_rng(0).random((64, 1024), dtype=np.float32)
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@pytest.fixture(scope="module")
def parallel() -> Artifact:
    module = parse(PROGRAM)
    built = build_variant(module, Target.detect(), BuildOptions(schedule="none"), lambda *_: None)
    return write_artifact("parallel", [built.variant], [built.code], module=dumps(module))


def threads_of(device: Device) -> int:
    """Of the worker process, as the system counts them."""
    lease: Any = device._session._lease
    return len(os.listdir(f"/proc/{lease.pid}/task"))


HOW: tuple[dict[str, Any], ...] = (
    {}, {"threads": 1}, {"threads": 2}, {"threads": 4}, {"cpus": CPUS[:1]}, {"cpus": range(CPUS[0], CPUS[0] + 1)},
    {"threads": 3, "cpus": CPUS}, {"threads": 2, "timeout": 10.0},
)  # fmt: skip


def test_a_call_runs_on_the_threads_it_asks_for(device_of: Callable[..., Device], parallel: Artifact) -> None:
    device = device_of()
    main = device.load(parallel)["main"]
    for how in HOW:
        np.testing.assert_array_equal(main(A, **how), A + 1)
        np.testing.assert_array_equal(main.submit(A, **how).result(), A + 1)
    with device.tensor(A) as a, device.tensor(np.zeros_like(A)) as b:
        for how in (*HOW, *HOW):
            main(a, out=b, **how)
            np.testing.assert_array_equal(b.numpy(), A + 1)


def test_a_benchmark_says_how_many_threads_it_had(device_of: Callable[..., Device], parallel: Artifact) -> None:
    main = device_of().load(parallel)["main"]
    for how, threads in (({}, len(CPUS)), ({"threads": 1}, 1), ({"threads": 3}, 3), ({"cpus": CPUS[-1:]}, 1)):
        measured = main.benchmark(A, warmup=1, repeat=2, min_repeat_ms=0, **how)
        assert measured.environment["threads"] == str(threads)


def test_impossible_threads_are_refused_by_name(device_of: Callable[..., Device], parallel: Artifact) -> None:
    main = device_of().load(parallel)["main"]
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"threads": 0}, "threads=0"),
        ({"threads": 2.0}, "threads=2.0"),
        ({"threads": True}, "threads=True"),
        ({"cpus": []}, r"cpus=\[\]"),
        ({"cpus": 1}, "cpus=1"),
        ({"cpus": [-1]}, r"cpus=\[-1\]"),
        ({"cpus": ["0"]}, "cpus="),
        ({"threads": 1025}, "1025 threads"),
        ({"cpus": [max(CPUS) + 1, CPUS[0]]}, f"cannot run on CPU {max(CPUS) + 1}"),
        ({"cpus": [CPUS[0], CPUS[0]]}, "twice"),
    )
    for how, said in wrong:
        with pytest.raises(cf.ArgumentError, match=said):
            main(A, **how)
        with pytest.raises(cf.ArgumentError, match=said):
            main.benchmark(A, **how)
    np.testing.assert_array_equal(main(A), A + 1)


@pytest.mark.parametrize("driver", ["null", "reference"])
def test_a_device_without_threads_says_so(device_of: Callable[..., Device], parallel: Artifact, driver: str) -> None:
    main = device_of(driver).load(parallel)["main"]
    for how in ({"threads": 2}, {"cpus": [0]}):
        with pytest.raises(cf.UnsupportedTarget, match="cannot choose their threads"):
            main(A, **how)
    assert main.benchmark(A, warmup=0, repeat=1, min_repeat_ms=0).environment["threads"] == "1"


def test_scratch_beyond_the_leases_memory_is_that_calls_failure(
    device_of: Callable[..., Device], parallel: Artifact
) -> None:
    loaded = device_of(memory_bytes=256 << 20).load(parallel)
    with pytest.raises(cf.LimitExceeded, match="temporaries of its parallel loops"):
        loaded["greedy"](1 << 40)
    np.testing.assert_array_equal(loaded["greedy"](1000), np.ones(64, np.float32))


def test_unloading_ends_the_threads(device_of: Callable[..., Device], parallel: Artifact) -> None:
    device = device_of()
    with device.load(parallel) as loaded:
        loaded["main"](A, threads=1)
        before = threads_of(device)
        loaded["main"](A, threads=5)
        assert threads_of(device) == before + 4
    with device.load(parallel) as loaded:
        loaded["main"](A, threads=1)
        assert threads_of(device) <= before
