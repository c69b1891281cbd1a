"""The content of constant tensors: named by its digest, read where it is needed, never copied for being looked at."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from crossfarm.errors import NotFound
from crossfarm.ir import dtype as dt

Array = np.ndarray[Any, np.dtype[Any]]


class ConstantData:
    """A constant tensor's dtype, shape, digest and, where this program has it, content.

    A module may name a constant whose content is elsewhere: a compiler service needs to know of weights that they
    are, not what they are.

    Attributes:
        dtype: of the elements.
        shape: as ints.
    """

    def __init__(
        self, dtype: str, shape: tuple[int, ...], *, digest: str = "", load: Callable[[], Array] | None = None
    ) -> None:
        """``digest``: hex SHA-256 of the elements in row-major order, little-endian; worked out where it is "".

        ``load`` gives the content as an array of that shape, or as its bytes; it is called when it is first needed.
        """
        assert digest or load is not None
        self.dtype = dtype
        self.shape = shape
        self._digest = digest
        self._load = load

    @classmethod
    def of(cls, array: Any) -> ConstantData:
        """The content of ``array``, which must not be changed afterwards: it is not copied where it is contiguous."""
        held = np.asarray(array)
        held = held if held.flags.c_contiguous else held.copy()  # ascontiguousarray makes scalars one-dimensional
        return cls(dt.from_numpy(held.dtype), tuple(held.shape), load=lambda: held)

    @property
    def nbytes(self) -> int:
        """Bytes of the content."""
        return math.prod(self.shape) * dt.itemsize(self.dtype)

    @property
    def known(self) -> bool:
        """True where this program has the content."""
        return self._load is not None

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the content: its identity, together with dtype and shape."""
        return self._digest or hashlib.sha256(self.view).hexdigest()

    @cached_property
    def array(self) -> Array:
        """The content, read-only. Raises NotFound where this program does not have it."""
        if self._load is None:
            raise NotFound(
                f"the content of constant {self._digest[:12]} ({self.dtype}{list(self.shape)}) is not here",
                hint="load the module from the file that it was saved to",
            )
        loaded = self._load()
        found = loaded.view(dt.to_numpy(self.dtype)).reshape(self.shape)
        found.flags.writeable = False
        return found

    @property
    def view(self) -> memoryview:
        """The content as bytes. Raises NotFound where this program does not have it."""
        return self.array.reshape(-1).view(np.uint8).data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConstantData):
            return NotImplemented
        return self is other or ((self.dtype, self.shape) == (other.dtype, other.shape) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape))

    def __repr__(self) -> str:
        return f"<constant {self.dtype}{list(self.shape)}>"
