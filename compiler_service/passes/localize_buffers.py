"""Temporaries move to the innermost loop that needs them and shrink to what one iteration uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.access_boxes import (
    Access,
    Box,
    Opaque,
    accesses_of,
    bounds_checks,
    defined_in,
    difference,
    is_written_before_it_is_read,
    moves_apart,
    touched_box,
)
from compiler_service.passes.base import map_functions
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Affine, affine, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, AttrStmt, BufferStore, For, IfThenElse, LetStmt, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class LocalizeBuffers:
    """An allocation moves into a loop when no iteration needs what another one stored.

    That is so where iterations touch disjoint boxes of the buffer, where each iteration stores whatever it loads before
    it loads it, and in a parallel loop, whose iterations must not share values anyway. Inside, the buffer has the shape
    of the box that one iteration touches, and indices start at that box. ``compute_at`` and ``cache_write`` leave whole
    buffers of which a tile is used at a time: this makes them tiles, which the stack or registers hold, and each thread
    of a parallel loop gets its own.

    In a nest that is bound to thread indices a ``local`` buffer becomes each thread's own, and a ``shared`` one each
    group's: it may end up inside loops over the group's threads, and means one buffer for all of them even there. A
    ``global`` one moves in where one thread needs no more than ``thread_bytes`` of it, and stays whole where not.

    Args:
        thread_bytes: the largest temporary that one thread of a group keeps to itself.
    """

    name: ClassVar[str] = "localize_buffers"
    thread_bytes: int = 1024

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: self._localize(func))

    def _localize(self, func: PrimFunc) -> PrimFunc:
        body = _Localizer(self.thread_bytes).mutate(func.body)
        return func if body is func.body else replace(func, body=body)


class _Localizer(Mutator):
    def __init__(self, thread_bytes: int) -> None:
        self.thread_bytes = thread_bytes

    def mutate_Allocate(self, node: Allocate) -> Stmt:
        body = self.mutate(node.body)
        buffer = node.buffer
        movable = not buffer.strides and buffer.elem_offset is None and bool(buffer.shape)
        sunk = _Sinker(node.buffer, body, self.thread_bytes).sink(node, body) if movable else None
        if sunk is not None:
            return sunk
        return node if body is node.body else replace(node, body=body)


class _Sinker:
    """Moves one allocation.

    Attributes:
        threads: for a shared buffer, the loops over a group's threads that it has moved into.
        placed: the allocation where it ended up.
    """

    def __init__(self, buffer: Buffer, code: Stmt, thread_bytes: int) -> None:
        self.scope = buffer.scope
        self.always = bounds_checks(buffer, code)
        self.thread_bytes = thread_bytes
        self.threads: tuple[For, ...] = ()
        self.placed: Allocate | None = None
        self.in_threads = False

    def sink(self, allocation: Allocate, code: Stmt) -> Stmt | None:
        """``code`` with the allocation somewhere inside it; None where it has to stay around ``code``."""
        match code:
            case Allocate() | AttrStmt():
                return self._into_body(allocation, code, code.body)
            case LetStmt():
                return None if _uses(code.value, allocation.buffer) else self._into_body(allocation, code, code.body)
            case IfThenElse():
                if _uses(code.condition, allocation.buffer) or code.else_body is not None:
                    return None
                return replace(code, then_body=self._place(allocation, code.then_body))
            case SeqStmt():
                users = [i for i, stmt in enumerate(code.stmts) if _uses(stmt, allocation.buffer)]
                if len(users) != 1:
                    return None
                inside = self.sink(allocation, code.stmts[users[0]])
                if inside is None:
                    return None
                return SeqStmt((*code.stmts[: users[0]], inside, *code.stmts[users[0] + 1 :]))
            case For(kind="thread_binding"):
                return self._into_threads(allocation, code)
            case For():
                return self._into_loop(allocation, code)
        return None

    def _into_body(self, allocation: Allocate, code: Allocate | AttrStmt | LetStmt, body: Stmt) -> Stmt | None:
        inside = self.sink(allocation, body)
        return None if inside is None else replace(code, body=inside)

    def _place(self, allocation: Allocate, code: Stmt) -> Stmt:
        inside = self.sink(allocation, code)
        if inside is not None:
            return inside
        self.placed = replace(allocation, body=code)
        return self.placed

    def _into_loop(self, allocation: Allocate, code: For) -> Stmt | None:
        moved = _private_to_iterations(allocation.buffer, code, self.threads, self.always)
        if moved is None:
            return None
        buffer, body = moved
        return replace(code, body=self._place(replace(allocation, buffer=buffer), body))

    def _into_threads(self, allocation: Allocate, code: For) -> Stmt | None:
        if self.scope == "shared" and code.thread.startswith("threadIdx"):
            before, self.threads = self.threads, (*self.threads, code)
            body = self.sink(allocation, code.body)
            self.threads = before
            return None if body is None else replace(code, body=body)
        if self.scope != "global" or self.in_threads:
            return self._into_loop(allocation, code)
        self.in_threads = True
        inside = self._into_loop(allocation, code)
        self.in_threads = False
        return inside if self._is_one_threads_own() else None

    def _is_one_threads_own(self) -> bool:
        """True when no other thread sees the buffer and one may keep so much to itself."""
        if self.placed is None or any(
            isinstance(n, For) and n.kind == "thread_binding" for n in walk(self.placed.body)
        ):
            return False
        size = dt.itemsize(self.placed.buffer.dtype)
        for extent in self.placed.buffer.shape:
            size *= const_int(extent) or self.thread_bytes + 1
        return size <= self.thread_bytes


def _uses(code: Stmt | Expr, buffer: Buffer) -> bool:
    return any(node is buffer for node in walk(code))


def _private_to_iterations(
    buffer: Buffer, loop: For, threads: tuple[For, ...], always: frozenset[Expr]
) -> tuple[Buffer, Stmt] | None:
    """The buffer that one iteration needs, and the loop's body using it; None where iterations share values.

    Args:
        threads: loops around ``loop`` all of whose iterations use the same buffer.
        always: conditions that hold for every element there is.
    """
    if loop.kind == "vectorized" or any(_uses(e, buffer) for e in (loop.min, loop.extent)):
        return None
    # iterations that wait for no other one load what they stored themselves
    at_once = loop.kind in ("parallel", "thread_binding")
    try:
        accesses = [replace(a, loops=(*threads, *a.loops)) for a in accesses_of(buffer, loop.body)]
        if not accesses:
            return None
        box = touched_box(accesses)
        if not at_once and not moves_apart(box, loop) and not is_written_before_it_is_read(buffer, loop.body, always):
            return None
    except Opaque:
        return (buffer, loop.body) if at_once else None
    starts = _starts(buffer, box, accesses, defined_in(loop.body))
    if all(start is None for start in starts):
        return buffer, loop.body
    shape = tuple(
        extent if start is None else _extent(box[d], extent.dtype)
        for d, (start, extent) in enumerate(zip(starts, buffer.shape))
    )
    smaller = replace(buffer, shape=shape)
    return smaller, _Rebase(buffer, smaller, starts).mutate(loop.body)


def _starts(buffer: Buffer, box: Box, accesses: list[Access], inner: set[Var]) -> tuple[Affine | None, ...]:
    """Where each dimension starts now; None for one that stays whole."""
    starts: list[Affine | None] = []
    for d, (ends, extent) in enumerate(zip(box, buffer.shape)):
        start = None
        if ends is not None and len({access.node.indices[d].dtype for access in accesses}) == 1:
            width = difference(ends[1], ends[0])
            before = const_int(extent)
            defined = any(n in inner for form in ends for key in form.terms for n in walk(form.atoms[key]))
            if not defined and not width.terms and (before is None or width.constant + 1 < before):
                start = ends[0]
        starts.append(start)
    return tuple(starts)


def _extent(ends: tuple[Affine, Affine] | None, dtype: str) -> Expr:
    assert ends is not None
    return IntImm(difference(ends[1], ends[0]).constant + 1, dtype)


class _Rebase(Mutator):
    """Accesses of ``old`` become accesses of ``new``, whose element 0 is at ``starts``."""

    def __init__(self, old: Buffer, new: Buffer, starts: tuple[Affine | None, ...]) -> None:
        self.old, self.new, self.starts = old, new, starts

    def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
        indices = tuple(self.mutate(i) for i in node.indices)
        if node.buffer is self.old:
            return BufferLoad(self.new, self._moved(indices))
        return node if all(a is b for a, b in zip(indices, node.indices)) else replace(node, indices=indices)

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        value, indices = self.mutate(node.value), tuple(self.mutate(i) for i in node.indices)
        if node.buffer is self.old:
            return BufferStore(self.new, value, self._moved(indices))
        return replace(node, value=value, indices=indices)

    def _moved(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(
            index if start is None else difference(affine(index), start).to_expr(index.dtype)
            for index, start in zip(indices, self.starts)
        )
