"""Calls a built library where every byte beyond its buffers is forbidden: what strays dies, and the test says so.

Each buffer lies against the end of its pages, or against their start, with a page that nobody may touch on either side;
so does the workspace. The call runs in a child process with memory shared with this one: a stray access ends the child.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import ProgramError
from tests.compiler.native import Array, Native

PAGE = mmap.PAGESIZE
_NO_ACCESS, _READ_ONLY = 0, mmap.PROT_READ
#: A call that takes longer hangs.
_SECONDS = 60
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class StrayAccess(AssertionError):
    """A program touched memory outside its buffers, or wrote to what it was only to read."""


class Guarded:
    """Memory between two forbidden pages.

    Attributes:
        array: uint8, of the size asked for.
    """

    def __init__(self, size: int, *, at_end: bool, align: int = 1) -> None:
        pages = max(-(-size // PAGE), 1)
        self._memory = mmap.mmap(-1, (pages + 2) * PAGE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(self._memory, np.uint8)
        self._first, self._size = whole.ctypes.data + PAGE, pages * PAGE
        self._protect(whole.ctypes.data, PAGE, _NO_ACCESS)
        self._protect(self._first + self._size, PAGE, _NO_ACCESS)
        start = PAGE + ((pages * PAGE - size) // align * align if at_end else 0)
        self.array = whole[start : start + size]

    def forbid_writing(self) -> None:
        """From now on, only reading."""
        self._protect(self._first, self._size, _READ_ONLY)

    @staticmethod
    def _protect(address: int, size: int, rights: int) -> None:
        if _LIBC.mprotect(address, size, rights):
            raise OSError(ctypes.get_errno(), "mprotect")


def call_guarded(
    native: Native, name: str, inputs: Sequence[Any], outputs: Sequence[Array], *, at_end: bool, threads: int = 1
) -> list[Array]:
    """What ``native``'s function ``name`` leaves in its outputs.

    Args:
        inputs: arrays and scalars, the first parameters; arrays may not be written to.
        outputs: what the last parameters hold before the call.
        at_end: whether buffers end at a forbidden page, else they start after one.

    Raises:
        StrayAccess: it died of an access outside its buffers.
        ProgramError: it failed as a program may.
    """
    placed = [_place(a, at_end) if isinstance(a, np.ndarray) else None for a in (*inputs, *outputs)]
    arrays = [_view(m, a) if m is not None else a for m, a in zip(placed, (*inputs, *outputs))]
    for memory in placed[: len(inputs)]:
        if memory is not None:
            memory.forbid_writing()

    def workspace(size: int) -> Array:
        memory = Guarded(size, at_end=at_end, align=64)
        memory.array.fill(0xFF)  # NaN in every float type
        return memory.array

    def call() -> str:
        if hasattr(native.library, "crossfarmrt_set_threads"):
            assert native.library.crossfarmrt_set_threads(threads, None, 0) == 0
        try:
            native(name, *arrays, allocate=workspace)
        except ProgramError as failure:
            return str(failure)
        return ""

    _in_child(call)
    return arrays[len(inputs) :]


def _place(array: Array, at_end: bool) -> Guarded:
    memory = Guarded(array.nbytes, at_end=at_end)
    _view(memory, array)[...] = array
    return memory


def _view(memory: Guarded, like: Array) -> Array:
    return memory.array.view(like.dtype).reshape(like.shape)


def _in_child(work: Callable[[], str]) -> None:
    """Runs ``work`` in a child process; what it says went wrong is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faulthandler.disable()  # whose report of the crash would go to everybody's terminal
            signal.alarm(_SECONDS)
            os.write(writer, work().encode()[: PAGE // 2])
            status = 0
        except BaseException:  # noqa: BLE001 - nothing of the child may go on as if it were the parent
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        raise StrayAccess(f"the call was ended by {signal.Signals(-code).name}")
    if code:
        raise AssertionError(f"the child process failed with {code}")
    if said:
        raise ProgramError(said)
