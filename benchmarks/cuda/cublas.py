"""NVIDIA's own product of matrices, by ctypes: no package but the library."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.cuda.gpu import Gpu
    from device_agent.drivers.cuda import CudaMemory

_NO_TRANSPOSE = 0
_PATTERNS = ("nvidia/*/lib/libcublas.so.*", "nvidia/*/lib/x86_64-linux/libcublas.so.*")
_TOOLKITS = ("cuda*/lib64/libcublas.so.*", "cuda*/targets/*/lib/libcublas.so.*", "cuda*/lib/libcublas.so.*")


def candidates() -> Iterator[Path | str]:
    """Where the library may be: in a package of this Python, in a toolkit, or where the system looks."""
    for folder in map(Path, sys.path):
        for pattern in _PATTERNS:
            yield from sorted(folder.glob(pattern))
    for pattern in _TOOLKITS:
        yield from sorted(Path("/usr/local").glob(pattern))
    if name := find_library("cublas"):
        yield name


def load() -> Any:
    """The library; None where it is not found or cannot be loaded."""
    for candidate in candidates():
        if isinstance(candidate, Path):
            for beside in sorted(candidate.parent.glob("libcublasLt.so.*")):
                _loaded(str(beside))  # which the library needs, and finds by name once it is there
        if (library := _loaded(str(candidate))) is not None:
            return library
    return None


def _loaded(path: str) -> Any:
    try:
        return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None


class Cublas:
    """A handle in the GPU's context, which computes on its stream, in float32 throughout (no TF32)."""

    def __init__(self, library: Any, gpu: Gpu) -> None:
        self._library, self._device = library, gpu.device
        self._handle = ctypes.c_void_p()
        with self._device.working("starting cuBLAS"):
            self._check(library.cublasCreate_v2(ctypes.byref(self._handle)))
            self._check(library.cublasSetStream_v2(self._handle, ctypes.c_void_p(self._device.stream.handle)))

    def product(self, m: int, n: int, k: int, a: CudaMemory, b: CudaMemory, c: CudaMemory) -> Callable[[int], None]:
        """``c = a @ b`` of matrices in rows, so many times. Theirs are in columns: c's transpose is b's times a's."""
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        arguments = (
            self._handle, _NO_TRANSPOSE, _NO_TRANSPOSE, n, m, k, ctypes.byref(one),
            ctypes.c_void_p(b.address), n, ctypes.c_void_p(a.address), k, ctypes.byref(zero),
            ctypes.c_void_p(c.address), n,
        )  # fmt: skip

        def repeat(number: int) -> None:
            with self._device.working("multiplying by cuBLAS"):
                for _ in range(number):
                    self._check(self._library.cublasSgemm_v2(*arguments))
                self._device.stream.synchronize()

        return repeat

    def _check(self, status: int) -> None:
        if status:
            raise RuntimeError(f"cuBLAS failed with status {status}")
