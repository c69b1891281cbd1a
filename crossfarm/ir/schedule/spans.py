"""Symbolic intervals: the least and greatest value of an index while inner loops run.

``relax`` gives bounds that hold for every value of the relaxed variables; they are tight for what ``split`` and
``fuse`` make: sums of scaled loops, their quotients and remainders. ``None`` means that nothing is known, and then a
caller takes the whole dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, Analyzer, affine, const_int
from crossfarm.ir.expr import Binary, BufferLoad, Cast, Expr, Select, Var
from crossfarm.ir.regions import key, simplify
from crossfarm.ir.schedule.index_arith import with_digits_joined
from crossfarm.ir.visitor import walk


@dataclass(frozen=True)
class Span:
    """The integers from ``low`` to ``high``, both included."""

    low: Expr
    high: Expr

    @classmethod
    def point(cls, value: Expr) -> Span:
        return cls(value, value)

    @classmethod
    def of_range(cls, start: Expr, extent: Expr) -> Span:
        """``start`` up to, not including, ``start + extent``."""
        first, count = ops.unify(start, extent)
        return cls(first, tidy(ops.sub(ops.add(first, count), 1)))

    def extent(self) -> Expr:
        """How many integers these are, if ``high`` is not below ``low``."""
        return tidy(ops.add(ops.sub(self.high, self.low), 1))

    def is_point(self) -> bool:
        return self.low is self.high or key(self.low) == key(self.high)

    def cast(self, dtype: str) -> Span:
        """The same integers in another dtype."""
        return Span(ops.cast(self.low, dtype), ops.cast(self.high, dtype))


def join(a: Span, b: Span, analyzer: Analyzer) -> Span:
    """The smallest span that holds both."""
    return Span(_extreme("min", a.low, b.low, analyzer), _extreme("max", a.high, b.high, analyzer))


def meet(a: Span, b: Span, analyzer: Analyzer) -> Span:
    """What lies in both; empty where ``high`` turns out below ``low``."""
    return Span(_extreme("max", a.low, b.low, analyzer), _extreme("min", a.high, b.high, analyzer))


def tidy(value: Expr) -> Expr:
    """A shorter expression of the same value: sums collected, ``(x // c) * c + x % c`` folded to ``x``."""
    value = simplify(value)
    if not dt.is_int(value.dtype):
        return value
    return with_digits_joined(affine(value, key), key).to_expr(value.dtype)


def relax(value: Expr, domains: Mapping[Var, Span], analyzer: Analyzer) -> Span | None:
    """Bounds of ``value`` while each variable of ``domains`` takes every value of its span; None if not known."""
    value = tidy(value)
    if not _varies(value, domains):
        return Span.point(value)
    match value:
        case Var():
            return domains[value].cast(value.dtype)
        case Cast(inner, dtype) if (
            dt.is_int(dtype) and dt.is_int(inner.dtype) and dt.bits(dtype) >= dt.bits(inner.dtype)
        ):
            span = relax(inner, domains, analyzer)
            return None if span is None else span.cast(dtype)
        case Binary("add" | "sub" | "mul", _, _):
            return _relax_sum(value, domains, analyzer)
        case Binary("min" | "max" as op, a, b):
            left, right = relax(a, domains, analyzer), relax(b, domains, analyzer)
            if left is None or right is None:
                return None
            return Span(_extreme(op, left.low, right.low, analyzer), _extreme(op, left.high, right.high, analyzer))
        case Binary("floordiv", a, b) if not _varies(b, domains) and analyzer.prove(ops.compare("gt", b, 0)):
            return _relax_quotient(a, b, domains, analyzer)
        case Binary("floormod", a, b) if not _varies(b, domains) and analyzer.prove(ops.compare("gt", b, 0)):
            return _relax_remainder(a, b, domains, analyzer)
        case Select(_, a, b):
            left, right = relax(a, domains, analyzer), relax(b, domains, analyzer)
            return None if left is None or right is None else join(left, right, analyzer)
    return None


def _relax_sum(value: Expr, domains: Mapping[Var, Span], analyzer: Analyzer) -> Span | None:
    form = affine(value, key)
    low, high = Affine(form.constant), Affine(form.constant)
    for name, coefficient in form.terms.items():
        atom = form.atoms[name]
        if isinstance(atom, Binary) and atom.op == "mul":
            span = _relax_product(atom, domains, analyzer)
        else:
            span = relax(atom, domains, analyzer)
        if span is None:
            return None
        low.add(affine(span.low if coefficient > 0 else span.high, key), coefficient)
        high.add(affine(span.high if coefficient > 0 else span.low, key), coefficient)
    return Span(tidy(low.to_expr(value.dtype)), tidy(high.to_expr(value.dtype)))


def _relax_product(value: Binary, domains: Mapping[Var, Span], analyzer: Analyzer) -> Span | None:
    """``a * b`` where one of them is fixed and not negative."""
    if not _varies(value, domains):
        return Span.point(value)
    for moving, fixed in ((value.a, value.b), (value.b, value.a)):
        if not _varies(fixed, domains) and analyzer.prove(ops.compare("ge", fixed, 0)):
            span = relax(moving, domains, analyzer)
            return None if span is None else Span(ops.mul(span.low, fixed), ops.mul(span.high, fixed))
    return None


def _relax_quotient(a: Expr, b: Expr, domains: Mapping[Var, Span], analyzer: Analyzer) -> Span | None:
    divisor = const_int(b)
    if divisor is not None:
        coarse, _ = _coarse_and_fine(a, divisor, domains, analyzer)
        whole, rest = coarse.split(divisor)
        inner = relax(rest.to_expr(a.dtype), domains, analyzer)
        outer = relax(whole.to_expr(a.dtype), domains, analyzer)
        if inner is None or outer is None:
            return None
        return Span(
            tidy(ops.add(outer.low, floordiv(inner.low, b))), tidy(ops.add(outer.high, floordiv(inner.high, b)))
        )
    span = relax(a, domains, analyzer)
    return None if span is None else Span(floordiv(span.low, b), floordiv(span.high, b))


def _relax_remainder(a: Expr, b: Expr, domains: Mapping[Var, Span], analyzer: Analyzer) -> Span | None:
    whole = Span(ops.const(0, a.dtype), tidy(ops.sub(b, 1)))
    divisor = const_int(b)
    if divisor is None:
        return whole
    coarse, fine = _coarse_and_fine(a, divisor, domains, analyzer)
    _, rest = coarse.split(divisor)
    base, small = rest.to_expr(a.dtype), relax(fine.to_expr(a.dtype), domains, analyzer)
    if small is None:
        return whole
    if not _varies(base, domains):
        start = base if const_int(base) is not None else ops.floormod(base, b)
        if const_int(base) is not None:
            start = ops.const(const_int(base) % divisor, a.dtype)  # type: ignore[operator]
        return Span(tidy(ops.add(start, small.low)), tidy(ops.add(start, small.high)))
    return whole


def _coarse_and_fine(a: Expr, divisor: int, domains: Mapping[Var, Span], analyzer: Analyzer) -> tuple[Affine, Affine]:
    """``a = coarse + fine`` with ``fine`` in ``[0, g)``, every term of ``coarse`` a multiple of ``g``, ``g | divisor``.

    Then ``a // divisor == coarse // divisor`` and ``a % divisor == coarse % divisor + fine``. ``fine`` is as large as
    it can be proved to be; it may be 0.
    """
    form = affine(a, key)
    steps = sorted({gcd(c, divisor) for c in form.terms.values()} | {divisor}, reverse=True)
    for step in steps:
        coarse, fine = Affine(form.constant // step * step), Affine(form.constant % step)
        for name, coefficient in form.terms.items():
            side = fine if coefficient % step else coarse
            side.terms[name], side.atoms[name] = coefficient, form.atoms[name]
        span = relax(fine.to_expr(a.dtype), domains, analyzer) if fine.terms else None
        if not fine.terms:
            return coarse, fine
        if span is not None:
            low, high = analyzer.bounds(span.low).low, analyzer.bounds(span.high).high
            if low >= 0 and high < step:
                return coarse, fine
    return form, Affine()


def floordiv(a: Expr, b: Expr) -> Expr:
    """``a // b`` for a positive ``b``, in short form: folded, or with the multiples of ``b`` taken out."""
    divisor = const_int(b)
    form = affine(tidy(a), key)
    if divisor is not None:
        whole, rest = form.split(divisor)
        if not rest.terms:
            return whole.to_expr(a.dtype)
        if divisor == 1:
            return a
        quotient = ops.floordiv(rest.to_expr(a.dtype), b)
        return tidy(ops.add(whole.to_expr(a.dtype), quotient)) if whole.terms or whole.constant else quotient
    for name, coefficient in form.terms.items():
        atom = form.atoms[name]
        if len(form.terms) == 1 and form.constant in (0, -1) and isinstance(atom, Binary) and atom.op == "mul":
            for factor, other in ((atom.a, atom.b), (atom.b, atom.a)):
                if key(other) == key(b):
                    return tidy(ops.add(ops.mul(factor, coefficient), form.constant))
    return ops.floordiv(tidy(a), b)


def _extreme(op: str, a: Expr, b: Expr, analyzer: Analyzer) -> Expr:
    """The smaller or larger of two values, written as that one where it is known which."""
    a, b = ops.unify(a, b)
    difference = const_int(tidy(ops.sub(a, b)))
    if difference is not None:
        return a if (difference <= 0) == (op == "min") else b
    for first, second in ((a, b), (b, a)):
        if analyzer.prove(ops.compare("le", first, second)):
            return first if op == "min" else second
    return ops.binary(op, a, b)


def _varies(value: Expr, domains: Mapping[Var, Span]) -> bool:
    """True when ``value`` changes with a relaxed variable, or with memory."""
    return any((isinstance(n, Var) and n in domains) or isinstance(n, BufferLoad) for n in walk(value))
