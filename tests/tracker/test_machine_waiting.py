"""Who waits for what and who is next, under an injected clock."""

from __future__ import annotations

from crossfarm import errors
from crossfarm.wire.v1 import tracker_pb2 as wire

from .world import BOARD, ONE, TWO, World, kinds

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
