"""Finding and replacing statements of a function; every node is meant by identity.

Functions are immutable: what replaces something returns a new function that shares all that did not change, so Vars
and Buffers, and statements off the changed path, stay the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NoReturn, TypeVar

from crossfarm.errors import ScheduleError
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.naming import free_name
from crossfarm.ir.stmt import (
    Allocate,
    AttrStmt,
    Block,
    BlockRealize,
    For,
    IfThenElse,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import Node, seq, walk

#: Printed nodes in messages are cut to this.
_MAX_SHOWN = 2000

S = TypeVar("S", bound=Stmt)


def find_block(func: PrimFunc, name: str, primitive: str = "get_block") -> BlockRealize:
    """The realization of the block ``name``. Raises ScheduleError listing the blocks there are."""
    for stmt in statements(func.body):
        if isinstance(stmt, BlockRealize) and stmt.block.name == name:
            return stmt
    known = ", ".join(s.block.name for s in statements(func.body) if isinstance(s, BlockRealize))
    refuse(primitive, f"there is no block {name!r}; there are: {known}")


def find_loop(func: PrimFunc, var: Var, primitive: str = "get_loops") -> For:
    """The loop over ``var``. Raises ScheduleError where an earlier primitive replaced that loop."""
    for stmt in statements(func.body):
        if isinstance(stmt, For) and stmt.var is var:
            return stmt
    refuse(
        primitive,
        f"the loop over {getattr(var, 'name', var)} is no longer in the function",
        hint="a primitive that replaces loops returns the new ones; or ask get_loops again",
    )


def ancestors(func: PrimFunc, stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements around ``stmt``, the function's body first; () for the body itself. ``Block`` nodes included."""
    path = _path(func.body, stmt)
    if path is None:
        raise ValueError(f"the {type(stmt).__name__} is not part of the function")
    return path


def loops_above(func: PrimFunc, realize: BlockRealize) -> tuple[For, ...]:
    """The loops around a block inside its scope (up to the enclosing block), outer to inner."""
    loops: list[For] = []
    for stmt in reversed(ancestors(func, realize)):
        if isinstance(stmt, Block):
            break
        if isinstance(stmt, For):
            loops.append(stmt)
    return tuple(reversed(loops))


def parent_block(func: PrimFunc, stmt: Stmt, primitive: str = "get_block") -> BlockRealize:
    """The realization of the innermost block around ``stmt``: its scope. Raises ScheduleError for the root block."""
    for outer in reversed(ancestors(func, stmt)):
        if isinstance(outer, BlockRealize):
            return outer
    refuse(primitive, "the root block has no scope around it", at=stmt)


def children_of(stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements directly inside a statement, in execution order."""
    match stmt:
        case SeqStmt(stmts):
            return stmts
        case For() | While() | LetStmt() | AttrStmt() | Allocate():
            return (stmt.body,)
        case IfThenElse(_, then_body, else_body):
            return (then_body,) if else_body is None else (then_body, else_body)
        case Block():
            return (stmt.body,) if stmt.init is None else (stmt.init, stmt.body)
        case BlockRealize():
            return (stmt.block,)
    return ()


def outermost_blocks(*stmts: Stmt) -> tuple[BlockRealize, ...]:
    """The blocks at or below ``stmts`` that are not inside one another, in execution order."""
    found: list[BlockRealize] = []
    stack = list(reversed(stmts))
    while stack:
        stmt = stack.pop()
        if isinstance(stmt, BlockRealize):
            found.append(stmt)
        else:
            stack.extend(reversed(children_of(stmt)))
    return tuple(found)


def statements(stmt: Stmt) -> Iterator[Stmt]:
    """Every statement below and including ``stmt``, in pre-order, which is execution order."""
    stack = [stmt]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(children_of(current)))


def replace_stmt(func: PrimFunc, old: Stmt, new: Stmt) -> PrimFunc:
    """``func`` with ``old`` replaced; ``new`` may be ``SeqStmt(())`` to drop it, enclosing sequences are flattened."""
    return replace_many(func, {old: new})


def replace_many(func: PrimFunc, replacements: Mapping[S, Stmt]) -> PrimFunc:
    """``func`` with each key of ``replacements`` replaced; what is inside a replaced statement is not looked at.

    Raises:
        ValueError: a key is not in the function, or is inside another key.
    """
    rebuild = _Replace(replacements)
    body = rebuild(func.body)
    if rebuild.left:
        raise ValueError(f"not part of the function: {', '.join(type(s).__name__ for s in rebuild.left)}")
    return replace(func, body=body)


def remove_stmt(func: PrimFunc, stmt: Stmt) -> PrimFunc:
    """``func`` without ``stmt`` and without the loops, branches and sequences that held nothing else."""
    gone = stmt
    for outer in reversed(ancestors(func, stmt)):
        if isinstance(outer, Block | BlockRealize):
            break
        if isinstance(outer, SeqStmt):
            rest = [s for s in outer.stmts if s is not gone]
            if rest:
                return replace_stmt(func, outer, seq(*rest))
        elif children_of(outer) != (gone,):
            break
        gone = outer
    return replace_stmt(func, gone, SeqStmt(()))


def with_block(realize: BlockRealize, **changes: object) -> BlockRealize:
    """A realization of the same block with some of the block's own fields changed."""
    return replace(realize, block=replace(realize.block, **changes))  # type: ignore[arg-type]


def unique_name(func: PrimFunc, wish: str) -> str:
    """``wish``, or ``wish_1``, ``wish_2``, … where a block or buffer of the function has that name already."""
    taken = {s.block.name for s in statements(func.body) if isinstance(s, BlockRealize)}
    taken.update(p.name for p in func.params)
    for stmt in statements(func.body):
        if isinstance(stmt, Block):
            taken.update(b.name for b in (*stmt.alloc_buffers, *(m.buffer for m in stmt.match_buffers)))
    return free_name(wish, taken)


def rename_duplicate_blocks(func: PrimFunc) -> PrimFunc:
    """``func`` with block names made unique (the first keeps its name, others get ``_1``, ``_2``, …)."""
    blocks = [s.block for s in statements(func.body) if isinstance(s, BlockRealize)]
    taken = {block.name for block in blocks}
    seen: set[str] = set()
    names: dict[Block, str] = {}
    for block in blocks:
        if block.name in seen:
            names[block] = free_name(block.name, taken)
            taken.add(names[block])
        seen.add(block.name)
    if not names:
        return func

    def renamed(stmt: Stmt) -> Stmt:
        return replace(stmt, name=names[stmt]) if isinstance(stmt, Block) and stmt in names else stmt

    return replace(func, body=rewrite(func.body, renamed))


def rewrite(stmt: Stmt, change: Callable[[Stmt], Stmt]) -> Stmt:
    """Applies ``change`` to every statement, innermost first; what it returns unchanged is shared."""
    return change(_with_children(stmt, tuple(rewrite(child, change) for child in children_of(stmt))))


def buffers_of(node: Node) -> set[Buffer]:
    """Every buffer that occurs in ``node``."""
    return {n for n in walk(node) if isinstance(n, Buffer)}


def refuse(primitive: str, reason: str, *, at: Stmt | None = None, hint: str = "") -> NoReturn:
    """Raises the ScheduleError of a primitive that would be illegal, with the block or loop printed."""
    shown = "" if at is None else f"\n{printed(at)}"
    raise ScheduleError(f"{primitive}: {reason}{shown}", primitive=primitive, reason=reason, hint=hint)


def printed(stmt: Stmt) -> str:
    """A statement as script text for messages, cut where it is long."""
    from crossfarm.ir.printer import print_node  # messages alone need it

    text = print_node(stmt).rstrip()
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


class _Replace:
    """Rebuilds the path to each replaced statement."""

    def __init__(self, replacements: Mapping[S, Stmt]) -> None:
        self.replacements: dict[Stmt, Stmt] = dict(replacements.items())
        self.left = set(self.replacements)

    def __call__(self, stmt: Stmt) -> Stmt:
        if stmt in self.replacements:
            self.left.discard(stmt)
            return self.replacements[stmt]
        if not self.left:
            return stmt
        return _with_children(stmt, tuple(self(child) for child in children_of(stmt)))


def _with_children(stmt: Stmt, new: tuple[Stmt, ...]) -> Stmt:
    """``stmt`` around other statements, given in the order of ``children_of``."""
    if all(a is b for a, b in zip(new, children_of(stmt))):
        return stmt
    match stmt:
        case SeqStmt():
            return seq(*new)
        case For() | While() | LetStmt() | AttrStmt() | Allocate():
            return replace(stmt, body=new[0])
        case IfThenElse():
            return replace(stmt, then_body=new[0], else_body=new[1] if len(new) > 1 else None)
        case Block():
            return replace(stmt, body=new[-1], init=new[0] if len(new) > 1 else None)
        case BlockRealize():
            block = new[0]
            assert isinstance(block, Block)
            return replace(stmt, block=block)
    return stmt


def _path(root: Stmt, wanted: Stmt) -> tuple[Stmt, ...] | None:
    stack: list[tuple[Stmt, tuple[Stmt, ...]]] = [(root, ())]
    while stack:
        current, above = stack.pop()
        if current is wanted:
            return above
        stack.extend((child, (*above, current)) for child in reversed(children_of(current)))
    return None
