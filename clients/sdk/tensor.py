"""Tensors that stay on the device."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from clients.sdk.future import Future
from crossfarm import errors
from crossfarm.ir import dtype as dtypes
from crossfarm.wire.tensors import writable_bytes_of
from crossfarm.wire.v1.session_pb2 import RequestFrame

if TYPE_CHECKING:
    from clients.sdk.session import Session

Array = np.ndarray[Any, np.dtype[Any]]


class Tensor:
    """A tensor in a device's memory, compact and row-major.

    It lives until ``free``, the end of its ``with`` block, or the end of the lease. One that the program has lost sight
    of is freed with the next request; rely on ``with`` or ``free`` where memory is short.

    Attributes:
        shape: a tuple of ints; dtype: a name such as "float32"; nbytes: of its elements.
    """

    __slots__ = ("__weakref__", "_number", "_session", "_unseen", "dtype", "nbytes", "shape")

    def __init__(self, session: Session, number: int, shape: tuple[int, ...], dtype: str) -> None:
        self._session = session
        self._number = number
        self.shape = shape
        self.dtype = dtype
        self.nbytes = dtypes.itemsize(dtype)
        for extent in shape:
            self.nbytes *= extent
        self._unseen = weakref.finalize(self, session.forget, number)
        self._unseen.atexit = False

    def numpy(self) -> Array:
        """The elements as a new numpy array. Waits for everything sent before. Raises what the tensor's making failed
        with, NotFound after ``free``."""
        return self.fetch().result()

    def fetch(self) -> Future[Array]:
        """Like ``numpy``, without waiting."""
        array = np.empty(self.shape, dtypes.to_numpy(self.dtype))
        future: Future[Array] = Future(self._session)
        future._sink = writable_bytes_of(array)
        future._after = lambda: array
        self._session.send([(self.fetch_frame(), None)], [future])
        return future

    def fetch_frame(self) -> RequestFrame:
        """The frame that asks for the elements."""
        return RequestFrame(request=1, fetch=RequestFrame.Fetch(tensor=self.number))

    @property
    def number(self) -> int:
        """What the device calls it. Raises NotFound after ``free``."""
        self.check()
        return self._number

    def check(self) -> None:
        """Raises NotFound after ``free``."""
        if not self._number:
            raise errors.NotFound(f"{self!r} is no longer on the device", hint="make a new one: device.tensor(…)")

    @property
    def freed(self) -> bool:
        return self._number == 0

    def free(self) -> None:
        """Gives its memory back, after everything sent before is done; again is nothing."""
        if self._number and self._unseen.detach() is not None:
            number, self._number = self._number, 0
            if not self._session.closed:
                self._session.send([(free_frame(number), None)], [])

    def __enter__(self) -> Tensor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free()

    def __repr__(self) -> str:
        return f"<Tensor {self.dtype}{list(self.shape)}{' (freed)' if self._number == 0 else ''}>"


def allocate_frame(number: int, shape: tuple[int, ...], dtype: str) -> RequestFrame:
    """The frame that makes a tensor."""
    return RequestFrame(allocate=RequestFrame.Allocate(tensor=number, dtype=dtype, shape=shape))


def free_frame(number: int) -> RequestFrame:
    """The frame that ends a tensor."""
    return RequestFrame(free=RequestFrame.Free(tensor=number))
