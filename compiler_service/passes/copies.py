"""Copies of statements in which everything that is defined is new: one definition a Var, as the verifier asks."""

from __future__ import annotations

from dataclasses import replace

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Let, Var
from crossfarm.ir.stmt import Allocate, For, LetStmt, Stmt
from crossfarm.ir.visitor import Substitute


def fresh_copy(stmt: Stmt, mapping: dict[Var | Buffer, Expr | Buffer]) -> Stmt:
    """``stmt`` (lowered form) with ``mapping`` substituted, and a new Var or Buffer for each that it defines."""
    return _FreshCopy(dict(mapping)).mutate(stmt)


class _FreshCopy(Substitute):
    def _renew(self, var: Var) -> Var:
        renewed = Var(var.name, var.dtype)
        self.mapping[var] = renewed
        return renewed

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
        old = node.buffer
        renewed = replace(
            old,
            shape=tuple(self.mutate(e) for e in old.shape),
            strides=tuple(self.mutate(e) for e in old.strides),
            elem_offset=None if old.elem_offset is None else self.mutate(old.elem_offset),
        )
        self.mapping[old] = renewed
        return replace(node, buffer=renewed, body=self.mutate(node.body))
