"""Contents of larger constants after the envelope of a saved module: where each is, written and read without copies.

Each stands at the next multiple of ``ALIGNMENT`` from the beginning of the file, zeros between, in the order of the
module's table of constants, one digest once. Reading takes views of the file's memory: a content is read from the disk
where it is first used, and is checked against its digest then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from crossfarm.errors import InvalidModule, NotFound
from crossfarm.ir.graph.constant import Array, ConstantData

#: The feature in the envelope's header that says that contents follow.
FEATURE = "constants"
#: So that every dtype, and every vector instruction, may read what is mapped.
ALIGNMENT = 64


def check_known(constants: Sequence[ConstantData], module: str) -> None:
    """Raises NotFound for the first constant whose content this program does not have."""
    for data in constants:
        if not data.known:
            raise NotFound(
                f"cannot save module {module!r}: the content of constant {data.digest[:12]} "
                f"({data.dtype}{list(data.shape)}) is not here",
                hint="load the module from the file that it was saved to; dumps(module) does without contents",
            )


def write(file: IO[bytes], position: int, constants: Sequence[ConstantData]) -> None:
    """Writes the contents to ``file``, whose end is ``position`` bytes from its beginning."""
    for data in constants:
        file.write(bytes(-position % ALIGNMENT))
        file.write(data.view)
        position += -position % ALIGNMENT + data.nbytes


class Contents:
    """The contents in ``data``, a whole file, as they are met in the table of constants.

    Args:
        position: where the envelope ends.
        what: how messages call the file.
    """

    def __init__(self, data: memoryview, position: int, what: str) -> None:
        self.data = data
        self.end = position
        self.what = what
        self._sizes: dict[str, int] = {}
        self._loads: dict[str, Callable[[], Array]] = {}

    def add(self, digest: str, size: int, constant: str) -> Callable[[], Array]:
        """What gives the bytes of the next constant.

        Raises:
            InvalidModule: the file ends before it, or an earlier constant of this digest has another size.
        """
        known = self._sizes.setdefault(digest, size)
        if known != size:
            raise InvalidModule(
                f"{self.what}: {constant} has {size} bytes, another one of digest {digest[:12]} has {known}",
                hint="the program that wrote it is at fault; write it again with crossfarm",
            )
        if digest not in self._loads:
            start = self.end + -self.end % ALIGNMENT
            self.end = start + size
            if self.end > self.data.nbytes:
                raise InvalidModule(
                    f"{self.what} is truncated: {self.data.nbytes} bytes, {constant} alone ends at {self.end}",
                    hint="get a complete copy of the file (partial write?)",
                )
            self._loads[digest] = _Load(self.data[start : self.end], digest, f"{constant} of {self.what}")
        return self._loads[digest]

    def check_end(self) -> None:
        """Raises InvalidModule where something follows the last content."""
        if self.data.nbytes > self.end:
            raise InvalidModule(
                f"{self.what} is damaged: {self.data.nbytes - self.end} bytes follow its end",
                hint="get a fresh copy of the file",
            )


class _Load:
    """Gives a content's bytes, checked."""

    def __init__(self, content: memoryview, digest: str, what: str) -> None:
        self.content = content
        self.digest = digest
        self.what = what

    def __call__(self) -> np.ndarray[Any, Any]:
        found = hashlib.sha256(self.content).hexdigest()
        if found != self.digest:
            raise InvalidModule(
                f"{self.what} was changed after it was written: its content has digest {found[:12]}, not "
                f"{self.digest[:12]}",
                hint="get a fresh copy of the file",
            )
        return np.frombuffer(self.content, np.uint8)
