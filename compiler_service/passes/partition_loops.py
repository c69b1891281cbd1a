"""Loops are cut where a condition on their variable changes, so that the middle runs without it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.access_boxes import copied, is_fixed, relax
from compiler_service.passes.base import map_functions
from compiler_service.passes.copies import fresh_copy
from compiler_service.passes.hoist_conditions import all_of, conjuncts
from compiler_service.symbols import dimension_symbols
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Affine, Analyzer, Interval, affine, const_int, may_fail
from crossfarm.ir.expr import Binary, Call, Expr, IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For, IfThenElse, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, Visitor, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

_EXPANDED = ("unrolled", "vectorized")


@dataclass(frozen=True)
class PartitionLoops:
    """``for i in range(n): if i * 8 + 7 < m: S`` becomes a loop over the iterations in which that holds, without the
    condition, and one over the others with it.

    What splits that do not divide, and padding, leave in loops is free then but for the first or last iterations. A
    condition that also depends on unrolled or vectorized loops inside counts as holding where it does for all of their
    iterations; one that depends on other loops inside is left to them. Symbolic sizes are taken to be no larger than
    half of what their type holds.

    Args:
        max_nodes: the largest body, unrolled loops written out, that may be copied.
        min_extent: a shorter loop is left to be unrolled.
    """

    name: ClassVar[str] = "partition_loops"
    max_nodes: int = 8192
    min_extent: int = 8

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: self._partition(func))

    def _partition(self, func: PrimFunc) -> PrimFunc:
        partitioner = _Partitioner(self)
        for symbol in dimension_symbols(func):
            partitioner.analyzer.bind(symbol, Interval(0, dt.int_range(symbol.dtype)[1] // 2))
        body = partitioner.mutate(func.body)
        return func if body is func.body else replace(func, body=body)


@dataclass(frozen=True)
class _Guard:
    """A condition in a loop's body.

    Attributes:
        condition: the expression, known again by identity.
        bound: affine in the loop's variable; at least 0 where the condition surely holds.
        exact: and nowhere else.
    """

    condition: Expr
    bound: Affine
    exact: bool


class _Partitioner(Mutator):
    def __init__(self, options: PartitionLoops) -> None:
        self.options = options
        self.analyzer = Analyzer()

    def mutate_For(self, node: For) -> Stmt:
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, node.min, node.extent)
            body = self.mutate(node.body)
            node = node if body is node.body else replace(node, body=body)
            guards = self._guards(node)
        return _cut(node, guards) if guards else node

    def _guards(self, loop: For) -> list[_Guard]:
        count = const_int(loop.extent)
        if loop.kind != "serial" or (count is not None and count < self.options.min_extent):
            return []
        if may_fail(loop.min) or may_fail(loop.extent) or _written_out(loop.body) > self.options.max_nodes:
            return []
        finder = _Guards(loop, self.analyzer)
        finder.visit(loop.body)
        guards = finder.found
        if count is None or const_int(loop.min) is None or not all(_is_constant(g.bound, loop) for g in guards):
            return guards
        low, high = _middle(loop, guards)
        first, last = const_int(low), const_int(high)
        # half a loop without conditions is not worth the other copies
        return guards if first is not None and last is not None and 2 * (last - first) > count else []


@dataclass
class _Guards(Visitor):
    """Conditions that depend on the loop's variable, and on nothing inside but loops that will be written out."""

    loop: For
    analyzer: Analyzer
    found: list[_Guard] = field(default_factory=list)
    inner: list[For] = field(default_factory=list)

    def visit_For(self, node: For) -> None:
        self.inner.append(node)
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, node.min, node.extent)
            self.visit(node.body)
        self.inner.pop()

    def visit_IfThenElse(self, node: IfThenElse) -> None:
        self._look_at(node.condition)
        self.visit_children(node)

    def visit_Call(self, node: Call) -> None:
        if node.op == "if_then_else":
            self._look_at(node.args[0])
        self.visit_children(node)

    def _look_at(self, condition: Expr) -> None:
        for conjunct in conjuncts(condition):
            guard = self._guard(conjunct)
            if guard is not None:
                self.found.append(guard)

    def _guard(self, condition: Expr) -> _Guard | None:
        var = self.loop.var
        if not any(n is var for n in walk(condition)) or not is_fixed(condition) or may_fail(condition):
            return None
        form = self._at_least_zero(condition)
        if form is None:
            return None
        used = [loop for loop in self.inner if any(n is loop.var for n in walk(condition))]
        if any(loop.kind not in _EXPANDED for loop in used):
            return None
        ends = relax((form, form), used)
        if ends is None:
            return None
        low = ends[0]
        defined = {loop.var for loop in self.inner}
        outside = [atom for key, atom in low.atoms.items() if key in low.terms and key is not var]
        if var not in low.terms or any(n is var or n in defined for atom in outside for n in walk(atom)):
            return None
        if any(atom.dtype != var.dtype for atom in outside):
            return None
        return _Guard(condition, low, exact=not used)

    def _at_least_zero(self, condition: Expr) -> Affine | None:
        """A form that is at least 0 exactly where the condition holds; None where its sides might wrap around."""
        if not isinstance(condition, Binary) or condition.op not in ("lt", "le", "gt", "ge"):
            return None
        if condition.a.dtype != self.loop.var.dtype:
            return None
        whole = Interval.of(condition.a.dtype)
        sides = affine(condition.a), affine(condition.b)
        if not all(whole.covers(self.analyzer.affine_bounds(side)) for side in sides):
            return None
        larger, smaller = sides if condition.op in ("gt", "ge") else reversed(sides)
        form = copied(larger)
        form.add(smaller, -1)
        form.constant -= condition.op in ("lt", "gt")
        return form


def _cut(loop: For, guards: list[_Guard]) -> Stmt:
    low, high = _middle(loop, guards)
    end = _sum(loop.min, loop.extent)
    held = {id(g.condition): True for g in guards}
    middle = _Decided(held).mutate(loop.body)
    parts = [_part(loop, low, high, middle)]
    for rising, start, stop in ((True, loop.min, low), (False, high, end)):
        side = [g for g in guards if (g.bound.terms[loop.var] > 0) == rising]
        if side:
            # with a single condition it is known to fail here, where it is exact
            failed = {id(g.condition): False for g in side if g.exact and len(side) == 1}
            rest = fresh_copy(_part(loop, start, stop, _Decided(failed).mutate(loop.body)), {})
            parts = [rest, *parts] if rising else [*parts, rest]
    return seq(*(p for p in parts if not _is_nothing(p)))


def _middle(loop: For, guards: list[_Guard]) -> tuple[Expr, Expr]:
    """First iteration in which all conditions surely hold, and the one after the last; both within the loop."""
    low, high = loop.min, _sum(loop.min, loop.extent)
    end = high
    for guard in guards:
        step = guard.bound.terms[loop.var]
        rest = copied(guard.bound)
        del rest.terms[loop.var]
        if step > 0:  # step * i + rest >= 0 from ceil(-rest / step) on
            negated = Affine()
            negated.add(rest, -1)
            negated.constant += step - 1
            low = _folded("max", low, _quotient(negated, step, loop))
        else:  # up to floor(rest / -step)
            rest.constant += -step
            high = _folded("min", high, _quotient(rest, -step, loop))
    low = _folded("min", low, end)
    return low, _folded("max", high, low)


def _quotient(form: Affine, divisor: int, loop: For) -> Expr:
    value = form.to_expr(loop.var.dtype)
    if isinstance(value, IntImm):
        return IntImm(value.value // divisor, value.dtype)
    return value if divisor == 1 else Binary("floordiv", value, IntImm(divisor, value.dtype))


def _part(loop: For, start: Expr, stop: Expr, body: Stmt) -> Stmt:
    difference = affine(stop)
    difference.add(affine(start), -1)
    extent = difference.to_expr(loop.var.dtype)
    count = const_int(extent)
    if _is_nothing(body) or (count is not None and count <= 0):
        return SeqStmt(())
    return replace(loop, min=start, extent=extent, body=body)


class _Decided(Mutator):
    """Conditions replaced by what is known of them."""

    def __init__(self, known: dict[int, bool]) -> None:
        self.known = known

    def mutate_IfThenElse(self, node: IfThenElse) -> Stmt:
        condition, decided = self._decide(node.condition)
        if decided is False:
            return SeqStmt(()) if node.else_body is None else self.mutate(node.else_body)
        then_body = self.mutate(node.then_body)
        if decided is True:
            return then_body
        other = None if node.else_body is None else self.mutate(node.else_body)
        if condition is node.condition and then_body is node.then_body and other is node.else_body:
            return node
        return IfThenElse(condition, then_body, other)

    def mutate_For(self, node: For) -> Stmt:
        body = self.mutate(node.body)
        if _is_nothing(body):
            return body
        return node if body is node.body else replace(node, body=body)

    def mutate_Call(self, node: Call) -> Expr:
        if node.op != "if_then_else":
            return self.mutate_children(node)
        condition, decided = self._decide(node.args[0])
        if decided is not None:
            return self.mutate(node.args[1] if decided else node.args[2])
        return replace(node, args=(condition, self.mutate(node.args[1]), self.mutate(node.args[2])))

    def _decide(self, condition: Expr) -> tuple[Expr, bool | None]:
        parts = conjuncts(condition)
        if any(self.known.get(id(part)) is False for part in parts):
            return condition, False
        open_ = [part for part in parts if id(part) not in self.known]
        if len(open_) == len(parts):
            return condition, None
        return all_of(open_), None if open_ else True


def _is_constant(form: Affine, loop: For) -> bool:
    return set(form.terms) <= {loop.var}


def _written_out(body: Stmt) -> int:
    """Nodes of ``body`` once unrolled loops are written out."""
    if isinstance(body, For):
        times = const_int(body.extent) if body.kind == "unrolled" else 1
        return (times or 1) * _written_out(body.body)
    if isinstance(body, SeqStmt):
        return sum(_written_out(stmt) for stmt in body.stmts)
    if isinstance(body, IfThenElse):
        return sum(_written_out(b) for b in (body.then_body, body.else_body) if b is not None)
    return sum(1 for _ in walk(body))


def _sum(a: Expr, b: Expr) -> Expr:
    form = affine(a)
    form.add(affine(b))
    return form.to_expr(a.dtype)


def _folded(op: str, a: Expr, b: Expr) -> Expr:
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None:
        return IntImm((min if op == "min" else max)(x, y), a.dtype)
    return Binary(op, a, b)


def _is_nothing(stmt: Stmt) -> bool:
    return isinstance(stmt, SeqStmt) and not stmt.stmts
