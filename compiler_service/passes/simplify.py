"""Constant folding and integer simplification from loop ranges and conditions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from compiler_service.symbols import dimension_symbols
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Affine, Analyzer, Interval, affine, const_int, fold_int, may_fail, structural_key
from crossfarm.ir.expr import COMPARISONS, LOGICAL, Binary, Call, Cast, Expr, IntImm, Let, Not, Select, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    AssertStmt,
    BlockRealize,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    SeqStmt,
    Stmt,
)
from crossfarm.ir.visitor import Mutator, seq, substitute, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

_NOTHING = SeqStmt(())


@dataclass(frozen=True)
class Simplify:
    """Rewrites integer expressions to shorter ones, drops what never runs, and unwraps loops of one iteration.

    Nothing is assumed about integer overflow: a rewrite that would change a wrapped result is not made. Float
    arithmetic is left alone (LLVM folds it, in the right precision). Effects stay: a division that may fail is not
    dropped.
    """

    name: ClassVar[str] = "simplify"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: simplify_function(func))


def simplify_function(func: PrimFunc) -> PrimFunc:
    """``func`` with its body simplified."""
    simplifier = Simplifier()
    for symbol in dimension_symbols(func):
        simplifier.analyzer.bind(symbol, Interval(0, dt.int_range(symbol.dtype)[1]))
    body = simplifier.mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class Simplifier(Mutator):
    """Simplifies bottom-up, with what is known at each place in ``analyzer``."""

    def __init__(self, analyzer: Analyzer | None = None) -> None:
        self.analyzer = analyzer or Analyzer()

    # --- statements

    def mutate_For(self, node: For) -> Stmt:
        start, extent = self.mutate(node.min), self.mutate(node.extent)
        count = const_int(extent)
        if count is not None and count <= 0 and not may_fail(start):
            return _NOTHING
        if count == 1 and node.kind != "thread_binding":
            return self.mutate(substitute(node.body, {node.var: start}))
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, start, extent)
            body = self.mutate(node.body)
        if _is_nothing(body) and node.kind != "thread_binding" and not may_fail(start) and not may_fail(extent):
            return _NOTHING
        if start is node.min and extent is node.extent and body is node.body:
            return node
        return replace(node, min=start, extent=extent, body=body)

    def mutate_IfThenElse(self, node: IfThenElse) -> Stmt:
        condition = self.mutate(node.condition)
        decided = const_int(condition)
        if decided is not None:
            taken = node.then_body if decided else node.else_body
            return _NOTHING if taken is None else self.mutate(taken)
        then_body = self._under(condition, True, node.then_body)
        else_body = None if node.else_body is None else self._under(condition, False, node.else_body)
        if else_body is not None and _is_nothing(else_body):
            else_body = None
        if _is_nothing(then_body) and else_body is None and not may_fail(condition):
            return _NOTHING
        if condition is node.condition and then_body is node.then_body and else_body is node.else_body:
            return node
        return IfThenElse(condition, then_body, else_body)

    def mutate_LetStmt(self, node: LetStmt) -> Stmt:
        value = self.mutate(node.value)
        if isinstance(value, (IntImm, Var)):
            return self.mutate(substitute(node.body, {node.var: value}))
        with self.analyzer.scope():
            self._bind_let(node.var, value)
            body = self.mutate(node.body)
        return node if value is node.value and body is node.body else replace(node, value=value, body=body)

    def mutate_SeqStmt(self, node: SeqStmt) -> Stmt:
        stmts = tuple(self.mutate(s) for s in node.stmts)
        if all(a is b for a, b in zip(stmts, node.stmts)):
            return node
        return seq(*stmts)

    def mutate_Evaluate(self, node: Evaluate) -> Stmt:
        value = self.mutate(node.value)
        if not may_fail(value):
            return _NOTHING
        return node if value is node.value else Evaluate(value)

    def mutate_AssertStmt(self, node: AssertStmt) -> Stmt:
        condition = self.mutate(node.condition)
        if const_int(condition) == 1:
            return _NOTHING
        return node if condition is node.condition else replace(node, condition=condition)

    def mutate_BlockRealize(self, node: BlockRealize) -> Stmt:
        """Blocks are lowered before: schedules rely on their exact form."""
        return node

    def _under(self, condition: Expr, holds: bool, body: Stmt) -> Stmt:
        with self.analyzer.scope():
            self.analyzer.assume(condition, holds)
            return _NOTHING if self.analyzer.is_contradictory() else self.mutate(body)

    def _bind_let(self, var: Var, value: Expr) -> None:
        if dt.is_int(var.dtype) and dt.lanes_of(var.dtype) == 1:
            self.analyzer.bind(var, self.analyzer.bounds(value))

    # --- expressions

    def mutate_Let(self, node: Let) -> Expr:
        value = self.mutate(node.value)
        if isinstance(value, (IntImm, Var)):
            return self.mutate(substitute(node.body, {node.var: value}))
        with self.analyzer.scope():
            self._bind_let(node.var, value)
            body = self.mutate(node.body)
        return node if value is node.value and body is node.body else Let(node.var, value, body)

    def mutate_Cast(self, node: Cast) -> Expr:
        value = self.mutate(node.value)
        if value.dtype == node.dtype:
            return value
        if isinstance(value, IntImm) and dt.is_int(node.dtype):
            low, high = dt.int_range(node.dtype)
            return IntImm((value.value - low) % (high - low + 1) + low, node.dtype)
        return node if value is node.value else Cast(value, node.dtype)

    def mutate_Not(self, node: Not) -> Expr:
        a = self.mutate(node.a)
        if isinstance(a, IntImm):
            return IntImm(1 - a.value, node.dtype)
        return node if a is node.a else Not(a)

    def mutate_Select(self, node: Select) -> Expr:
        condition = self.mutate(node.condition)
        decided = const_int(condition)
        if decided is not None:
            return self.mutate(node.true_value if decided else node.false_value)
        a, b = self.mutate(node.true_value), self.mutate(node.false_value)
        if condition is node.condition and a is node.true_value and b is node.false_value:
            return node
        return Select(condition, a, b)

    def mutate_Call(self, node: Call) -> Expr:
        if node.op != "if_then_else":
            return self.mutate_children(node)
        condition = self.mutate(node.args[0])
        decided = const_int(condition)
        if decided is not None:
            return self.mutate(node.args[1] if decided else node.args[2])
        arms = []
        for holds, arm in ((True, node.args[1]), (False, node.args[2])):
            with self.analyzer.scope():
                self.analyzer.assume(condition, holds)
                arms.append(self.mutate(arm))
        if condition is node.args[0] and arms[0] is node.args[1] and arms[1] is node.args[2]:
            return node
        return replace(node, args=(condition, *arms))

    def mutate_Binary(self, node: Binary) -> Expr:
        a = self.mutate(node.a)
        if node.op in LOGICAL:
            return self._logical(node, a)
        b = self.mutate(node.b)
        if a is not node.a or b is not node.b:
            node = Binary(node.op, a, b)
        if dt.lanes_of(a.dtype) > 1 or not (dt.is_int(a.dtype) or dt.is_bool(a.dtype)):
            return node
        if isinstance(a, IntImm) and isinstance(b, IntImm):
            folded = fold_int(node.op, a.value, b.value, a.dtype)
            return node if folded is None else IntImm(folded, node.dtype)
        if may_fail(a) or may_fail(b):
            return node
        if node.op in COMPARISONS:
            decided = self.analyzer.decide(node)
            return node if decided is None else IntImm(int(decided), "bool")
        if node.op in ("add", "sub", "mul"):
            return _shorter(node, _rejoined(affine(node)).to_expr(node.dtype))
        if node.op in ("min", "max"):
            return self._min_max(node)
        if node.op in ("floordiv", "floormod", "div", "mod"):
            return self._divide(node)
        return node

    def _logical(self, node: Binary, a: Expr) -> Expr:
        """The second operand is looked at only where the first leaves the answer open."""
        absorbing = node.op == "or"
        decided = const_int(a)
        if decided is not None:
            return a if bool(decided) == absorbing else self.mutate(node.b)
        with self.analyzer.scope():
            self.analyzer.assume(a, not absorbing)
            b = self.mutate(node.b)
        decided = const_int(b)
        if decided is not None and bool(decided) != absorbing:
            return a
        if decided is not None and not may_fail(a):
            return b
        return node if a is node.a and b is node.b else Binary(node.op, a, b)

    def _min_max(self, node: Binary) -> Expr:
        if structural_key(node.a) == structural_key(node.b):
            return node.a
        if self.analyzer.prove(Binary("le", node.a, node.b)):
            return node.a if node.op == "min" else node.b
        if self.analyzer.prove(Binary("le", node.b, node.a)):
            return node.b if node.op == "min" else node.a
        return node

    def _divide(self, node: Binary) -> Expr:
        """``(c * q + r) // c`` is ``q + r // c``; ``%`` leaves ``r % c``: exact when nothing wraps."""
        divisor = const_int(node.b)
        if divisor is None or divisor <= 0:
            return node
        bounds = self.analyzer.bounds(node.a)
        if node.op in ("div", "mod"):
            if bounds.low < 0:
                return node
            node = Binary(f"floor{node.op}", node.a, node.b)
        dividend = affine(node.a)
        whole = Interval.of(node.dtype)
        if not whole.covers(self.analyzer.affine_bounds(dividend)):
            return node
        quotient, rest = dividend.split(divisor)
        within = self.analyzer.affine_bounds(rest)
        if not whole.covers(within) or not whole.covers(self.analyzer.affine_bounds(quotient)):
            return node
        fits = within.low >= 0 and within.high < divisor
        if node.op == "floormod":
            return rest.to_expr(node.dtype) if fits else self._remainder(node, rest, divisor)
        if fits:
            return quotient.to_expr(node.dtype)
        if not quotient.terms and quotient.constant == 0:
            return self._nested(node, divisor)
        inner = Binary("floordiv", rest.to_expr(node.dtype), node.b)
        key = structural_key(inner)
        quotient.add(Affine(0, {key: 1}, {key: inner}))
        return _shorter(node, quotient.to_expr(node.dtype))

    def _remainder(self, node: Binary, rest: Affine, divisor: int) -> Expr:
        return _shorter(node, Binary("floormod", rest.to_expr(node.dtype), IntImm(divisor, node.dtype)))

    def _nested(self, node: Binary, divisor: int) -> Expr:
        """``x // a // b`` is ``x // (a * b)``."""
        inner = node.a
        if isinstance(inner, Binary) and inner.op == "floordiv":
            first = const_int(inner.b)
            if first is not None and first > 0 and first * divisor in Interval.of(node.dtype):
                return Binary("floordiv", inner.a, IntImm(first * divisor, node.dtype))
        return node


def _rejoined(form: Affine) -> Affine:
    """``form`` with ``x // c * c + x % c`` as ``x``: what fusing and splitting loops leave in indices. It is exact."""
    for key in list(form.terms):
        rest = form.atoms.get(key)
        if key not in form.terms or not isinstance(rest, Binary) or rest.op != "floormod":
            continue
        divisor, factor = const_int(rest.b), form.terms[key]
        quotient = structural_key(Binary("floordiv", rest.a, rest.b))
        if divisor is None or divisor <= 0 or form.terms.get(quotient) != divisor * factor:
            continue
        for part in (key, quotient):
            del form.terms[part], form.atoms[part]
        form.add(affine(rest.a), factor)
    return form


def _shorter(before: Expr, after: Expr) -> Expr:
    """``after`` where it has fewer nodes."""
    return after if sum(1 for _ in walk(after)) < sum(1 for _ in walk(before)) else before


def _is_nothing(stmt: Stmt) -> bool:
    return isinstance(stmt, SeqStmt) and not stmt.stmts
