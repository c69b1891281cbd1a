"""What the CUDA driver module does without a GPU: arguments of kernels, limits of grids, and finding nothing."""

from __future__ import annotations

import numpy as np
import pytest

from crossfarm.artifact import Signature
from crossfarm.artifact.launches import LaunchOf, ParameterOf, Place
from crossfarm.errors import ArgumentError
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Kernel, KernelParameter, Parameter
from device_agent.drivers import cuda, names


def test_the_driver_is_one_of_the_agents() -> None:
    assert "cuda" in names()
    assert cuda.PROBE_APART


def test_arguments_lie_at_multiples_of_their_sizes() -> None:
    values = [np.uint64(1), np.uint8(2), np.uint32(3), np.uint16(4), np.uint8(5), np.uint64(6)]
    laid = cuda.packed(values)
    at = {0: ("<u8", 1), 8: ("<u1", 2), 12: ("<u4", 3), 16: ("<u2", 4), 18: ("<u1", 5), 24: ("<u8", 6)}
    assert len(laid) == 32
    for offset, (dtype, value) in at.items():
        assert np.frombuffer(laid, dtype, 1, offset)[0] == value
    assert cuda.packed([]) == b""


def test_a_launch_gets_addresses_of_buffers_and_bits_of_scalars() -> None:
    parameters = [
        KernelParameter(name="A", buffer=True, dtype="float32"),
        KernelParameter(name="t", buffer=True, dtype="int32", written=True),
        KernelParameter(name="scale", dtype="float16"),
        KernelParameter(name="step", dtype="int8"),
    ]
    kernel = Kernel(name="k", group=[32, 1, 1], parameters=parameters)
    entry = EntryPoint(
        name="f",
        parameters=[
            Parameter(name="A", kind=Parameter.BUFFER, dtype="float32", role=Parameter.IN),
            Parameter(name="scale", kind=Parameter.SCALAR, dtype="float16", role=Parameter.IN),
        ],
    )
    memory = cuda.CudaMemory.__new__(cuda.CudaMemory)
    memory.address = 0x7F00_0000_0200
    launch = LaunchOf(kernel, (4, 1, 1), (ParameterOf(0), Place(512, 4), ParameterOf(1), -3))
    values = cuda.launch_values(launch, Signature(entry), [memory, 1.5], 0x1000)
    assert [v.dtype.itemsize for v in values] == [8, 8, 2, 1]
    assert values[0] == memory.address
    assert values[1] == 0x1000 + 512
    assert values[2] == np.float16(1.5).view(np.uint16)
    assert values[3] == 256 - 3


def test_a_grid_that_no_gpu_has_is_refused() -> None:
    kernel = Kernel(name="k", group=[32, 1, 1])
    cuda.check_grid(LaunchOf(kernel, (1 << 20, 65535, 65535), ()), "f")
    with pytest.raises(ArgumentError, match=r"f would launch k with a grid of 1 × 65536 × 1") as refused:
        cuda.check_grid(LaunchOf(kernel, (1, 65536, 1), ()), "f")
    assert "blockIdx.x" in str(refused.value.hint)
