"""Memory for drivers whose device shares the process's address space."""

from __future__ import annotations

import numpy as np

#: Alignment in bytes that every tensor and workspace has, a promise of the native call interface.
ALIGNMENT = 64


class HostMemory:
    """Aligned bytes of this process. Raises MemoryError where the system or a limit gives no more."""

    def __init__(self, size: int) -> None:
        self.size = size
        padded = np.empty(size + ALIGNMENT, np.uint8)
        start = -padded.ctypes.data % ALIGNMENT
        #: The bytes, aligned; empty after ``release``.
        self.array = padded[start : start + size]
        self.address = int(self.array.ctypes.data) if size else 0
        self._view = self.array.data

    def write(self, offset: int, data: memoryview) -> None:
        self._view[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]

    def release(self) -> None:
        self._view = memoryview(b"")
        self.array = np.empty(0, np.uint8)
        self.address = 0
