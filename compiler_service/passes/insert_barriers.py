"""Threads of a group wait for one another where one needs what another one stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.access_boxes import Opaque, accesses_of, moves_apart, touched_box
from compiler_service.passes.base import map_functions
from crossfarm.ir.arith import Key, const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr, StringImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    Allocate,
    AttrStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import Mutator, children, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class InsertBarriers:
    """Puts ``storage_sync`` between statements of a kernel that exchange values between threads of a group.

    In block form loops over threads run one thread after another, each loop to its end, so that a later loop over the
    same threads sees all that an earlier one stored. On a device all loops over a group's threads run at once. A
    barrier is due between two accesses of the same element in memory that several threads see, one of them a store,
    which stand in different loops over threads; accesses in the same loop are the same thread's, or else the program
    has a race. Loops are looked at twice, so that what one iteration leaves is seen by the next; where a loop over
    threads runs once for each iteration, that may be another thread's, unless all iterations touch the same elements.

    What stands in no loop over a tag is stored by the threads with index 0 there (``split_kernels``), but loaded by
    all of them where it goes into memory of their own, or decides what they do.
    """

    name: ClassVar[str] = "insert_barriers"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: _insert(func))


def is_barrier(node: object) -> bool:
    """True for ``T.tvm_storage_sync``."""
    return isinstance(node, Evaluate) and isinstance(node.value, Call) and node.value.op == "storage_sync"


def binds_threads(code: Stmt) -> bool:
    """True when a loop in ``code`` is bound to a thread index."""
    return any(isinstance(n, For) and n.kind == "thread_binding" for n in walk(code))


def _insert(func: PrimFunc) -> PrimFunc:
    body = _Nests().mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class _Nests(Mutator):
    """Finds the outermost loops bound to thread indices: each is a kernel."""

    def mutate_For(self, node: For) -> Stmt:
        if node.kind != "thread_binding":
            return self.mutate_children(node)
        if not any(isinstance(n, For) and n.thread.startswith("threadIdx") for n in walk(node)):
            return node
        return _Barriers(_tags(node)).statement(node, [])[0]


def _tags(nest: For) -> tuple[str, ...]:
    """Along which a group has more than one thread."""
    loops = [n for n in walk(nest) if isinstance(n, For) and n.thread.startswith("threadIdx")]
    return tuple(sorted({loop.thread for loop in loops if const_int(loop.extent) != 1}))


#: Tags and variables of the loops over threads around an access; no variable where all threads along the tag do it
#: without such a loop.
_Context = tuple[tuple[str, Var | None], ...]


@dataclass(frozen=True)
class _Access:
    buffer: Buffer
    stores: bool
    context: _Context

    def conflicts(self, other: _Access) -> bool:
        return self.buffer is other.buffer and (self.stores or other.stores) and self.context != other.context


class _Barriers:
    """Walks one kernel in program order; what is pending are the accesses since the last barrier."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags
        self.threads: dict[str, Var] = {}
        self.own: set[Buffer] = set()
        self.known: dict[tuple[Stmt, bool, tuple[tuple[str, Var], ...]], list[_Access]] = {}

    def statement(self, node: Stmt, pending: list[_Access]) -> tuple[Stmt, list[_Access]]:
        """``node`` with barriers inside, and what is pending after it."""
        match node:
            case SeqStmt():
                return self._in_order(node, node.stmts, pending)
            case For(kind="thread_binding"):
                return self._over_threads(node, pending)
            case For() | While():
                again = self._accesses(node, into_body=False)  # of a condition, before each iteration
                body, after = self._inside(node.body, _merged(pending, again))
                body, after = self._inside(body, _merged(after, again))
                if isinstance(node, For) and (found := self._left_to_others(node, body)):
                    body = seq(_barrier(found), body)
                return (node if body is node.body else replace(node, body=body)), _merged(after, again)
            case IfThenElse():
                pending = _merged(pending, self._accesses(node, into_body=False))
                then, after = self._inside(node.then_body, pending)
                if node.else_body is None:
                    result = node if then is node.then_body else replace(node, then_body=then)
                    return result, _merged(pending, after)
                other, after_other = self._inside(node.else_body, pending)
                if then is not node.then_body or other is not node.else_body:
                    node = replace(node, then_body=then, else_body=other)
                return node, _merged(after, after_other)
            case LetStmt() | AttrStmt() | Allocate():
                if isinstance(node, Allocate) and node.buffer.scope == "global":
                    self.own.add(node.buffer)  # it was moved to where one thread alone uses it
                pending = _merged(pending, self._accesses(node, into_body=False))
                body, after = self._inside(node.body, pending)
                return (node if body is node.body else replace(node, body=body)), after
        if is_barrier(node):
            return node, []
        return node, _merged(pending, self._accesses(node))

    def _inside(self, body: Stmt, pending: list[_Access]) -> tuple[Stmt, list[_Access]]:
        """What a statement encloses: a barrier may be due before it."""
        return self.statement(body, pending) if isinstance(body, SeqStmt) else self._in_order(body, (body,), pending)

    def _over_threads(self, node: For, pending: list[_Access]) -> tuple[Stmt, list[_Access]]:
        if not node.thread.startswith("threadIdx"):
            body, after = self.statement(node.body, pending)
        else:
            before = self.threads
            self.threads = {**before, node.thread: node.var}
            body, after = self.statement(node.body, pending)
            self.threads = before
        return (node if body is node.body else replace(node, body=body)), after

    def _in_order(self, node: Stmt, parts: Sequence[Stmt], pending: list[_Access]) -> tuple[Stmt, list[_Access]]:
        """``node``, which is ``parts``."""
        stmts: list[Stmt] = []
        for stmt in parts:
            own = self._accesses(stmt) if pending and not is_barrier(stmt) else []
            found = [a.buffer for a in own if any(a.conflicts(b) for b in pending)]
            if found:
                stmts.append(_barrier(found))
                pending = []
            changed, pending = self.statement(stmt, pending)
            stmts.append(changed)
        same = len(stmts) == len(parts) and all(a is b for a, b in zip(stmts, parts))
        return (node if same else seq(*stmts)), pending

    def _left_to_others(self, loop: For, body: Stmt) -> list[Buffer]:
        """What threads of loops in ``body`` may need of other threads' earlier iterations of ``loop``, none waiting."""
        while isinstance(body, Allocate | AttrStmt | LetStmt):
            body = body.body
        stmts = body.stmts if isinstance(body, SeqStmt) else (body,)
        waits = [number for number, stmt in enumerate(stmts) if is_barrier(stmt)]
        first, last = (stmts[: waits[0]], stmts[waits[-1] + 1 :]) if waits else (stmts, stmts)
        changing = _changing(loop)
        outer = set(self.threads.values())

        def between_threads(part: Sequence[Stmt]) -> dict[_Access, dict[tuple[Key, ...], bool]]:
            """Accesses in loops over threads inside: indices, and whether they differ between iterations."""
            found: dict[_Access, dict[tuple[Key, ...], bool]] = {}
            for node, access in (a for stmt in part for a in self._each_access(stmt)):
                if access.buffer in stored and not {var for _, var in access.context if var is not None} <= outer:
                    key = tuple(structural_key(index) for index in node.indices)
                    found.setdefault(access, {})[key] = _mentions(node.indices, changing)
            return found

        stored = {node.buffer for node in walk(body) if isinstance(node, BufferStore)}
        before, after = between_threads(last), between_threads(first)
        met = {
            earlier.buffer: None
            for earlier, left in before.items()
            for later, touched in after.items()
            if earlier.buffer is later.buffer
            and (earlier.stores or later.stores)
            and earlier.context == later.context
            and (any(left.values()) or any(touched.values()))
            # who fills a tile in steps stores each element once
            and not (earlier.stores and later.stores and len({*left, *touched}) == 1)
        }
        return [buffer for buffer in met if not _moves_on(buffer, loop)]

    def _accesses(self, code: Stmt, *, into_body: bool = True) -> list[_Access]:
        """Of memory that several threads see, each kind once."""
        key = (code, into_body, tuple(self.threads.items()))
        if key not in self.known:  # each loop around asks twice
            self.known[key] = list(dict.fromkeys(access for _, access in self._each_access(code, into_body)))
        return self.known[key]

    def _each_access(self, code: Stmt, into_body: bool = True) -> Iterator[tuple[BufferLoad | BufferStore, _Access]]:
        own = set(self.own)

        def made(node: BufferLoad | BufferStore, threads: dict[str, Var], by_all: bool) -> _Access:
            around: dict[str, Var | None] = {**dict.fromkeys(self.tags if by_all else ()), **threads}
            context = tuple(sorted(around.items(), key=lambda entry: entry[0]))
            return _Access(node.buffer, isinstance(node, BufferStore), context)

        def visit(
            node: Stmt | Expr, threads: dict[str, Var], by_all: bool
        ) -> Iterator[tuple[BufferLoad | BufferStore, _Access]]:
            if isinstance(node, BufferStore):
                by_all = node.buffer.scope == "local" or node.buffer in own
            if isinstance(node, BufferLoad | BufferStore) and node.buffer.scope != "local" and node.buffer not in own:
                yield node, made(node, threads, by_all)
            elif isinstance(node, Allocate) and node.buffer.scope == "global":
                own.add(node.buffer)
            elif isinstance(node, For) and node.thread.startswith("threadIdx"):
                threads = {**threads, node.thread: node.var}
            for child in _parts(node, into_body or node is not code):
                yield from visit(child, threads, by_all)

        return visit(code, self.threads, True)


def _moves_on(buffer: Buffer, loop: For) -> bool:
    """Whether no iteration of ``loop`` touches what another one does."""
    try:
        return moves_apart(touched_box(accesses_of(buffer, loop.body)), loop)
    except Opaque:
        return False


def _changing(loop: For) -> set[Var]:
    """Variables whose values differ between iterations of ``loop``, those of loops over threads in it aside."""
    changing = {loop.var}

    def visit(node: Stmt, in_threads: bool) -> None:
        is_threads = isinstance(node, For) and node.thread.startswith("threadIdx")
        if isinstance(node, LetStmt | For) and not is_threads:
            source = (node.value,) if isinstance(node, LetStmt) else (node.min, node.extent)
            if not in_threads or _mentions(source, changing):
                changing.add(node.var)
        in_threads = in_threads or is_threads
        for child in children(node):
            if isinstance(child, Stmt):
                visit(child, in_threads)

    visit(loop.body, False)
    return changing


def _mentions(exprs: Sequence[Expr], variables: set[Var]) -> bool:
    """Whether a value depends on ``variables`` or on memory."""
    return any(isinstance(n, BufferLoad) or (isinstance(n, Var) and n in variables) for e in exprs for n in walk(e))


def _parts(node: Stmt | Expr, into_body: bool) -> Iterable[Stmt | Expr]:
    for child in children(node):
        if isinstance(child, Expr) or (isinstance(child, Stmt) and into_body):
            yield child


def _merged(a: list[_Access], b: list[_Access]) -> list[_Access]:
    return list(dict.fromkeys((*a, *b)))


def _barrier(buffers: list[Buffer]) -> Stmt:
    scope = "global" if any(b.scope == "global" for b in buffers) else "shared"
    return Evaluate(Call("storage_sync", (StringImm(scope),), "int32"))
