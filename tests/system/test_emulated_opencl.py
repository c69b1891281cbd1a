"""OpenCL on an aarch64 agent: the nearest to a phone that runs here. The driver (PoCL) is emulated with its compiler.

Each program costs its compiler 2 to 5 s of processor time, and a process' first one 5 s more, so these are a few, each
of which has something of its own: what they share is tested on this machine's OpenCL devices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk import Farm
from tests.conftest import CORPUS
from tests.system.emulated import emulated_farm
from tests.system.test_corpus import CASES, arguments_of

pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.timeout(300)]

#: A default schedule's tiles, sums that threads share, depthwise windows, symbolic sizes, loops bound to threads in the
#: text, storage of float16 on a device that does not compute in it, and two kernels for one function. Not
#: gpu_matmul_shared: its unrolled loop alone keeps the emulated compiler busy for 16 s.
PROGRAMS = (
    "matmul_2d", "softmax_last", "conv2d_depthwise", "dyn_softmax", "gpu_add_bind", "cast_f32_f16", "argmax_axis1",
)  # fmt: skip
#: An agent asks PoCL for its device and opens it before it is ready.
START_SECONDS = 150
#: Until a fresh worker has opened the device.
RETURN_SECONDS = 120
#: Loading includes the emulated compiler's work, and so does a kernel's first run for a size of its groups.
CALL_SECONDS = 240
#: What an endless kernel gets.
ENDLESS_SECONDS = 2.0

#: Endless where the first number is below one.
ENDLESS = """
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        B[0] = A[0]
        while B[0] < T.float32(1):
            B[0] = B[0] * T.float32(1)
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm with an emulated aarch64 agent that has an OpenCL device; no kernel is compiled yet."""
    scratch = tmp_path_factory.mktemp("emulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCL_CACHE_DIR", str(scratch / "kernels"))
        with emulated_farm(scratch, devices="cpu,opencl", start_seconds=START_SECONDS) as farm:
            yield farm


def lease(farm: Farm) -> Any:
    return farm.acquire("kind=opencl,arch=aarch64", timeout=RETURN_SECONDS, call_timeout=CALL_SECONDS)


def test_the_agent_offers_its_processor_and_its_opencl_device(farm: Farm) -> None:
    offered = {d.attributes["kind"]: d for d in farm.devices("agent=emulated")}
    assert set(offered) == {"cpu", "opencl"}
    assert offered["opencl"].attributes["arch"] == "aarch64"
    assert offered["opencl"].attributes["platform"] == "Portable Computing Language"


@pytest.mark.usefixtures("corpus")
def test_programs_give_their_stored_outputs_there_and_their_kernels_are_timed(farm: Farm) -> None:
    """In one lease, so that the compiler's first start is paid once."""
    with lease(farm) as device:
        assert device.target.kind == "opencl"
        for case in (case for case in CASES if case["name"] in PROGRAMS):
            inputs, expected = arguments_of(case, CORPUS)
            built = farm.build(cf.load(CORPUS / f"{case['name']}.py"), target=device.target)
            function = device.load(built)[case["func"]]
            result = function(*inputs)
            for got, want in zip(result if isinstance(result, tuple) else (result,), expected, strict=True):
                assert got.dtype == want.dtype, case["name"]
                np.testing.assert_allclose(
                    got, want, rtol=case["rtol"], atol=case["atol"], equal_nan=True, err_msg=case["name"]
                )
        (step,) = function.profile(*inputs, warmup=1, repeat=2).steps
        assert step.kernels
        assert all(kernel.seconds > 0 for kernel in step.kernels)


def test_an_endless_kernel_ends_with_its_lease_and_the_device_comes_back(farm: Farm) -> None:
    a, b = np.full(64, 2, np.float32), np.zeros(64, np.float32)
    with lease(farm) as device:
        function = device.load(farm.build(cf.parse(ENDLESS), target=device.target))["main"]
        function(a, b)  # ends at once, and the limit below is the kernel's alone: it is compiled
        assert b[0] == 2
        started = time.monotonic()
        with pytest.raises(cf.Timeout, match="ran longer than its limit"):
            function(np.zeros(64, np.float32), b, timeout=ENDLESS_SECONDS)
        assert time.monotonic() - started < ENDLESS_SECONDS + 30
    with lease(farm) as device:
        function = device.load(farm.build(cf.parse(ENDLESS), target=device.target))["main"]
        function(a, b)
        assert b[0] == 2
