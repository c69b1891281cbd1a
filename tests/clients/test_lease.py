"""Leases against a real tracker and agent, which are killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from clients.sdk.lease import Lease, LeaseRequest, QueuePosition
from clients.sdk.processes import Child, start_all, stop_all, wait_until_announced
from clients.sdk.programs import LocalFarm
from crossfarm.errors import InvalidSelector, LeaseLost, NoSuchDevice, Timeout, Unavailable
from crossfarm.wire.channels import open_channel
from crossfarm.wire.v1 import tracker_pb2 as pb
from crossfarm.wire.v1.tracker_pb2_grpc import TrackerStub

ONE_DEVICE = "kind=cpu"


class Farm:
    """A tracker and an agent with one device, the tracker to be killed at will."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._plan = LocalFarm.plan(directory, directory / "store")
        self.address = self._plan.tracker
        self._programs = {program.name: program for program in self._plan.programs}
        started = start_all([self._programs["tracker"], self._programs["agent"]], directory)
        self._children = {child.program.name: child for child in started}
        try:
            wait_until_announced(started, 60)
        except BaseException:
            self.stop()
            raise

    def kill_tracker(self) -> None:
        os.kill(self._children["tracker"].pid, signal.SIGKILL)
        stop_all([self._children["tracker"]])

    def start_tracker(self) -> None:
        self._children["tracker"] = Child(self._programs["tracker"], self._directory)

    def stop(self) -> None:
        stop_all(list(self._children.values()))
        self._plan.release_ports()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    made = Farm(tmp_path_factory.mktemp("farm"))
    yield made
    made.stop()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Farm]:
    """A farm of the test's own, to be killed in parts."""
    made = Farm(tmp_path)
    yield made
    made.stop()


@contextmanager
def calling(farm: Farm) -> Iterator[TrackerStub]:
    """A stub of the farm's tracker. Whatever the body does, the device has to be free afterwards."""
    with open_channel(farm.address) as channel:
        stub = TrackerStub(channel)
        yield stub
        until(lambda: device(stub).state == pb.FREE)


@pytest.fixture
def tracker(farm: Farm) -> Iterator[TrackerStub]:
    with calling(farm) as stub:
        yield stub


def device(tracker: TrackerStub) -> pb.DeviceInfo:
    """The farm's one device; an empty one while the tracker is away."""
    try:
        return tracker.ListDevices(pb.ListDevicesRequest(), wait_for_ready=True, timeout=20).devices[0]
    except grpc.RpcError:
        return pb.DeviceInfo()


def until(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Returns once ``condition`` holds; fails the test if it does not come to hold."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.01)


def acquire(tracker: TrackerStub, farm: Farm, **request: object) -> Lease:
    asked = LeaseRequest(selector=ONE_DEVICE, client="me@here", **request)  # type: ignore[arg-type]
    return Lease.acquire(tracker, asked, peer=farm.address)


class Waiting(threading.Thread):
    """A second client that waits for the device."""

    def __init__(
        self,
        tracker: TrackerStub,
        farm: Farm,
        on_queued: Callable[[QueuePosition], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="second-client")
        self._tracker = tracker
        self._farm = farm
        self._on_queued = on_queued
        self._clock = clock
        self.queued = threading.Event()
        self.lease: Lease | None = None
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        request = LeaseRequest(selector=ONE_DEVICE, timeout=30, client="you@there")
        try:
            self.lease = Lease.acquire(
                self._tracker, request, peer=self._farm.address, on_queued=self._heard, clock=self._clock
            )
        except (Unavailable, Timeout, KeyboardInterrupt) as failure:
            self.failure = failure

    def _heard(self, place: QueuePosition) -> None:
        self.queued.set()
        if self._on_queued is not None:
            self._on_queued(place)


def test_a_lease_names_its_device_and_gives_it_back(farm: Farm, tracker: TrackerStub) -> None:
    with acquire(tracker, farm) as lease:
        assert lease.alive
        assert lease.info.attributes["kind"] == "cpu"
        assert lease.address.startswith("127.0.0.1:")
        held = device(tracker)
        assert (held.state, held.holder, held.lease_id) == (pb.LEASED, "me@here", lease.id)
    assert not lease.alive
    assert lease.failure(0) is None
    lease.release()  # again is nothing


def test_fencing_tokens_rise(farm: Farm, tracker: TrackerStub) -> None:
    tokens = []
    for _ in range(3):
        with acquire(tracker, farm) as lease:
            tokens.append(lease.fencing_token)
    assert tokens == sorted(set(tokens))


def test_a_second_client_waits_its_turn_and_is_told_its_place(farm: Farm, tracker: TrackerStub) -> None:
    places: list[QueuePosition] = []
    with acquire(tracker, farm):
        second = Waiting(tracker, farm, places.append)
        assert second.queued.wait(10)
        assert second.lease is None
    second.join()
    assert second.lease is not None
    assert (places[0].position, places[0].matching) == (1, 1)
    second.lease.release()


def test_a_wait_that_is_too_long_is_a_timeout(farm: Farm, tracker: TrackerStub) -> None:
    with acquire(tracker, farm), pytest.raises(Timeout):
        acquire(tracker, farm, timeout=0.05)


@pytest.mark.parametrize(("selector", "error"), [("arch=vax", NoSuchDevice), ("kind=", InvalidSelector)])
def test_what_can_never_be_met_fails_at_once(
    farm: Farm, tracker: TrackerStub, selector: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Lease.acquire(tracker, LeaseRequest(selector=selector), peer=farm.address)


def test_an_interrupted_wait_takes_the_request_back(farm: Farm, tracker: TrackerStub) -> None:
    def interrupt(_: QueuePosition) -> None:
        raise KeyboardInterrupt

    with acquire(tracker, farm):
        second = Waiting(tracker, farm, interrupt)
        second.join()
        assert isinstance(second.failure, KeyboardInterrupt)
    until(lambda: device(tracker).state == pb.FREE)


def test_a_lease_lives_on_over_a_tracker_that_is_killed(mortal: Farm) -> None:
    with calling(mortal) as tracker, acquire(tracker, mortal) as lease:
        token = lease.fencing_token
        mortal.kill_tracker()
        mortal.start_tracker()
        until(lambda: device(tracker).lease_id == lease.id)
        assert lease.failure(0) is None
        assert lease.alive
        assert lease.fencing_token == token


def test_a_request_that_waits_lives_on_over_a_tracker_that_is_killed(mortal: Farm) -> None:
    with calling(mortal) as tracker:
        with acquire(tracker, mortal) as first:
            second = Waiting(tracker, mortal)
            assert second.queued.wait(10)
            second.queued.clear()
            mortal.kill_tracker()
            mortal.start_tracker()
            until(lambda: device(tracker).lease_id == first.id)
        second.join()
        assert second.lease is not None, second.failure
        second.lease.release()


def test_a_wait_of_hours_does_not_count_as_an_outage(mortal: Farm) -> None:
    hours = 0.0
    with calling(mortal) as tracker:
        with acquire(tracker, mortal) as first:
            second = Waiting(tracker, mortal, clock=lambda: time.monotonic() + hours * 3600)
            assert second.queued.wait(10)
            hours = 0.005  # within the request's own limit, beyond any outage
            mortal.kill_tracker()
            mortal.start_tracker()
            until(lambda: device(tracker).lease_id == first.id)
        second.join()
        assert second.lease is not None, second.failure
        second.lease.release()


def test_a_lease_is_lost_with_its_time_to_live_when_the_tracker_stays_away(mortal: Farm) -> None:
    with calling(mortal) as tracker:
        lease = acquire(tracker, mortal, ttl_seconds=1.0)
        mortal.kill_tracker()
        try:
            failure = lease.failure(wait=20)
            assert isinstance(failure, LeaseLost)
            assert mortal.address in failure.message
            lease.release()
        finally:
            mortal.start_tracker()


def test_a_release_while_the_tracker_is_away_does_not_hang(mortal: Farm) -> None:
    with calling(mortal) as tracker:
        lease = acquire(tracker, mortal, ttl_seconds=2.0)
        mortal.kill_tracker()
        started = time.monotonic()
        lease.release()
        assert time.monotonic() - started < 4
        assert lease.failure(0) is None
        mortal.start_tracker()


def test_a_device_is_asked_for_over_a_tracker_that_is_just_starting(mortal: Farm) -> None:
    with calling(mortal) as tracker:
        mortal.kill_tracker()
        mortal.start_tracker()
        acquire(tracker, mortal).release()


def test_a_tracker_that_is_not_there_is_unavailable() -> None:
    channel = open_channel("127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        Lease.acquire(TrackerStub(channel), LeaseRequest(), peer="127.0.0.1:1", outage_seconds=0.2)
    channel.close()


def test_a_killed_client_gives_its_device_back(farm: Farm, tracker: TrackerStub) -> None:
    script = (
        "import sys; from clients.sdk.lease import Lease, LeaseRequest; from crossfarm.wire.channels import "
        "open_channel; from crossfarm.wire.v1.tracker_pb2_grpc import TrackerStub; lease = "
        "Lease.acquire(TrackerStub(open_channel(sys.argv[1])), LeaseRequest()); print(lease.id, flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, farm.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        lease_id = client.stdout.readline().strip()
        assert device(tracker).lease_id == lease_id
        client.kill()
    until(lambda: device(tracker).state == pb.FREE)
