"""One traversal of the IR, two uses: ``Visitor`` looks, ``Mutator`` rebuilds what changed and shares the rest.

Subclasses define ``visit_<ClassName>`` or ``mutate_<ClassName>``; the rest is the plain traversal. The tree is
walked recursively; ``MAX_DEPTH`` bounds how deep a module from outside may nest (the parser and the loader enforce it).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from operator import is_not
from typing import Any, TypeVar, cast

from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import Expr, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import IterVar, MatchBufferRegion, SeqStmt, Stmt

MAX_DEPTH = 200
#: Python frames that a traversal may use for one level of nesting.
_FRAMES_PER_LEVEL = 8

Node = Expr | Stmt | Range | BufferRegion | IterVar | MatchBufferRegion
#: What traversals go into or tell of. Base classes first: most children are found at the first comparison.
_TREE = (Expr, Stmt, Buffer, Range, BufferRegion, IterVar, MatchBufferRegion)
N = TypeVar("N", bound=Any)


@cache
def _child_fields(cls: type[Any]) -> tuple[str, ...]:
    """Names of the fields that may hold children, found once a class: traversals are where compiling spends time."""
    return tuple(f.name for f in fields(cls) if f.type not in ("str", "int", "float", "Annotations"))


@cache
def _method_name(prefix: str, cls: Any) -> str:
    return f"{prefix}_{cls.__name__}"


def children(node: Node) -> Iterator[Node | Buffer]:
    """Direct children in field order: nodes and buffers, looking into tuples; annotations are not entered."""
    return iter(_children(node))


def _children(node: Node) -> list[Node | Buffer]:
    found: list[Node | Buffer] = []
    kind: Any = type(node)
    for name in _child_fields(kind):
        value = getattr(node, name)
        if isinstance(value, tuple):
            found.extend(item for item in value if isinstance(item, _TREE))
        elif isinstance(value, _TREE):
            found.append(value)
    return found


def make_room() -> None:
    """Makes sure that a traversal can go MAX_DEPTH levels deep, however deep in calls its caller already is.

    Raises the interpreter's recursion limit where less is left and never lowers it, as threads share it. Python's own
    frames are not on the C stack, so what this allows is safe.
    """
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    needed = depth + _FRAMES_PER_LEVEL * MAX_DEPTH
    if sys.getrecursionlimit() < needed:
        sys.setrecursionlimit(needed)


class Visitor:
    """Calls ``visit_X(node)`` where defined, else goes on to the children. Buffers are reached by ``visit_buffer``."""

    def visit(self, node: Any) -> None:
        if isinstance(node, Buffer):
            self.visit_buffer(node)
            return
        method = getattr(self, _method_name("visit", node.__class__), None)
        if method is not None:
            method(node)
        else:
            self.visit_children(node)

    def visit_children(self, node: Node) -> None:
        for child in _children(node):
            self.visit(child)

    def visit_buffer(self, buffer: Buffer) -> None:
        """Called for each occurrence of a buffer; its shape is not entered."""


class Mutator:
    """Rebuilds a tree. ``mutate_X(node)`` returns the replacement; a node whose children did not change is kept.

    Buffers and defined Vars are replaced through ``mutate_buffer`` and ``mutate_var_def`` (identity by default), so a
    pass that renames a buffer does it in one place. A Stmt may be replaced by ``SeqStmt(())`` to drop it: enclosing
    sequences are flattened by ``seq``.
    """

    def mutate(self, node: N) -> N:
        if isinstance(node, Buffer):
            return cast("N", self.mutate_buffer(node))
        method = getattr(self, _method_name("mutate", node.__class__), None)
        result: Any = method(node) if method is not None else self.mutate_children(node)
        return result

    def mutate_children(self, node: N) -> N:
        if isinstance(node, Var):
            return node
        if isinstance(node, SeqStmt):
            stmts = [self.mutate(s) for s in node.stmts]
            return cast("N", seq(*stmts)) if any(map(is_not, stmts, node.stmts)) else node
        changed: dict[str, Any] = {}
        kind: Any = type(node)
        for name in _child_fields(kind):
            value = getattr(node, name)
            if isinstance(value, tuple):
                items = [self.mutate(v) if isinstance(v, _TREE) else v for v in value]
                if any(map(is_not, items, value)):
                    changed[name] = tuple(items)
            elif isinstance(value, _TREE):
                new = self.mutate(value)
                if new is not value:
                    changed[name] = new
        return replace(node, **changed) if changed else node

    def mutate_buffer(self, buffer: Buffer) -> Buffer:
        return buffer

    def mutate_function(self, func: PrimFunc) -> PrimFunc:
        """The function with its body mutated; parameters go through ``mutate_buffer`` too."""
        params = tuple(self.mutate_buffer(p) if isinstance(p, Buffer) else p for p in func.params)
        body = self.mutate(func.body)
        if body is func.body and all(a is b for a, b in zip(params, func.params)):
            return func
        return replace(func, params=params, body=body)


def seq(*stmts: Stmt) -> Stmt:
    """Statements in order, flattened: no SeqStmt in a SeqStmt, none of length one."""
    flat: list[Stmt] = []
    for s in stmts:
        if isinstance(s, SeqStmt):
            flat.extend(s.stmts)
        else:
            flat.append(s)
    return flat[0] if len(flat) == 1 else SeqStmt(tuple(flat))


def walk(node: Node) -> Iterator[Node | Buffer]:
    """Every node below and including ``node``, in pre-order."""
    stack: list[Node | Buffer] = [node]
    while stack:
        current = stack.pop()
        yield current
        if not isinstance(current, Buffer):
            stack.extend(reversed(_children(current)))


class Substitute(Mutator):
    """Replaces Vars by expressions and Buffers by buffers, given a mapping by identity."""

    def __init__(self, mapping: dict[Any, Any]) -> None:
        self.mapping = mapping

    def mutate_Var(self, node: Var) -> Expr:
        return self.mapping.get(node, node)

    def mutate_buffer(self, buffer: Buffer) -> Buffer:
        return self.mapping.get(buffer, buffer)


def substitute(node: N, mapping: dict[Any, Any]) -> N:
    """``node`` with Vars and Buffers replaced; what a replaced buffer's own shape mentions is the caller's to map."""
    return Substitute(mapping).mutate(node)
