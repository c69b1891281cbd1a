"""What goes wrong on a device is a specific error, and the device comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk import Device, Farm
from crossfarm.artifact import write_artifact
from crossfarm.frontends.tvmscript import parse
from crossfarm.target import Target
from tests.compiler.test_language import A_B, source
from tests.conformance.conftest import KINDS, OnDevice

ADD_ONE = parse(source(A_B, "for i in range(64):\n    B[i] = A[i] + T.float32(1)"))
#: Years of work. In groups, and in loops that end: a device that leaves a thread's loops too early refuses others.
ENDLESS = parse(source(A_B, "for i, j, k in T.grid(60000, 60000, 60000):\n    B[0] = B[0] * A[1] + A[0]"))
ENDLESS_GROUPS = parse(
    source(
        A_B,
        """
        for b in T.thread_binding(60000, thread="blockIdx.y"):
            for c in T.thread_binding(60000, thread="blockIdx.x"):
                for t in T.thread_binding(32, thread="threadIdx.x"):
                    for k in range(60000):
                        B[t] = B[t] * A[1] + A[(k + b + c) % 64]
        """,
    )
)
DOUBLE = parse(source(A_B.replace("float32", "float64"), "for i in range(64):\n    B[i] = A[i] + T.float64(1)"))


@pytest.fixture
def device(farm: Farm, kind: str) -> Iterator[Device]:
    """A lease for one test: what goes wrong may end it."""
    with farm.acquire(f"kind={kind}", timeout=60) as leased:
        yield leased


@pytest.fixture
def on_device(farm: Farm, device: Device) -> OnDevice:
    return OnDevice(farm, device)


def grouped(threads: int) -> cf.IRModule:
    body = f"""
        for t in T.thread_binding({threads}, thread="threadIdx.x"):
            B[t % 64] = A[t % 64]
    """
    return parse(source(A_B, body))


#: For what only devices with groups of threads can meet.
with_groups = pytest.mark.parametrize("kind", [k for k in KINDS if k != "cpu"], indirect=True, scope="module")


def works(farm: Farm, kind: str) -> bool:
    """True when a new lease of the kind computes: the device was checked and is back."""
    with farm.acquire(f"kind={kind}", timeout=60) as device:
        function = device.load(farm.build(ADD_ONE, target=device.target))["f"]
        b = np.zeros(64, np.float32)
        function(np.ones(64, np.float32), b)
        return bool((b == 2).all())


@with_groups
def test_float64_on_a_device_without_it_is_refused_at_build(kind: str, farm: Farm) -> None:
    with pytest.raises(cf.BuildFailed, match="float64") as refused:
        farm.build(DOUBLE, target=Target({"kind": kind, "fp64": False}))
    assert refused.value.hint


@with_groups
def test_a_group_too_large_is_refused_at_build(kind: str, farm: Farm) -> None:
    with pytest.raises(cf.BuildFailed, match=r"has 512 threads in a group \(512 × 1 × 1\).*allows 256"):
        farm.build(grouped(512), target=Target({"kind": kind, "max_threads_per_group": 256}))


@with_groups
def test_too_much_shared_memory_is_refused_at_build(kind: str, farm: Farm) -> None:
    body = """
        S = T.alloc_buffer((64,), "float32", scope="shared")
        for b in T.thread_binding(1, thread="blockIdx.x"):
            for t in T.thread_binding(64, thread="threadIdx.x"):
                S[t] = A[t]
            for t in T.thread_binding(64, thread="threadIdx.x"):
                B[t] = S[63 - t]
    """
    with pytest.raises(cf.BuildFailed, match=r"256 bytes of shared memory.*has 128"):
        farm.build(parse(source(A_B, body)), target=Target({"kind": kind, "shared_bytes": 128}))


@with_groups
def test_kernels_beyond_the_device_are_refused_when_they_are_loaded(kind: str, farm: Farm, device: Device) -> None:
    artifact = farm.build(grouped(65536 // 16), target=Target({"kind": kind, "max_threads_per_group": 1 << 20}))
    manifest = type(artifact.manifest)()
    manifest.CopyFrom(artifact.manifest)
    manifest.variants[0].requires.device_features.append("telepathy")
    manifest.variants[0].requires.threads_per_group = 1 << 20
    beyond = artifact.rewritten(manifest)
    with pytest.raises(cf.IncompatibleArtifact, match=r"telepathy.*groups of 1048576 threads"):
        device.load(beyond)["f"]


@pytest.mark.skipif("opencl" not in KINDS, reason="compiles text: what others refuse is tested with their drivers")
@pytest.mark.parametrize("kind", ["opencl"], indirect=True, scope="module")
def test_kernels_that_the_devices_compiler_refuses_say_why(kind: str, farm: Farm, device: Device) -> None:
    artifact = farm.build(ADD_ONE, target=device.target)
    variant = artifact.variants[0]
    rebuilt = write_artifact("broken", [variant], [artifact.code(variant).replace(b"1.0f", b"oops")])
    with pytest.raises(cf.IncompatibleArtifact, match=r"(?s)OpenCL compiler of .* refuses the kernels.*oops"):
        device.load(rebuilt)["f"]


def test_memory_that_the_device_does_not_have(farm: Farm, kind: str) -> None:
    with (
        farm.acquire(f"kind={kind}", timeout=60, memory="64MiB") as small,
        pytest.raises(cf.LimitExceeded, match="bytes"),
    ):
        small.empty((1 << 27,), "float32").numpy()
    assert works(farm, kind)


@with_groups
def test_a_tensor_larger_than_the_devices_memory_is_refused(farm: Farm, kind: str) -> None:
    with farm.acquire(f"kind={kind}", timeout=60, memory="1TiB") as device:
        elements = int(device.attributes["memory"]) // 4 + (1 << 20)
        with pytest.raises(cf.LimitExceeded, match="bytes"):
            device.empty((elements,), "float32").numpy()
    assert works(farm, kind)


def test_an_endless_kernel_ends_with_its_lease_and_the_device_comes_back(farm: Farm, kind: str) -> None:
    with farm.acquire(f"kind={kind}", timeout=60) as device:
        module = ENDLESS if kind == "cpu" else ENDLESS_GROUPS
        function = device.load(farm.build(module, target=device.target))["f"]
        started = time.monotonic()
        with pytest.raises(cf.Timeout, match="ran longer than its limit"):
            function(np.zeros(64, np.float32), np.zeros(64, np.float32), timeout=1.0)
        assert time.monotonic() - started < 30
    assert works(farm, kind)


def test_an_artifact_for_another_kind_is_refused(kind: str, on_device: OnDevice, farm: Farm) -> None:
    other = "llvm" if kind != "cpu" else "opencl"
    artifact = farm.build(ADD_ONE, target=other)
    with pytest.raises(cf.IncompatibleArtifact, match="runtime"):
        on_device.device.load(artifact)["f"]


def test_of_several_variants_the_device_takes_its_own(kind: str, on_device: OnDevice, farm: Farm) -> None:
    artifact = farm.build(ADD_ONE, target=[Target("opencl"), Target("llvm"), on_device.device.target])
    b = np.zeros(64, np.float32)
    on_device.device.load(artifact)["f"](np.ones(64, np.float32), b)
    assert (b == 2).all()
