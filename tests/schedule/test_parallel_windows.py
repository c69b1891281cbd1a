"""Windows that overlap, computed again by each iteration of a parallel loop: right on several threads, or refused."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import crossfarm as cf
from compiler_service.pipeline import run_pipeline
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.stmt import Allocate, For
from crossfarm.ir.visitor import walk
from crossfarm.target import Target
from tests.compiler.native import Native
from tests.schedule.location_programs import holds, padded_pool, program
from tests.schedule.programs import arguments, schedule


def window_of_sums(n: int, kernel: int, stride: int, columns: int = 6) -> str:
    """y[i] is the sum of ``kernel`` row sums of A, which blocks S and y compute."""
    out = (n - kernel) // stride + 1
    return program(
        f'A: T.Buffer(({n}, {columns}), "float32"), y: T.Buffer(({out},), "float32")',
        f"""
S = T.alloc_buffer(({n},))
for i, k in T.grid({n}, {columns}):
    with T.block("S"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            S[v_i] = T.float32(0)
        S[v_i] = S[v_i] + A[v_i, v_k]
for i, r in T.grid({out}, {kernel}):
    with T.block("y"):
        v_i, v_r = T.axis.remap("SR", [i, r])
        with T.init():
            y[v_i] = T.float32(0)
        y[v_i] = y[v_i] + S[v_i * {stride} + v_r]
""",
    )


def computed_in_tiles(text: str, producer: str, consumer: str, kind: str, tile: int, *, kind_first: bool) -> Schedule:
    """The producer under loops over tiles of the consumer's positions, which run as ``kind`` says."""
    sch = schedule(text)
    position = sch.get_loops(sch.get_block(consumer))[-2]
    outer, _inner = sch.split(position, [None, tile])
    steps = [lambda: getattr(sch, kind)(outer), lambda: sch.compute_at(sch.get_block(producer), outer)]
    for step in steps if kind_first else reversed(steps):
        step()
    return sch


@pytest.mark.parametrize("kind_first", [True, False])
@pytest.mark.parametrize("kind", ["parallel", "vectorize", "unroll"])
@pytest.mark.parametrize(("n", "kernel", "stride", "tile"), [(16, 3, 1, 4), (16, 5, 2, 3), (11, 2, 3, 1)])
def test_overlapping_windows_are_right_on_threads_and_lanes(
    n: int, kernel: int, stride: int, tile: int, kind: str, kind_first: bool
) -> None:
    for text, producer, consumer in (
        (padded_pool(n, kernel, stride), "pad", "pool"),
        (window_of_sums(n, kernel, stride), "S", "y"),
    ):
        sch = computed_in_tiles(text, producer, consumer, kind, tile, kind_first=kind_first)
        holds(sch, text)


@pytest.mark.parametrize("tile", [3, 4])  # 4 divides the 16 results, with 3 the last window is guarded
def test_each_thread_has_a_window_of_its_own(tile: int) -> None:
    sch = computed_in_tiles(window_of_sums(18, 3, 1), "S", "y", "parallel", tile, kind_first=True)
    steps: dict[str, IRModule] = {}
    run_pipeline(sch.module, Target("llvm"), steps.__setitem__, schedule="none")
    body = steps["localize_buffers"]["main"].body
    (loop,) = (n for n in walk(body) if isinstance(n, For) and n.kind == "parallel")
    everywhere = [n.buffer.name for n in walk(body) if isinstance(n, Allocate)]
    assert everywhere == [n.buffer.name for n in walk(loop.body) if isinstance(n, Allocate)] == ["S"]


def test_two_threads_that_compute_the_same_sums_do_not_disturb_each_other() -> None:
    text = window_of_sums(402, 3, 1, 64)
    sch = computed_in_tiles(text, "S", "y", "parallel", 1, kind_first=False)
    native = Native(sch.module, schedule="none")
    assert native.library.crossfarmrt_set_threads(2, (ctypes.c_int32 * 0)(), 0) == 0
    expected, actual = (arguments(cf.parse(text), "main", {}) for _ in range(2))
    run(cf.parse(text), "main", expected)
    for _ in range(200):
        actual[1][:] = np.nan
        native("main", *actual)
        np.testing.assert_allclose(actual[1], expected[1], rtol=1e-4, atol=1e-4)
