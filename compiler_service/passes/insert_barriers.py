"""Threads of a group wait for one another where one needs what another one stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
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
    has a race. Loops are looked at twice, so that what one iteration leaves is seen by the next.
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
        return _Barriers().statement(node, [])[0]


#: Tags and variables of the loops over threads around an access.
_Context = tuple[tuple[str, Var], ...]


@dataclass(frozen=True)
class _Access:
    buffer: Buffer
    stores: bool
    context: _Context

    def conflicts(self, other: _Access) -> bool:
        return self.buffer is other.buffer and (self.stores or other.stores) and self.context != other.context


class _Barriers:
    """Walks one kernel in program order; what is pending are the accesses since the last barrier."""

    def __init__(self) -> None:
        self.threads: dict[str, Var] = {}

    def statement(self, node: Stmt, pending: list[_Access]) -> tuple[Stmt, list[_Access]]:
        """``node`` with barriers inside, and what is pending after it."""
        match node:
            case SeqStmt():
                return self._in_order(node, pending)
            case For(kind="thread_binding"):
                return self._over_threads(node, pending)
            case For() | While():
                body, after = self.statement(node.body, pending)
                body, after = self.statement(body, after)
                return (node if body is node.body else replace(node, body=body)), after
            case IfThenElse():
                then, after = self.statement(node.then_body, pending)
                if node.else_body is None:
                    result = node if then is node.then_body else replace(node, then_body=then)
                    return result, _merged(pending, after)
                other, after_other = self.statement(node.else_body, pending)
                if then is not node.then_body or other is not node.else_body:
                    node = replace(node, then_body=then, else_body=other)
                return node, _merged(after, after_other)
            case LetStmt() | AttrStmt() | Allocate():
                pending = _merged(pending, self._accesses(node, into_body=False))
                body, after = self.statement(node.body, pending)
                return (node if body is node.body else replace(node, body=body)), after
        if is_barrier(node):
            return node, []
        return node, _merged(pending, self._accesses(node))

    def _over_threads(self, node: For, pending: list[_Access]) -> tuple[Stmt, list[_Access]]:
        if not node.thread.startswith("threadIdx"):
            body, after = self.statement(node.body, pending)
        else:
            before = self.threads
            self.threads = {**before, node.thread: node.var}
            body, after = self.statement(node.body, pending)
            self.threads = before
        return (node if body is node.body else replace(node, body=body)), after

    def _in_order(self, node: SeqStmt, pending: list[_Access]) -> tuple[Stmt, list[_Access]]:
        stmts: list[Stmt] = []
        for stmt in node.stmts:
            own = [] if is_barrier(stmt) else self._accesses(stmt)
            found = [a.buffer for a in own if any(a.conflicts(b) for b in pending)]
            if found:
                stmts.append(_barrier(found))
                pending = []
            changed, pending = self.statement(stmt, pending)
            stmts.append(changed)
        same = len(stmts) == len(node.stmts) and all(a is b for a, b in zip(stmts, node.stmts))
        return (node if same else seq(*stmts)), pending

    def _accesses(self, code: Stmt, *, into_body: bool = True) -> list[_Access]:
        """Of memory that several threads see."""
        found: dict[tuple[Buffer, bool, _Context], _Access] = {}
        own: set[Buffer] = set()

        def add(buffer: Buffer, stores: bool, threads: dict[str, Var]) -> None:
            if buffer.scope != "local" and buffer not in own:
                context = tuple(sorted(threads.items(), key=lambda entry: entry[0]))
                found.setdefault((buffer, stores, context), _Access(buffer, stores, context))

        def visit(node: Stmt | Expr, threads: dict[str, Var]) -> None:
            if isinstance(node, BufferLoad):
                add(node.buffer, False, threads)
            elif isinstance(node, BufferStore):
                add(node.buffer, True, threads)
            elif isinstance(node, Allocate) and node.buffer.scope == "global":
                own.add(node.buffer)  # it was moved to where one thread alone uses it
            elif isinstance(node, For) and node.thread.startswith("threadIdx"):
                threads = {**threads, node.thread: node.var}
            for child in _parts(node, into_body or node is not code):
                visit(child, threads)

        visit(code, self.threads)
        return list(found.values())


def _parts(node: Stmt | Expr, into_body: bool) -> Iterable[Stmt | Expr]:
    for child in children(node):
        if isinstance(child, Expr) or (isinstance(child, Stmt) and into_body):
            yield child


def _merged(a: list[_Access], b: list[_Access]) -> list[_Access]:
    seen = {(x.buffer, x.stores, x.context) for x in a}
    return [*a, *(x for x in b if (x.buffer, x.stores, x.context) not in seen)]


def _barrier(buffers: list[Buffer]) -> Stmt:
    scope = "global" if any(b.scope == "global" for b in buffers) else "shared"
    return Evaluate(Call("storage_sync", (StringImm(scope),), "int32"))
