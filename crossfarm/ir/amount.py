"""Amounts: numbers of things that depend on symbolic sizes, as arithmetic makes them of numbers and of one another.

An ``Amount`` is a polynomial with rational coefficients over atoms: sizes, and what no polynomial is (a quotient, the
smaller of two). Sums and products stay in this form, so that what is divided by one of its factors loses it, and what
is compared with a part of itself is known to be larger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from crossfarm.errors import ArgumentError
from crossfarm.ir.arith import Key, is_larger, structural_key
from crossfarm.ir.expr import Binary, Expr, IntImm

#: Terms of an amount, factors of a term and nodes of an atom at most: programs that people write need some ten, and a
#: chain of squares would need all memory.
_LONGEST = 256


@dataclass(frozen=True, eq=False)
class _Atom:
    """What is not taken apart; ``natural``: it is never negative."""

    expr: Expr
    natural: bool

    @property
    def key(self) -> Key:
        return structural_key(self.expr)


@dataclass(frozen=True, eq=False)
class _Term:
    """A coefficient, not zero, times atoms, each as often as it is a factor."""

    coefficient: Fraction
    factors: tuple[_Atom, ...] = ()

    @property
    def key(self) -> Key:
        """The same for terms of the same factors, in whatever order."""
        return frozenset(Counter(atom.key for atom in self.factors).items())

    def over(self, divisor: _Term) -> _Term | None:
        """The quotient; None where a factor of the divisor is not one of this."""
        left = list(self.factors)
        for atom in divisor.factors:
            found = next((i for i, factor in enumerate(left) if factor.key == atom.key), None)
            if found is None:
                return None
            del left[found]
        return _Term(self.coefficient / divisor.coefficient, tuple(left))


class Amount:
    """A polynomial of sizes. Make one with ``of``; numbers and amounts may be added, multiplied and divided, which
    raises ArgumentError where that is too long to be told."""

    def __init__(self, terms: Iterable[_Term]) -> None:
        """The sum of the terms."""
        sums: dict[Key, _Term] = {}
        for term in terms:
            known = sums.get(term.key)
            sums[term.key] = term if known is None else _Term(known.coefficient + term.coefficient, known.factors)
        self._terms = tuple(term for term in sums.values() if term.coefficient)
        if max(len(self._terms), *(len(term.factors) for term in self._terms), 0) > _LONGEST:
            raise _too_long()

    @classmethod
    def of(cls, size: Expr, *, natural: bool) -> Amount:
        """A size, or an expression that is taken as a whole; ``natural``: it is never negative."""
        return cls([_Term(Fraction(1), (_Atom(size, natural),))])

    @property
    def natural(self) -> bool:
        """True where it is certainly not negative."""
        return all(term.coefficient > 0 and all(atom.natural for atom in term.factors) for term in self._terms)

    def __add__(self, other: Number) -> Amount:
        return Amount((*self._terms, *_amount(other)._terms))

    __radd__ = __add__

    def __sub__(self, other: Number) -> Amount:
        return self + _amount(other) * -1

    def __rsub__(self, other: Number) -> Amount:
        return self * -1 + other

    def __mul__(self, other: Number) -> Amount:
        return Amount(
            _Term(a.coefficient * b.coefficient, (*a.factors, *b.factors))
            for a in self._terms
            for b in _amount(other)._terms
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> Amount:
        """The quotient: exact where the divisor is one product and its factors are in every term, else rounded down."""
        given = _amount(other)
        if len(given._terms) == 1:
            quotients = [term.over(given._terms[0]) for term in self._terms]
            exact = [q for q in quotients if q is not None]
            if len(exact) == len(quotients):
                return Amount(exact)
        return self.combined("floordiv", given, natural=self.natural and given.natural)

    def __rtruediv__(self, other: float) -> Amount:
        return _amount(other) / self

    def combined(self, op: str, other: Number, *, natural: bool) -> Amount:
        """``self op other`` as an atom, by the name of a binary operator."""
        whole = Binary(op, self.expr(), _amount(other).expr())
        if is_larger(whole, _LONGEST):
            raise _too_long()
        return Amount.of(whole, natural=natural)

    def expr(self) -> Expr:
        """It as an int64 expression, rounded down; it is meant for whole numbers of any size."""
        denominator = lcm(*(term.coefficient.denominator for term in self._terms))
        total: Expr | None = None
        for term in self._terms:
            count = IntImm(int(term.coefficient * denominator), "int64")
            product: Expr | None = None
            for atom in term.factors:
                product = atom.expr if product is None else Binary("mul", product, atom.expr)
            if product is None:
                product = count
            elif count.value != 1:
                product = Binary("mul", product, count)
            total = product if total is None else Binary("add", total, product)
        if total is None:
            return IntImm(0, "int64")
        return total if denominator == 1 else Binary("floordiv", total, IntImm(denominator, "int64"))


#: What counts are made of: a number, or an amount where sizes are not known.
Number = float | Amount


def at_least(number: Number, least: int) -> Number:
    """``number``, or ``least`` where that is more."""
    if not isinstance(number, Amount):
        return max(number, least)
    if (number - least).natural:
        return number
    return number.combined("max", least, natural=least >= 0 or number.natural)


def smaller(a: Number, b: Number) -> Number:
    """The smaller of two."""
    if not isinstance(a, Amount) and not isinstance(b, Amount):
        return min(a, b)
    first, second = _amount(a), _amount(b)
    if (second - first).natural:
        return a
    if (first - second).natural:
        return b
    return first.combined("min", second, natural=first.natural and second.natural)


def operated(op: str, a: Number, b: Number) -> Amount | None:
    """``a op b`` of whole numbers, by the name of a binary operator; None for those that artifacts have no word for."""
    x, y = _amount(a), _amount(b)
    match op:
        case "add":
            return x + y
        case "sub":
            return x - y
        case "mul":
            return x * y
        case "floordiv" | "floormod":
            return x.combined(op, y, natural=y.natural and (op == "floormod" or x.natural))
        case "min":
            return x.combined(op, y, natural=x.natural and y.natural)
        case "max":
            return x.combined(op, y, natural=x.natural or y.natural)
        case _:
            return None


def as_expr(number: Number) -> Expr:
    """``number``, rounded to a whole one, as an int64 expression."""
    return number.expr() if isinstance(number, Amount) else IntImm(round(number), "int64")


def _too_long() -> ArgumentError:
    return ArgumentError("the estimate is too long a formula of symbolic sizes", hint="give the sizes")


def _amount(number: Number) -> Amount:
    return number if isinstance(number, Amount) else Amount([_Term(Fraction(number))])
