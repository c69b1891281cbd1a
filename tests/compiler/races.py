"""Finds what threads of kernels exchange without waiting for one another.

The interpreter runs the threads of block form one after the other, and devices run them as they like: where one relies
on what another one stores, results may be right in the one order and wrong in the other. Here the kernels themselves
run, all threads of all groups statement by statement, as lanes of arrays, and each access of memory that several
threads see is noted. What is a race does not depend on the order, as long as no other race decided what was accessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler_service.codegen.kernel import Kernel
from compiler_service.passes.insert_barriers import is_barrier
from compiler_service.passes.split_kernels import GROUP_TAGS, KERNEL_OF, THREAD_TAGS, SplitKernels
from compiler_service.pipeline import steps_for
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import element_of
from crossfarm.ir.expr import Call, Expr, StringImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.interpreter.arguments import binder
from crossfarm.ir.interpreter.expressions import Env, Evaluate, ExprCompiler, only, spread
from crossfarm.ir.interpreter.statements import Run, StmtCompiler, fresh_memory
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, BufferStore, For, While
from crossfarm.ir.stmt import Evaluate as EvaluateStmt
from crossfarm.ir.visitor import make_room
from crossfarm.target import Target
from tests.compiler.native import Array


@dataclass(frozen=True)
class Race:
    """Elements of one buffer that one thread stores and another one stores or loads, with no barrier between.

    Attributes:
        kernel, buffer: their names.
        threads: two that meet at the first such element, each as its group and its number in the group.
        element: the index of that element.
        count: how many elements.
        agree: all stores to each element have the same value, and who loads one has stored it before. OpenCL and
            Vulkan call that a race too; the devices there are give the value that all agree on.
    """

    kernel: str
    buffer: str
    threads: tuple[tuple[int, int], tuple[int, int]]
    element: tuple[int, ...]
    count: int
    agree: bool

    def __str__(self) -> str:
        (g, t), (h, u) = self.threads
        how = "store the same value" if self.agree else "meet"
        return (
            f"kernel {self.kernel!r}: thread {t} of group {g} and thread {u} of group {h} {how} at "
            f"{self.buffer}{list(self.element)}, the first of {self.count} elements"
        )


def races_of(module: IRModule, target: str, arguments: Sequence[Any], name: str = "main") -> list[Race]:
    """Of the kernels that ``module`` becomes for ``target``, called with ``arguments``, which hold the results then.

    Raises:
        AssertionError: a barrier that not all threads of a group reach; vectors, which programs of before
            ``vectorize_loops`` have only where somebody wrote them.
    """
    resolved = Target(target).resolved()
    for step in steps_for(module, resolved):
        module = step.apply(module, resolved)
        if isinstance(step, SplitKernels):
            break
    make_room()
    found: list[Race] = []
    with np.errstate(all="ignore"):
        _host(module, name, found)(arguments)
    return found


def faults_of(module: IRModule, target: str, arguments: Sequence[Any], name: str = "main") -> list[str]:
    """Those of ``races_of`` that do not agree on the values, as text."""
    return [str(race) for race in races_of(module, target, arguments, name) if not race.agree]


# -- what the host does ----------------------------------------------------------------------------------------------


def _host(module: IRModule, name: str, found: list[Race]) -> Callable[[Sequence[Any]], None]:
    """What calls a function of launches, or of calls of such functions."""
    func = module.prim_func(name)
    exprs = _HostExprs(name, module, found)
    statements = StmtCompiler(exprs, all_at_once=False)
    bind = binder(func, exprs, statements)
    body = statements.compile(func.body)

    def call(arguments: Sequence[Any]) -> None:
        env = exprs.new_env()
        bind(name, arguments, env)
        body(env)

    return call


class _HostExprs(ExprCompiler):
    def __init__(self, function: str, module: IRModule, found: list[Race]) -> None:
        def callee(name: str) -> tuple[PrimFunc, Callable[[list[Any]], None]]:
            return module.prim_func(name), _host(module, name, found)

        super().__init__(function, callee)
        self.module, self.found = module, found

    def _compile_Call(self, e: Call) -> Evaluate:
        if e.op != "launch_kernel":
            return super()._compile_Call(e)
        name = e.args[0]
        assert isinstance(name, StringImm)
        func = self.module.prim_func(name.value)
        assert KERNEL_OF in func.attrs
        kernel = _Kernel(Kernel.of(name.value, func), self.found)
        sources = [
            self.slot(element_of(arg).buffer) if isinstance(param, Buffer) else self.compile(arg)
            for param, arg in zip(func.params, e.args[1:], strict=True)
        ]

        def launch(env: Env) -> Any:
            kernel.run([env[source] if isinstance(source, int) else source(env) for source in sources])
            return np.int32(0)

        return launch


# -- what the threads do ---------------------------------------------------------------------------------------------


class _Kernel:
    """One kernel, compiled once; its lanes are the threads, those of a group in a row."""

    def __init__(self, kernel: Kernel, found: list[Race]) -> None:
        self.kernel, self.found = kernel, found
        self.exprs = _LaneExprs(kernel)
        for name in (*kernel.params, *kernel.threads, *kernel.shared):
            self.exprs.slot(name)
        self.grid = [self.exprs.compile(extent) for extent in kernel.grid]
        self.shapes = [[self.exprs.compile(extent) for extent in buffer.shape] for buffer in kernel.shared]
        self.body = _LaneStatements(self.exprs).compile(kernel.body)

    def run(self, arguments: Sequence[Any]) -> None:
        kernel, exprs = self.kernel, self.exprs
        env = exprs.new_env()
        for param, value in zip(kernel.params, arguments, strict=True):
            env[exprs.slot(param)] = value
        grid = [int(extent(env)) for extent in self.grid]
        groups = int(np.prod(grid))
        lanes = np.arange(groups * kernel.threads_per_group)
        if lanes.size == 0:
            return
        env[exprs.slot(exprs.lane)] = lanes
        extents = dict(zip((*THREAD_TAGS, *GROUP_TAGS), (*kernel.group, *grid)))
        for index, tag in enumerate(extents):
            before = int(np.prod(list(extents.values())[:index]))
            for var in (v for v, t in kernel.threads.items() if t == tag):
                env[exprs.slot(var)] = (lanes // before % extents[tag]).astype(dt.to_numpy(var.dtype))
        for buffer, shape in zip(kernel.shared, self.shapes):
            sizes = tuple(int(extent(env)) for extent in shape)
            env[exprs.slot(buffer)] = fresh_memory((*sizes, groups), dt.to_numpy(buffer.dtype))
        exprs.log = _Log(kernel.threads_per_group, groups)
        self.body(env)
        for buffer, events in exprs.log.events.items():
            self.found += exprs.log.races(kernel.name, buffer, env[exprs.slot(buffer)].shape, events)


class _LaneExprs(ExprCompiler):
    """Notes loads; what a thread has of its own and what a group shares have a last dimension, of lanes or groups.

    Attributes:
        lane: stands for the numbers of the threads that run; like any variable, chosen from under a condition.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel.name)
        self.lane = Var("lane", "int64")
        self.noted = kernel.written | set(kernel.shared)
        self.threads = kernel.threads_per_group
        self.shared = frozenset(kernel.shared)
        self.log = _Log(1, 1)

    def free_slots(self, nodes: Any) -> tuple[int, ...]:
        return (*super().free_slots(nodes), self.slot(self.lane))

    def element(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Callable[[Env], tuple[Any, ...]]:
        """The index of what each lane means."""
        index, lane = self.indices(buffer, indices), self.slot(self.lane)
        if buffer.scope == "local":
            return lambda env: (*index(env), env[lane])
        if buffer in self.shared:
            return lambda env: (*index(env), env[lane] // self.threads)
        return index

    def _compile_BufferLoad(self, e: Any) -> Evaluate:
        assert dt.lanes_of(e.dtype) == 1, f"{e} is a vector"
        index, place, lane = self.element(e.buffer, e.indices), self.slot(e.buffer), self.slot(self.lane)
        noted = e.buffer in self.noted

        def load(env: Env) -> Any:
            at, array = index(env), env[place]
            if noted:
                self.log.note(e.buffer, array, at, env[lane], None)
            return array[at]

        return load


class _LaneStatements(StmtCompiler):
    exprs: _LaneExprs

    def __init__(self, exprs: _LaneExprs) -> None:
        super().__init__(exprs, all_at_once=False)

    def _compile_For(self, s: For) -> Run:
        self.exprs.bound.add(s.var)
        low, extent, body = self.exprs.compile(s.min), self.exprs.compile(s.extent), self._where(s.body)
        place, to = self.exprs.slot(s.var), dt.to_numpy(s.var.dtype).type

        def run(env: Env) -> None:
            first, count = low(env), extent(env)
            for i in range(int(np.min(first)), int(np.max(first + count))):
                env[place] = to(i)
                body(env, (i >= first) & (i < first + count))

        return run

    def _compile_While(self, s: While) -> Run:
        condition, body, slots = self.exprs.compile(s.condition), self.compile(s.body), self.exprs.free_slots((s,))

        def run(env: Env) -> None:
            holds = condition(env)
            while np.any(holds):
                if isinstance(holds, np.ndarray) and not holds.all():
                    env = only(spread(holds, env, slots), env, slots)
                body(env)
                holds = condition(env)

        return run

    def _compile_BufferStore(self, s: BufferStore) -> Run:
        assert dt.lanes_of(s.value.dtype) == 1, f"{s} stores a vector"
        value, index = self.exprs.compile(s.value), self.exprs.element(s.buffer, s.indices)
        place, lane = self.exprs.slot(s.buffer), self.exprs.slot(self.exprs.lane)
        noted, to = s.buffer in self.exprs.noted, dt.to_numpy(s.buffer.dtype)

        def run(env: Env) -> None:
            lanes, array = env[lane], env[place]
            stored = np.broadcast_to(value(env), lanes.shape).astype(to)
            at = index(env)
            if noted:
                self.exprs.log.note(s.buffer, array, at, lanes, stored)
            array[tuple(np.broadcast_to(i, lanes.shape) for i in at)] = stored if at else stored[-1]

        return run

    def _compile_Evaluate(self, s: EvaluateStmt) -> Run:
        if not is_barrier(s):
            return super()._compile_Evaluate(s)
        lane = self.exprs.slot(self.exprs.lane)
        return lambda env: self.exprs.log.wait(env[lane])

    def _compile_Allocate(self, s: Allocate) -> Run:
        lane, place, to = self.exprs.slot(self.exprs.lane), self.exprs.slot(s.buffer), dt.to_numpy(s.buffer.dtype)
        shape, body = [self.exprs.compile(extent) for extent in s.buffer.shape], self.compile(s.body)

        def run(env: Env) -> None:
            env[place] = fresh_memory((*(int(extent(env)) for extent in shape), int(env[lane][-1]) + 1), to)
            body(env)

        return run


# -- what they meet at -----------------------------------------------------------------------------------------------

_NO_BITS = (1 << 64) - 1


@dataclass
class _Log:
    """The accesses of one launch.

    Attributes:
        threads, groups: threads of a group, and groups.
        passed: barriers that each group has passed.
        events: by buffer arrays of accesses, a column each: element (of all groups' where it is shared), thread,
            barriers passed, number of the access, whether it stores, and the value's bits.
    """

    threads: int
    groups: int
    passed: Array = field(init=False)
    events: dict[Buffer, list[tuple[Array, ...]]] = field(default_factory=dict)
    clock: int = 0

    def __post_init__(self) -> None:
        self.passed = np.zeros(self.groups, np.int64)

    def note(self, buffer: Buffer, array: Array, index: tuple[Any, ...], lanes: Array, stored: Array | None) -> None:
        """An access by ``lanes``; of what is ``stored``, or a load."""
        self.clock += 1
        flat = np.ravel_multi_index(tuple(np.asarray(i).astype(np.int64) for i in index), array.shape) if index else 0
        bits = np.uint64(_NO_BITS) if stored is None else stored.view(f"u{stored.itemsize}").astype(np.uint64)
        columns = (flat, lanes, self.passed[lanes // self.threads], self.clock, stored is not None, bits)
        self.events.setdefault(buffer, []).append(tuple(np.broadcast_to(c, lanes.shape) for c in columns))

    def wait(self, lanes: Array) -> None:
        """A barrier."""
        waiting = np.bincount(lanes // self.threads, minlength=self.groups)
        assert set(waiting.tolist()) <= {0, self.threads}, "not all threads of a group reach a barrier"
        self.passed += waiting > 0

    def races(self, kernel: str, buffer: Buffer, shape: tuple[int, ...], events: list[tuple[Array, ...]]) -> list[Race]:
        """Between threads of a group that no barrier separates, and between groups, which nothing does."""
        element, lane, passed, clock, stores, bits = (np.concatenate(column) for column in zip(*events))
        group = lane // self.threads
        found: list[Race] = []
        cells = [(np.stack([element, group, passed]), lane)]
        if buffer.scope != "shared":
            cells.append((element[None], group))
        for cell, who in cells:
            order = np.lexsort((clock, who, *cell))
            differs = np.any(np.diff(cell[:, order]) != 0, axis=0)
            starts = np.flatnonzero(np.concatenate([[True], differs]))
            by, st, bi, el = who[order], stores[order], bits[order], element[order]
            first = np.concatenate([[True], differs | (np.diff(by) != 0)])  # of this one at this cell
            meet = np.minimum.reduceat(by, starts) != np.maximum.reduceat(by, starts)
            meet &= np.logical_or.reduceat(st, starts)
            same = np.maximum.reduceat(np.where(st, bi, 0), starts) == np.minimum.reduceat(bi, starts)
            same &= np.logical_and.reduceat(st | ~first, starts)
            ends = np.append(starts[1:], order.size)
            for agree in (False, True):
                at = np.flatnonzero(meet & (same == agree))
                if at.size == 0:
                    continue
                low, high = starts[at[0]], ends[at[0]] - 1
                one, other = (divmod(int(lane[order[k]]), self.threads) for k in (low, high))
                index = tuple(int(i) for i in np.unravel_index(el[low], shape)) if shape else ()
                index = index[:-1] if buffer.scope == "shared" else index
                count = np.unique(el[starts[at]]).size
                found.append(Race(kernel, buffer.name, (one, other), index, count, agree))
        return found
