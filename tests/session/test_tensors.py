"""Tensors: content, sizes, lifetime, constants."""

from __future__ import annotations

import gc
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import crossfarm as cf
from clients.sdk.device import Device
from crossfarm.artifact import Artifact
from crossfarm.ir import dtype as dtypes


@pytest.mark.parametrize("dtype", dtypes.SCALARS)
def test_every_dtype_comes_back_as_it_went(cpu: Device, dtype: str) -> None:
    data = np.arange(6).reshape(2, 3).astype(dtypes.to_numpy(dtype))
    with cpu.tensor(data) as tensor:
        back = tensor.numpy()
    assert (back.dtype, back.shape) == (data.dtype, data.shape)
    assert back.tobytes() == data.tobytes()


def test_bfloat16_needs_nothing_on_the_device(cpu: Device) -> None:
    data = np.array([1.5, -2], ml_dtypes.bfloat16)
    with cpu.tensor(data) as tensor:
        assert (tensor.dtype, tensor.nbytes) == ("bfloat16", 4)


@pytest.mark.parametrize(
    "data",
    [
        np.float32(3),
        np.empty((0, 5), np.int8),
        np.arange(12, dtype=np.int64).reshape(3, 4).T,
        np.arange(8, dtype=">i4"),
        np.arange(20, dtype=np.uint8)[::3],
    ],
    ids=["scalar", "empty", "transposed", "big-endian", "strided"],
)
def test_any_layout_is_taken(cpu: Device, data: np.ndarray) -> None:
    with cpu.tensor(data) as tensor:
        np.testing.assert_array_equal(tensor.numpy(), data)


@pytest.mark.parametrize("size", [1, (1 << 20) - 1, (1 << 20) + 1, 37_000_001])
def test_large_arrays_come_back_as_they_went(cpu: Device, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)
    with cpu.tensor(data) as tensor:
        assert np.array_equal(tensor.numpy(), data)


def test_the_array_may_be_changed_once_the_tensor_is_made(cpu: Device) -> None:
    for size in (1000, 5_000_000):
        data = np.ones(size, np.uint8)
        tensor = cpu.tensor(data)
        data[:] = 0
        assert tensor.numpy().all()
        tensor.free()


def test_objects_and_unknown_dtypes_are_refused(cpu: Device) -> None:
    for bad in (np.array([object()]), np.zeros(3, np.complex64), "text"):
        with pytest.raises(cf.ArgumentError):
            cpu.tensor(bad)
    with pytest.raises(cf.ArgumentError, match="dtype"):
        cpu.empty((2,), "float33")
    with pytest.raises(cf.ArgumentError, match="negative"):
        cpu.empty((-1,))


def test_a_constant_is_sent_once_and_found_by_the_next_lease(device_of: Callable[..., Device]) -> None:
    data = np.random.default_rng(5).integers(0, 255, 3_000_000, dtype=np.uint8)
    for expected in (0, 1):
        device = device_of("null")
        sent = _bytes_sent(device)
        tensor = device.tensor(data, constant=True)
        again = device.tensor(data, constant=True)
        assert np.array_equal(tensor.numpy(), data)
        assert np.array_equal(again.numpy(), data)
        assert sent() == (0 if expected else data.nbytes)
        device.close()


def test_memory_of_tensors_out_of_sight_is_used_again(device_of: Callable[..., Device]) -> None:
    device = device_of("cpu", memory_bytes=64 << 20)
    for _ in range(20):
        device.tensor(np.zeros(20 << 20, np.uint8))
        gc.collect()


def test_more_memory_than_the_lease_has_is_refused_with_the_numbers(
    device_of: Callable[..., Device], artifact: Artifact
) -> None:
    device = device_of("cpu", memory_bytes=64 << 20)
    with pytest.raises(cf.LimitExceeded, match=r"100,000,000 bytes.*67,108,864"):
        device.tensor(np.zeros(100_000_000, np.uint8))
    too_large = device.empty((200_000_000,), "uint8")
    with pytest.raises(cf.LimitExceeded):
        too_large.numpy()
    with device.tensor(np.arange(4, dtype=np.float32)) as fine:
        assert fine.numpy()[3] == 3
    with pytest.raises(cf.LimitExceeded, match="workspace of hungry"):
        device.load(artifact)["hungry"](np.zeros(4, np.uint8))


def _bytes_sent(device: Device) -> Callable[[], int]:
    """Counts the payload that the session sends from here on."""
    send = device._session.send
    sent = [0]

    def counting(frames: object, wanted: object) -> None:
        frames = list(frames)  # type: ignore[call-overload]
        sent[0] += sum(len(payload) for _, payload in frames if payload is not None)
        send(frames, wanted)  # type: ignore[arg-type]

    device._session.send = counting  # type: ignore[method-assign,assignment]
    return lambda: sent[0]
