"""Conditions on the lane of a vector: when do they hold in every lane?"""

from __future__ import annotations

from compiler_service.passes.access_boxes import is_fixed
from compiler_service.passes.hoist_conditions import all_of, conjuncts
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import affine, const_int, may_fail
from crossfarm.ir.expr import Binary, Call, Expr, Let, Var
from crossfarm.ir.stmt import For, IfThenElse, LetStmt, Stmt
from crossfarm.ir.visitor import Mutator, substitute, walk

_RISING = {"lt": 1, "le": 1, "gt": -1, "ge": -1}


class LaneGuards(Mutator):
    """Takes conditions on ``lane`` out of a statement, as if they held.

    Attributes:
        tests: what has to hold for that: conditions free of ``lane``.
    """

    def __init__(self, lane: Var, last: Expr, first: Expr) -> None:
        self.lane = lane
        self.first = first
        self.last: Expr = last if const_int(first) == 0 else Binary("add", first, last)
        self.tests: list[Expr] = []

    def mutate_IfThenElse(self, node: IfThenElse) -> Stmt:
        if node.else_body is not None:
            return node
        kept = self._without_lane(node.condition)
        body = self.mutate(node.then_body)
        return IfThenElse(all_of(kept), body) if kept else body

    def mutate_For(self, node: For) -> Stmt:
        """Conditions inside are about its variable too: they are looked at where its body is vectorized."""
        return node

    def mutate_LetStmt(self, node: LetStmt) -> Stmt:
        return node

    def mutate_Let(self, node: Let) -> Expr:
        return node

    def mutate_Call(self, node: Call) -> Expr:
        if node.op != "if_then_else":
            return self.mutate_children(node)
        kept = self._without_lane(node.args[0])
        value = self.mutate(node.args[1])
        return Call(node.op, (all_of(kept), value, node.args[2]), node.dtype) if kept else value

    def _without_lane(self, condition: Expr) -> list[Expr]:
        """The conjuncts that stay; those on the lane become tests."""
        kept = []
        for conjunct in conjuncts(condition):
            test = self._in_every_lane(conjunct)
            if test is None:
                kept.append(conjunct)
            else:
                self.tests.append(test)
        return kept

    def _in_every_lane(self, condition: Expr) -> Expr | None:
        """``condition`` in the lane that meets it last; None where it is not about the lane, or in no simple way."""
        if not any(node is self.lane for node in walk(condition)) or not is_fixed(condition) or may_fail(condition):
            return None
        if not isinstance(condition, Binary) or condition.op not in _RISING or not dt.is_int(condition.a.dtype):
            return None
        difference = affine(condition.a)
        difference.add(affine(condition.b), -1)
        step = difference.terms.get(self.lane, 0)
        others = [atom for key, atom in difference.atoms.items() if key in difference.terms and key is not self.lane]
        if not step or any(node is self.lane for atom in others for node in walk(atom)):
            return None
        hardest = self.last if step * _RISING[condition.op] > 0 else self.first
        return substitute(condition, {self.lane: hardest})
