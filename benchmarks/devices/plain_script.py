"""The kernels of ``plain_opencl``, loop for loop and barrier for barrier, as scheduled scripts.

Vulkan's drivers take SPIR-V, and a compiler of a shading language is nothing that each machine has. So the same
algorithms are written with their threads, tiles and barriers in the IR, and go through our SPIR-V generator with
``schedule="none"``: what is compared is what a schedule makes of a program, not who writes better SPIR-V.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from benchmarks.devices.plain_opencl import PART, ROW_THREADS, TILE

#: Name, axis of threads or groups, extent.
Bound = tuple[str, str, int]


def product(m: int, k: int, n: int) -> str:
    """Of an (m, k) and a (k, n) matrix."""
    body = f"""
        total = T.allocate([1], "float32", "local")
        rows = T.allocate([{TILE * TILE}], "float32", "shared")
        columns = T.allocate([{TILE * TILE}], "float32", "shared")
        total[0] = T.float32(0)
        for step in range({k // TILE}):
            rows[y * {TILE} + x] = left[by * {TILE} + y, step * {TILE} + x]
            columns[y * {TILE} + x] = right[step * {TILE} + y, bx * {TILE} + x]
            T.tvm_storage_sync("shared")
            for k in range({TILE}):
                total[0] = total[0] + rows[y * {TILE} + k] * columns[k * {TILE} + x]
            T.tvm_storage_sync("shared")
        result[by * {TILE} + y, bx * {TILE} + x] = total[0]
    """
    bound = [("by", "blockIdx.y", m // TILE), ("bx", "blockIdx.x", n // TILE), *_TILE_THREADS]
    return _module(("left", "right", "result"), [(m, k), (k, n), (m, n)], bound, body)


def convolution(channels: int, size: int, filters: int) -> str:
    """3 × 3, of an image of size × size; a group has a tile of one filter's results."""
    part, tiles = PART, -(-size // TILE)
    body = f"""
        part = T.allocate([{part * part}], "float32", "shared")
        total = T.allocate([1], "float32", "local")
        total[0] = T.float32(0)
        for c in range({channels}):
            for turn in range({-(-part * part // (TILE * TILE))}):
                place = T.int32(turn * {TILE * TILE} + y * {TILE} + x)
                row = T.int32(by * {TILE} - 1 + place // {part})
                column = T.int32(bx * {TILE} - 1 + place % {part})
                if place < {part * part}:
                    part[place] = T.if_then_else(
                        0 <= row and row < {size} and 0 <= column and column < {size},
                        image[0, c, row, column],
                        T.float32(0),
                    )
            T.tvm_storage_sync("shared")
            for i in range(3):
                for j in range(3):
                    total[0] = total[0] + part[(y + i) * {part} + x + j] * weights[f, c, i, j]
            T.tvm_storage_sync("shared")
        if by * {TILE} + y < {size} and bx * {TILE} + x < {size}:
            result[0, f, by * {TILE} + y, bx * {TILE} + x] = total[0]
    """
    shapes = ((1, channels, size, size), (filters, channels, 3, 3), (1, filters, size, size))
    bound = [("f", "blockIdx.z", filters), ("by", "blockIdx.y", tiles), ("bx", "blockIdx.x", tiles), *_TILE_THREADS]
    return _module(("image", "weights", "result"), shapes, bound, body)


def softmax(rows: int, columns: int) -> str:
    """A group of threads has a row."""
    turns, threads = columns // ROW_THREADS, ROW_THREADS

    def together(value: str) -> str:
        lines = ["shared[t] = own[0]", 'T.tvm_storage_sync("shared")']
        half = threads // 2
        while half:
            lines += [f"if t < {half}:", f"    shared[t] = {value.format(half=half)}", 'T.tvm_storage_sync("shared")']
            half //= 2
        return textwrap.indent("\n".join(lines), " " * 8).strip()

    body = f"""
        shared = T.allocate([{threads}], "float32", "shared")
        own = T.allocate([1], "float32", "local")
        largest = T.allocate([1], "float32", "local")
        own[0] = T.float32("-inf")
        for k in range({turns}):
            own[0] = T.max(own[0], x[row, k * {threads} + t])
        {together("T.max(shared[t], shared[t + {half}])")}
        largest[0] = shared[0]
        T.tvm_storage_sync("shared")
        own[0] = T.float32(0)
        for k in range({turns}):
            own[0] = own[0] + T.exp(x[row, k * {threads} + t] - largest[0])
        {together("shared[t] + shared[t + {half}]")}
        for k in range({turns}):
            y[row, k * {threads} + t] = T.exp(x[row, k * {threads} + t] - largest[0]) / shared[0]
    """
    bound = [("row", "blockIdx.x", rows), ("t", "threadIdx.x", threads)]
    return _module(("x", "y"), [(rows, columns)] * 2, bound, body)


def blend(elements: int) -> str:
    """A thread has an element."""
    place = f"b * {ROW_THREADS} + t"
    body = f"y[{place}] = x[{place}] * T.float32(0.75) + z[{place}] * T.float32(0.25)"
    bound = [("b", "blockIdx.x", elements // ROW_THREADS), ("t", "threadIdx.x", ROW_THREADS)]
    return _module(("x", "z", "y"), [(elements,)] * 3, bound, body)


_TILE_THREADS: tuple[Bound, ...] = (("y", "threadIdx.y", TILE), ("x", "threadIdx.x", TILE))


def _module(names: Sequence[str], shapes: Sequence[tuple[int, ...]], bound: Sequence[Bound], body: str) -> str:
    parameters = ", ".join(f'{name}: T.Buffer({shape}, "float32")' for name, shape in zip(names, shapes))
    lines = [
        "from crossfarm.script import ir as I",
        "from crossfarm.script import tir as T",
        "@I.ir_module",
        "class Plain:",
        "    @T.prim_func",
        f"    def main({parameters}):",
        '        T.func_attr({"tir.noalias": True})',
    ]
    depth = 8
    for name, axis, extent in bound:
        lines.append(f'{" " * depth}for {name} in T.thread_binding({extent}, thread="{axis}"):')
        depth += 4
    return "\n".join([*lines, textwrap.indent(textwrap.dedent(body).strip("\n"), " " * depth)]) + "\n"
