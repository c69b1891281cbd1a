"""The life of a lease, under an injected clock: granted, renewed, resumed, ended, carried over restarts."""

from __future__ import annotations

import pytest

from crossfarm import errors
from crossfarm.wire.v1 import tracker_pb2 as wire
from tracker.state import Config

from .world import ONE, TWO, World, held, kinds

# --- the plain life of a lease


def test_a_registered_agent_is_told_the_times_and_the_stores() -> None:
    world = World()
    registered = world.take(world.attach("a", ONE))[0]
    assert registered.heartbeat_interval_ms == world.config.heartbeat_interval_ms
    assert registered.dead_after_ms == world.config.dead_after_ms
    assert list(registered.stores) == ["store:1"]


def test_a_request_is_started_on_the_device_and_granted_once_the_worker_listens() -> None:
    world = World()
    agent = world.attach("a", ONE)
    world.take(agent)
    client = world.open("kind=cpu", client="ann@desk")
    (start,) = world.take(agent)
    assert (start.device_id, start.fencing_token, start.limits.call_ms) == ("a/cpu", 1, 7)
    assert world.take(client) == []
    world.ready(agent, start.lease_id, "10.0.0.7:4711")
    (granted,) = world.take(client)
    assert (granted.lease_id, granted.fencing_token) == (start.lease_id, 1)
    assert granted.session_token == start.session_token
    assert granted.address == "10.0.0.7:4711"
    assert (granted.device.id, granted.device.state, granted.device.holder) == ("a/cpu", wire.LEASED, "ann@desk")


def test_a_released_device_is_free_only_after_its_agent_has_confirmed() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    world.release(client)
    ended, closed = world.take(client)
    assert ended.outcome.kind == wire.Outcome.RELEASED
    assert closed is None
    (end,) = world.take(agent)
    assert end.lease_id == granted.lease_id
    assert world.state_of("a/cpu") == "LEASED"
    world.worker_ended(agent, granted.lease_id)
    assert world.state_of("a/cpu") == "FREE"
    assert world.saved_leases == {}


def test_two_devices_one_two_are_free_as_a_lease_comes_and_goes() -> None:
    world = World()
    agent = world.attach("a", TWO)
    free = world.machine.state.free
    assert len(free) == 2
    client, granted = world.grant(agent)
    assert len(free) == 1
    world.release(client)
    world.worker_ended(agent, granted.lease_id)
    assert len(free) == 2


def test_the_device_that_has_rested_longest_is_taken() -> None:
    world = World()
    agent = world.attach("a", TWO)
    seen = []
    for _ in range(4):
        client, granted = world.grant(agent)
        seen.append(granted.device.id)
        world.passes(10)
        world.release(client)
        world.worker_ended(agent, granted.lease_id)
        world.take(agent)
    assert seen == ["a/board", "a/cpu", "a/board", "a/cpu"]


def test_a_lease_that_is_renewed_goes_on_and_one_that_is_not_expires() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent, ttl_ms=5_000)
    assert granted.ttl_ms == 5_000
    for _ in range(6):
        world.passes(4_000)
        world.heartbeat(agent)
        world.renew(client)
    assert kinds(world.take(client)) == ["Renewed"] * 6
    world.passes(5_000)
    ended, closed = world.take(client)
    assert ended.outcome.kind == wire.Outcome.EXPIRED
    assert ended.outcome.error.type == "LeaseLost"
    assert "5.0 s" in ended.outcome.error.message
    assert closed is None
    assert kinds(world.take(agent))[-1] == "EndLease"


def test_a_ttl_out_of_bounds_is_clamped_and_the_client_is_told_which_one_holds() -> None:
    world = World()
    agent = world.attach("a", TWO)
    assert world.grant(agent, ttl_ms=1)[1].ttl_ms == world.config.min_ttl_ms
    assert world.grant(agent, ttl_ms=4_000_000_000)[1].ttl_ms == world.config.max_ttl_ms


# --- clients that break, resume, or lie


def test_a_client_that_resumes_in_time_keeps_its_lease() -> None:
    world = World(Config(dead_after_ms=60_000))
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    world.break_client(client)
    world.passes(world.config.resume_grace_ms - 1)
    again = world.resume(granted)
    assert world.take(again) == [granted]
    world.passes(world.config.resume_grace_ms)
    assert world.take(again) == []


def test_a_client_that_does_not_resume_loses_its_lease_within_seconds() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    world.break_client(client)
    world.passes(world.config.resume_grace_ms)
    assert [m.lease_id for m in world.take(agent)] == [granted.lease_id]
    ended, closed = world.take(world.resume(granted))
    assert ended.outcome.kind == wire.Outcome.EXPIRED
    assert "connection broke" in ended.outcome.error.message
    assert closed is None


def test_why_a_lease_ended_is_remembered_for_a_while_and_not_for_ever() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    world.break_client(client)
    world.passes(world.config.resume_grace_ms)
    world.worker_ended(agent, granted.lease_id)
    world.passes(world.config.remember_lease_ms)
    assert world.saved_leases == {}
    (error,) = world.take(world.resume(granted))
    assert isinstance(error, errors.LeaseLost)


@pytest.mark.parametrize("wrong", [{"token": "guess"}, {"token": ""}, {"token": "é"}, {"fence": 99}])
def test_the_wrong_token_is_refused_and_the_lease_is_untouched(wrong: dict[str, object]) -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent)
    (error,) = world.take(world.resume(granted, **wrong))  # type: ignore[arg-type]
    assert isinstance(error, errors.PermissionDenied)
    assert granted.session_token not in error.message
    world.renew(client)
    assert kinds(world.take(client)) == ["Renewed"]


def test_a_client_that_dies_while_its_lease_is_being_started_leaves_the_device_free() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client = world.open()
    start = world.take(agent)[-1]
    world.break_client(client)
    world.ready(agent, start.lease_id)
    world.passes(world.config.resume_grace_ms)
    assert kinds(world.take(agent)) == ["EndLease"]
    world.worker_ended(agent, start.lease_id)
    assert world.state_of("a/cpu") == "FREE"


# --- restarts of the tracker


def test_leases_survive_a_restart_of_the_tracker() -> None:
    world = World()
    agent = world.attach("a", TWO)
    _, granted = world.grant(agent, ttl_ms=10_000)
    world.restart()
    assert world.state_of("a/cpu") == world.state_of("a/board") == "OFFLINE"
    client = world.resume(granted)
    assert world.take(client)[0].address == granted.address
    again = world.attach("a", TWO, held(granted))
    assert kinds(world.take(again)) == ["Registered"]
    assert world.state_of(granted.device.id) == "LEASED"
    other = world.open()
    start = world.take(again)[-1]
    assert start.device_id != granted.device.id
    assert start.fencing_token > granted.fencing_token
    world.passes(5_000)
    assert world.take(client) == []
    assert world.take(other) == []


def test_after_a_restart_a_client_that_does_not_resume_loses_its_lease_after_its_ttl() -> None:
    world = World()
    agent = world.attach("a", ONE)
    _, granted = world.grant(agent, ttl_ms=3_000)
    world.restart()
    agent = world.attach("a", ONE, held(granted))
    world.passes(3_000)
    assert kinds(world.take(agent)) == ["Registered", "EndLease"]


def test_after_a_restart_an_agent_that_stays_away_loses_its_leases() -> None:
    world = World()
    _, granted = world.grant(world.attach("a", ONE), ttl_ms=60_000)
    world.restart()
    client = world.resume(granted)
    world.take(client)
    world.passes(world.config.restart_grace_ms)
    assert world.take(client)[0].outcome.error.type == "LeaseLost"
    agent = world.attach("a", ONE)
    assert kinds(world.take(agent)) == ["Registered"]
    assert world.state_of("a/cpu") == "FREE"


def test_a_lease_being_started_does_not_outlive_a_restart_and_its_device_is_not_lost() -> None:
    world = World()
    agent = world.attach("a", ONE)
    world.open()
    start = world.take(agent)[-1]
    world.restart()
    agent = world.attach("a", ONE, held(start))
    assert kinds(world.take(agent)) == ["Registered", "EndLease"]
    world.worker_ended(agent, start.lease_id)
    assert world.state_of("a/cpu") == "FREE"
