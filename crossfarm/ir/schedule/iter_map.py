"""Are a block's axes bound one to one? Axis values as mixed-radix digits of loop variables.

``split`` and ``fuse`` bind axes to sums of scaled loop variables, and to quotients and remainders of those. Each value
is written as ``sum(scale * digit) + constant``, where a *digit* is ``(source // lower) % extent`` of a loop variable
or of a sum that is itself injective. The binding is injective when the digits of each value do not overlap, and the
digits of each source together name it. (The iteration maps of TVM's ``DetectIterMap``, in the form of Halide's and
isl's quasi-affine forms.) Numbers that are not constant are monomials of the expressions they are made of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from crossfarm.ir import ops
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
        self._symbols: dict[Key, Expr] = {}
        self._fused: dict[Key, tuple[Size, Form]] = {}
        self._extents = {var: self.size(extent) for var, extent in extents.items()}

    def size(self, expr: Expr) -> Size:
        """``Size.of(expr)``, whose symbols can be written as expressions again."""
        self._symbols.update((structural_key(n), n) for n in walk(expr) if isinstance(n, Expr))
        return Size.of(expr)

    def quotient(self, value: Expr, by: Expr) -> Expr | None:
        """``value / by`` where factors of the product ``value`` make up ``by``, else None."""
        exact = self.size(value).over(self.size(by))
        return None if exact is None else self._size_expr(exact, value.dtype)

    def form(self, value: Expr) -> Form:
        """The form of one value. Raises NotAffine."""
        match value:
            case Var() if value in self._extents:
                extent = self._extents[value]
                return Form(()) if extent == Size(1) else Form((Term(Digit(value, ONE, extent), ONE),))
            case Cast(inner, _):
                return self.form(inner)
            case Binary("floordiv" | "floormod" as op, a, b) if not _uses(b, self._extents):
                return self._divide(op, self.form(a), self.size(b))
            case Binary("mul", a, b) if not _uses(b, self._extents) and not isinstance(b, IntImm):
                return _scaled(self.form(a), self.size(b))
            case Binary("mul", a, b) if not _uses(a, self._extents) and not isinstance(a, IntImm):
                return _scaled(self.form(b), self.size(a))
        total = affine(value)
        terms: list[Term] = []
        constant = total.constant
        for key, coefficient in total.terms.items():
            atom = total.atoms[key]
            if atom is value:
                raise NotAffine("a value is not made of loop variables, sums, multiples, quotients and remainders")
            if coefficient < 0:
                raise NotAffine("runs backwards in a loop")
            part = self.form(atom)
            terms.extend(_scaled(part, Size(coefficient)).terms)
            constant += coefficient * part.constant
        return Form(tuple(sorted(terms, key=lambda t: (len(t.scale.symbols), t.scale.factor), reverse=True)), constant)

    def injective(self, values: Sequence[Expr]) -> str | None:
        """None when different loop iterations always give different ``values``, else why that is not known."""
        return self._separates(values, set(self._extents))

    def separates(self, values: Sequence[Expr], loops: Collection[Var]) -> bool:
        """True when iterations that differ in ``loops`` always give different ``values``."""
        return self._separates(values, loops) is None

    def why_not_independent(self, values: Sequence[Expr]) -> str | None:
        """None when each value takes all that it takes whatever the others are, else why that is not known.

        No digit of a loop is in two of them, as in ``(f // 2, f)``: these are one to one, and no full box.
        """
        digits: dict[Key, list[Digit]] = {}
        for value in values:
            try:
                form = self.form(value)
            except NotAffine as reason:
                return str(reason)
            for term in form.terms:
                digits.setdefault(term.digit.source, []).append(term.digit)
        made_of: dict[Key, Key] = {}
        for source, found in digits.items():
            ordered = sorted(found, key=lambda d: (len(d.lower.symbols), d.lower.factor))
            for narrow, wide in pairwise(ordered):
                if is_rounded_up(narrow.extent) or wide.lower.over(narrow.lower * narrow.extent) is None:
                    return "several values use the same part of a loop"
            if any(made_of.setdefault(part, source) != source for part in self._parts(source)):
                return "several values use the same loop"
        return None

    def _parts(self, source: Key) -> list[Key]:
        """The loop itself; of a sum all loops that it is made of."""
        if isinstance(source, Var):
            return [source]
        return [part for term in self._fused[source][1].terms for part in self._parts(term.digit.source)]

    def unfold(self, digits: dict[Key, list[Digit]]) -> None:
        """Adds the digits of each sum that ``digits`` names completely."""
        for source, (extent, form) in reversed(self._fused.items()):
            if covers_source(digits.get(source, []), extent) is None:
                for term in form.terms:
                    digits.setdefault(term.digit.source, []).append(term.digit)

    def _separates(self, values: Sequence[Expr], loops: Collection[Var]) -> str | None:
        digits: dict[Key, list[Digit]] = {}
        for value in values:
            try:
                form = self.form(value)
                _check_radix(form)
            except NotAffine as reason:
                return str(reason)
            for term in form.terms:
                digits.setdefault(term.digit.source, []).append(term.digit)
        self.unfold(digits)
        for var, extent in self._extents.items():
            if var not in loops or extent == ONE:
                continue
            problem = covers_source(digits.get(var, []), extent)
            if problem is not None:
                return f"loop {var.name} {problem}"
        return None

    def simplified(self, value: Expr) -> Expr:
        """``value`` written as the shortest sum of its digits; as it is where it has no such form."""
        try:
            form = self.form(value)
            _check_radix(form)
        except NotAffine:
            return value
        return self._to_expr(form, value.dtype) or value

    def _to_expr(self, form: Form, dtype: str) -> Expr | None:
        total: Expr | None = None
        for term in self._merged(form.terms):
            digit = self._digit_expr(term.digit, dtype)
            if digit is None:
                return None
            part = ops.mul(digit, self._size_expr(term.scale, dtype)) if term.scale != ONE else digit
            total = part if total is None else ops.add(total, part)
        if total is None:
            return ops.const(form.constant, dtype)
        return ops.add(total, form.constant) if form.constant else total

    def _merged(self, terms: tuple[Term, ...]) -> list[Term]:
        """Neighbouring digits of one source as one, and a fused sum that is all there as its own terms."""
        merged: list[Term] = []
        for narrow in terms:
            merged.append(narrow)
            while len(merged) > 1:
                wide, last = merged[-2:]
                next_lower, next_scale = last.digit.lower * last.digit.extent, last.scale * last.digit.extent
                if (wide.digit.source, wide.digit.lower, wide.scale) != (last.digit.source, next_lower, next_scale):
                    break
                extent = last.digit.extent * wide.digit.extent
                if is_rounded_up(wide.digit.extent):
                    total = self._total(last.digit.source)
                    extent = total.over(last.digit.lower) or _ceil(total, last.digit.lower)
                merged[-2:] = [Term(Digit(last.digit.source, last.digit.lower, extent), last.scale)]
        unfolded: list[Term] = []
        for term in merged:
            fused = self._fused.get(term.digit.source)
            if fused is not None and term.digit.lower == ONE and term.digit.extent == fused[0]:
                unfolded += _scaled(fused[1], term.scale).terms
            else:
                unfolded.append(term)
        return unfolded if len(unfolded) == len(merged) else self._merged(tuple(unfolded))

    def _digit_expr(self, digit: Digit, dtype: str) -> Expr | None:
        fused = self._fused.get(digit.source)
        value: Expr | None = self._to_expr(fused[1], dtype) if fused is not None else None
        if isinstance(digit.source, Var):
            value = digit.source
        if value is None or value.dtype != dtype:
            return None
        if digit.lower != ONE:
            value = ops.floordiv(value, self._size_expr(digit.lower, dtype))
        if is_rounded_up(digit.extent) or digit.lower * digit.extent == self._total(digit.source):
            return value
        return ops.floormod(value, self._size_expr(digit.extent, dtype))

    def _size_expr(self, size: Size, dtype: str) -> Expr:
        product: Expr | None = None
        for symbol in size.symbols:
            expr = self._symbols[symbol]
            product = expr if product is None else ops.mul(product, expr)
        if product is None:
            return ops.const(size.factor, dtype)
        return product if size.factor == 1 else ops.mul(product, size.factor)

    def _total(self, source: Key) -> Size:
        return self._extents[source] if isinstance(source, Var) else self._fused[source][0]

    def _divide(self, op: str, form: Form, by: Size) -> Form:
        if by.factor <= 0:
            raise NotAffine("divides by a number that is not positive")
        form = Form(tuple(self._merged(form.terms)), form.constant)
        quotient, rest = [], []
        for term in form.terms:
            above = term.scale.over(by)
            if above is not None:
                quotient.append(Term(term.digit, above))
                continue
            cut = by.over(term.scale)
            if cut is None:
                return self._divide_fused(op, form, by)
            if cut == term.digit.extent or is_smaller(term.digit.extent, cut):
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
        total = self._total(digit.source)
        if is_rounded_up(digit.extent):
            return _ceil(total, digit.lower * cut)
        if digit.lower * digit.extent != total:
            raise NotAffine("divides a remainder by a number that does not divide it")
        return _ceil(digit.extent, cut)


def _ceil(extent: Size, by: Size) -> Size:
    return Size(1, (("ceil", extent, by),))


def is_rounded_up(extent: Size) -> bool:
    """True for the count of a quotient that was rounded up."""
    return any(isinstance(s, tuple) and len(s) > 0 and s[0] == "ceil" for s in extent.symbols)


def _check_radix(form: Form) -> None:
    for wide, narrow in pairwise(form.terms):
        reach = narrow.scale * narrow.digit.extent
        if wide.scale != reach and not is_smaller(reach, wide.scale):
            raise NotAffine("adds loops whose ranges overlap")


def covers_source(digits: list[Digit], extent: Size, at: Size = ONE) -> str | None:
    """None when the digits (from place ``at`` on) together name every value of a source of ``extent``, else why not."""
    if at == extent:
        return None
    for digit in digits:
        if digit.lower != at:
            continue
        if is_rounded_up(digit.extent) or covers_source(digits, extent, at * digit.extent) is None:
            return None
    return "is used in part only" if digits else "is not used"


def _fits(rest: list[Term], by: Size) -> bool:
    if not rest:
        return True
    ordered = sorted(rest, key=lambda t: (len(t.scale.symbols), t.scale.factor), reverse=True)
    for wide, narrow in pairwise(ordered):
        reach = narrow.scale * narrow.digit.extent
        if wide.scale != reach and not is_smaller(reach, wide.scale):
            return False
    reach = ordered[0].scale * ordered[0].digit.extent
    return reach == by or is_smaller(reach, by)


def _scaled(form: Form, by: Size) -> Form:
    if form.constant and by.symbols:
        raise NotAffine("adds a number that is not constant")
    return Form(tuple(Term(t.digit, t.scale * by) for t in form.terms), form.constant * by.factor)


def is_smaller(a: Size, b: Size) -> bool:
    """True when ``a < b`` for certain: constants, or the same symbols."""
    return a.symbols == b.symbols and a.factor < b.factor


def _uses(expr: Expr, variables: Mapping[Var, object]) -> bool:
    return any(isinstance(n, Var) and n in variables for n in walk(expr))


def _order(key: Key) -> tuple[str, int]:
    return (repr(key), id(key)) if not isinstance(key, Var) else (key.name, id(key))
