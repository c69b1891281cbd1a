"""Are a block's axes bound one to one? Axis values as mixed-radix digits of loop variables.

``split`` and ``fuse`` bind axes to sums of scaled loop variables, and to quotients and remainders of those. Each value
is written as ``sum(scale * digit) + constant``, where a *digit* is ``(source // lower) % extent`` of a loop variable
or of a sum that is itself injective. The binding is injective when the digits of each value do not overlap, and the
digits of each source together name it. (The iteration maps of TVM's ``DetectIterMap``, in the form of Halide's and
isl's quasi-affine forms.) Numbers that are not constant are monomials of the expressions they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from crossfarm.ir.arith import Key, affine, structural_key
from crossfarm.ir.expr import Binary, Cast, Expr, IntImm, Var
from crossfarm.ir.visitor import walk


@dataclass(frozen=True)
class Size:
    """A positive number: ``factor`` times the product of expressions, given by their keys."""

    factor: int = 1
    symbols: tuple[Key, ...] = ()

    @classmethod
    def of(cls, expr: Expr) -> Size:
        """Products are taken apart; anything else that is not constant is one symbol."""
        if isinstance(expr, IntImm):
            return cls(expr.value)
        if isinstance(expr, Binary) and expr.op == "mul":
            return cls.of(expr.a) * cls.of(expr.b)
        return cls(1, (structural_key(expr),))

    def __mul__(self, other: Size) -> Size:
        return Size(self.factor * other.factor, tuple(sorted((*self.symbols, *other.symbols), key=_order)))

    def over(self, other: Size) -> Size | None:
        """``self / other`` where that is exact, else None."""
        left = list(self.symbols)
        for symbol in other.symbols:
            if symbol not in left:
                return None
            left.remove(symbol)
        if other.factor == 0 or self.factor % other.factor:
            return None
        return Size(self.factor // other.factor, tuple(left))


ONE = Size()


@dataclass(frozen=True)
class Digit:
    """``(source // lower) % extent``; the whole quotient where ``extent`` is all that is left of the source."""

    source: Key
    lower: Size
    extent: Size


@dataclass(frozen=True)
class Term:
    """``scale * digit``."""

    digit: Digit
    scale: Size


@dataclass(frozen=True)
class Form:
    """``sum of terms + constant``, terms from the largest scale to the smallest."""

    terms: tuple[Term, ...]
    constant: int = 0


class NotAffine(Exception):
    """An expression outside the forms above; the text says why."""


class IterMap:
    """Collects the forms of several values over one set of loops.

    Args:
        extents: extent of each loop variable; loops start at 0.
    """

    def __init__(self, extents: Mapping[Var, Expr]) -> None:
        self._extents = {var: Size.of(extent) for var, extent in extents.items()}
        self._fused: dict[Key, tuple[Size, Form]] = {}

    def form(self, value: Expr) -> Form:
        """The form of one value. Raises NotAffine."""
        match value:
            case Var() if value in self._extents:
                extent = self._extents[value]
                return Form(()) if extent == Size(1) else Form((Term(Digit(value, ONE, extent), ONE),))
            case Cast(inner, _):
                return self.form(inner)
            case Binary("floordiv" | "floormod" as op, a, b) if not _uses(b, self._extents):
                return self._divide(op, self.form(a), Size.of(b))
            case Binary("mul", a, b) if not _uses(b, self._extents) and not isinstance(b, IntImm):
                return _scaled(self.form(a), Size.of(b))
            case Binary("mul", a, b) if not _uses(a, self._extents) and not isinstance(a, IntImm):
                return _scaled(self.form(b), Size.of(a))
        total = affine(value)
        terms: list[Term] = []
        constant = total.constant
        for key, coefficient in total.terms.items():
            atom = total.atoms[key]
            if atom is value:
                raise NotAffine("is not made of loop variables, sums, multiples, quotients and remainders")
            if coefficient < 0:
                raise NotAffine("runs backwards in a loop")
            part = self.form(atom)
            terms.extend(_scaled(part, Size(coefficient)).terms)
            constant += coefficient * part.constant
        return Form(tuple(sorted(terms, key=lambda t: (len(t.scale.symbols), t.scale.factor), reverse=True)), constant)

    def injective(self, values: Sequence[Expr]) -> str | None:
        """None when different loop iterations always give different ``values``, else why that is not known."""
        digits: dict[Key, list[Digit]] = {}
        for value in values:
            try:
                form = self.form(value)
                _check_radix(form)
            except NotAffine as reason:
                return str(reason)
            for term in form.terms:
                digits.setdefault(term.digit.source, []).append(term.digit)
        for source, (extent, form) in reversed(self._fused.items()):
            if source not in digits:
                continue
            problem = _covers(digits.pop(source), extent)
            if problem is not None:
                return problem
            for term in form.terms:
                digits.setdefault(term.digit.source, []).append(term.digit)
        for var, extent in self._extents.items():
            if extent == Size(1):
                continue
            problem = _covers(digits.get(var, []), extent)
            if problem is not None:
                return f"loop {var.name} {problem}"
        return None

    def _divide(self, op: str, form: Form, by: Size) -> Form:
        if by.factor <= 0:
            raise NotAffine("divides by a number that is not positive")
        quotient, rest = [], []
        for term in form.terms:
            above = term.scale.over(by)
            if above is not None:
                quotient.append(Term(term.digit, above))
                continue
            cut = by.over(term.scale)
            if cut is None:
                return self._divide_fused(op, form, by)
            if cut == term.digit.extent or _smaller(term.digit.extent, cut):
                rest.append(term)
                continue
            digit = term.digit
            upper = digit.extent.over(cut) or self._top(digit, cut)
            quotient.append(Term(Digit(digit.source, digit.lower * cut, upper), ONE))
            rest.append(Term(Digit(digit.source, digit.lower, cut), term.scale))
        if form.constant or not _fits(rest, by):
            return self._divide_fused(op, form, by)
        return Form(tuple(quotient if op == "floordiv" else rest))

    def _divide_fused(self, op: str, form: Form, by: Size) -> Form:
        """The sum as a source of its own: its digits may be taken as those of a variable."""
        _check_radix(form)
        if form.constant or not form.terms or form.terms[-1].scale != ONE:
            raise NotAffine("divides a sum that is not compact")
        for wide, narrow in pairwise(form.terms):
            if wide.scale != narrow.scale * narrow.digit.extent:
                raise NotAffine("divides a sum with gaps")
        key: Key = ("sum", form)
        top = form.terms[0]
        extent = top.scale * top.digit.extent
        self._fused.setdefault(key, (extent, form))
        digit = Digit(key, by, extent.over(by) or _ceil(extent, by)) if op == "floordiv" else Digit(key, ONE, by)
        return Form((Term(digit, ONE),))

    def _top(self, digit: Digit, cut: Size) -> Size:
        """Extent of ``digit // cut`` where that is not exact: only the last digit of a source may be cut so."""
        source = digit.source
        total = self._extents[source] if isinstance(source, Var) else self._fused[source][0]
        if digit.lower * digit.extent != total:
            raise NotAffine("divides a remainder by a number that does not divide it")
        return _ceil(digit.extent, cut)


def _ceil(extent: Size, by: Size) -> Size:
    return Size(1, (("ceil", extent, by),))


def _check_radix(form: Form) -> None:
    for wide, narrow in pairwise(form.terms):
        reach = narrow.scale * narrow.digit.extent
        if wide.scale != reach and not _smaller(reach, wide.scale):
            raise NotAffine("adds loops whose ranges overlap")


def _covers(digits: list[Digit], extent: Size) -> str | None:
    """None when the digits do not overlap and together name every value of a source of ``extent``."""
    at = ONE
    rest = list(digits)
    while rest:
        found = next((d for d in rest if d.lower == at), None)
        if found is None:
            return "is used twice, or in part"
        rest.remove(found)
        at = at * found.extent
        if found.extent.symbols and isinstance(found.extent.symbols[0], tuple) and found.extent.symbols[0][0] == "ceil":
            return "is used twice" if rest else None  # the last digit takes whatever is left
    return None if at == extent else "is not used in the axes" if not digits else "is used in part only"


def _fits(rest: list[Term], by: Size) -> bool:
    if not rest:
        return True
    ordered = sorted(rest, key=lambda t: (len(t.scale.symbols), t.scale.factor), reverse=True)
    for wide, narrow in pairwise(ordered):
        reach = narrow.scale * narrow.digit.extent
        if wide.scale != reach and not _smaller(reach, wide.scale):
            return False
    reach = ordered[0].scale * ordered[0].digit.extent
    return reach == by or _smaller(reach, by)


def _scaled(form: Form, by: Size) -> Form:
    if form.constant and by.symbols:
        raise NotAffine("adds a number that is not constant")
    return Form(tuple(Term(t.digit, t.scale * by) for t in form.terms), form.constant * by.factor)


def _smaller(a: Size, b: Size) -> bool:
    """True when ``a < b`` for certain: constants, or the same symbols."""
    return a.symbols == b.symbols and a.factor < b.factor


def _uses(expr: Expr, variables: Mapping[Var, object]) -> bool:
    return any(isinstance(n, Var) and n in variables for n in walk(expr))


def _order(key: Key) -> tuple[str, int]:
    return (repr(key), id(key)) if not isinstance(key, Var) else (key.name, id(key))
