"""Results on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from crossfarm.errors import Error

T = TypeVar("T")


class Answers(Protocol):
    """What a future needs of ``clients.sdk.session.Session``."""

    def wait(self, future: Future[Any], timeout: float | None = None) -> None: ...

    def cancel(self, first: int, last: int) -> None: ...


class Future(Generic[T]):
    """The result of one request, which may still be on its way.

    There is no thread behind it: whoever waits reads the answers of the whole session until its own is there. A failed
    request's error is raised by ``result``, not where it was sent.
    """

    __slots__ = ("_after", "_done", "_earlier", "_error", "_request", "_session", "_sink", "_value")

    def __init__(self, session: Answers) -> None:
        self._session = session
        self._request = 0
        self._done = False
        self._error: Error | None = None
        self._value: Any = None
        self._sink: memoryview | None = None  # where a fetched tensor's bytes go
        self._earlier: tuple[Future[Any], ...] = ()  # requests that this one's result depends on, answered before it
        self._after: Callable[[], T] | None = None  # makes the result of what has come

    def result(self, timeout: float | None = None) -> T:
        """Waits for the result.

        Args:
            timeout: seconds to wait at most; the request itself goes on.

        Raises:
            Timeout: it is not there in time.
            Error: what the request failed with.
        """
        if not self._done:
            self._session.wait(self, timeout)
        error = self._failure()
        if error is not None:
            raise error
        if self._after is not None:
            self._value, self._after = self._after(), None
        result: T = self._value
        return result

    def exception(self, timeout: float | None = None) -> Error | None:
        """Waits like ``result`` and returns the error instead of raising it; None for success."""
        if not self._done:
            self._session.wait(self, timeout)
        return self._failure()

    def done(self) -> bool:
        """True once the answer has been read. Answers are read by whoever waits, so ``done`` alone never waits."""
        return self._done

    def __repr__(self) -> str:
        state = ("done" if self._failure() is None else "failed") if self._done else "on its way"
        return f"<Future {self._request}, {state}>"

    def cancel(self) -> None:
        """Asks that the request is not begun; its result is then ``Cancelled``. One that runs goes on."""
        if not self._done:
            first = self._earlier[0]._request if self._earlier else self._request
            self._session.cancel(first, self._request)

    def _failure(self) -> Error | None:
        for future in self._earlier:
            if future._error is not None:
                return future._error
        return self._error
