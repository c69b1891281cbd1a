"""Calling functions: arrays and tensors, in and out, one by one and pipelined."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk.device import Device
from crossfarm.artifact import Artifact

X = np.arange(4, dtype=np.int32)
F = np.arange(4, dtype=np.float32)


@pytest.mark.parametrize("driver", ["cpu", "reference"])
def test_arrays_go_in_and_what_the_function_writes_comes_out(
    device_of: Callable[..., Device], artifact: Artifact, driver: str
) -> None:
    loaded = device_of(driver).load(artifact)
    a = np.random.default_rng(0).random(1000, dtype=np.float32)
    np.testing.assert_array_equal(loaded["add"](a, a), a + a)
    np.testing.assert_array_equal(loaded["scale"](F, 2.5), F * np.float32(2.5))
    both = loaded["split"](X)
    assert isinstance(both, tuple)
    np.testing.assert_array_equal(both[0], X + 1)
    np.testing.assert_array_equal(both[1], X * 2)


def test_a_function_without_arguments_can_be_called(cpu: Device, artifact: Artifact) -> None:
    assert cpu.load(artifact)["empty"]() is None


def test_an_array_that_is_read_and_written_changes_in_place(cpu: Device, artifact: Artifact) -> None:
    increment = cpu.load(artifact)["increment"]
    x = X.copy()
    assert increment(x) is None
    np.testing.assert_array_equal(x, X + 1)
    every_other = np.zeros(8, np.int32)
    increment(every_other[::2])
    np.testing.assert_array_equal(every_other, [1, 0] * 4)


def test_a_read_only_array_cannot_be_written(cpu: Device, artifact: Artifact) -> None:
    x = X.copy()
    x.flags.writeable = False
    with pytest.raises(cf.ArgumentError, match="read-only"):
        cpu.load(artifact)["increment"](x)


def test_results_are_tensors_when_the_inputs_are(cpu: Device, artifact: Artifact) -> None:
    add = cpu.load(artifact)["add"]
    with cpu.tensor(F) as x, cpu.tensor(F) as y, add(x, y) as z:
        assert (z.shape, z.dtype) == ((4,), "float32")
        with add(z, z) as w:
            np.testing.assert_array_equal(w.numpy(), F * 4)


def test_a_returned_tensor_outlives_the_arguments_and_the_artifact(cpu: Device, artifact: Artifact) -> None:
    loaded = cpu.load(artifact)
    with cpu.tensor(F) as x:
        z = loaded["add"](x, x)
    loaded.unload()
    np.testing.assert_array_equal(z.numpy(), F * 2)
    z.free()


def test_out_is_written_and_returned(cpu: Device, artifact: Artifact) -> None:
    loaded = cpu.load(artifact)
    with cpu.tensor(F) as x, cpu.empty(4) as z:
        assert loaded["add"](x, x, out=z) is z
        np.testing.assert_array_equal(z.numpy(), F * 2)
    array = np.empty(4, np.float32)
    assert loaded["add"](F, F, out=array) is array
    np.testing.assert_array_equal(array, F * 2)
    outs = np.empty(4, np.int32), np.empty(4, np.int32)
    loaded["split"](X, out=outs)
    np.testing.assert_array_equal(outs[1], X * 2)


def test_a_thousand_pipelined_calls_all_happen_in_order(cpu: Device, artifact: Artifact) -> None:
    increment = cpu.load(artifact)["increment"]
    with cpu.tensor(X) as x:
        futures = [increment.submit(x) for _ in range(1000)]
        assert all(future.result() is None for future in futures)
        np.testing.assert_array_equal(x.numpy(), X + 1000)


def test_more_calls_than_the_window_holds_are_no_problem(cpu: Device, artifact: Artifact) -> None:
    increment = cpu.load(artifact)["increment"]
    with cpu.tensor(X) as x:
        for _ in range(20_000):
            last = increment.submit(x)
        last.result()
        np.testing.assert_array_equal(x.numpy(), X + 20_000)


def test_an_error_in_a_pipeline_belongs_to_its_own_future(cpu: Device, artifact: Artifact) -> None:
    divide = cpu.load(artifact)["divide"]
    with cpu.tensor(X) as x, cpu.empty(4, "int32") as z:
        futures = [divide.submit(x, divisor, out=z) for divisor in (1, 0, 2)]
        assert futures[2].result() is z
        assert futures[0].result() is z
        with pytest.raises(cf.ProgramError, match="division by zero"):
            futures[1].result()
        np.testing.assert_array_equal(z.numpy(), X // 2)


def test_submitted_arrays_may_be_changed_at_once(cpu: Device, artifact: Artifact) -> None:
    add = cpu.load(artifact)["add"]
    a = np.ones(100_000, np.float32)
    future = add.submit(a, a)
    a[:] = 0
    np.testing.assert_array_equal(future.result(), np.full(100_000, 2, np.float32))


def test_threads_share_a_device(cpu: Device, artifact: Artifact) -> None:
    add = cpu.load(artifact)["add"]
    wrong: list[int] = []

    def work(seed: int) -> None:
        a = np.random.default_rng(seed).random(500, dtype=np.float32)
        with cpu.tensor(a) as x:
            for _ in range(50):
                if not np.array_equal(add(a, a), a + a):
                    wrong.append(seed)
                with add(x, x) as z:
                    if not np.array_equal(z.numpy(), a + a):
                        wrong.append(seed)
                add.submit(x, x).result(timeout=30).free()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((F,), "takes 2 arguments"),
        ((F, F.astype(np.float64)), "must have dtype float32, got float64"),
        ((F, np.zeros(5, np.float32)), r"must have shape \(4,\)"),
        ((F, 3.0), "must be an array"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    cpu: Device, artifact: Artifact, arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(cf.ArgumentError, match=message):
        cpu.load(artifact)["add"](*arguments)


def test_an_unknown_function_is_answered_with_those_there_are(cpu: Device, artifact: Artifact) -> None:
    with pytest.raises(cf.NoSuchFunction, match="increment"):
        cpu.load(artifact)["main"]


def test_a_freed_tensor_cannot_be_used(cpu: Device, artifact: Artifact) -> None:
    add = cpu.load(artifact)["add"]
    x, z = cpu.tensor(F), cpu.empty(4)
    add(x, x, out=z)
    x.free()
    x.free()
    with pytest.raises(cf.NotFound, match="no longer on the device"):
        add(x, x, out=z)
    with pytest.raises(cf.NotFound):
        x.numpy()
    z.free()


def test_a_benchmark_keeps_every_sample_and_leaves_transfers_out(cpu: Device, artifact: Artifact) -> None:
    add = cpu.load(artifact)["add"]
    stats = add.benchmark(F, F, warmup=2, repeat=7, min_repeat_ms=1)
    assert len(stats.samples) == 7
    assert stats.min <= stats.median <= stats.p95 <= stats.max
    assert stats.number > 100  # a few nanoseconds each
    assert min(stats.samples) * stats.number >= 0.0005
    assert stats.environment["loop"] in ("native", "interpreted")
    with cpu.tensor(F) as x, cpu.empty(4) as z:
        assert len(add.benchmark(x, x, out=z, repeat=3, number=2, min_repeat_ms=0, flush_bytes=1 << 16).samples) == 3


def test_a_benchmark_of_a_failing_call_fails(cpu: Device, artifact: Artifact) -> None:
    with pytest.raises(cf.ProgramError, match="division by zero"):
        cpu.load(artifact)["divide"].benchmark(X, 0, repeat=2)


def test_a_benchmark_without_samples_is_refused(cpu: Device, artifact: Artifact) -> None:
    with pytest.raises(cf.ArgumentError, match="repeat"):
        cpu.load(artifact)["add"].benchmark(F, F, repeat=0)


def test_a_profile_of_a_failing_call_fails_and_one_beyond_its_limits_is_refused(
    cpu: Device, artifact: Artifact
) -> None:
    loaded = cpu.load(artifact)
    with pytest.raises(cf.ProgramError, match="division by zero"):
        loaded["divide"].profile(X, 0, warmup=0, repeat=2)
    with pytest.raises(cf.ArgumentError, match="repeat=0"):
        loaded["add"].profile(F, F, repeat=0)
    with pytest.raises(cf.ArgumentError, match="a profile takes 1 to 1048576 runs"):
        loaded["add"].profile(F, F, repeat=2_000_000)
    found = loaded["add"].profile(F, F, repeat=4, threads=1)
    assert [(s.function, s.operations, s.bytes) for s in found.steps] == [("add", F.size, 12 * F.size)]
    assert len(found.runs) == 4
    assert found.environment["threads"] == "1"
    assert str(found).splitlines()[0].split() == ["µs", "share", "GFLOP/s", "GB/s", "function", "of", "the", "model"]


def test_a_request_that_has_not_begun_can_be_cancelled(cpu: Device, artifact: Artifact) -> None:
    loaded = cpu.load(artifact)
    running = loaded["empty"]
    x = cpu.tensor(np.zeros(1_000_000, np.float32))
    slow = loaded["add"]
    futures = [slow.submit(x, x) for _ in range(20)]
    last = running.submit()
    last.cancel()
    for future in futures:
        future.result().free()
    with pytest.raises(cf.Cancelled):
        last.result()
    x.free()
