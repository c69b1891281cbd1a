"""Broken and hostile peers: each is refused or cut to size, and the tracker goes on for everybody else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfarm import errors
from crossfarm.wire.channels import open_channel
from crossfarm.wire.v1 import tracker_pb2 as wire

from .farm import Agent, Client, TrackerProcess, devices, running_tracker, wait_for_state

Info, Held = wire.DeviceInfo, wire.Register.HeldLease


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackerProcess]:
    with running_tracker(tmp_path_factory.mktemp("tracker") / "state") as process:
        yield process


@pytest.fixture
def peers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def victim(tracker: TrackerProcess, peers: ExitStack) -> Agent:
    """An honest agent; after the test its device is free, and can be leased."""
    agent = Agent(tracker.address, "victim", {"cpu": {"kind": "cpu"}})

    def still_works() -> None:
        client = Client.opens(tracker.address, "id=victim/cpu")
        assert client.granted().device.id == "victim/cpu"
        client.release()
        client.ended()
        client.close()
        wait_for_state(tracker.address, "victim/cpu", wire.FREE)
        agent.close()

    peers.callback(still_works)
    return agent


def _register(address: str, **fields: object) -> None:
    """Registers an agent so, and raises the error it gets."""
    agent = Agent(address, "attacker", {})
    try:
        register = wire.Register(agent_id="attacker", api_low=1, api_high=1, **fields)  # type: ignore[arg-type]
        agent.send(wire.AgentMessage(register=register))
        agent.receive()
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"devices": [Info(id=f"attacker/{i}") for i in range(10_000)]}, errors.LimitExceeded),
        ({"devices": [Info(id="attacker/1", attributes={f"k{i}": "v" for i in range(9_000)})]}, errors.LimitExceeded),
        ({"devices": [Info(id="attacker/" + "x" * 9_000)]}, errors.LimitExceeded),
        ({"devices": [Info(id="attacker/\x1b[2J")]}, errors.LimitExceeded),
        ({"devices": [Info(id="victim/cpu")]}, errors.UsageError),
        ({"held": [Held(lease_id="x", device_id="attacker/1", fencing_token=1 << 63)]}, errors.UsageError),
        ({"held": [Held(lease_id="x", device_id="attacker/1", fencing_token=(1 << 63) - 1)]}, errors.UsageError),
        ({"held": [Held(lease_id="", device_id="attacker/1", fencing_token=1)]}, errors.UsageError),
        ({"held": [Held(lease_id="x", device_id=f"attacker/{i}") for i in (1, 2)]}, errors.UsageError),
        ({"held": [Held(lease_id=name, device_id="attacker/1") for name in "xy"]}, errors.UsageError),
    ],
    ids=[
        *("too many devices", "giant attributes", "a long name", "an unprintable name", "another agent's device"),
        *("a token that cannot be saved", "the last token there is", "a held lease without a name"),
        *("one lease on two devices", "two leases on one device"),
    ],
)  # fmt: skip
def test_a_registration_that_cannot_be_is_refused(
    tracker: TrackerProcess, victim: Agent, fields: dict[str, object], error: type[errors.Error]
) -> None:
    fields.setdefault("devices", [Info(id="attacker/1"), Info(id="attacker/2")])
    with pytest.raises(error):
        _register(tracker.address, **fields)


def test_an_agent_has_no_say_over_anothers_lease(tracker: TrackerProcess, victim: Agent, peers: ExitStack) -> None:
    client = Client.opens(tracker.address, "id=victim/cpu")
    peers.callback(client.close)
    lease = client.granted()
    attacker = Agent(tracker.address, "attacker", {})
    peers.callback(attacker.close)
    attacker.ended(lease.lease_id)
    attacker.ready(lease.lease_id, "elsewhere:1")
    attacker.send(wire.AgentMessage(status=wire.DeviceStatus(device_id="victim/cpu", healthy=False)))
    attacker.send(wire.AgentMessage())
    attacker.heartbeat((1 << 64) - 1)
    assert attacker.receive().end.lease_id == lease.lease_id  # its own worker of that name, had it one, must end
    assert attacker.receive().ack.sequence == (1 << 64) - 1
    assert devices(tracker.address)["victim/cpu"].state == wire.LEASED
    client.renew()
    assert client.receive().HasField("renewed")
    client.release()
    client.ended()


def test_an_outcome_from_the_future_and_of_any_size_is_told_cut_to_size(
    tracker: TrackerProcess, victim: Agent, peers: ExitStack
) -> None:
    victim.automatic = False
    client = Client.opens(tracker.address, "id=victim/cpu", ttl_ms=(1 << 32) - 1, priority=-(1 << 31))
    peers.callback(client.close)
    unknown = wire.Outcome(kind=77)  # type: ignore[arg-type]
    start = victim.receive().start
    victim.ended(start.lease_id, unknown)  # a start that failed so is tried again
    start = victim.receive().start
    victim.ready(start.lease_id)
    client.granted()
    unknown.error.message = "m" * 1_000_000
    for i in range(1000):
        unknown.error.details[f"fact {i}"] = "v" * 1000
    victim.ended(start.lease_id, unknown)
    told = client.ended()
    assert told.kind == wire.Outcome.KIND_UNSPECIFIED
    assert told.ByteSize() < 100_000
    victim.automatic = True


def test_what_would_steer_a_terminal_is_not_shown(tracker: TrackerProcess, peers: ExitStack) -> None:
    agent = Agent(tracker.address, "steering", {"cpu": {"name": "\x1b[2Jcpu\n", "note\x07": "\x00"}})
    peers.callback(agent.close)
    agent.status("cpu", healthy=False, reason="gone\x1b]0;\n" + "x" * 100_000)
    info = wait_for_state(tracker.address, "steering/cpu", wire.UNHEALTHY)
    assert info.attributes["name"].isprintable()
    assert all(key.isprintable() for key in info.attributes)
    assert info.reason.isprintable()
    assert len(info.reason) <= 500


@pytest.mark.parametrize(
    "selector",
    ["kind=" + "😀" * 4000, "😀" * 4000, "a" * 10_000_000, "kind~=" + "*a" * 2000, ",".join(["a=1"] * 1000)],
    ids=["long values", "long garbage", "megabytes", "stars", "many conditions"],
)
def test_a_selector_of_any_size_gets_its_reason(tracker: TrackerProcess, victim: Agent, selector: str) -> None:
    client = Client.opens(tracker.address, selector)
    try:
        with pytest.raises((errors.InvalidSelector, errors.NoSuchDevice)):
            client.receive()
    finally:
        client.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["Attach", "Acquire"]), st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_random_bytes_end_the_call_and_nothing_else(
    tracker: TrackerProcess, method: str, messages: list[bytes]
) -> None:
    with open_channel(tracker.address) as channel:
        call = channel.stream_stream(f"/crossfarm.v1.Tracker/{method}")(iter(messages), timeout=10)
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass
        assert call.code() is not grpc.StatusCode.UNAVAILABLE, call.details()
    assert tracker.running
    devices(tracker.address)


def test_no_peer_has_made_the_tracker_log_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running_tracker(tmp_path / "state") as process, open_channel(process.address) as channel:
        for method in ("Attach", "Acquire"):
            with pytest.raises(grpc.RpcError, match="no message of the crossfarm protocol"):
                list(channel.stream_stream(f"/crossfarm.v1.Tracker/{method}")(iter([b"\x0a\x03\xff"])))
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/crossfarm.v1.Tracker/ListDevices")(b"\x0a\x02\xff\xfe")
    assert "Traceback" not in capfd.readouterr().err
