"""Times of the steps of native functions, which a library with functions of calls tells by ``crossfarmrt_profile``."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise


class LibrarySteps:
    """Where a library puts the times of a function.

    Args:
        count: how many steps the function has.

    Attributes:
        told: whether the library tells them. One without functions of calls does not, nor do those of older releases.
    """

    def __init__(self, library: ctypes.CDLL, count: int) -> None:
        self.told = count > 0 and hasattr(library, "crossfarmrt_profile")
        self._library = library
        self._marks = (ctypes.c_uint64 * (count + 1))() if self.told else None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What the function does inside is timed."""
        assert self._marks is not None, "the library tells no times"
        ctypes.memset(self._marks, 0, ctypes.sizeof(self._marks))
        self._library.crossfarmrt_profile(self._marks, ctypes.c_uint32(len(self._marks)))
        try:
            yield
        finally:
            self._library.crossfarmrt_profile(None, ctypes.c_uint32(0))

    def seconds(self) -> tuple[float, ...]:
        """Of each step, in order; none where the function marks other steps than its artifact says, or none at all:
        one that makes no calls in a library that has others."""
        marks = tuple(self._marks or ())
        if not all(marks):
            return ()
        return tuple((end - start) * 1e-9 for start, end in pairwise(marks))
