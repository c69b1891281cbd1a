"""What is compared: the kinds of work with their sizes, their programs, and how much they compute and move at least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.cpu import programs

_FLOAT = 4


@dataclass(frozen=True)
class Work:
    """One operator on one size, float32.

    Attributes:
        name: as the table shows it.
        op, sizes: as peers know it.
        program: the text that crossfarm and TVM compile; inputs: shapes of its inputs; output: of its output.
        flops: multiplications and additions. bytes: read once and written once.
    """

    name: str
    op: str
    sizes: dict[str, int]
    program: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    flops: int = 0

    @property
    def bytes(self) -> int:
        return _FLOAT * sum(math.prod(shape) for shape in (*self.inputs, self.output))

    def message(self) -> dict[str, Any]:
        """What a peer is told."""
        shapes = {"inputs": self.inputs, "output": self.output}
        return {"op": self.op, "sizes": self.sizes, "program": self.program, "flops": self.flops, **shapes}


def matmuls(quick: bool) -> Iterator[Work]:
    """Square, batched and skinny matrix products."""
    for size in (512, 1024) if quick else (256, 512, 1024, 2048):
        yield matmul(f"{size} × {size} × {size}", 1, size, size, size)
    if not quick:
        yield matmul("16 × (256 × 256 × 256)", 16, 256, 256, 256)
    for rows in (1, 8):
        yield matmul(f"{rows} × 4096 × 4096", 1, rows, 4096, 4096)


def matmul(name: str, batch: int, m: int, n: int, k: int) -> Work:
    """A product of (m, k) and (k, n) matrices, ``batch`` times."""
    head = (batch,) if batch > 1 else ()
    return Work(
        name,
        "matmul",
        {"batch": batch, "m": m, "n": n, "k": k},
        programs.matmul(batch, m, n, k),
        ((*head, m, k), (*head, k, n)),
        (*head, m, n),
        flops=2 * batch * m * n * k,
    )


#: ResNet-50's distinct convolutions (stride in the 3 × 3 ones): channels, height, output channels, kernel, stride.
_RESNET50 = (
    (3, 224, 64, 7, 2),
    (64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (64, 56, 256, 1, 1), (256, 56, 64, 1, 1),
    (256, 56, 128, 1, 1), (128, 56, 128, 3, 2), (128, 28, 512, 1, 1), (256, 56, 512, 1, 2), (512, 28, 128, 1, 1),
    (128, 28, 128, 3, 1),
    (512, 28, 256, 1, 1), (256, 28, 256, 3, 2), (256, 14, 1024, 1, 1), (512, 28, 1024, 1, 2), (1024, 14, 256, 1, 1),
    (256, 14, 256, 3, 1),
    (1024, 14, 512, 1, 1), (512, 14, 512, 3, 2), (512, 7, 2048, 1, 1), (1024, 14, 2048, 1, 2), (2048, 7, 512, 1, 1),
    (512, 7, 512, 3, 1),
)  # fmt: skip
#: MobileNet's depthwise convolutions, 3 × 3: channels, height, stride.
_MOBILENET = (
    (32, 112, 1), (64, 112, 2), (128, 56, 1), (128, 56, 2), (256, 28, 1), (256, 28, 2), (512, 14, 1), (512, 14, 2),
    (1024, 7, 1),
)  # fmt: skip


def resnet_convolutions(quick: bool) -> Iterator[Work]:
    """ResNet-50's distinct convolutions on one image of 224 × 224."""
    for shape in _RESNET50[2::7] if quick else _RESNET50:
        yield convolution(*shape, groups=1)


def depthwise_convolutions(quick: bool) -> Iterator[Work]:
    """MobileNet's depthwise convolutions on one image of 224 × 224."""
    for channels, height, stride in _MOBILENET[::3] if quick else _MOBILENET:
        yield convolution(channels, height, channels, 3, stride, groups=channels)


def large(quick: bool) -> Iterator[Work]:
    """What is worth several threads: some of each of the others."""
    size = 1024 if quick else 2048
    yield matmul(f"{size} × {size} × {size}", 1, size, size, size)
    yield from resnet_convolutions(quick=True)
    yield from memory_bound(quick=True)


def convolution(channels: int, height: int, out_channels: int, kernel: int, stride: int, *, groups: int) -> Work:
    """A convolution of one square image with "same" padding; in groups of one channel it is a depthwise one."""
    out, per_group = -(-height // stride), channels // groups
    kind = f"{channels} at {height}" if groups > 1 else f"{channels} → {out_channels} at {height}"
    sizes = {"channels": channels, "height": height, "out_channels": out_channels, "kernel": kernel}
    sizes |= {"stride": stride, "groups": groups}
    return Work(
        f"{kind}, {kernel} × {kernel}" + (f", stride {stride}" if stride > 1 else ""),
        "conv2d",
        sizes,
        programs.conv2d(**sizes),
        ((1, channels, height, height), (out_channels, per_group, kernel, kernel)),
        (1, out_channels, out, out),
        flops=2 * out_channels * out * out * per_group * kernel * kernel,
    )


def memory_bound(quick: bool) -> Iterator[Work]:
    """What reads and writes much and computes little: matrices of 64 MiB, twice the largest cache and more."""
    size = 4096
    whole = (size, size)
    simple: tuple[tuple[str, str, Callable[[int, int], str], tuple[int, ...]], ...] = (
        ("softmax of rows", "softmax", programs.softmax, whole),
        ("gelu", "gelu", programs.gelu, whole),
        ("transpose", "transpose", programs.transpose, whole),
        ("sum over the last axis", "sum_last", lambda *shape: programs.sum_of("last", *shape), (size,)),
        ("sum over the first axis", "sum_first", lambda *shape: programs.sum_of("first", *shape), (size,)),
        ("sum over all axes", "sum_all", lambda *shape: programs.sum_of("all", *shape), (1,)),
    )
    sizes = {"rows": size, "columns": size}
    normalized = programs.layer_norm(size, size)
    yield Work("layer norm of rows", "layer_norm", sizes, normalized, (whole, (size,), (size,)), whole)
    for name, op, program, output in simple:
        if not (quick and op in ("sum_last", "sum_all")):
            yield Work(name, op, sizes, program(size, size), (whole,), output)
        if op == "transpose" and not quick:  # rows no power of two apart do not meet in the same sets of a cache
            odd = size + 256
            other, shape = {"rows": odd, "columns": odd}, (odd, odd)
            yield Work(f"{name}, {odd} × {odd}", op, other, program(*shape), (shape,), shape)
