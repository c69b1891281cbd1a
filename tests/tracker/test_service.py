"""The tracker as agents and clients meet it: a real process, real gRPC, scripted peers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from crossfarm import errors
from crossfarm.compat import versions
from crossfarm.wire.channels import open_channel
from crossfarm.wire.status import rpc_errors
from crossfarm.wire.v1 import capabilities_pb2, tracker_pb2_grpc
from crossfarm.wire.v1 import tracker_pb2 as wire

from .farm import Agent, Client, TrackerProcess, devices, patiently, running_tracker, wait_for_state

CPU = {"cpu": {"kind": "cpu", "arch": "x86_64"}}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackerProcess]:
    """One tracker for the module: each test attaches agents of its own name, and selects by it."""
    state = tmp_path_factory.mktemp("tracker") / "state"
    with running_tracker(state, "--compiler", "10.1.2.3:7462", "--resume-grace", "0.5") as process:
        yield process


@pytest.fixture
def peers() -> Iterator[ExitStack]:
    """Closes agents and clients at the end, last come first."""
    with ExitStack() as stack:
        yield stack


class Farm:
    """Opens agents and clients of one tracker, and closes them all."""

    def __init__(self, address: str, peers: ExitStack) -> None:
        self.address = address
        self._peers = peers

    def agent(self, name: str, attached: dict[str, dict[str, str]] | None = None, **options: object) -> Agent:
        agent = Agent(self.address, name, CPU if attached is None else attached, **options)  # type: ignore[arg-type]
        self._peers.callback(agent.close)
        return agent

    def client(self, selector: str, **fields: object) -> Client:
        client = Client.opens(self.address, selector, **fields)
        self._peers.callback(client.close)
        return client

    def resume(self, lease: wire.AcquireEvent.Granted, token: str | None = None) -> Client:
        client = Client.resumes(self.address, lease, token)
        self._peers.callback(client.close)
        return client


@pytest.fixture
def farm(tracker: TrackerProcess, peers: ExitStack) -> Farm:
    return Farm(tracker.address, peers)


def test_a_client_gets_a_lease_renews_it_and_gives_it_back(farm: Farm) -> None:
    agent = farm.agent("plain")
    assert list(agent.registered.stores) == ["10.1.2.3:7462"]
    client = farm.client("agent=plain", client="ann@desk", ttl_ms=20_000)
    granted = client.granted()
    assert granted.ttl_ms == 20_000
    info = devices(farm.address, "agent=plain")["plain/cpu"]
    assert (info.state, info.holder, info.lease_id) == (wire.LEASED, "ann@desk", granted.lease_id)
    client.renew()
    assert client.receive().renewed.ttl_ms == 20_000
    client.release()
    assert client.ended().kind == wire.Outcome.RELEASED
    wait_for_state(farm.address, "plain/cpu", wire.FREE)


def test_closing_the_clients_half_of_the_stream_releases_the_lease(farm: Farm) -> None:
    farm.agent("half")
    client = farm.client("agent=half")
    client.granted()
    client.half_close()
    assert client.ended().kind == wire.Outcome.RELEASED
    wait_for_state(farm.address, "half/cpu", wire.FREE)


def test_an_address_without_a_host_is_reached_at_the_agents_own(farm: Farm) -> None:
    agent = farm.agent("nat", automatic=False)
    client = farm.client("agent=nat")
    agent.ready(agent.receive().start.lease_id, ":4711")
    assert client.granted().address == "127.0.0.1:4711"


def test_a_heartbeat_is_answered(farm: Farm) -> None:
    agent = farm.agent("beat")
    agent.heartbeat(77)
    assert agent.receive().ack.sequence == 77


def test_the_second_client_waits_until_the_first_dies(farm: Farm) -> None:
    farm.agent("wait")
    first = Client.opens(farm.address, "agent=wait", client="ann@desk")
    first.granted()
    second = farm.client("agent=wait")
    assert second.queued().busy_with == "held by ann@desk (wait/cpu)"
    first.close()
    assert second.granted().fencing_token > 1


def test_a_killed_client_process_gives_its_device_back_within_seconds(farm: Farm) -> None:
    farm.agent("died")
    script = (
        "import sys; from tests.tracker.farm import Client\n"
        "client = Client.opens(sys.argv[1], 'agent=died'); client.granted(); print('have it', flush=True)\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script, farm.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"have it\n"
        wait_for_state(farm.address, "died/cpu", wire.LEASED)
        process.kill()
    wait_for_state(farm.address, "died/cpu", wire.FREE)


def test_higher_priority_goes_first_then_first_come(farm: Farm) -> None:
    farm.agent("queue")
    holder = farm.client("agent=queue")
    holder.granted()
    waiting = {}
    for name, priority, place in [("low", 10, 1), ("first", 60, 1), ("second", 60, 2)]:
        waiting[name] = farm.client("agent=queue", priority=priority)
        assert waiting[name].queued().position == place
    for _ in patiently("the one of low priority to hear of its new place"):
        if waiting["low"].queued().position == 3:
            break
    tokens = []
    for name in ["first", "second", "low"]:
        holder.release()
        holder = waiting[name]
        tokens.append(holder.granted().fencing_token)
    assert tokens == sorted(tokens)


def test_what_can_never_be_met_fails_at_once_and_names_the_nearest_miss(farm: Farm) -> None:
    farm.agent("near", {"pi": {"kind": "cpu", "arch": "aarch64", "memory": str(1 << 30)}})
    with pytest.raises(errors.NoSuchDevice) as caught:
        farm.client("agent=near,arch=aarch64,memory>=2GiB").granted()
    assert "near/pi, which misses memory>=2GiB (it has memory=1073741824)" in caught.value.message
    assert caught.value.exit_code == 1


def test_a_selector_that_does_not_parse_points_at_the_column(farm: Farm) -> None:
    with pytest.raises(errors.InvalidSelector, match="column 6"):
        farm.client("kind=").granted()
    with pytest.raises(errors.InvalidSelector, match="column 6"):
        devices(farm.address, "kind=")


def test_a_wait_is_over_after_its_limit(farm: Farm) -> None:
    farm.agent("busy")
    farm.client("agent=busy", client="ann@desk").granted()
    with pytest.raises(errors.Timeout, match="ann@desk"):
        farm.client("agent=busy", queue_timeout_ms=50).granted()


def test_an_agent_that_dies_takes_its_devices_offline_and_comes_back_with_them(farm: Farm) -> None:
    agent = Agent(farm.address, "back", CPU)
    wait_for_state(farm.address, "back/cpu", wire.FREE)
    agent.close()
    assert "broke" in wait_for_state(farm.address, "back/cpu", wire.OFFLINE).reason
    farm.agent("back")
    assert devices(farm.address)["back/cpu"].state == wire.FREE


def test_a_second_connection_of_an_agent_supersedes_the_first(farm: Farm) -> None:
    first = farm.agent("twice")
    client = farm.client("agent=twice")
    client.granted()
    second = farm.agent("twice", held=first.held())
    second.running = dict(first.running)
    assert first.receive().HasField("start")
    with pytest.raises(errors.Cancelled, match="newer connection"):
        first.receive()
    assert devices(farm.address)["twice/cpu"].state == wire.LEASED
    client.release()
    wait_for_state(farm.address, "twice/cpu", wire.FREE)


def test_a_device_id_that_belongs_to_another_agent_is_refused(farm: Farm) -> None:
    farm.agent("owner")
    thief = farm.agent("thief", {}, register=False)
    assert thief.receive().HasField("registered")
    copy = wire.Register(agent_id="thief", devices=[wire.DeviceInfo(id="owner/cpu")], api_low=1, api_high=1)
    thief.send(wire.AgentMessage(register=copy))
    with pytest.raises(errors.UsageError, match="of agent thief already belongs to agent owner"):
        thief.receive()


def test_a_broken_client_resumes_its_lease_and_a_wrong_token_does_not(farm: Farm) -> None:
    farm.agent("resume")
    first = Client.opens(farm.address, "agent=resume")
    granted = first.granted()
    first.close()
    with pytest.raises(errors.PermissionDenied):
        farm.resume(granted, token="guess").granted()
    again = farm.resume(granted)
    assert again.granted().lease_id == granted.lease_id
    again.release()
    assert again.ended().kind == wire.Outcome.RELEASED
    with pytest.raises(errors.LeaseLost):
        farm.resume(granted).granted()


def test_a_crash_in_the_worker_reaches_the_client_as_the_agent_told_it(farm: Farm) -> None:
    agent = farm.agent("crash")
    client = farm.client("agent=crash")
    granted = client.granted()
    outcome = wire.Outcome(kind=wire.Outcome.PROGRAM_FAILED)
    outcome.error.type, outcome.error.message = "RemoteCrash", "signal 11"
    agent.ended(granted.lease_id, outcome, device_ok=False)
    assert client.ended() == outcome
    wait_for_state(farm.address, "crash/cpu", wire.CHECKING)
    agent.status("cpu", healthy=True)
    wait_for_state(farm.address, "crash/cpu", wire.FREE)


def test_a_failed_start_is_tried_elsewhere_and_then_given_up(farm: Farm) -> None:
    agent = farm.agent("fails", automatic=False)
    client = farm.client("agent=fails")
    outcome = wire.Outcome(kind=wire.Outcome.INFRASTRUCTURE_FAILED)
    outcome.error.message = "the pool is empty"
    for _ in range(3):
        agent.ended(agent.receive().start.lease_id, outcome)
    with pytest.raises(errors.InfrastructureError, match="the pool is empty") as caught:
        client.granted()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("other", [0, versions.API_READABLE[1] + 1])
def test_another_api_version_is_refused_naming_both_ranges(farm: Farm, other: int) -> None:
    ours = f"this side {versions.API_READABLE[0]} to {versions.API_READABLE[1]}"
    agent = farm.agent("future", api=other, register=False)
    with pytest.raises(errors.InfrastructureError, match=f"speaks api_version {other} to {other}, {ours}"):
        agent.receive()
    with pytest.raises(errors.InfrastructureError, match=f"speaks api_version {other} to {other}, {ours}"):
        farm.client("", api_version=other).granted()


@pytest.mark.parametrize("first", [wire.AcquireRequest(renew=wire.AcquireRequest.Renew()), wire.AcquireRequest()])
def test_a_stream_that_does_not_begin_with_open_or_resume_is_refused(
    farm: Farm, peers: ExitStack, first: wire.AcquireRequest
) -> None:
    client = Client(farm.address)
    peers.callback(client.close)
    client.send(first)
    with pytest.raises(errors.UsageError, match="first message"):
        client.receive()


def test_a_client_that_says_nothing_at_all_is_let_go(farm: Farm, peers: ExitStack) -> None:
    client = Client(farm.address)
    peers.callback(client.close)
    client.half_close()
    assert client.receive() is None


def test_many_clients_share_few_devices_and_each_gets_one(farm: Farm) -> None:
    farm.agent("crowd", {f"d{i}": {"kind": "cpu"} for i in range(4)})
    holding = deque(farm.client("agent=crowd") for _ in range(4))
    tokens = {client.granted().fencing_token for client in holding}
    waiting: deque[Client] = deque()
    for _ in range(20):
        waiting.append(farm.client("agent=crowd"))
        waiting[-1].queued()  # it has its place: the next one comes after it
    while waiting:
        holding.popleft().release()
        holding.append(waiting.popleft())
        tokens.add(holding[-1].granted().fencing_token)
    assert len(tokens) == 24


def test_the_farm_and_its_versions_are_told(farm: Farm) -> None:
    with open_channel(farm.address) as channel, rpc_errors():
        stub = tracker_pb2_grpc.TrackerStub(channel)
        assert list(stub.GetFarm(wire.GetFarmRequest()).compilers) == ["10.1.2.3:7462"]
        said = stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest())
    assert (said.service, said.api_low, said.api_high) == ("tracker", *versions.API_READABLE)


def test_standard_health_checking_is_served(farm: Farm) -> None:
    health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
    health_pb2_grpc = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
    with open_channel(farm.address) as channel:
        request = health_pb2.HealthCheckRequest(service="crossfarm.v1.Tracker")
        assert health_pb2_grpc.HealthStub(channel).Check(request).status == health_pb2.HealthCheckResponse.SERVING


def test_a_frozen_agent_is_found_and_its_lease_is_lost(tmp_path: Path, peers: ExitStack) -> None:
    """The agent's process is stopped: its connection stays open and silent, as when its machine loses power."""
    with running_tracker(tmp_path / "state", "--dead-after", "0.5", "--heartbeat", "0.1") as tracker:
        script = (
            "import sys, threading; from tests.tracker.farm import Agent\n"
            "agent = Agent(sys.argv[1], 'frozen', {'cpu': {}})\n"
            "pause = threading.Event()\n"
            "while True: agent.heartbeat(1); pause.wait(0.1)\n"
        )
        root = Path(__file__).resolve().parents[2]
        with subprocess.Popen([sys.executable, "-c", script, tracker.address], cwd=root) as process:
            try:
                wait_for_state(tracker.address, "frozen/cpu", wire.FREE)
                client = Farm(tracker.address, peers).client("")
                client.granted()
                os.kill(process.pid, signal.SIGSTOP)
                outcome = client.ended()
            finally:
                process.kill()
        assert outcome.error.type == "LeaseLost"
        assert "not heard" in outcome.error.message


def test_plaintext_beyond_loopback_is_refused_unless_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tracker", "serve", "--listen", "0.0.0.0:0", "--state", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "refusing to listen on 0.0.0.0:0 in plaintext" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_tracker_on_the_same_state_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_tracker(state):
        command = [sys.executable, "-m", "tracker", "serve", "--listen", "127.0.0.1:0", "--state", str(state)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "another tracker uses it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tracker_that_stops_in_order_tells_its_clients_to_resume(tmp_path: Path, peers: ExitStack) -> None:
    with running_tracker(tmp_path / "state") as tracker:
        farm = Farm(tracker.address, peers)
        farm.agent("a")
        client = farm.client("")
        client.granted()
        assert tracker.stop() == 0
        with pytest.raises(errors.Unavailable):
            client.receive()


def test_an_unknown_method_is_plain_grpc_unimplemented(farm: Farm) -> None:
    with open_channel(farm.address) as channel:
        call = channel.unary_unary("/crossfarm.v1.Tracker/Nothing", None, None)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
