"""Integer reasoning: constant folding, affine forms, bounds, and proofs from what is known at a place.

All of it is sound for the machine's wrapping integers: a bound is given only where the exact value fits the dtype, else
it is the dtype's whole range. "Unknown" is always a possible answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import COMPARISONS, Binary, Broadcast, Call, Cast, Expr, IntImm, Let, Not, Select, Var
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.visitor import walk

DIVISIONS = ("div", "mod", "floordiv", "floormod")
#: What ``structural_key`` gives: equal for expressions that are the same computation of the same Vars.
Key = object


def const_int(expr: Expr) -> int | None:
    """The value of an integer or bool constant, else None."""
    return expr.value if isinstance(expr, IntImm) else None


def wrap(value: int, dtype: str) -> int:
    """``value`` as a two's complement integer of ``dtype`` holds it."""
    low, high = dt.int_range(dtype)
    return (value - low) % (high - low + 1) + low


def fold_int(op: str, a: int, b: int, dtype: str) -> int | None:
    """``a op b`` as ``dtype`` computes it (0 or 1 for comparisons); None where that fails or is not defined."""
    if op in DIVISIONS and b == 0:
        return None
    if op in ("shl", "shr") and not 0 <= b < dt.bits(dtype):
        return None
    truncated = abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1) if op in ("div", "mod") else 0
    match op:
        case "add":
            return wrap(a + b, dtype)
        case "sub":
            return wrap(a - b, dtype)
        case "mul":
            return wrap(a * b, dtype)
        case "div":
            return wrap(truncated, dtype)
        case "mod":
            return wrap(a - truncated * b, dtype)
        case "floordiv":
            return wrap(a // b, dtype)
        case "floormod":
            return wrap(a % b, dtype)
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
        case "bitand" | "and":
            return a & b
        case "bitor" | "or":
            return a | b
        case "bitxor":
            return a ^ b
        case "shl":
            return wrap(a << b, dtype)
        case "shr":
            return a >> b
        case "eq" | "ne" | "lt" | "le" | "gt" | "ge":
            return int({"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[op])
    return None


def may_fail(expr: Expr) -> bool:
    """True when evaluating ``expr`` may have an effect that must not be dropped: a failing division, an impure call."""
    return any(
        (isinstance(n, Binary) and n.op in DIVISIONS and dt.is_int(n.dtype) and not _nonzero(n.b))
        or (isinstance(n, Call) and not INTRINSICS[n.op].pure)
        for n in walk(expr)
    )


def is_larger(expr: Expr, nodes: int) -> bool:
    """True when ``expr`` has more than that many nodes, counting a shared one each time it is met."""
    return next(islice(walk(expr), nodes, None), None) is not None


def structural_key(expr: Expr) -> Key:
    """A hashable value, equal for equal integer expressions over the same Vars; anything opaque equals itself only."""
    match expr:
        case IntImm(value, dtype):
            return (value, dtype)
        case Binary(op, a, b):
            return (op, structural_key(a), structural_key(b))
        case Cast(value, dtype):
            return (dtype, structural_key(value))
    return expr


@dataclass(frozen=True)
class Interval:
    """The integers from ``low`` to ``high``, both included; empty when ``low > high``."""

    low: int
    high: int

    @classmethod
    def of(cls, dtype: str) -> Interval:
        """All values of an integer or bool dtype."""
        return cls(*dt.int_range(dtype))

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high

    def covers(self, other: Interval) -> bool:
        return self.low <= other.low and other.high <= self.high

    def meet(self, other: Interval) -> Interval:
        return Interval(max(self.low, other.low), min(self.high, other.high))

    def join(self, other: Interval) -> Interval:
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def scaled(self, factor: int) -> Interval:
        ends = (self.low * factor, self.high * factor)
        return Interval(min(ends), max(ends))

    def plus(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def _over(self, op: str, divisor: Interval) -> Interval:
        """Bounds of a division by a positive divisor, from its corners: it is monotone in both."""
        corners = [
            x // d if op == "floordiv" or x >= 0 else -(-x // d)
            for x in (self.low, self.high)
            for d in (divisor.low, divisor.high)
        ]
        return Interval(min(corners), max(corners))


@dataclass
class Affine:
    """``sum(coefficient * atom) + constant``: an atom is any expression that is not itself a sum or a multiple."""

    constant: int = 0
    terms: dict[Key, int] = field(default_factory=dict)
    atoms: dict[Key, Expr] = field(default_factory=dict)

    def add(self, other: Affine, factor: int = 1) -> None:
        """Adds ``factor`` times ``other`` in place; terms that cancel disappear."""
        self.constant += factor * other.constant
        for key, coefficient in other.terms.items():
            self.add_atom(key, other.atoms[key], factor * coefficient)

    def add_atom(self, key: Key, atom: Expr, coefficient: int) -> None:
        """Adds ``coefficient`` times ``atom`` in place."""
        total = self.terms.get(key, 0) + coefficient
        self.atoms[key] = atom
        if total:
            self.terms[key] = total
        else:
            self.terms.pop(key, None)

    def split(self, divisor: int) -> tuple[Affine, Affine]:
        """(quotient, rest) with ``self = divisor * quotient + rest``; the rest has what is not divisible."""
        quotient, rest = Affine(self.constant // divisor), Affine(self.constant % divisor)
        for key, coefficient in self.terms.items():
            side, value = (rest, coefficient) if coefficient % divisor else (quotient, coefficient // divisor)
            side.terms[key], side.atoms[key] = value, self.atoms[key]
        return quotient, rest

    def to_expr(self, dtype: str) -> Expr:
        """The form as an expression: positive terms first, so that differences read as such."""
        result: Expr | None = None
        for key, coefficient in sorted(self.terms.items(), key=lambda item: item[1] < 0):
            atom, size = self.atoms[key], abs(coefficient)
            term = atom if size == 1 else Binary("mul", atom, IntImm(wrap(size, dtype), dtype))
            if result is None:
                result = term if coefficient > 0 else Binary("mul", atom, IntImm(wrap(coefficient, dtype), dtype))
            else:
                result = Binary("add" if coefficient > 0 else "sub", result, term)
        constant = wrap(self.constant, dtype)
        if result is None:
            return IntImm(constant, dtype)
        if constant == 0:
            return result
        negative = constant < 0 and constant != dt.int_range(dtype)[0]
        return Binary("sub" if negative else "add", result, IntImm(abs(constant) if negative else constant, dtype))


def affine(expr: Expr, key_of: Callable[[Expr], Key] = structural_key) -> Affine:
    """The affine form of a scalar integer expression; equal to it modulo the dtype's range.

    Args:
        key_of: atoms of one key are one term.
    """
    form = Affine()
    _collect(expr, 1, form, key_of)
    return form


def _collect(expr: Expr, factor: int, form: Affine, key_of: Callable[[Expr], Key]) -> None:
    if isinstance(expr, Binary):
        if expr.op in ("add", "sub"):
            _collect(expr.a, factor, form, key_of)
            _collect(expr.b, factor if expr.op == "add" else -factor, form, key_of)
            return
        if expr.op == "mul" and isinstance(expr.b, IntImm):
            _collect(expr.a, factor * expr.b.value, form, key_of)
            return
        if expr.op == "mul" and isinstance(expr.a, IntImm):
            _collect(expr.b, factor * expr.a.value, form, key_of)
            return
    if isinstance(expr, IntImm):
        form.constant += factor * expr.value
    else:
        form.add_atom(key_of(expr), expr, factor)


class Analyzer:
    """What is known at a place in a program: ranges of variables, and facts that enclosing conditions state.

    ::

        with analyzer.scope():
            analyzer.bind_loop(i, IntImm(0), n)
            analyzer.prove(Binary("lt", i, n))   # True
    """

    def __init__(self) -> None:
        self._ranges: dict[Key, Interval] = {}
        self._facts: list[Affine] = []  # each is >= 0

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is learned inside is forgotten after."""
        ranges, facts = dict(self._ranges), len(self._facts)
        yield
        self._ranges = ranges
        del self._facts[facts:]

    def bind(self, var: Var, values: Interval) -> None:
        """``var`` has one of ``values``."""
        self._ranges[var] = values

    def bind_loop(self, var: Var, start: Expr, extent: Expr) -> None:
        """``var`` runs from ``start`` up to, not including, ``start + extent``, and its body runs."""
        first, count = self.bounds(start), self.bounds(extent)
        self._ranges[var] = Interval(first.low, first.high + count.high - 1).meet(Interval.of(var.dtype))
        if not (isinstance(start, IntImm) and isinstance(extent, IntImm)) and start.dtype == extent.dtype == var.dtype:
            self._learn(Binary("ge", var, start))
            self._learn(Binary("lt", var, extent if const_int(start) == 0 else Binary("add", start, extent)))

    def assume(self, condition: Expr, holds: bool = True) -> None:
        """``condition`` is known to be ``holds`` for the rest of the scope."""
        if isinstance(condition, Not):
            self.assume(condition.a, not holds)
        elif isinstance(condition, Call) and condition.op == "likely":
            self.assume(condition.args[0], holds)
        elif isinstance(condition, Binary) and condition.op == ("and" if holds else "or"):
            self.assume(condition.a, holds)
            self.assume(condition.b, holds)
        elif isinstance(condition, Binary) and dt.is_int(condition.a.dtype) and dt.lanes_of(condition.dtype) == 1:
            opposite = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
            if condition.op in opposite:
                op = condition.op if holds else opposite[condition.op]
                self._learn(Binary(op, condition.a, condition.b))

    def is_contradictory(self) -> bool:
        """True when what is known cannot all be: this place is never reached."""
        return any(values.low > values.high for values in self._ranges.values())

    def bounds(self, expr: Expr) -> Interval:
        """Values that a scalar integer or bool expression can have here."""
        whole = Interval.of(expr.dtype)
        if isinstance(expr, IntImm):
            return Interval(expr.value, expr.value)
        if _is_sum(expr):
            found = self.affine_bounds(affine(expr))
            return found if whole.covers(found) else whole
        found = self._atom_bounds(expr)
        if not whole.covers(found) and found.low <= found.high:
            found = whole  # it may wrap around, and then what is known says nothing about the exact value
        known = self._ranges.get(structural_key(expr))
        return found if known is None else found.meet(known)

    def affine_bounds(self, form: Affine) -> Interval:
        """Exact bounds of an affine form over unbounded integers, with the facts that speak of the same terms."""
        result = Interval(form.constant, form.constant)
        for key, coefficient in form.terms.items():
            result = result.plus(self.bounds(form.atoms[key]).scaled(coefficient))
        if len(form.terms) > 1:
            for fact in self._facts:
                result = _sharpen(result, form, fact)
        return result

    def decide(self, condition: Expr) -> bool | None:
        """True or False where that is certain here, else None."""
        match condition:
            case IntImm(value, _):
                return bool(value)
            case Not(a):
                inner = self.decide(a)
                return None if inner is None else not inner
            case Call("likely", (a,), _):
                return self.decide(a)
            case Binary("and" | "or" as op, a, b):
                decided = (self.decide(a), self.decide(b))
                absorbing = op == "or"
                if absorbing in decided:
                    return absorbing
                return None if None in decided else not absorbing
            case Binary(op, a, b) if dt.is_int(a.dtype) and dt.lanes_of(a.dtype) == 1:
                return self._decide_comparison(op, a, b)
        return None

    def prove(self, condition: Expr) -> bool:
        """True when ``condition`` certainly holds here; False says nothing."""
        return self.decide(condition) is True

    def _decide_comparison(self, op: str, a: Expr, b: Expr) -> bool | None:
        left, right = self.bounds(a), self.bounds(b)
        difference = Interval(left.low - right.high, left.high - right.low)
        form = self._difference(a, b)
        if form is not None:
            difference = difference.meet(self.affine_bounds(form))
        if difference.low > difference.high:
            return None
        verdicts = {
            "lt": (difference.high < 0, difference.low >= 0),
            "le": (difference.high <= 0, difference.low > 0),
            "gt": (difference.low > 0, difference.high <= 0),
            "ge": (difference.low >= 0, difference.high < 0),
            "eq": (difference.low == difference.high == 0, 0 not in difference),
            "ne": (0 not in difference, difference.low == difference.high == 0),
        }
        yes, no = verdicts.get(op, (False, False))
        return True if yes else False if no else None

    def _difference(self, a: Expr, b: Expr) -> Affine | None:
        """``a - b`` over unbounded integers; None where one of them may wrap."""
        form = Affine()
        for expr, factor in ((a, 1), (b, -1)):
            side = affine(expr)
            if len(side.terms) > 1 or side.constant or any(c != 1 for c in side.terms.values()):
                exact = self.affine_bounds(side)
                if not Interval.of(expr.dtype).covers(exact):
                    return None
            form.add(side, factor)
        return form

    def _learn(self, comparison: Binary) -> None:
        op, a, b = comparison.op, comparison.a, comparison.b
        if op in ("gt", "ge"):
            op, a, b = {"gt": "lt", "ge": "le"}[op], b, a
        form = self._difference(b, a)
        if form is None or op == "ne":
            return
        facts = [form]
        if op == "lt":
            form.constant -= 1
        elif op == "eq":
            facts.append(Affine(-form.constant, {k: -c for k, c in form.terms.items()}, form.atoms))
        for fact in facts:
            self._facts.append(fact)
            self._narrow(fact)

    def _narrow(self, fact: Affine) -> None:
        """Narrows the range of each term by what the others can be at most."""
        highest = {key: self.bounds(fact.atoms[key]).scaled(c).high for key, c in fact.terms.items()}
        total = fact.constant + sum(highest.values())
        for key, coefficient in fact.terms.items():
            least = highest[key] - total  # coefficient * atom >= least
            now = self.bounds(fact.atoms[key])
            limit = (
                Interval(-(-least // coefficient), now.high)
                if coefficient > 0
                else Interval(now.low, least // coefficient)
            )
            self._ranges[key] = now.meet(limit)

    def _atom_bounds(self, expr: Expr) -> Interval:
        """Bounds by the outermost operator. Each operand is looked at once: twice would be exponential in the depth."""
        whole = Interval.of(expr.dtype)
        match expr:
            case Var():
                return self._ranges.get(expr, whole)
            case Binary(op, a, b) if dt.is_int(a.dtype) and op not in COMPARISONS:
                return self._operator_bounds(op, self.bounds(a), self.bounds(b), whole)
            case Select(_, a, b) | Call("if_then_else", (_, a, b), _) if not dt.is_float(a.dtype):
                return self.bounds(a).join(self.bounds(b))
            case Call("likely", (a,), _):
                return self.bounds(a)
            case Cast(value, _) if dt.is_int(value.dtype) or dt.is_bool(value.dtype):
                return self.bounds(value)
            case Let(var, value, body) if dt.is_int(var.dtype):
                with self.scope():
                    self.bind(var, self.bounds(value))
                    return self.bounds(body)
        return whole

    def _operator_bounds(self, op: str, x: Interval, y: Interval, whole: Interval) -> Interval:
        match op:
            case "mul":
                return x.scaled(y.low).join(x.scaled(y.high))
            case "min":
                return Interval(min(x.low, y.low), min(x.high, y.high))
            case "max":
                return Interval(max(x.low, y.low), max(x.high, y.high))
            case "floordiv" | "div" if y.low > 0:
                return x._over(op, y)
            case "floormod" | "mod" if y.low > 0:
                return self._modulo(op, x, y)
            case "bitand" if x.low >= 0 and y.low >= 0:
                return Interval(0, min(x.high, y.high))
            case "shr" if 0 <= y.low == y.high <= 64:
                return Interval(x.low >> y.low, x.high >> y.low)
            case "shl" if 0 <= y.low == y.high <= 64:
                return x.scaled(1 << y.low)
        return whole

    @staticmethod
    def _modulo(op: str, x: Interval, divisor: Interval) -> Interval:
        if x.low >= 0 and x.high < divisor.low:
            return x
        most = divisor.high - 1
        return Interval(0 if op == "floormod" or x.low >= 0 else -most, most)


def _is_sum(expr: Expr) -> bool:
    """True for what ``affine`` takes apart: sums, differences, multiples by a constant."""
    if not isinstance(expr, Binary) or not dt.is_int(expr.dtype):
        return False
    return expr.op in ("add", "sub") or (expr.op == "mul" and isinstance(expr.b, IntImm) | isinstance(expr.a, IntImm))


def _sharpen(bounds: Interval, form: Affine, fact: Affine) -> Interval:
    """``bounds`` of ``form``, narrowed by ``fact >= 0`` where that has the same terms up to sign."""
    if len(fact.terms) != len(form.terms):
        return bounds
    if all(fact.terms.get(key) == c for key, c in form.terms.items()):
        return Interval(max(bounds.low, form.constant - fact.constant), bounds.high)
    if all(fact.terms.get(key) == -c for key, c in form.terms.items()):
        return Interval(bounds.low, min(bounds.high, form.constant + fact.constant))
    return bounds


def _nonzero(divisor: Expr) -> bool:
    if isinstance(divisor, Broadcast):
        return _nonzero(divisor.value)
    return isinstance(divisor, IntImm) and divisor.value != 0
