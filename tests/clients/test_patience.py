"""How long a client tries: services that are away for a moment, programs that keep dying. Clocks are injected."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from clients.sdk.outage import FIRST_CONTACT_SECONDS, RETURN_SECONDS, Outage
from clients.sdk.supervised import CRASH_LIMIT, CRASH_WINDOW_SECONDS, RestartPolicy
from crossfarm.errors import Error, InvalidModule, Unavailable
from crossfarm.wire import status


class Clock:
    """A clock that moves when somebody sleeps by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Failure(grpc.RpcError, grpc.Call):
    """What a stub raises: a status with or without the details of one of our own errors."""

    def __init__(self, code: grpc.StatusCode, error: Error | None = None) -> None:
        self._code = code
        self._trailer = ((status.TRAILER, status.to_detail(error).SerializeToString()),) if error else ()

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "said so"

    def trailing_metadata(self) -> Any:
        return self._trailer


def test_a_request_is_repeated_until_the_service_is_back() -> None:
    clock = Clock()
    outage = Outage(clock, clock.sleep)
    outage.answered()

    def request() -> str:
        if clock.now < 10:
            raise Failure(grpc.StatusCode.UNAVAILABLE)
        return "here"

    assert outage.ride_out(request, "asking", "a:1") == "here"
    assert clock.now < 12


@pytest.mark.parametrize(("known", "patience"), [(False, FIRST_CONTACT_SECONDS), (True, RETURN_SECONDS)])
def test_a_service_that_stays_away_is_unavailable_sooner_if_it_was_never_there(known: bool, patience: float) -> None:
    clock = Clock()
    outage = Outage(clock, clock.sleep)
    if known:
        outage.answered()

    def request() -> None:
        raise Failure(grpc.StatusCode.UNAVAILABLE)

    with pytest.raises(Unavailable, match="a:1"):
        outage.ride_out(request, "asking", "a:1")
    assert patience - 1.5 < clock.now <= patience


def test_what_a_service_answers_is_not_asked_again() -> None:
    asked = []

    def request() -> None:
        asked.append(1)
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, InvalidModule("no such thing"))

    with pytest.raises(InvalidModule, match="no such thing"):
        Outage().ride_out(request, "asking", "a:1")
    assert len(asked) == 1


def test_a_program_that_died_once_comes_back_at_once_and_later_each_time_after() -> None:
    clock = Clock()
    policy = RestartPolicy(clock)
    pauses = [policy.ended() for _ in range(CRASH_LIMIT)]
    assert pauses[0] == 0
    assert pauses[:-1] == sorted(pause for pause in pauses if pause is not None)
    assert pauses[-1] is None


def test_ends_far_apart_never_give_up() -> None:
    clock = Clock()
    policy = RestartPolicy(clock)
    for _ in range(3 * CRASH_LIMIT):
        assert policy.ended() is not None
        clock.sleep(CRASH_WINDOW_SECONDS / 2)
