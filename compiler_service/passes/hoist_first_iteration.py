"""What a loop does only in its first iteration moves before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from crossfarm.ir.arith import const_int, structural_key
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For, IfThenElse, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, seq, substitute, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class HoistFirstIteration:
    """``for k: {if k == start: S; rest}`` becomes ``if the loop runs: S`` and then ``for k: rest``.

    Such are reductions' inits after block lowering. Without the test in the loop LLVM keeps the accumulator in a
    register and vectorizes. The order of execution does not change, whatever S and rest are.
    """

    name: ClassVar[str] = "hoist_first_iteration"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: _hoist(func))


def _hoist(func: PrimFunc) -> PrimFunc:
    body = _Hoister().mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class _Hoister(Mutator):
    def mutate_For(self, node: For) -> Stmt:
        body = self.mutate(node.body)
        node = node if body is node.body else replace(node, body=body)
        if node.kind not in ("serial", "unrolled") or not isinstance(node.body, SeqStmt):
            return node
        first, *rest = node.body.stmts
        if not isinstance(first, IfThenElse) or first.else_body is not None:
            return node
        others = _without_test(first.condition, node.var, node.min)
        if others is None or any(n is node.var for c in others for n in walk(c)):
            return node
        hoisted = substitute(first.then_body, {node.var: node.min})
        conditions = list(others)
        if const_int(node.extent) is None:
            conditions.insert(0, Binary("gt", node.extent, IntImm(0, node.extent.dtype)))
        for condition in reversed(conditions):
            hoisted = IfThenElse(condition, hoisted)
        return seq(hoisted, replace(node, body=seq(*rest)))


def _without_test(condition: Expr, var: Var, start: Expr) -> list[Expr] | None:
    """The conjuncts besides ``var == start``; None when that is not among them."""
    conjuncts: list[Expr] = []

    def collect(expr: Expr) -> None:
        if isinstance(expr, Binary) and expr.op == "and":
            collect(expr.a)
            collect(expr.b)
        else:
            conjuncts.append(expr)

    collect(condition)
    rest = [c for c in conjuncts if not _is_test(c, var, start)]
    return rest if len(rest) < len(conjuncts) else None


def _is_test(expr: Expr, var: Var, start: Expr) -> bool:
    return (
        isinstance(expr, Binary)
        and expr.op == "eq"
        and expr.a is var
        and structural_key(expr.b) == structural_key(start)
    )
