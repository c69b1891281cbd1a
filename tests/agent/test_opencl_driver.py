"""The OpenCL driver by itself, on the machine's device: no farm, no worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.cpu import programs
from compiler_service.build import build_variant
from crossfarm.artifact import Signature, write_artifact
from crossfarm.errors import Error
from crossfarm.frontends.tvmscript import parse
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from device_agent.drivers import opencl
from device_agent.drivers.base import ANYWHERE
from device_agent.drivers.opencl import OpenClCall, OpenClDevice

Array = np.ndarray[Any, Any]


@pytest.fixture
def device(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenClDevice]:
    """The first device, as a worker has it; never skipped in CI."""
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path_factory.mktemp("pocl")))
    try:
        opened = opencl.open_device(0)
    except Error as failure:
        if os.environ.get("CI"):
            pytest.fail(str(failure))
        pytest.skip(str(failure))
    yield opened
    opened.close()


def softmax(device: OpenClDevice, x: Array) -> tuple[OpenClCall, Any]:
    """A call that has temporaries, and the memory of its result."""
    target = opencl.probe()[0].target
    built = build_variant(parse(programs.softmax(*x.shape)), target, BuildOptions(schedule="none"))
    artifact = write_artifact("softmax", [built.variant], [built.code])
    (variant,) = artifact.variants
    signature = Signature(variant.entry_points[0])
    memories = [device.allocate(x.nbytes) for _ in range(2)]
    memories[0].write(0, memoryview(x.tobytes()))
    call = device.load(artifact, variant).bind(signature, memories, signature.bind([x, x]), ANYWHERE)
    return call, memories[1]


def test_a_call_keeps_its_temporaries_when_a_later_one_needs_more(device: OpenClDevice) -> None:
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    call, result = softmax(device, x)
    parts = [part for part in call._kept if hasattr(part, "reference_count")]
    assert parts
    larger, _ = softmax(device, np.zeros((64, 64), np.float32))
    assert all(part.reference_count for part in parts), "parts that were released are no arguments"
    larger()
    call()
    power = np.exp(x - x.max(axis=1, keepdims=True))
    found = np.frombuffer(result.read(0, x.nbytes), np.float32).reshape(x.shape)
    np.testing.assert_allclose(found, power / power.sum(axis=1, keepdims=True), rtol=1e-5)
