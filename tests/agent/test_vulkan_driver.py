"""The Vulkan driver by itself, on the machine's device: no farm, no worker."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from compiler_service.build import BuiltVariant, build_variant
from crossfarm.artifact import Artifact, Signature, select_variant, write_artifact
from crossfarm.errors import DeviceLost, Error, IncompatibleArtifact, LimitExceeded, ProgramError, UsageError
from crossfarm.frontends.tvmscript import parse
from crossfarm.target import Target
from crossfarm.target.features import FEATURES
from crossfarm.wire.v1 import compiler_pb2
from device_agent import drivers
from device_agent.drivers import vulkan, vulkan_api
from device_agent.drivers.base import ANYWHERE
from device_agent.drivers.vulkan import VulkanCall, VulkanDevice
from device_agent.drivers.vulkan_api import Instance, PhysicalDevice
from device_agent.drivers.vulkan_queue import STAGING_BYTES

Array = np.ndarray[Any, Any]

PROGRAMS = """
from crossfarm.script import tir as T

@I.ir_module
class Module:
    @T.prim_func
    def scale(a: T.handle, b: T.handle, s: T.float32):
        n = T.int64()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (n,), "float32")
        for i in range(n):
            with T.block("scale"):
                v = T.axis.spatial(n, i)
                B[v] = A[v] * s

    @T.prim_func
    def count(A: T.Buffer((1000,), "int32")):
        for i in range(1000):
            with T.block("count"):
                v = T.axis.spatial(1000, i)
                A[v] = A[v] + 1

    @T.prim_func
    def matmul(A: T.Buffer((64, 48), "float32"), B: T.Buffer((48, 32), "float32"), C: T.Buffer((64, 32), "float32")):
        for i, j, k in T.grid(64, 32, 48):
            with T.block("matmul"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    C[vi, vj] = T.float32(0)
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]

    @T.prim_func
    def mirrored(a: T.handle, b: T.handle):  # no kernel has both of its loops: a row needs the total of another
        n = T.int64()
        A = T.match_buffer(a, (n, 33), "float32")
        B = T.match_buffer(b, (n, 33), "float32")
        total = T.alloc_buffer((n,), "float32")
        for i, j in T.grid(n, 33):
            with T.block("total"):
                vi, vj = T.axis.remap("SR", [i, j])
                with T.init():
                    total[vi] = T.float32(0)
                total[vi] = total[vi] + T.exp(A[vi, vj])
        for i, j in T.grid(n, 33):
            with T.block("share"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = T.exp(A[vi, vj]) / total[n - 1 - vi]

    @T.prim_func
    def quotient(A: T.Buffer((100,), "int32"), B: T.Buffer((100,), "int32"), C: T.Buffer((100,), "int32")):
        for i in range(100):
            with T.block("quotient"):
                v = T.axis.spatial(100, i)
                C[v] = A[v] // B[v]
"""


def _device_or_skip() -> VulkanDevice:
    try:
        return vulkan.open_device(0)
    except Error as failure:
        if os.environ.get("CI"):
            pytest.fail(str(failure))
        pytest.skip(str(failure))


@pytest.fixture(scope="module")
def device() -> Iterator[VulkanDevice]:
    opened = _device_or_skip()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def built(device: VulkanDevice) -> BuiltVariant:
    return build_variant(parse(PROGRAMS), vulkan.probe()[0].target, compiler_pb2.BuildOptions())


@pytest.fixture(scope="module")
def artifact(built: BuiltVariant) -> Artifact:
    return write_artifact("programs", [built.variant], [built.code])


class Loaded:
    """An artifact on a device; ``call`` binds arrays and runs once."""

    def __init__(self, device: VulkanDevice, artifact: Artifact) -> None:
        self.device = device
        variant = select_variant(artifact, device.capabilities[0])
        self.program = device.load(artifact, variant)
        self.signatures = {entry.name: Signature(entry) for entry in variant.entry_points}
        self.memories: list[Any] = []

    def bind(self, name: str, arguments: Sequence[Any]) -> tuple[VulkanCall, list[Any]]:
        """The call, and each argument's memory or scalar."""
        given: list[Any] = []
        for argument in arguments:
            if not isinstance(argument, np.ndarray):
                given.append(argument)
                continue
            memory = self.device.allocate(argument.nbytes)
            memory.write(0, memoryview(argument.view(np.uint8).reshape(-1)))
            self.memories.append(memory)
            given.append(memory)
        signature = self.signatures[name]
        return self.program.bind(signature, given, signature.bind(arguments), ANYWHERE), given

    def call(self, name: str, *arguments: Any) -> None:
        """Arrays are read and written in place."""
        call, given = self.bind(name, arguments)
        call()
        self.fetch(arguments, given)

    @staticmethod
    def fetch(arguments: Sequence[Any], given: Sequence[Any]) -> None:
        for argument, memory in zip(arguments, given):
            if isinstance(argument, np.ndarray):
                argument.view(np.uint8).reshape(-1)[:] = np.frombuffer(memory.read(0, argument.nbytes), np.uint8)

    def release(self) -> None:
        self.program.release()
        for memory in self.memories:
            memory.release()


@pytest.fixture
def loaded(device: VulkanDevice, artifact: Artifact) -> Iterator[Loaded]:
    made = Loaded(device, artifact)
    yield made
    made.release()


def floats(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


# --- what there is


def test_a_device_says_what_it_is_and_has(device: VulkanDevice) -> None:
    found = vulkan.probe()
    assert found == vulkan.probe()
    for description in found:
        at = description.attributes
        assert at["kind"] == at["driver"] == description.target.kind == "vulkan"
        assert at["device_type"] in ("gpu", "cpu", "other")
        assert (at["device_type"] == "cpu") == (description.target.attributes["device_type"] == "cpu")
        assert int(at["memory"]) == description.target.attributes["memory_bytes"] > 0
        assert {name for name in at["features"].split(",") if name} <= set(FEATURES)
        assert description.target.host == Target.detect()
        assert Target.from_json(description.target.to_json()) == description.target
    assert device.capabilities[0].features == frozenset(found[0].attributes["features"].split(","))


def test_the_driver_is_one_and_its_parts_are_none() -> None:
    assert "vulkan" in drivers.names()
    assert not [name for name in drivers.names() if name.startswith("vulkan_")]
    assert drivers.probes_apart(drivers.get("vulkan"))


def test_without_the_package_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vulkan", None)
    assert vulkan.probe() == []
    with pytest.raises(UsageError, match="the Python package vulkan is missing") as caught:
        vulkan.open_device(0)
    assert "crossfarm[vulkan]" in caught.value.hint


def test_without_a_driver_there_are_no_devices(device: VulkanDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setenv(name, "/nowhere/driver.json")
    assert vulkan.probe() == []
    with pytest.raises((UsageError, DeviceLost)) as caught:
        vulkan.open_device(0)
    assert "driver" in caught.value.hint


def test_a_device_that_is_gone_is_said_to_be(device: VulkanDevice) -> None:
    with pytest.raises(UsageError, match="Vulkan device 99 is not there any more; there are"):
        vulkan.open_device(99)


# --- memory


@pytest.fixture(params=["mapped", "staged"])
def memory_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[VulkanDevice]:
    """A device whose memory the host sees, and one whose it does not, or is not to use."""
    shares = request.param == "mapped"
    monkeypatch.setattr(PhysicalDevice, "shares_memory", property(lambda self: shares))
    opened = _device_or_skip()
    yield opened
    opened.close()


def test_bytes_come_back_as_they_were_written(memory_device: VulkanDevice) -> None:
    size = STAGING_BYTES + 12_345
    data = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    memory = memory_device.allocate(size)
    memory.write(0, data.data)
    memory.write(777, b"\xff" * 5)
    data[777:782] = 255
    assert memory.size == size
    assert bytes(memory.read(0, size)) == data.tobytes()
    assert bytes(memory.read(776, 7)) == data[776:783].tobytes()
    memory.release()


def test_empty_memory_is_memory(memory_device: VulkanDevice) -> None:
    memory = memory_device.allocate(0)
    memory.write(0, memoryview(b""))
    assert bytes(memory.read(0, 0)) == b""
    memory.release()


def test_more_than_the_device_has_is_a_memory_error(device: VulkanDevice) -> None:
    with pytest.raises(MemoryError, match=r"the device has no 1,125,899,906,842,624 bytes left"):
        device.allocate(1 << 50)


def test_programs_run_on_memory_that_the_host_does_not_see(memory_device: VulkanDevice, artifact: Artifact) -> None:
    made = Loaded(memory_device, artifact)
    a, b = floats(1001), np.zeros(1001, np.float32)
    made.call("scale", a, b, 3.0)
    np.testing.assert_array_equal(b, a * np.float32(3))
    with pytest.raises(ProgramError):
        made.call("quotient", *np.zeros((3, 100), np.int32))
    made.release()


# --- calls


@pytest.mark.parametrize("n", [0, 1, 255, 256, 100_003])
def test_a_function_of_symbolic_size_runs_at_any(loaded: Loaded, n: int) -> None:
    a, b = floats(n), np.zeros(n, np.float32)
    loaded.call("scale", a, b, 0.5)
    np.testing.assert_array_equal(b, a * np.float32(0.5))


def test_a_grid_larger_than_a_dispatch_is_run_in_parts(
    loaded: Loaded, device: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limits:
        maxComputeWorkGroupCount = (7, 65535, 65535)
        maxStorageBufferRange = device.queue.physical.limits.maxStorageBufferRange

    monkeypatch.setattr(device.queue.physical, "limits", Limits)
    a, b = floats(10_000), np.zeros(10_000, np.float32)
    loaded.call("scale", a, b, 2.0)
    np.testing.assert_array_equal(b, a * 2)


def test_sums_and_temporaries(loaded: Loaded) -> None:
    a, b, c = floats(64, 48), floats(48, 32), np.zeros((64, 32), np.float32)
    loaded.call("matmul", a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)
    x, y = floats(77, 33), np.zeros((77, 33), np.float32)
    loaded.call("mirrored", x, y)
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x[::-1]).sum(1, keepdims=True), rtol=1e-5)


def test_repeated_runs_wait_for_one_another(loaded: Loaded) -> None:
    array = np.zeros(1000, np.int32)
    call, given = loaded.bind("count", [array])
    for number in (1, 300, 0, 4096, 64, 63):
        call.repeat(number)
    loaded.fetch([array], given)
    assert set(array) == {4524}
    assert (call.loop, call.threads) == ("queued", 1)


def test_a_call_outlives_the_workspace_it_was_bound_with(loaded: Loaded) -> None:
    small, large = floats(3, 33), floats(50_000, 33)
    outs = [np.zeros_like(x) for x in (small, large)]
    first, given = loaded.bind("mirrored", [small, outs[0]])
    loaded.call("mirrored", large, outs[1])
    first()
    loaded.fetch([small, outs[0]], given)
    for x, y in zip((small, large), outs):
        np.testing.assert_allclose(y, np.exp(x) / np.exp(x[::-1]).sum(1, keepdims=True), rtol=1e-5)


def test_a_call_that_is_dropped_gives_its_commands_back(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[object] = []
    free = loaded.device.queue.free
    monkeypatch.setattr(loaded.device.queue, "free", lambda commands: (freed.append(commands), free(commands)))
    call, _ = loaded.bind("count", [np.zeros(1000, np.int32)])
    call()
    assert freed == []
    del call
    assert len(freed) == 1


def test_a_failure_is_told_and_does_not_stay(loaded: Loaded) -> None:
    a, b, c = np.arange(100, dtype=np.int32), np.full(100, 7, np.int32), np.zeros(100, np.int32)
    divisors = b.copy()
    divisors[50] = 0
    with pytest.raises(ProgramError, match="integer division by zero in function 'quotient'"):
        loaded.call("quotient", a, divisors, c)
    loaded.call("quotient", a, b, c)
    np.testing.assert_array_equal(c, a // 7)


def test_kernels_are_timed_one_by_one(loaded: Loaded, device: VulkanDevice) -> None:
    x = floats(5000, 33)
    call, _ = loaded.bind("mirrored", [x, np.zeros_like(x)])
    times = call.profile()
    if not device.queue.physical.timestamp_bits:
        assert times == ()
        return
    assert len(times) == 2
    assert all(0 < seconds < 10 for seconds in times)


def test_a_device_without_timestamps_tells_no_times(
    loaded: Loaded, device: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, _ = loaded.bind("count", [np.zeros(1000, np.int32)])
    monkeypatch.setattr(device.queue.physical, "timestamp_bits", 0)
    assert call.profile() == ()


# --- refusals


def test_an_artifact_that_needs_more_than_the_device_has_is_refused(device: VulkanDevice, built: BuiltVariant) -> None:
    variant = type(built.variant)()
    variant.CopyFrom(built.variant)
    variant.requires.device_features.append("teleport")
    with pytest.raises(IncompatibleArtifact, match=r"needs teleport, which .* does not have"):
        device.load(write_artifact("programs", [variant], [built.code]), variant)


def test_groups_that_the_device_does_not_allow_are_refused(device: VulkanDevice, built: BuiltVariant) -> None:
    variant = type(built.variant)()
    variant.CopyFrom(built.variant)
    variant.kernels[0].group[2] = 4096
    made = write_artifact("programs", [variant], [built.code])
    with pytest.raises(IncompatibleArtifact, match=r"kernel '\w+' has groups of [\d × ]+ × 4096 threads"):
        device.load(made, made.variants[0])


@pytest.mark.parametrize("code", [b"no SPIR-V at all!!", b"\x03\x02\x23"])
def test_code_that_is_no_spirv_is_refused(device: VulkanDevice, built: BuiltVariant, code: bytes) -> None:
    made = write_artifact("programs", [built.variant], [code])
    with pytest.raises(IncompatibleArtifact, match="is not SPIR-V"):
        device.load(made, made.variants[0])


def test_a_buffer_larger_than_the_device_binds_is_refused(
    loaded: Loaded, device: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limits:
        maxComputeWorkGroupCount = (65535, 65535, 65535)
        maxStorageBufferRange = 1000

    monkeypatch.setattr(device.queue.physical, "limits", Limits)
    with pytest.raises(
        LimitExceeded, match=r"argument 'A' of kernel '\w+' has 4,000 bytes, and a buffer has 1,000 at most"
    ):
        loaded.bind("count", [np.zeros(1000, np.int32)])


@pytest.mark.parametrize(
    ("raised", "wanted", "said"),
    [
        ("VkErrorDeviceLost", DeviceLost, "the device was lost while a function ran"),
        ("VkErrorOutOfDeviceMemory", LimitExceeded, "the device's memory ran out while a function ran"),
        ("VkErrorUnknown", DeviceLost, "the Vulkan driver failed while a function ran"),
    ],
)
def test_errors_of_vulkan_are_told_in_sentences(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, raised: str, wanted: type[Error], said: str
) -> None:
    vk = vulkan_api.load()
    call, _ = loaded.bind("count", [np.zeros(1000, np.int32)])

    def fail(*args: object) -> None:
        raise getattr(vk, raised)

    monkeypatch.setattr(vk, "vkQueueSubmit", fail)
    with pytest.raises(wanted, match=said) as caught:
        call()
    assert raised in str(caught.value)
    assert caught.value.hint


def test_what_was_opened_is_closed(device: VulkanDevice, artifact: Artifact) -> None:
    """Vulkan counts nothing for us: the loader's own objects must go as they came."""

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def once() -> None:
        opened = vulkan.open_device(0)
        made = Loaded(opened, artifact)
        made.call("count", np.zeros(1000, np.int32))
        made.release()
        opened.close()
        instance = Instance()
        instance.close()

    once()
    gc.collect()
    before = open_files()
    for _ in range(5):
        once()
    gc.collect()
    assert open_files() <= before
