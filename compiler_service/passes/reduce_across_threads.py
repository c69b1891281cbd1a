"""Reductions whose steps are bound to the threads of a group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple, NoReturn

from compiler_service.passes.base import map_functions
from compiler_service.schedules.gpu.reduction import share_steps
from crossfarm.errors import BuildFailed, ScheduleError
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.tree import ancestors, replace_stmt, statements
from crossfarm.ir.stmt import Block, BlockRealize, For
from crossfarm.ir.visitor import walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class ReduceAcrossThreads:
    """Threads that are bound to a reduction's steps each reduce their own, in registers; the parts meet in shared
    memory, and every thread of the group has the result.

    That is what a schedule means that binds a loop over steps to ``threadIdx``: run as they are written, the threads
    would overwrite each other's sums.
    """

    name: ClassVar[str] = "reduce_across_threads"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        """Raises BuildFailed where the threads cannot be told from what they reduce."""
        return map_functions(module, _lowered)


class _Bound(NamedTuple):
    """A reduction whose steps are bound: its block, the loops around it, and those of them that are threads."""

    realize: BlockRealize
    loops: list[For]
    lanes: list[For]


def _lowered(name: str, func: PrimFunc) -> PrimFunc:
    while (found := _bound(func)) is not None:
        func = _shared(name, func, found)
    return func


def _bound(func: PrimFunc) -> _Bound | None:
    for realize in statements(func.body):
        if not isinstance(realize, BlockRealize):
            continue
        loops: list[For] = []
        for stmt in reversed(ancestors(func, realize)):
            if isinstance(stmt, Block):
                break
            if isinstance(stmt, For):
                loops.insert(0, stmt)
        lanes = [loop for loop in loops if loop.thread.startswith("threadIdx") and _reduces(realize, loop)]
        if lanes:
            return _Bound(realize, loops, lanes)
    return None


def _reduces(realize: BlockRealize, loop: For) -> bool:
    """Whether a loop is over steps of a block's reduction."""
    return any(
        axis.kind == "reduce" and _mentions(value, loop)
        for axis, value in zip(realize.block.iter_vars, realize.iter_values)
    )


def _chooses(realize: BlockRealize, loop: For) -> bool:
    """Whether a loop is over results."""
    return any(
        axis.kind == "spatial" and _mentions(value, loop)
        for axis, value in zip(realize.block.iter_vars, realize.iter_values)
    )


def _mentions(value: Expr, loop: For) -> bool:
    return any(isinstance(n, Var) and n is loop.var for n in walk(value))


def _shared(name: str, func: PrimFunc, found: _Bound) -> PrimFunc:
    """The function with the reduction among threads written out."""
    realize, loops, lanes = found
    lane = lanes[0]
    outer = next(n for n, loop in enumerate(loops) if _reduces(realize, loop))
    inside = [loop for loop in loops[outer:] if _chooses(realize, loop)]
    if len(lanes) > 1:
        _refuse(
            name, found, f"loop {lanes[1].var.name!r} is bound to {lanes[1].thread}, too", "fuse them, and bind one"
        )
    if realize.block.init is None:
        _refuse(name, found, "its initial value is stored elsewhere", "leave out decompose_reduction")
    if inside:
        _refuse(name, found, f"loop {inside[0].var.name!r} inside is over its results", "reorder: results, then steps")
    if const_int(lane.extent) is None:
        _refuse(name, found, "how many threads there are is not constant", "split it, and bind the inner loop")
    serial = replace_stmt(func, lane, replace(lane, kind="serial", thread=""))
    try:
        sch = Schedule(IRModule({name: serial}))
        block = sch.get_block(realize.block.name, name)
        if outer == 0:
            sch.bind(sch.add_unit_loop(sch.get_loops(block)[0]), "blockIdx.x")
            outer = 1
        share_steps(sch, block, next(x for x in sch.get_loops(block) if x.var is lane.var), outer, lane.thread)
    except ScheduleError as failure:
        _refuse(name, found, str(failure), "use rfactor, and bind the loop over the parts")
    return sch.module.prim_func(name)


def _refuse(name: str, found: _Bound, why: str, hint: str) -> NoReturn:
    lane = found.lanes[0]
    raise BuildFailed(
        f"function {name!r}: loop {lane.var.name!r}, over steps of the reduction {found.realize.block.name!r}, is "
        f"bound to {lane.thread}, and its threads cannot work together: {why}",
        hint=hint,
    )
