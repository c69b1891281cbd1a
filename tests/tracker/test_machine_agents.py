"""What agents do to leases, under an injected clock: failed starts, crashes, absences, mistaken identities."""

from __future__ import annotations

import pytest

from crossfarm import errors
from crossfarm.wire.v1 import tracker_pb2 as wire
from tracker import events
from tracker.state import Config

from .world import CPU, ONE, TWO, World, held, kinds

# --- starts that fail


def test_a_failed_start_is_tried_on_another_device_with_another_token() -> None:
    world = World()
    agent = world.attach("a", TWO)
    client = world.open()
    first = world.take(agent)[-1]
    world.worker_ended(agent, first.lease_id, device_ok=False)
    second = world.take(agent)[-1]
    assert {first.device_id, second.device_id} == {"a/cpu", "a/board"}
    assert second.fencing_token == first.fencing_token + 1
    assert second.session_token != first.session_token
    assert second.lease_id != first.lease_id
    assert world.state_of(first.device_id) == "CHECKING"
    world.ready(agent, second.lease_id)
    assert kinds(world.take(client)) == ["Granted"]


def test_starts_that_keep_failing_end_in_an_infrastructure_error_that_says_why() -> None:
    world = World(Config(start_attempts=3))
    agent = world.attach("a", ONE)
    client = world.open()
    failed = wire.Outcome(kind=wire.Outcome.INFRASTRUCTURE_FAILED)
    failed.error.message = "no memory for a worker"
    for _ in range(3):
        world.worker_ended(agent, world.take(agent)[-1].lease_id, failed)
    error = world.take(client)[-1]
    assert type(error) is errors.InfrastructureError
    assert "failed 3 times (on a/cpu)" in error.message
    assert "no memory for a worker" in error.message
    assert world.state_of("a/cpu") == "FREE"


def test_a_start_that_is_never_ready_moves_on_and_its_device_waits_for_the_agent() -> None:
    world = World()
    agent = world.attach("a", TWO)
    client = world.open()
    first = world.take(agent)[-1]
    for _ in range(world.config.start_timeout_ms // 1_000):
        world.passes(1_000)
        world.heartbeat(agent)
    said = [m for m in world.take(agent) if not isinstance(m, wire.HeartbeatAck)]
    assert kinds(said) == ["EndLease", "StartLease"]
    assert said[1].device_id != first.device_id
    assert world.state_of(first.device_id) == "LEASED"
    world.ready(agent, first.lease_id)  # late, and no longer wanted
    assert kinds(world.take(agent)) == ["EndLease"]
    world.worker_ended(agent, first.lease_id)
    assert world.state_of(first.device_id) == "FREE"
    world.ready(agent, said[1].lease_id)
    assert kinds(world.take(client))[-1] == "Granted"


# --- ends that the client did not ask for


@pytest.mark.parametrize("device_ok", [True, False])
def test_a_crash_is_told_to_the_client_and_a_doubtful_device_is_checked_first(device_ok: bool) -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    crashed = wire.Outcome(kind=wire.Outcome.PROGRAM_FAILED)
    crashed.error.type = "RemoteCrash"
    crashed.error.details["signal"] = "SIGSEGV"
    world.worker_ended(agent, granted.lease_id, crashed, device_ok=device_ok)
    assert world.take(client)[0].outcome == crashed
    assert world.state_of("a/cpu") == ("FREE" if device_ok else "CHECKING")
    assert [m.outcome for m in world.take(world.resume(granted))[:1]] == [crashed]
    world.report(agent, "a/cpu", healthy=True)
    assert world.state_of("a/cpu") == "FREE"


def test_a_device_whose_check_fails_stays_out_until_it_is_healthy() -> None:
    world = World()
    agent = world.attach("a", ONE)
    _, granted = world.grant(agent)
    world.worker_ended(agent, granted.lease_id, device_ok=False)
    world.report(agent, "a/cpu", healthy=False, reason="does not answer")
    assert world.state_of("a/cpu") == "UNHEALTHY"
    assert world.machine.state.devices["a/cpu"].reason == "does not answer"
    world.report(agent, "a/cpu", healthy=True)
    assert world.state_of("a/cpu") == "FREE"


def test_a_lease_survives_its_agents_reconnection() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    world.detach(agent)
    assert world.state_of("a/cpu") == "OFFLINE"
    world.passes(world.config.reattach_ms - 1)
    again = world.attach("a", ONE, held(granted))
    assert world.state_of("a/cpu") == "LEASED"
    world.passes(world.config.reattach_ms)
    assert world.take(client) == []
    assert kinds(world.take(again)) == ["Registered"]


def test_an_agent_that_stays_away_loses_its_leases_and_its_device_stays_taken_until_it_is_back() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    other = world.open()
    world.detach(agent)
    world.passes(world.config.reattach_ms)
    ended = world.take(client)[0]
    assert ended.outcome.kind == wire.Outcome.INFRASTRUCTURE_FAILED
    assert ended.outcome.error.type == "LeaseLost"
    assert ended.outcome.error.retryable
    world.passes(600_000)
    again = world.attach("a", ONE, held(granted))
    assert kinds(world.take(again)) == ["Registered", "EndLease"]
    assert world.state_of("a/cpu") == "LEASED"
    world.worker_ended(again, granted.lease_id)
    assert kinds(world.take(again)) == ["StartLease"]
    assert "Granted" not in kinds(world.take(other))


def test_an_agent_that_comes_back_empty_frees_its_devices_and_tells_the_clients() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, _ = world.grant(agent)
    world.detach(agent)
    world.attach("a", ONE)
    assert world.take(client)[0].outcome.error.type == "LeaseLost"
    assert world.state_of("a/cpu") == "FREE"


def test_an_agent_that_is_attached_but_silent_is_dropped() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, _ = world.grant(agent)
    world.passes(world.config.dead_after_ms - 1)
    world.heartbeat(agent)
    assert kinds(world.take(agent)) == ["HeartbeatAck"]
    world.passes(world.config.dead_after_ms)
    assert isinstance(world.take(agent)[-1], errors.Unavailable)
    assert world.take(client)[0].outcome.error.type == "LeaseLost"
    assert world.state_of("a/cpu") == "OFFLINE"


def test_a_lease_being_started_moves_on_when_its_agent_goes_away() -> None:
    world = World()
    first = world.attach("a", ONE)
    second = world.attach("b", {"b/cpu": CPU})
    client = world.open()
    start = world.take(first)[-1]
    world.take(second)
    world.detach(first)
    (other,) = world.take(second)
    assert other.device_id == "b/cpu"
    world.ready(second, other.lease_id)
    assert kinds(world.take(client))[-1] == "Granted"
    again = world.attach("a", ONE, held(start))
    assert kinds(world.take(again)) == ["Registered", "EndLease"]


def test_an_agent_is_told_again_of_an_end_that_it_does_not_confirm() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, _ = world.grant(agent)
    world.release(client)
    world.take(agent)
    for _ in range(3):
        for _ in range(world.config.end_retry_ms // 1_000):
            world.passes(1_000)
            world.heartbeat(agent)
        assert "EndLease" in kinds(world.take(agent))
    assert world.state_of("a/cpu") == "LEASED"


def test_an_agent_cannot_speak_for_anothers_leases_and_devices() -> None:
    world = World()
    agent = world.attach("a", ONE)
    other = world.attach("b", {"b/gpu": {"kind": "gpu"}})
    client, granted = world.grant(agent, "kind=cpu")
    world.worker_ended(other, granted.lease_id)
    world.report(other, "a/cpu", healthy=False)
    assert world.take(client) == []
    assert world.state_of("a/cpu") == "LEASED"


# --- who is who


def test_a_newer_connection_of_an_agent_supersedes_the_older_one() -> None:
    world = World()
    old = world.attach("a", ONE)
    client, granted = world.grant(old)
    new = world.attach("a", ONE, held(granted))
    assert isinstance(world.take(old)[-1], errors.Cancelled)
    world.worker_ended(old, granted.lease_id)  # a late word on the dead connection counts for nothing
    world.detach(old)
    assert world.take(client) == []
    assert world.state_of("a/cpu") == "LEASED"
    world.worker_ended(new, granted.lease_id)
    assert world.state_of("a/cpu") == "FREE"


def test_a_second_machine_under_the_same_name_is_refused_until_the_first_is_gone() -> None:
    world = World()
    first = world.attach("a", ONE, instance="one")
    client, _ = world.grant(first)
    (refused,) = world.take(world.attach("a", ONE, instance="two"))
    assert isinstance(refused, errors.Unavailable)
    assert "an agent named a is attached already" in refused.message
    assert world.take(first) == world.take(client) == []
    again = world.attach("a", ONE, instance="one")
    assert kinds(world.take(again)) == ["Registered"]
    world.detach(again)
    assert kinds(world.take(world.attach("a", ONE, instance="two"))) == ["Registered"]


def test_one_connection_is_one_agent() -> None:
    world = World()
    stream = world.attach("a", ONE)
    world.take(stream)
    other = wire.Register(agent_id="b")
    world.post(events.AgentRegistered(world.now, stream, other))
    assert isinstance(world.take(stream)[0], errors.UsageError)


@pytest.mark.parametrize("online", [True, False])
def test_a_device_id_of_another_agent_is_refused(online: bool) -> None:
    world = World()
    owner = world.attach("a", ONE)
    if not online:
        world.detach(owner)
    (error,) = world.take(world.attach("b", ONE))
    assert isinstance(error, errors.UsageError)
    assert "'a/cpu' of agent b already belongs to agent a" in error.message
    assert world.machine.state.devices["a/cpu"].agent_id == "a"


def test_a_device_that_its_agent_no_longer_has_goes_offline_and_its_lease_is_lost() -> None:
    world = World()
    agent = world.attach("a", TWO)
    client, granted = world.grant(agent, "arch=aarch64")
    world.attach("a", ONE, [])
    assert world.state_of("a/board") == "OFFLINE"
    assert world.machine.state.devices["a/board"].reason == "agent a no longer has it"
    assert world.take(client)[0].outcome.error.type == "LeaseLost"
    assert granted.lease_id not in world.machine.state.leases


def test_a_lease_that_the_tracker_does_not_know_is_ended_before_its_device_is_used() -> None:
    world = World()
    stranger = wire.Register.HeldLease(lease_id="from-a-lost-database", fencing_token=40, device_id="a/cpu")
    agent = world.attach("a", ONE, [stranger])
    world.open()
    assert kinds(world.take(agent)) == ["Registered", "EndLease"]
    world.worker_ended(agent, "from-a-lost-database")
    (start,) = world.take(agent)
    assert start.fencing_token == 41
