"""What a client has made, by the numbers it chose: things, or the reason why a thing could not be made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from crossfarm.errors import ArgumentError, Error, LimitExceeded, NotFound

T = TypeVar("T")


class Table(Generic[T]):
    """Numbers to things. A number whose making failed raises that failure whenever it is named.

    Args:
        noun: what the things are called in messages.
        most: how many there may be at once.
    """

    def __init__(self, noun: str, most: int) -> None:
        self._noun = noun
        self._most = most
        self._things: dict[int, T] = {}
        self._failures: dict[int, Error] = {}
        #: number → thing for the hot path: a KeyError there means ``self[number]`` explains.
        self.get = self._things.__getitem__

    def __getitem__(self, number: int) -> T:
        """Raises the failure that ``number`` stands for, or NotFound."""
        thing = self._things.get(number)
        if thing is not None:
            return thing
        if number in self._failures:
            raise self._failures[number].with_traceback(None)  # else each raise would add its frames to it for ever
        raise NotFound(f"there is no {self._noun} {number} on the device", hint="it was freed, or never made")

    def check_new(self, number: int) -> None:
        """Raises ArgumentError where the number is taken, LimitExceeded where there are too many."""
        if number == 0 or number in self._things:
            raise ArgumentError(f"{self._noun} {number} exists already" if number else f"{self._noun} 0 is no number")
        if len(self._things) >= self._most:
            raise LimitExceeded(
                f"there are {len(self._things)} {self._noun}s on the device, the most there may be",
                hint=f"free {self._noun}s that are not used any more",
            )

    def add(self, number: int, thing: T) -> None:
        self._things[number] = thing

    def fail(self, number: int, failure: Error) -> None:
        """The making of ``number`` failed; a thing of that number stays."""
        if number and number not in self._things and len(self._failures) < self._most:
            self._failures[number] = failure

    def drop(self, number: int) -> T | None:
        """Forgets ``number`` and returns its thing, if there was one."""
        self._failures.pop(number, None)
        return self._things.pop(number, None)

    def __contains__(self, number: int) -> bool:
        return number in self._things

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[T]:
        return iter(self._things.values())
