"""Copies of statements in block form in which all that is defined is new: a Var and a Buffer have one definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Let, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.naming import free_name
from crossfarm.ir.schedule.tree import statements
from crossfarm.ir.stmt import Allocate, Block, BlockRealize, For, IterVar, LetStmt, MatchBufferRegion, Stmt
from crossfarm.ir.visitor import Substitute


def fresh_copy(func: PrimFunc, stmt: Stmt, mapping: Mapping[Any, Any] | None = None) -> Stmt:
    """``stmt`` with ``mapping`` (Vars to expressions, Buffers to buffers) substituted, to be put into ``func``.

    Each Var and Buffer that it defines is a new one, and its blocks have names that no block of ``func`` has.
    """
    taken = {s.block.name for s in statements(func.body) if isinstance(s, BlockRealize)}
    return _Fresh(dict(mapping or {}), taken, _bound_outside(func, stmt)).mutate(stmt)


def fresh_function(func: PrimFunc) -> PrimFunc:
    """The same function with new parameters and sizes, and all else that it defines: to stand beside ``func``."""
    fresh = _Fresh({}, set(), set())
    for param in func.params:
        for var in _symbols(param) if isinstance(param, Buffer) else (param,):
            if var not in fresh.mapping:
                fresh._renew(var)
    params = tuple(fresh._renew_buffer(p) if isinstance(p, Buffer) else fresh.mapping[p] for p in func.params)
    return replace(func, params=params, body=fresh.mutate(func.body))


class _Fresh(Substitute):
    """
    Args:
        taken: names that blocks may not have.
        bound: variables that the copy takes from around it.
    """

    def __init__(self, mapping: dict[Any, Any], taken: set[str], bound: set[Var]) -> None:
        super().__init__(mapping)
        self.taken = taken
        self.bound = bound

    def mutate_For(self, node: For) -> Stmt:
        start, extent = self.mutate(node.min), self.mutate(node.extent)
        var = self._renew(node.var)
        return replace(node, var=var, min=start, extent=extent, body=self.mutate(node.body))

    def mutate_LetStmt(self, node: LetStmt) -> Stmt:
        value = self.mutate(node.value)
        return LetStmt(self._renew(node.var), value, self.mutate(node.body))

    def mutate_Let(self, node: Let) -> Expr:
        value = self.mutate(node.value)
        return Let(self._renew(node.var), value, self.mutate(node.body))

    def mutate_Allocate(self, node: Allocate) -> Stmt:
        return replace(node, buffer=self._renew_buffer(node.buffer), body=self.mutate(node.body))

    def mutate_BlockRealize(self, node: BlockRealize) -> Stmt:
        values = tuple(self.mutate(v) for v in node.iter_values)
        return BlockRealize(values, self.mutate(node.predicate), self._block(node.block))

    def _block(self, node: Block) -> Block:
        domains = [self.mutate(axis.dom) for axis in node.iter_vars]
        axes = tuple(IterVar(self._renew(a.var), dom, a.kind) for a, dom in zip(node.iter_vars, domains))
        allocated = tuple(self._renew_buffer(b) for b in node.alloc_buffers)
        matched = tuple(self._match(m) for m in node.match_buffers)
        return replace(
            node,
            name=self._name(node.name),
            iter_vars=axes,
            reads=tuple(self.mutate(r) for r in node.reads),
            writes=tuple(self.mutate(w) for w in node.writes),
            init=None if node.init is None else self.mutate(node.init),
            body=self.mutate(node.body),
            alloc_buffers=allocated,
            match_buffers=matched,
        )

    def _match(self, node: MatchBufferRegion) -> MatchBufferRegion:
        source = self.mutate(node.source)
        for symbol in _symbols(node.buffer):
            if symbol not in self.mapping and symbol not in self.bound:
                self._renew(symbol)  # the match defines it
        return MatchBufferRegion(self._renew_buffer(node.buffer), source)

    def _name(self, name: str) -> str:
        free = free_name(name, self.taken)
        self.taken.add(free)
        return free

    def _renew(self, var: Var) -> Var:
        renewed = Var(var.name, var.dtype)
        self.mapping[var] = renewed
        return renewed

    def _renew_buffer(self, buffer: Buffer) -> Buffer:
        renewed = replace(
            buffer,
            shape=tuple(self.mutate(e) for e in buffer.shape),
            strides=tuple(self.mutate(e) for e in buffer.strides),
            elem_offset=None if buffer.elem_offset is None else self.mutate(buffer.elem_offset),
        )
        self.mapping[buffer] = renewed
        return renewed


def _bound_outside(func: PrimFunc, stmt: Stmt) -> set[Var]:
    """Variables that ``func`` binds outside of ``stmt``."""
    inside = set(statements(stmt))
    bound = {p for p in func.params if isinstance(p, Var)}
    for param in func.params:
        if isinstance(param, Buffer):
            bound.update(_symbols(param))
    for outer in statements(func.body):
        if outer in inside:
            continue
        if isinstance(outer, For | LetStmt):
            bound.add(outer.var)
        elif isinstance(outer, Block):
            bound.update(axis.var for axis in outer.iter_vars)
            for match in outer.match_buffers:
                bound.update(_symbols(match.buffer))
    return bound


def _symbols(buffer: Buffer) -> Iterator[Var]:
    """Bare variables of a buffer's shape, strides and offset, which a match may define."""
    return (e for e in (*buffer.shape, *buffer.strides, buffer.elem_offset) if isinstance(e, Var))
