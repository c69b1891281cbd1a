"""Statements → Python closures over an environment (see ``expressions``).

Loops of every kind run in order, one thread after the other: that is what the block form means, thread-bound loops
included. Lowered code in which threads cooperate means something else and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Call, Expr, Var
from crossfarm.ir.interpreter import nests
from crossfarm.ir.interpreter.expressions import Env, ExprCompiler, only, spread
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    AttrStmt,
    Block,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import walk

Run = Callable[[Env], None]


class StmtCompiler:
    """Compiles the statements of one function.

    Attributes:
        all_at_once: whether loops may be run as lanes; off inside such a loop, and for what must run in order.
    """

    def __init__(self, exprs: ExprCompiler, *, all_at_once: bool = True) -> None:
        self.exprs = exprs
        self.all_at_once = all_at_once

    def compile(self, s: Stmt) -> Run:
        result: Run = getattr(self, f"_compile_{type(s).__name__}")(s)
        return result

    def _compile_SeqStmt(self, s: SeqStmt) -> Run:
        parts = [self.compile(part) for part in s.stmts]

        def run(env: Env) -> None:
            for part in parts:
                part(env)

        return run

    def _compile_For(self, s: For) -> Run:
        if self.all_at_once:
            plan = nests.plan(s)
            if plan is not None:
                return nests.compile_nest(plan, self.exprs, self._compile_body)
        self.exprs.bound.add(s.var)
        low, extent, body = self.exprs.compile(s.min), self.exprs.compile(s.extent), self.compile(s.body)
        place, to = self.exprs.slot(s.var), dt.to_numpy(s.var.dtype).type

        def run(env: Env) -> None:
            first = int(low(env))
            for i in range(first, first + int(extent(env))):
                env[place] = to(i)
                body(env)

        return run

    def _compile_body(self, s: Stmt, all_at_once: bool) -> Run:
        return StmtCompiler(self.exprs, all_at_once=all_at_once).compile(s)

    def _compile_While(self, s: While) -> Run:
        condition, body = self.exprs.compile(s.condition), self.compile(s.body)

        def run(env: Env) -> None:
            while condition(env):
                body(env)

        return run

    def _compile_IfThenElse(self, s: IfThenElse) -> Run:
        otherwise = self._where(s.else_body) if s.else_body is not None else None
        condition, then = self.exprs.compile(s.condition), self._where(s.then_body)

        def run(env: Env) -> None:
            holds = condition(env)
            then(env, holds)
            if otherwise is not None:
                otherwise(env, np.logical_not(holds))

        return run

    def _where(self, s: Stmt, used: tuple[int, ...] | None = None) -> Callable[[Env, Any], None]:
        """Runs ``s``, which uses the slots ``used``, for the lanes in which a condition holds, or not at all."""
        body, slots = self.compile(s), self.exprs.free_slots((s,)) if used is None else used

        def run(env: Env, holds: Any) -> None:
            if not isinstance(holds, np.ndarray):
                if holds:
                    body(env)
            elif holds.all():
                body(env)
            elif holds.any():
                body(only(spread(holds, env, slots), env, slots))

        return run

    def _compile_BufferStore(self, s: BufferStore) -> Run:
        place, value = self.exprs.slot(s.buffer), self.exprs.compile(s.value)
        indices = self.exprs.indices(s.buffer, s.indices)

        def run(env: Env) -> None:
            stored = value(env)
            env[place][indices(env)] = stored

        return run

    def _compile_LetStmt(self, s: LetStmt) -> Run:
        self.exprs.bound.add(s.var)
        place, value, body = self.exprs.slot(s.var), self.exprs.compile(s.value), self.compile(s.body)

        def run(env: Env) -> None:
            env[place] = value(env)
            body(env)

        return run

    def _compile_Evaluate(self, s: Evaluate) -> Run:
        value = self.exprs.compile(s.value)

        def run(env: Env) -> None:
            value(env)

        return run

    def _compile_AssertStmt(self, s: AssertStmt) -> Run:
        condition = self.exprs.compile(s.condition)

        def run(env: Env) -> None:
            if not condition(env):
                raise self.exprs.fail(f"assertion failed: {s.message}:")

        return run

    def _compile_AttrStmt(self, s: AttrStmt) -> Run:
        return self.compile(s.body)

    def _compile_Allocate(self, s: Allocate) -> Run:
        allocate, body = self._allocation(s.buffer), self.compile(s.body)

        def run(env: Env) -> None:
            allocate(env)
            body(env)

        return run

    def _allocation(self, buffer: Buffer) -> Run:
        place, shape = self.exprs.slot(buffer), [self.exprs.compile(e) for e in buffer.shape]
        to = dt.to_numpy(buffer.dtype)

        def run(env: Env) -> None:
            env[place] = fresh_memory(tuple(max(int(e(env)), 0) for e in shape), to)

        return run

    def _compile_BlockRealize(self, s: BlockRealize) -> Run:
        self.exprs.bound |= {a.var for a in s.block.iter_vars}
        values = [(self.exprs.slot(a.var), self.exprs.compile(v)) for a, v in zip(s.block.iter_vars, s.iter_values)]
        predicate = self.exprs.compile(s.predicate)
        # the axes are bound before the block's lanes are chosen, so they are chosen from too
        inside = [n for n in (s.block.init, s.block.body, *(a.dom for a in s.block.iter_vars)) if n is not None]
        block = self._where(s.block, self.exprs.free_slots(inside))

        def run(env: Env) -> None:
            bound = [(place, value(env)) for place, value in values]
            holds = predicate(env)
            for place, value in bound:
                env[place] = value
            block(env, holds)

        return run

    def _compile_Block(self, s: Block) -> Run:
        prepare = [self._allocation(b) for b in s.alloc_buffers] + [self._view(m) for m in s.match_buffers]
        body = self.compile(s.body)
        init = self._where(s.init) if s.init is not None else None
        starts = [(self.exprs.slot(a.var), self.exprs.compile(a.dom.min)) for a in s.iter_vars if a.kind == "reduce"]

        def run(env: Env) -> None:
            for step in prepare:
                step(env)
            if init is not None:
                first: Any = True
                for place, start in starts:
                    first = first & (env[place] == start(env))
                init(env, first)
            body(env)

        return run

    def _view(self, m: MatchBufferRegion) -> Run:
        """A view of a box; the Vars of its shape, strides and offset are bound to what it turns out to be."""
        place, source = self.exprs.slot(m.buffer), self.exprs.slot(m.source.buffer)
        box = [(self.exprs.compile(r.min), self.exprs.compile(r.extent)) for r in m.source.region]
        bind = self.matcher(m.buffer)
        dropped = len(box) - len(m.buffer.shape)

        def run(env: Env) -> None:
            array = env[source]
            cuts = []
            for (low, extent), size in zip(box, array.shape):
                first, count = int(low(env)), int(extent(env))
                if first < 0 or count < 0 or first + count > size:
                    raise self.exprs.fail(
                        f"region {first}:{first + count} is outside buffer {m.source.buffer.name!r} "
                        f"of shape {array.shape}"
                    )
                cuts.append(slice(first, first + count))
            view = array[tuple(cuts)]
            offset = (view.ctypes.data - array.ctypes.data) // array.itemsize if view.size else 0
            env[place] = view[(0,) * dropped]
            bind(env, offset)

        return run

    def matcher(self, buffer: Buffer) -> Callable[[Env, int], None]:
        """Binds the bare Vars in a matched buffer's shape, strides and offset that nothing bound before."""
        place = self.exprs.slot(buffer)
        binds: list[tuple[int, Any, Callable[[Any, int], int]]] = []

        def define(e: Expr | None, found: Callable[[Any, int], int]) -> None:
            if isinstance(e, Var) and e not in self.exprs.bound:
                self.exprs.bound.add(e)
                binds.append((self.exprs.slot(e), dt.to_numpy(e.dtype).type, found))

        for i, e in enumerate(buffer.shape):
            define(e, lambda array, _, i=i: array.shape[i])  # type: ignore[misc]
        for i, e in enumerate(buffer.strides):
            define(e, lambda array, _, i=i: array.strides[i] // array.itemsize)  # type: ignore[misc]
        define(buffer.elem_offset, lambda _, offset: offset)

        def run(env: Env, elements: int) -> None:
            for symbol, to, found in binds:
                env[symbol] = to(found(env[place], elements))

        return run


def fresh_memory(shape: tuple[int, ...], to: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Memory whose content nobody may rely on: NaN, or bits that make a bad index."""
    array = np.empty(shape, to)
    if dt.is_float(dt.from_numpy(to)):
        array.fill(np.nan)
    else:
        array.view(np.uint8).fill(0xA5 if to != np.bool_ else 1) if array.ndim else array.fill(1)
    return array


def refuse_cooperation(name: str, body: Stmt) -> None:
    """Raises InvalidModule for lowered code whose threads work together: run one by one they would mean otherwise."""
    nodes = list(walk(body))
    threads = any(isinstance(n, For) and n.kind == "thread_binding" for n in nodes)
    blocks = any(isinstance(n, BlockRealize) for n in nodes)
    sync = any(isinstance(n, Call) and n.op == "storage_sync" for n in nodes if isinstance(n, Expr))
    shared = any(isinstance(n, Allocate) and n.buffer.scope == "shared" for n in nodes)
    if any(isinstance(n, Call) and n.op == "launch_kernel" for n in nodes if isinstance(n, Expr)):
        raise InvalidModule(
            f"function {name!r} launches kernels, which the reference interpreter does not run",
            hint="interpret the module before it is lowered, in block form",
        )
    if threads and (sync or (shared and not blocks)):
        raise InvalidModule(
            f"function {name!r} is lowered code whose threads cooperate through shared memory, which the reference "
            "interpreter does not run",
            hint="interpret the module before it is lowered, in block form",
        )
