"""The rules, one by one, under an injected clock."""

from __future__ import annotations

import pytest

from crossfarm import errors
from crossfarm.wire.v1 import tracker_pb2 as wire
from tracker import events
from tracker.state import Config

from .world import BOARD, CPU, World, held

ONE = {"a/cpu": CPU}
TWO = {"a/cpu": CPU, "a/board": BOARD}


def kinds(messages: list[object]) -> list[str]:
    return [type(message).__name__ for message in messages]


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


# --- the queue


def test_the_second_client_waits_until_the_first_has_died() -> None:
    world = World()
    agent = world.attach("a", ONE)
    first, granted = world.grant(agent, client="ann@desk")
    second = world.open()
    (queued,) = world.take(second)
    assert (queued.position, queued.matching, queued.busy_with) == (1, 1, "held by ann@desk (a/cpu)")
    world.break_client(first)
    world.passes(world.config.resume_grace_ms)
    world.worker_ended(agent, granted.lease_id)
    start = world.take(agent)[-1]
    world.ready(agent, start.lease_id)
    assert kinds(world.take(second))[-1] == "Granted"
    assert start.fencing_token == granted.fencing_token + 1


def test_priority_goes_first_and_then_the_order_of_arrival() -> None:
    world = World()
    agent = world.attach("a", ONE)
    holder, granted = world.grant(agent)
    waiting = {world.open(priority=p, client=name): name for p, name in [(50, "b"), (90, "c"), (50, "d"), (90, "e")]}
    order = []
    lease_id = granted.lease_id
    world.release(holder)
    for _ in range(4):
        world.worker_ended(agent, lease_id)
        lease_id = world.take(agent)[-1].lease_id
        world.ready(agent, lease_id)
        stream = next(s for s in waiting if any(isinstance(m, wire.AcquireEvent.Granted) for m in world.said[s]))
        order.append(waiting.pop(stream))
        world.release(stream)
    assert order == ["c", "e", "b", "d"]


def test_one_that_waits_for_another_device_does_not_hold_up_those_behind_it() -> None:
    world = World()
    agent = world.attach("a", TWO)
    world.grant(agent, "arch=aarch64")
    blocked = world.open("arch=aarch64", priority=100)
    world.grant(agent, "arch=x86_64", priority=0)
    assert kinds(world.take(blocked)) == ["Queued"]


def test_places_count_only_those_before_who_want_the_same_devices() -> None:
    world = World()
    agent = world.attach("a", TWO)
    world.grant(agent, "arch=aarch64")
    world.grant(agent, "arch=x86_64")
    places = [
        world.take(world.open(selector, priority=priority))[0].position
        for selector, priority in [("arch=aarch64", 50), ("arch=x86_64", 50), ("", 50), ("arch=x86_64", 60), ("", 10)]
    ]
    assert places == [1, 1, 3, 1, 5]


def test_the_waiting_hear_of_a_new_place_together_and_soon() -> None:
    world = World()
    agent = world.attach("a", ONE)
    world.grant(agent)
    first, second, third = world.open(), world.open(), world.open()
    assert [world.take(s)[0].position for s in (first, second, third)] == [1, 2, 3]
    world.break_client(first)
    world.release(second)
    assert kinds(world.take(second)) == ["Ended", "NoneType"]
    world.passes(world.config.position_interval_ms)
    assert [m.position for m in world.take(third)] == [1]
    world.passes(10 * world.config.position_interval_ms)
    assert world.take(third) == []


def test_a_wait_over_its_limit_ends_in_a_timeout_that_says_who_holds_the_device() -> None:
    world = World()
    agent = world.attach("a", ONE)
    world.grant(agent, client="ann@desk")
    waiting = world.open("kind=cpu", timeout_ms=2_000)
    world.passes(1_999)
    assert errors.Timeout not in map(type, world.take(waiting))
    world.passes(1)
    (error,) = world.take(waiting)
    assert isinstance(error, errors.Timeout)
    assert "within 2.0 s" in error.message
    assert "ann@desk (a/cpu)" in error.message


def test_a_request_opened_again_keeps_its_place_and_the_older_stream_is_closed() -> None:
    world = World()
    agent = world.attach("a", ONE)
    holder, granted = world.grant(agent)
    first = world.open(request_id="r1", client="ann")
    second = world.open()
    again = world.open(request_id="r1", client="ann")
    assert isinstance(world.take(first)[-1], errors.Cancelled)
    assert world.take(again)[0].position == 1
    world.release(holder)
    world.worker_ended(agent, granted.lease_id)
    world.ready(agent, world.take(agent)[-1].lease_id)
    assert kinds(world.take(again)) == ["Granted"]
    assert "Granted" not in kinds(world.take(second))


def test_a_request_opened_again_after_its_grant_got_lost_gets_the_same_lease() -> None:
    world = World()
    agent = world.attach("a", ONE)
    client, granted = world.grant(agent, request_id="r1", client="ann")
    world.break_client(client)
    again = world.open(request_id="r1", client="ann")
    assert world.take(again) == [granted]
    world.passes(world.config.resume_grace_ms)
    assert world.take(again) == []


def test_the_request_id_of_another_person_is_another_request() -> None:
    world = World()
    agent = world.attach("a", ONE)
    world.grant(agent, request_id="r1", client="ann")
    thief = world.open(request_id="r1", client="eve")
    assert kinds(world.take(thief)) == ["Queued"]


# --- what can never be met, and what is only away


def test_a_selector_that_no_device_meets_fails_at_once_and_names_the_nearest_miss() -> None:
    world = World()
    world.attach("a", TWO)
    (error,) = world.take(world.open("kind=cpu,arch=aarch64,memory>=2GiB"))
    assert isinstance(error, errors.NoSuchDevice)
    assert "none of the 2 known devices" in error.message
    assert "nearest is a/board, which misses memory>=2GiB (it has no memory)" in error.message
    assert error.details == {"nearest": "a/board", "misses": "memory>=2GiB"}


def test_without_any_device_the_error_says_so() -> None:
    world = World()
    (error,) = world.take(world.open("kind=cpu"))
    assert isinstance(error, errors.NoSuchDevice)
    assert "no device has ever been registered" in error.message


def test_a_request_for_an_offline_device_waits_and_says_that_it_is_offline() -> None:
    world = World()
    agent = world.attach("a", ONE)
    world.detach(agent)
    assert world.state_of("a/cpu") == "OFFLINE"
    client = world.open("kind=cpu", timeout_ms=1_000)
    (queued,) = world.take(client)
    assert queued.busy_with == "all matching devices are offline; offline: a/cpu"
    world.passes(1_000)
    (error,) = world.take(client)
    assert isinstance(error, errors.Timeout)
    assert "all matching devices are offline" in error.message


def test_a_request_that_waits_for_an_offline_device_gets_it_when_its_agent_is_back() -> None:
    world = World()
    world.detach(world.attach("a", ONE))
    client = world.open("kind=cpu")
    agent = world.attach("a", ONE)
    world.ready(agent, world.take(agent)[-1].lease_id)
    assert kinds(world.take(client))[-1] == "Granted"


def test_an_unhealthy_device_is_not_given_to_anybody() -> None:
    world = World()
    agent = world.attach("a", ONE, states={"a/cpu": wire.UNHEALTHY})
    client = world.open()
    assert "unhealthy: a/cpu" in world.take(client)[0].busy_with
    world.report(agent, "a/cpu", healthy=True)
    assert kinds(world.take(agent))[-1] == "StartLease"


def test_a_wait_ends_when_the_last_device_that_would_do_becomes_another() -> None:
    world = World()
    agent = world.attach("a", ONE, states={"a/cpu": wire.UNHEALTHY})
    client = world.open("arch=x86_64")
    world.detach(agent)
    world.attach("a", {"a/cpu": BOARD})
    assert isinstance(world.take(client)[-1], errors.NoSuchDevice)


def test_a_device_not_seen_for_very_long_is_forgotten() -> None:
    world = World()
    world.detach(world.attach("a", ONE))
    client = world.open()
    world.passes(world.config.forget_device_ms)
    assert world.machine.state.devices == {}
    assert world.saved_devices == {}
    assert isinstance(world.take(client)[-1], errors.NoSuchDevice)


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
