"""A real agent under a real tracker: what becomes of leases, workers and devices when something ends unasked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from clients.sdk.lease import Lease, LeaseRequest
from crossfarm import errors
from crossfarm.wire.channels import open_channel
from crossfarm.wire.v1 import tracker_pb2 as wire
from crossfarm.wire.v1.tracker_pb2_grpc import TrackerStub
from tests.tracker.farm import TrackerProcess, patiently


class AgentProcess:
    """``python -m device_agent serve`` with null devices."""

    def __init__(self, tracker: str, scratch: Path, name: str = "board", **environment: str) -> None:
        announce = scratch / f"{name}.json"
        command = [sys.executable, "-m", "device_agent", "serve", "--tracker", tracker, "--name", name]
        command += ["--devices", "null,reference", "--attr", "rack=3", "--attr", "usb"]
        command += ["--state", str(scratch / name), "--announce", str(announce), "--with-parent"]
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE)
        for _ in patiently("the agent to be ready"):
            if announce.exists() or self.process.poll() is not None:
                break

    def workers(self) -> list[psutil.Process]:
        """The processes below the template, warm and bound, oldest first."""
        template = next(
            p for p in psutil.Process(self.process.pid).children() if "device_agent.template" in p.cmdline()
        )
        return sorted(template.children(), key=lambda p: p.create_time())

    def stop(self) -> str:
        """SIGTERM; its log."""
        self.process.terminate()
        log = self.process.communicate(timeout=20)[1].decode()
        assert self.process.returncode == 0, log
        return log

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[TrackerProcess]:
    process = TrackerProcess(tmp_path / "tracker")
    yield process
    if process.running:
        process.stop()


@pytest.fixture
def stub(tracker: TrackerProcess) -> Iterator[TrackerStub]:
    with open_channel(tracker.address) as channel:
        grpc.channel_ready_future(channel).result(10)
        yield TrackerStub(channel)


def device(stub: TrackerStub, selector: str) -> wire.DeviceInfo:
    return stub.ListDevices(wire.ListDevicesRequest(selector=selector)).devices[0]


def wait_for(stub: TrackerStub, selector: str, state: wire.DeviceState) -> wire.DeviceInfo:
    for _ in patiently(f"{selector} to be {wire.DeviceState.Name(state)}"):
        if device(stub, selector).state == state:
            break
    return device(stub, selector)


def bound_worker(agent: AgentProcess, lease: Lease) -> psutil.Process:
    """The worker that listens on the lease's address."""
    port = int(lease.address.rpartition(":")[2])
    return next(w for w in agent.workers() if any(c.laddr.port == port for c in w.net_connections()))


def test_devices_appear_with_their_identity_attributes_and_target(
    tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path
) -> None:
    with AgentProcess(tracker.address, tmp_path):
        info = wait_for(stub, "kind=reference", wire.FREE)
        assert info.id == "board/reference0"
        assert info.attributes["rack"] == "3"
        assert info.attributes["usb"] == "true"
        assert info.attributes["agent"] == "board"
        assert info.target.kind == "llvm"
    assert wait_for(stub, "kind=reference", wire.OFFLINE).id == "board/reference0"


def test_each_lease_has_a_worker_of_its_own(tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path) -> None:
    with AgentProcess(tracker.address, tmp_path) as agent:
        pids = set()
        for _ in range(3):
            with Lease.acquire(stub, LeaseRequest("kind=null")) as lease:
                pids.add(bound_worker(agent, lease).pid)
        assert len(pids) == 3
        for _ in patiently("fresh workers, one a device, and none that had a lease"):
            current = {worker.pid for worker in agent.workers()}
            if len(current) == 2 and not current & pids:
                break


def test_a_worker_killed_from_outside_is_no_fault_of_the_program_and_the_device_is_checked(
    tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path
) -> None:
    with AgentProcess(tracker.address, tmp_path) as agent:
        with Lease.acquire(stub, LeaseRequest("kind=null")) as lease:
            bound_worker(agent, lease).send_signal(signal.SIGKILL)
            assert isinstance(lease.failure(10), errors.LeaseLost)
        wait_for(stub, "kind=null", wire.FREE)
        with Lease.acquire(stub, LeaseRequest("kind=null", timeout=10)):
            pass


def test_a_session_that_reaches_its_limit_ends_as_a_timeout(
    tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path
) -> None:
    request = LeaseRequest("kind=null", session_seconds=0.2)
    with AgentProcess(tracker.address, tmp_path), Lease.acquire(stub, request) as lease:
        failure = lease.failure(10)
        assert isinstance(failure, errors.Timeout)
        assert "0.2 s" in failure.message
        wait_for(stub, "kind=null", wire.FREE)


def test_an_agent_that_is_stopped_says_so_to_its_clients_and_leaves_no_worker(
    tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path
) -> None:
    with AgentProcess(tracker.address, tmp_path) as agent, Lease.acquire(stub, LeaseRequest("kind=null")) as lease:
        workers = agent.workers()
        agent.stop()
        failure = lease.failure(10)
        assert isinstance(failure, errors.LeaseLost)
        assert "stopped" in failure.message
        assert not psutil.wait_procs(workers, timeout=5)[1]


def test_the_workers_of_a_killed_agent_die_with_it(tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path) -> None:
    with AgentProcess(tracker.address, tmp_path) as agent:
        workers = agent.workers()
        assert len(workers) == 2
        agent.process.kill()
        agent.process.wait()
        assert not psutil.wait_procs(workers, timeout=5)[1]


def test_how_a_lease_ended_is_told_although_the_tracker_was_away(
    tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path
) -> None:
    request = LeaseRequest("kind=null", session_seconds=1.5)
    with AgentProcess(tracker.address, tmp_path) as agent, Lease.acquire(stub, request) as lease:
        worker = bound_worker(agent, lease)
        tracker.kill()
        worker.wait(10)  # its limit passes while nobody listens
        tracker.start()
        assert isinstance(lease.failure(20), errors.Timeout)
        wait_for(stub, "kind=null", wire.FREE)


def test_a_device_whose_workers_cannot_start_is_unhealthy_with_the_reason(
    tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path
) -> None:
    with AgentProcess(tracker.address, tmp_path, CROSSFARM_PYTHON="/bin/false"):
        info = wait_for(stub, "kind=null", wire.UNHEALTHY)
        assert "worker" in info.reason


def test_a_second_agent_of_the_same_name_does_not_take_over(
    tracker: TrackerProcess, stub: TrackerStub, tmp_path: Path
) -> None:
    with AgentProcess(tracker.address, tmp_path), Lease.acquire(stub, LeaseRequest("kind=null")) as lease:
        (tmp_path / "second").mkdir()
        second = subprocess.Popen(
            [sys.executable, "-m", "device_agent", "serve", "--tracker", tracker.address, "--name", "board"],
            stderr=subprocess.PIPE,
        )
        assert second.stderr is not None
        refused = next(line for line in second.stderr if b"board" in line)
        assert b"attach" in refused or b"connected" in refused or b"already" in refused, refused
        second.terminate()
        second.communicate(timeout=20)
        assert lease.alive
        assert lease.failure(0) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--devices", "quantum"], "no driver 'quantum'"),
        (["--name", "../x"], "cannot name an agent"),
        (["--attr", "=3"], "not an attribute name"),
        (["--tracker", "nowhere"], "not host:port"),
        (["--host", "0.0.0.0"], "plaintext"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "device_agent", "serve", "--tracker", "127.0.0.1:1", "--state", str(tmp_path)]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
