"""Reasoning about indices: what is known of the numbers in them, shorter forms, and comparisons that surely hold.

As everywhere in schedules, arithmetic on indices is taken not to wrap around: they address elements of buffers that
exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, Analyzer, Interval, Key, affine, const_int, fold_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import COMPARISONS, Binary, Cast, Expr, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import simplify
from crossfarm.ir.stmt import Block, BlockRealize, For, Stmt
from crossfarm.ir.visitor import Mutator

N = TypeVar("N", Expr, Block)


class IndexAnalyzer(Analyzer):
    """An analyzer whose facts may be combined."""

    def facts(self) -> tuple[Affine, ...]:
        """Forms that are known not to be negative."""
        return tuple(self._facts)


def analyzer_of(
    func: PrimFunc,
    around: Sequence[Stmt] = (),
    domains: Mapping[Var, Range] | None = None,
    *,
    least_size: int = 0,
) -> IndexAnalyzer:
    """What is known inside the statements ``around`` (outermost first): loops run, axes are in their domains.

    A loop whose bounds are not understood is simply not bounded. Sizes are below half of their dtype's greatest number:
    sums of two do not wrap around.

    Args:
        domains: of further variables.
        least_size: the function's symbolic sizes are at least this. 1 where what concerns elements is asked: of an
            empty tensor there are none.
    """
    analyzer = IndexAnalyzer()
    for param in func.params:
        for size in param.shape if isinstance(param, Buffer) else ():
            if isinstance(size, Var):
                analyzer.bind(size, Interval(least_size, dt.int_range(size.dtype)[1] // 2))
    for stmt in around:
        if isinstance(stmt, For):
            analyzer.bind_loop(stmt.var, stmt.min, stmt.extent)
        elif isinstance(stmt, BlockRealize):
            for axis in stmt.block.iter_vars:
                analyzer.bind_loop(axis.var, axis.dom.min, axis.dom.extent)
    for var, domain in (domains or {}).items():
        analyzer.bind_loop(var, domain.min, domain.extent)
    return analyzer


def fold(node: N, analyzer: Analyzer) -> N:
    """``node`` with integer and bool expressions in shorter forms, equal where what the analyzer knows holds."""
    return _Fold(analyzer).mutate(node)


def in_bounds(indices: Sequence[Expr], shape: Sequence[Expr], analyzer: Analyzer) -> Expr | None:
    """The part of ``0 <= index < extent`` for each dimension that is not certain; None where all is."""
    open_: list[Expr] = []
    for index, extent in zip(indices, shape):
        first, last = ops.unify(index, extent)
        for condition in (ops.compare("ge", index, 0), ops.compare("lt", first, last)):
            if not proves(condition, analyzer):
                open_.append(condition)
    return ops.logical_and(*open_) if open_ else None


def proves(condition: Expr, analyzer: Analyzer) -> bool:
    """True when a comparison certainly holds, divisions by constants taken into account."""
    if analyzer.prove(condition):
        return True
    if not isinstance(condition, Binary) or condition.op not in ("lt", "le", "gt", "ge"):
        return False
    divisor = _divided_by(condition.a)
    if divisor is not None and condition.op in ("lt", "ge") and isinstance(condition.a, Binary):
        # x // c < y is x < c * y
        scaled = simplify(ops.mul(condition.b, divisor))
        return proves(Binary(condition.op, condition.a.a, scaled), analyzer)
    small, large = (condition.a, condition.b) if condition.op in ("lt", "le") else (condition.b, condition.a)
    gap = affine(ops.sub(*reversed(ops.unify(small, large))))  # large - small
    gap.constant -= condition.op in ("lt", "gt")
    return at_least_zero(gap, analyzer)


def conjuncts(condition: Expr) -> tuple[Expr, ...]:
    """The conditions that a conjunction is made of; none for true."""
    if isinstance(condition, Binary) and condition.op == "and":
        return (*conjuncts(condition.a), *conjuncts(condition.b))
    return () if const_int(condition) == 1 else (condition,)


def with_digits_joined(form: Affine, key_of: Callable[[Expr], Key] = structural_key) -> Affine:
    """``form``, changed, with each pair ``k * c * (x // c) + k * (x % c)`` written as ``k * x``.

    Args:
        key_of: by which the form's terms are told apart.
    """
    while _join_digits(form, key_of):
        pass
    return form


def ceil_div(value: Expr, by: int) -> Expr:
    """``value / by`` rounded up, a number where it is one."""
    number = const_int(value)
    if number is not None:
        return ops.const(-(-number // by), value.dtype)
    return value if by == 1 else ops.floordiv(simplify(ops.add(value, by - 1)), by)


def at_least_zero(form: Affine, analyzer: Analyzer, steps: int = 4) -> bool:
    """True when an affine form is certainly not negative.

    Facts are subtracted that cancel a term (what is left must not be negative either), and quotients are replaced by
    the worse of their bounds.
    """
    if analyzer.affine_bounds(form).low >= 0:
        return True
    if steps == 0:
        return False
    for fact in analyzer.facts() if isinstance(analyzer, IndexAnalyzer) else ():
        for key, coefficient in fact.terms.items():
            times, rest = divmod(form.terms.get(key, 0), coefficient)
            if times > 0 and rest == 0:
                left = _plus(form, fact, -times)
                if len(left.terms) <= len(form.terms) and at_least_zero(left, analyzer, steps - 1):
                    return True
    for key, coefficient in form.terms.items():
        atom = form.atoms[key]
        divisor = _divided_by(atom)
        if divisor is None or coefficient % divisor or not isinstance(atom, Binary):
            continue
        # divisor * (a // divisor) is between a - divisor + 1 and a
        left = _plus(form, Affine(0, {key: 1}, {key: atom}), -coefficient)
        left.add(affine(atom.a), coefficient // divisor)
        left.constant -= (coefficient // divisor) * (divisor - 1) if coefficient > 0 else 0
        if at_least_zero(left, analyzer, steps - 1):
            return True
    return False


def _plus(form: Affine, other: Affine, factor: int) -> Affine:
    total = Affine(form.constant, dict(form.terms), dict(form.atoms))
    total.add(other, factor)
    return total


def _divided_by(atom: Expr) -> int | None:
    if isinstance(atom, Binary) and atom.op == "floordiv":
        divisor = const_int(atom.b)
        return divisor if divisor is not None and divisor > 0 else None
    return None


class _Fold(Mutator):
    """Bottom-up, integers alone: sums collected, quotients and remainders of multiples taken apart."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer

    def mutate_Cast(self, node: Cast) -> Expr:
        return ops.cast(self.mutate(node.value), node.dtype) if dt.is_int(node.dtype) else self.mutate_children(node)

    def mutate_Binary(self, node: Binary) -> Expr:
        a, b = self.mutate(node.a), self.mutate(node.b)
        if a is not node.a or b is not node.b:
            node = Binary(node.op, a, b)
        if node.op in ("and", "or"):
            return _logical(node)
        if not dt.is_int(a.dtype) or dt.lanes_of(a.dtype) != 1:
            return node
        if isinstance(a, IntImm) and isinstance(b, IntImm):
            value = fold_int(node.op, a.value, b.value, a.dtype)
            return node if value is None else IntImm(value, node.dtype)
        if node.op in COMPARISONS:
            decided = self.analyzer.decide(node)
            if decided is None and proves(node, self.analyzer):
                decided = True
            return node if decided is None else IntImm(int(decided), "bool")
        if node.op in ("add", "sub", "mul"):
            return self._sum(node)
        if node.op in ("floordiv", "floormod"):
            return self._divide(node)
        return node

    def _sum(self, node: Binary) -> Expr:
        """The affine form; ``x // c * c + x % c`` in it is ``x``."""
        result = with_digits_joined(affine(node)).to_expr(node.dtype)
        return result if structural_key(result) != structural_key(node) else node

    def _divide(self, node: Binary) -> Expr:
        divisor = const_int(node.b)
        if divisor is None or divisor <= 0:
            return node
        if divisor == 1:
            return node.a if node.op == "floordiv" else IntImm(0, node.dtype)
        quotient, rest = affine(node.a).split(divisor)
        within = self.analyzer.affine_bounds(rest)
        if within.low >= 0 and within.high < divisor:
            return (quotient if node.op == "floordiv" else rest).to_expr(node.dtype)
        if node.op == "floordiv" and not quotient.terms and not quotient.constant:
            inner = node.a
            first = const_int(inner.b) if isinstance(inner, Binary) and inner.op == "floordiv" else None
            if isinstance(inner, Binary) and first is not None and first > 0:
                return Binary("floordiv", inner.a, ops.const(first * divisor, node.dtype))
            return node
        if node.op == "floormod":
            return Binary("floormod", rest.to_expr(node.dtype), node.b)
        if quotient.terms or quotient.constant:
            inner = Binary("floordiv", rest.to_expr(node.dtype), node.b)
            quotient.add(Affine(0, {structural_key(inner): 1}, {structural_key(inner): inner}))
            return quotient.to_expr(node.dtype)
        return node


def _join_digits(form: Affine, key_of: Callable[[Expr], Key]) -> bool:
    """Replaces one ``k * c * (x // c) + k * (x % c)`` by ``k * x``; False where there is none."""
    for key, coefficient in form.terms.items():
        atom = form.atoms[key]
        divisor = const_int(atom.b) if isinstance(atom, Binary) and atom.op == "floormod" else None
        if divisor is None or not isinstance(atom, Binary):
            continue
        quotient = Binary("floordiv", atom.a, atom.b)
        within = _divided_by(atom.a)
        if within is not None and isinstance(atom.a, Binary):  # x // a // b is written x // (a * b)
            quotient = Binary("floordiv", atom.a.a, ops.const(within * divisor, atom.dtype))
        other = key_of(quotient)
        if form.terms.get(other) == coefficient * divisor:
            form.add(Affine(0, {other: 1}, {other: form.atoms[other]}), -coefficient * divisor)
            form.add(Affine(0, {key: 1}, {key: atom}), -coefficient)
            form.add(affine(atom.a, key_of), coefficient)
            return True
    return False


def _logical(node: Binary) -> Expr:
    absorbing = node.op == "or"
    for side, other in ((node.a, node.b), (node.b, node.a)):
        value = const_int(side)
        if value is not None:
            return side if bool(value) == absorbing else other
    return node
