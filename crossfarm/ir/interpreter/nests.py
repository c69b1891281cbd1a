"""Running the iterations of a loop nest all at once, as lanes of numpy arrays, where order cannot matter.

A chain of loops is a candidate when its body is plain: stores, lets, conditions, loops and blocks without buffers of
their own. Loops become lanes when each lane keeps to elements of its own in every buffer that is stored to:

1. every access to a stored buffer has one and the same index, so lanes meet only where that index coincides;
2. the index depends on the lane loops and on nothing that runs inside of them, so the elements of a lane do not change
   while it runs, and each lane's own steps keep their order;
3. at run time, the index differs from lane to lane, which is checked by computing it; and stored arrays share no
   memory with others that are accessed.

Where 3 fails, the loops run in order. Nothing is believed that an axis' kind or an attribute claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr, Let, Range, Var
from crossfarm.ir.interpreter.expressions import Env, ExprCompiler
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.stmt import (
    AttrStmt,
    BlockRealize,
    BufferStore,
    For,
    IfThenElse,
    LetStmt,
    SeqStmt,
    Stmt,
)
from crossfarm.ir.structural import structural_equal
from crossfarm.ir.visitor import substitute, walk

#: Most lanes at once: what numpy works through without its temporaries leaving the cache by far.
MAX_LANES = 1 << 16

#: Compiles a statement; says whether loops inside it may become lanes in turn.
CompileBody = Callable[[Stmt, bool], Callable[[Env], None]]


@dataclass(frozen=True)
class Nest:
    """A chain of loops, those of them that may become lanes, and what that rests on.

    Attributes:
        loops: outermost first; ``body`` is inside the last.
        lanes: for each loop, whether it may be lanes; the first always may.
        stored: each stored buffer's index in terms of what is bound outside ``body``.
        accessed: buffers that are only read.
    """

    loops: tuple[For, ...]
    lanes: tuple[bool, ...]
    body: Stmt
    stored: dict[Buffer, tuple[Expr, ...]]
    accessed: tuple[Buffer, ...]


def plan(loop: For) -> Nest | None:
    """How to run ``loop`` as lanes, or None where it has to run in order."""
    loops = [loop]
    while isinstance(loops[-1].body, For):
        loops.append(loops[-1].body)
    body = loops[-1].body
    facts = _Facts()
    if not facts.collect(body, {}) or not facts.stored:
        return None
    inner = facts.inner_loops
    chosen = _lanes(loops, facts, inner)
    if loop.var not in chosen:
        return None
    return Nest(
        tuple(loops),
        tuple(one.var in chosen for one in loops),
        body,
        facts.stored,
        tuple(facts.loaded - set(facts.stored)),
    )


def _lanes(loops: list[For], facts: _Facts, inner: set[Var]) -> set[Var]:
    """The loops of the chain that rules 1 and 2 allow as lanes."""
    used = [_variables(index) for index in facts.stored.values()]
    if any(u & inner for u in used):
        return set()  # elements change with a loop inside the body, which no order of the chain helps
    chosen = {one.var for one in loops if all(one.var in u for u in used)}
    chosen -= facts.in_bounds
    for one in loops:
        chosen -= _variables((one.min, one.extent))
    chain = {one.var for one in loops}
    chosen = {one.var for one in loops if one.var in chosen and not _variables((one.min, one.extent)) & chain}
    for position, one in enumerate(loops):
        if one.var not in chosen and any(one.var in u for u in used):
            chosen -= {outer.var for outer in loops[:position]}
    return chosen


class _Facts:
    """What a body stores and loads, or that it is not plain."""

    def __init__(self) -> None:
        self.stored: dict[Buffer, tuple[Expr, ...]] = {}
        self.loaded: set[Buffer] = set()
        self.inner_loops: set[Var] = set()
        self.in_bounds: set[Var] = set()  # variables that bounds of inner loops depend on
        self._loads: list[tuple[Buffer, tuple[Expr, ...]]] = []

    def collect(self, s: Stmt, known: dict[Any, Any]) -> bool:
        """Gathers the facts; ``known`` maps axes and lets to what they are. False when the body is not plain."""
        return self._statement(s, known) and all(
            buffer not in self.stored or _same(index, self.stored[buffer]) for buffer, index in self._loads
        )

    def _statement(self, s: Stmt | None, known: dict[Any, Any]) -> bool:
        match s:
            case None:
                return True
            case SeqStmt():
                return all(self._statement(part, known) for part in s.stmts)
            case BufferStore():
                index = tuple(substitute(i, known) for i in s.indices)
                first = self.stored.setdefault(s.buffer, index)
                plain = not any(isinstance(n, BufferLoad) for i in index for n in walk(i))
                return plain and _same(first, index) and self._expressions((s.value, *s.indices), known)
            case LetStmt():
                return self._expressions((s.value,), known) and self._statement(
                    s.body, {**known, s.var: substitute(s.value, known)}
                )
            case IfThenElse():
                return (
                    self._expressions((s.condition,), known)
                    and self._statement(s.then_body, known)
                    and self._statement(s.else_body, known)
                )
            case AttrStmt():
                return self._statement(s.body, known)
            case For():
                bounds = tuple(substitute(e, known) for e in (s.min, s.extent))
                self.inner_loops.add(s.var)
                self.in_bounds |= _variables(bounds)
                plain = not any(isinstance(n, BufferLoad) for e in bounds for n in walk(e))
                return plain and self._statement(s.body, known)
            case BlockRealize():
                block = s.block
                if block.alloc_buffers or block.match_buffers:
                    return False
                axes = {axis.var: substitute(v, known) for axis, v in zip(block.iter_vars, s.iter_values)}
                inside = {**known, **axes}
                starts = tuple(axis.dom.min for axis in block.iter_vars)
                return (
                    self._expressions((*s.iter_values, s.predicate, *starts), known)
                    and self._statement(block.init, inside)
                    and self._statement(block.body, inside)
                )
            case _:
                return False

    def _expressions(self, exprs: tuple[Expr, ...], known: dict[Any, Any]) -> bool:
        for e in exprs:
            for n in walk(e):
                if isinstance(n, Range | Buffer):
                    continue
                if isinstance(n, Call) and (not INTRINSICS[n.op].pure or n.op in ("call_pure_extern", "address_of")):
                    return False
                if isinstance(n, Let) or dt.lanes_of(n.dtype) > 1:  # type: ignore[union-attr]
                    return False
                if isinstance(n, BufferLoad):
                    self.loaded.add(n.buffer)
                    self._loads.append((n.buffer, tuple(substitute(i, known) for i in n.indices)))
        return True


def _same(a: tuple[Expr, ...], b: tuple[Expr, ...]) -> bool:
    """The same index: equal in structure, with the very same variables."""
    return len(a) == len(b) and structural_equal(a, b) and _in_order(a) == _in_order(b)


def _in_order(exprs: tuple[Expr, ...]) -> list[Any]:
    return [n for e in exprs for n in walk(e) if isinstance(n, Var | Buffer)]


def _variables(exprs: tuple[Expr, ...]) -> set[Var]:
    return {n for e in exprs for n in walk(e) if isinstance(n, Var)}


def compile_nest(nest: Nest, exprs: ExprCompiler, compile_body: CompileBody) -> Callable[[Env], None]:
    """Runs the nest: as many of its inner lane loops at once as MAX_LANES allows, the rest in order around them."""
    bounds = [(exprs.compile(one.min), exprs.compile(one.extent)) for one in nest.loops]
    places = [exprs.slot(one.var) for one in nest.loops]
    dtypes = [dt.to_numpy(one.var.dtype) for one in nest.loops]
    body = compile_body(nest.body, False)
    stored = [exprs.slot(b) for b in nest.stored]
    others = [exprs.slot(b) for b in nest.accessed]
    index = [[exprs.compile(i) for i in part] for part in nest.stored.values()]
    compiled_in_order: list[Callable[[Env], None]] = []

    def in_order(env: Env) -> None:
        """The body, when its lanes cannot be proven apart; loops inside it may still become lanes."""
        if not compiled_in_order:
            compiled_in_order.append(compile_body(nest.body, True))
        compiled_in_order[0](env)

    def apart(env: Env) -> bool:
        arrays = [env[place] for place in stored]
        for i, array in enumerate(arrays):
            rest = [*arrays[:i], *(env[place] for place in others)]
            if any(np.may_share_memory(array, other) for other in rest):
                return False
        return all(_distinct([i(env) for i in part], lanes_of(env)) for part in index)

    def lanes_of(env: Env) -> tuple[int, ...]:
        return np.broadcast_shapes(*(env[place].shape for place in places if isinstance(env[place], np.ndarray)))

    def run(env: Env) -> None:
        ranges = [
            (int(low(env)), int(extent(env))) if lane else (0, 0) for (low, extent), lane in zip(bounds, nest.lanes)
        ]
        if any(extent <= 0 for (_, extent), lane in zip(ranges, nest.lanes) if lane):
            return
        axis_of, chunk = _shares(ranges, nest.lanes)
        axes = len(axis_of)

        def enter(level: int, env: Env, proven: bool, ordered: bool) -> None:
            if level == len(places):
                (in_order if ordered else body)(env)
                return
            place, to = places[level], dtypes[level]
            low, extent = ranges[level] if nest.lanes[level] else [int(b(env)) for b in bounds[level]]
            if level not in axis_of or ordered:
                for i in range(low, low + extent):
                    env[place] = to.type(i)
                    enter(level + 1, env, proven, ordered)
                return
            shape = [1] * axes
            shape[axis_of[level]] = -1
            step = chunk if axis_of[level] == 0 else extent
            for start in range(low, low + extent, step):
                stop = min(start + step, low + extent)
                env[place] = np.arange(start, stop).astype(to).reshape(shape)
                if proven:
                    enter(level + 1, env, True, False)
                    continue
                for inner, axis in axis_of.items():
                    if inner > level:
                        first, count = ranges[inner]
                        shape_in = [1] * axes
                        shape_in[axis] = -1
                        env[places[inner]] = np.arange(first, first + count).astype(dtypes[inner]).reshape(shape_in)
                if apart(env):
                    enter(level + 1, env, True, False)
                else:
                    for i in range(start, stop):
                        env[place] = to.type(i)
                        enter(level + 1, env, True, True)

        enter(0, env, False, False)

    return run


def _shares(ranges: list[tuple[int, int]], lanes: tuple[bool, ...]) -> tuple[dict[int, int], int]:
    """Which loops become axes (level → axis, outermost first), and how much of the outermost of them at a time."""
    levels: list[int] = []
    total, chunk = 1, 1
    for level in reversed(range(len(ranges))):
        if not lanes[level]:
            continue
        extent = ranges[level][1]
        if levels and total * extent > MAX_LANES:
            break
        levels.insert(0, level)
        chunk = min(extent, max(MAX_LANES // total, 1))
        total *= extent
    return {level: axis for axis, level in enumerate(levels)}, chunk


def _distinct(index: list[Any], lanes: tuple[int, ...]) -> bool:
    """True when no two lanes have the same index: indices are combined into one number for each lane and counted."""
    count = int(np.prod(lanes, dtype=np.int64))
    key: Any = np.int64(0)
    span = 1
    for part in index:
        low, high = int(np.min(part)), int(np.max(part))
        if span * (high - low + 1) >= 1 << 62:
            return False
        key = key * (high - low + 1) + (np.asarray(part).astype(np.int64) - low)
        span *= high - low + 1
    keys = np.broadcast_to(key, lanes).ravel()
    if span < count:
        return False
    if span <= 8 * count:
        met = np.zeros(span, np.bool_)
        met[keys] = True
        return int(np.count_nonzero(met)) == count
    return bool(np.unique(keys).size == count)
