"""Conditions move out of the loops that they do not depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.access_boxes import defined_in, is_fixed
from compiler_service.passes.base import map_functions
from crossfarm.ir.arith import may_fail, structural_key
from crossfarm.ir.expr import Binary, Expr, IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For, IfThenElse, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class HoistConditions:
    """``for i: if a and b(i): S`` becomes ``if a: for i: if b(i): S``, and what all statements of a sequence are
    under becomes one condition around them.

    A split that does not divide its loop puts a condition around every block below: this takes it to the loop that it
    is about. Only conditions of variables alone move, as nothing in between changes them.
    """

    name: ClassVar[str] = "hoist_conditions"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: _hoist(func))


def conjuncts(condition: Expr) -> list[Expr]:
    """The conditions whose ``and`` it is."""
    if isinstance(condition, Binary) and condition.op == "and":
        return [*conjuncts(condition.a), *conjuncts(condition.b)]
    return [condition]


def all_of(conditions: Sequence[Expr]) -> Expr:
    """Their conjunction; of none: true."""
    if not conditions:
        return IntImm(1, "bool")
    whole = conditions[0]
    for condition in conditions[1:]:
        whole = Binary("and", whole, condition)
    return whole


def under(conditions: Sequence[Expr], body: Stmt) -> Stmt:
    """``body`` where all of ``conditions`` hold."""
    return IfThenElse(all_of(conditions), body) if conditions else body


def _hoist(func: PrimFunc) -> PrimFunc:
    body = _Hoister().mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class _Hoister(Mutator):
    def mutate_For(self, node: For) -> Stmt:
        body = self.mutate(node.body)
        node = node if body is node.body else replace(node, body=body)
        if node.kind == "thread_binding" or may_fail(node.min) or may_fail(node.extent):
            return node
        conditions, then = _guarded(body)
        inside = {node.var, *defined_in(then)} if conditions else set()
        outside = [c for c in conditions if not any(n in inside for n in walk(c))]
        if not outside:
            return node
        return under(outside, replace(node, body=under([c for c in conditions if c not in outside], then)))

    def mutate_IfThenElse(self, node: IfThenElse) -> Stmt:
        changed = self.mutate_children(node)
        if changed.else_body is None and isinstance(changed.then_body, IfThenElse):
            conditions, then = _guarded(changed.then_body)
            if conditions:
                return under([*conjuncts(changed.condition), *conditions], then)
        return changed

    def mutate_SeqStmt(self, node: SeqStmt) -> Stmt:
        stmts = [self.mutate(stmt) for stmt in node.stmts]
        parts = [_guarded(stmt) for stmt in stmts]
        if not parts:
            return node
        keys = [{structural_key(c) for c in conditions} for conditions, _ in parts]
        common = [c for c in parts[0][0] if all(structural_key(c) in k for k in keys)]
        if not common:
            return node if all(a is b for a, b in zip(stmts, node.stmts)) else seq(*stmts)
        shared = {structural_key(c) for c in common}
        rest = [under([c for c in cs if structural_key(c) not in shared], then) for cs, then in parts]
        return under(common, seq(*rest))


def _guarded(stmt: Stmt) -> tuple[list[Expr], Stmt]:
    """The conditions around ``stmt`` if all of them may move, and what is inside; else none, and ``stmt``."""
    if isinstance(stmt, IfThenElse) and stmt.else_body is None:
        conditions = conjuncts(stmt.condition)
        if all(is_fixed(c) and not may_fail(c) for c in conditions):
            return conditions, stmt.then_body
    return [], stmt
