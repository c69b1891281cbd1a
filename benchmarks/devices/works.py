"""What is compared on devices that run kernels: the kinds of work with their sizes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.cpu import programs
from benchmarks.cpu.works import Work, convolution, matmul

#: The ops of launches: one call and its end awaited, or as many as are asked for, and the end of the last.
SYNCHRONOUS, QUEUED = "synchronous", "queued"
#: Elements of the tiny kernel's buffers: one group of threads.
_TINY = 256


def launches() -> Iterator[Work]:
    """Calls of a kernel that does next to nothing."""
    for op, name in ((SYNCHRONOUS, "one call, to its end"), (QUEUED, "a call of many in the queue")):
        sizes = {"rows": 1, "columns": _TINY}
        shape = (1, _TINY)
        yield Work(name, op, sizes, programs.blend(**sizes), (shape, shape), shape)


def arithmetic(quick: bool) -> Iterator[Work]:
    """What arithmetic bounds: products of square matrices, and convolutions of ResNet-50."""
    for size in (256, 512) if quick else (256, 512, 1024):
        yield matmul(f"{size} × {size} × {size}", 1, size, size, size)
    yield convolution(64, 56, 64, 3, 1, groups=1)
    yield convolution(64, 56, 256, 1, 1, groups=1)


def memory_bound(quick: bool) -> Iterator[Work]:
    """What memory bounds: a softmax of rows, and a map of two matrices."""
    size = 1024 if quick else 2048
    sizes, shape = {"rows": size, "columns": size}, (size, size)
    yield Work(f"softmax of rows, {size} × {size}", "softmax", sizes, programs.softmax(**sizes), (shape,), shape)
    blended = programs.blend(**sizes)
    yield Work(f"¾ X + ¼ Z, {size} × {size}", "blend", sizes, blended, (shape, shape), shape)
