"""Requests that may be repeated, over a service that is away for a moment: it restarts, or the network hiccups."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from crossfarm.errors import Unavailable
from crossfarm.wire import status

#: How long a service that never answered is tried: a wrong address should not take long to be told.
FIRST_CONTACT_SECONDS = 5.0
#: How long a service that did answer before is waited for.
RETURN_SECONDS = 15.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.05, 1.0

Answer = TypeVar("Answer")


class Outage:
    """Knows whether a service ever answered, and so how long it is worth waiting for."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._answered = False

    @property
    def patience(self) -> float:
        """Seconds to wait for the service to come back."""
        return RETURN_SECONDS if self._answered else FIRST_CONTACT_SECONDS

    def answered(self) -> None:
        """The service was heard of."""
        self._answered = True

    def ride_out(self, request: Callable[[], Answer], doing: str, peer: str) -> Answer:
        """The answer to ``request``, repeated while the service cannot be reached.

        Args:
            request: makes the call; it must be safe to repeat.
            doing, peer: for messages: what is being done, and the address called.
        Raises:
            Unavailable: the service did not come back in time.
            Error: what the service answered, as it is.
        """
        deadline = self._clock() + self.patience
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = request()
            except grpc.RpcError as failure:
                error = status.error_of(failure, doing=doing, peer=peer)
                if not isinstance(error, Unavailable):
                    self._answered = True
                    raise error from failure
                if self._clock() + pause > deadline:
                    raise error from failure
            else:
                self._answered = True
                return answer
            self._sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)
