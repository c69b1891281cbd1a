"""Reductions whose steps a schedule binds to threads, as people write them for GPUs."""

from __future__ import annotations

from crossfarm.ir import te
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule


def shapes_of(func: PrimFunc) -> list[tuple[int, ...]]:
    """Of the parameters, which are buffers of constant shape."""
    buffers = [param for param in func.params if isinstance(param, Buffer)]
    assert len(buffers) == len(func.params)
    shapes = [tuple(extent.value for extent in b.shape if isinstance(extent, IntImm)) for b in buffers]
    assert [len(shape) for shape in shapes] == [len(b.shape) for b in buffers]
    return shapes


def matmul(steps: int) -> Schedule:
    """``c = a (5, steps) @ b (steps, 7)`` in float32, not scheduled yet."""
    a, b = te.placeholder((5, steps), name="a"), te.placeholder((steps, 7), name="b")
    k = te.reduce_axis((0, steps), name="k")
    c = te.compute((5, 7), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    return Schedule(IRModule({"main": te.create_prim_func([a, b, c])}))


def _inner(steps: int, threads: int) -> IRModule:
    sch = matmul(steps)
    i, j, k = sch.get_loops(sch.get_block("c"))
    sch.bind(sch.fuse(i, j), "blockIdx.x")
    sch.bind(sch.split(k, [None, threads])[1], "threadIdx.x")
    return sch.module


def _outer() -> IRModule:
    sch = matmul(48)
    i, j, k = sch.get_loops(sch.get_block("c"))
    sch.bind(i, "blockIdx.x")
    sch.bind(j, "threadIdx.y")
    sch.bind(sch.split(k, [8, None])[0], "threadIdx.x")
    return sch.module


def _all() -> IRModule:
    sch = matmul(24)
    i, _, k = sch.get_loops(sch.get_block("c"))
    sch.bind(i, "blockIdx.x")
    sch.bind(k, "threadIdx.x")
    return sch.module


def _scalar(*, one_step_each: bool = False) -> IRModule:
    a, b = te.placeholder((96,), name="a"), te.placeholder((96,), name="b")
    k = te.reduce_axis((0, 96), name="k")
    c = te.compute((), lambda: te.sum(a[k] * b[k], axis=k), name="c")
    sch = Schedule(IRModule({"main": te.create_prim_func([a, b, c])}))
    (loop,) = sch.get_loops(sch.get_block("c"))
    sch.bind(loop if one_step_each else sch.split(loop, [None, 32])[1], "threadIdx.x")
    return sch.module


#: By name: the module, whose ``main`` multiplies its first two parameters into its third.
PROGRAMS: dict[str, IRModule] = {
    "inner steps": _inner(64, 16),
    "steps that divide nothing": _inner(50, 16),
    "many threads": _inner(256, 64),
    "outer steps": _outer(),
    "all steps": _all(),
    "one result": _scalar(),
    "one result, a step a thread": _scalar(one_step_each=True),
}
