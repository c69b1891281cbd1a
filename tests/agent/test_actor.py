"""The agent's event loop: order, timers, and that one bad event does not end it."""

from __future__ import annotations

import threading

from device_agent.actor import Actor


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def settled(actor: Actor) -> None:
    """Returns when everything posted so far has run."""
    done = threading.Event()
    actor.post(done.set)
    assert done.wait(5)


def test_posted_actions_run_in_order() -> None:
    actor, seen = Actor("test"), []
    actor.start()
    for number in range(100):
        actor.post(lambda n=number: seen.append(n))
    settled(actor)
    actor.stop()
    assert seen == list(range(100))


def test_a_timer_runs_when_its_time_has_come_and_not_before() -> None:
    clock, seen = Clock(), []
    actor = Actor("test", clock)
    actor.start()
    actor.post(lambda: actor.after(10, lambda: seen.append("late")) and None)
    settled(actor)
    assert seen == []
    clock.now = 10.0
    actor.post(lambda: None)
    settled(actor)
    actor.stop()
    assert seen == ["late"]


def test_a_cancelled_timer_never_runs() -> None:
    clock, seen = Clock(), []
    actor = Actor("test", clock)
    actor.start()
    actor.post(lambda: actor.after(1, lambda: seen.append("no")).cancel())
    clock.now = 5.0
    settled(actor)
    actor.stop()
    assert seen == []


def test_a_due_timer_goes_before_a_busy_inbox() -> None:
    clock, seen = Clock(), []
    actor = Actor("test", clock)
    actor.post(lambda: actor.after(1, lambda: seen.append("timer")) and None)
    actor.post(lambda: setattr(clock, "now", 2.0))
    actor.post(lambda: seen.append("posted"))
    actor.start()
    settled(actor)
    actor.stop()
    assert seen == ["timer", "posted"]


def test_an_action_that_raises_does_not_end_the_loop() -> None:
    actor, seen = Actor("test"), []
    actor.start()
    actor.post(lambda: 1 // 0)
    actor.post(lambda: seen.append("still here"))
    settled(actor)
    actor.stop()
    assert seen == ["still here"]
