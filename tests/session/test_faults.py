"""Programs that crash, hang or take everything: the client gets the reason, nobody else notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk.device import Device
from crossfarm.artifact import Artifact
from device_agent.worker.control import EXIT_TIME_LIMIT

Opener = Callable[..., Device]


def test_a_program_that_writes_where_it_must_not_is_a_remote_crash(device_of: Opener, artifact: Artifact) -> None:
    device = device_of("cpu")
    loaded = device.load(artifact)
    with pytest.raises(cf.RemoteCrash, match="SIGSEGV"):
        loaded["wipe"](1 << 40)
    with pytest.raises(cf.RemoteCrash):  # and so for everything after it
        loaded["empty"]()
    with pytest.raises(cf.RemoteCrash):
        device.tensor(np.zeros(3))


def test_a_crash_fails_every_call_on_its_way(device_of: Opener, artifact: Artifact) -> None:
    loaded = device_of("cpu").load(artifact)
    futures = [loaded["empty"].submit() for _ in range(5)]
    futures.append(loaded["wipe"].submit(1 << 40))
    futures += [loaded["empty"].submit() for _ in range(5)]
    assert isinstance(futures[5].exception(), cf.RemoteCrash)
    assert all(isinstance(future.exception(), cf.RemoteCrash) for future in futures[6:])


def test_a_program_that_never_ends_is_ended_at_its_limit(device_of: Opener, artifact: Artifact) -> None:
    device = device_of("cpu", call_ms=300)
    with pytest.raises(cf.Timeout, match=r"'forever'.* longer than its limit of 0\.3 s"):
        device.load(artifact)["forever"](np.zeros(1, np.int32))
    assert device.lease._process.returncode == EXIT_TIME_LIMIT  # type: ignore[attr-defined]


def test_a_call_can_be_given_a_limit_of_its_own(device_of: Opener, artifact: Artifact) -> None:
    forever = device_of("cpu").load(artifact)["forever"]
    with pytest.raises(cf.Timeout, match=r"limit of 0\.2 s"):
        forever(np.zeros(1, np.int32), timeout=0.2)


def test_a_benchmark_that_never_ends_is_ended_too(device_of: Opener, artifact: Artifact) -> None:
    forever = device_of("cpu").load(artifact)["forever"]
    with pytest.raises(cf.Timeout):
        forever.benchmark(np.zeros(1, np.int32), warmup=0, timeout=0.2)


def test_a_profile_that_never_ends_is_ended_too(device_of: Opener, artifact: Artifact) -> None:
    forever = device_of("cpu").load(artifact)["forever"]
    with pytest.raises(cf.Timeout, match=r"limit of 0\.2 s"):
        forever.profile(np.zeros(1, np.int32), warmup=0, timeout=0.2)


def test_waiting_for_a_future_can_be_given_up_without_ending_it(device_of: Opener, artifact: Artifact) -> None:
    loaded = device_of("cpu", call_ms=1500).load(artifact)
    future = loaded["forever"].submit(np.zeros(1, np.int32))
    with pytest.raises(cf.Timeout, match="no result within"):
        future.result(timeout=0.1)
    with pytest.raises(cf.Timeout, match="ran longer than its limit"):
        future.result()


def test_a_slow_call_within_its_limit_is_left_alone(device_of: Opener, artifact: Artifact) -> None:
    device = device_of("cpu", call_ms=200)
    add = device.load(artifact)["add"]
    with device.tensor(np.ones(200_000, np.float32)) as x, device.empty(200_000) as z:
        for future in [add.submit(x, x, out=z) for _ in range(8000)]:  # together far longer than one may take
            future.result()


def test_a_division_by_zero_leaves_the_device_usable(cpu: Device, artifact: Artifact) -> None:
    loaded = cpu.load(artifact)
    with pytest.raises(cf.ProgramError, match="division by zero"):
        loaded["divide"](np.ones(4, np.int32), 0)
    assert loaded["divide"](np.ones(4, np.int32), 1)[0] == 1


def test_the_reference_device_names_the_access_that_would_have_crashed(device_of: Opener, artifact: Artifact) -> None:
    loaded = device_of("reference").load(artifact)
    with pytest.raises(cf.Error):
        loaded["wipe"](1 << 40)
    assert loaded["empty"]() is None


def test_a_worker_that_is_killed_is_a_lost_lease_and_worth_retrying(device_of: Opener, artifact: Artifact) -> None:
    device = device_of("cpu")
    loaded = device.load(artifact)
    os.kill(device.lease.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(cf.LeaseLost) as caught:
        loaded["empty"]()
    assert caught.value.retryable


def test_a_worker_ends_with_its_supervisor(device_of: Opener) -> None:
    device = device_of("cpu")
    lease = device.lease
    lease._process.stdin.close()  # type: ignore[attr-defined]
    assert lease._process.wait(10) == 0  # type: ignore[attr-defined]


def test_a_closed_device_says_so(device_of: Opener, artifact: Artifact) -> None:
    device = device_of("cpu")
    loaded = device.load(artifact)
    device.close()
    device.close()
    with pytest.raises(cf.Cancelled, match="closed"):
        loaded["empty"]()
    with pytest.raises(cf.Cancelled, match="closed"):
        device.tensor(np.zeros(3))
