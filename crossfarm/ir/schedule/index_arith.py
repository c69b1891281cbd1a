"""Reasoning about indices: shorter forms, boxes they lie in, and whether they take every value of a box.

As everywhere in schedules, arithmetic on indices is taken not to wrap around: they address elements of buffers that
exist. Symbolic sizes are at least 1 where a box is asked to be written in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, Analyzer, Interval, affine, const_int, fold_int, structural_key
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import COMPARISONS, Binary, BufferLoad, Cast, Expr, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses, simplify
from crossfarm.ir.schedule.iter_map import IterMap, NotAffine, Size
from crossfarm.ir.stmt import Block, Evaluate, For, Stmt
from crossfarm.ir.visitor import Mutator, seq, walk

N = TypeVar("N", Expr, Block)


class IndexAnalyzer(Analyzer):
    """An analyzer whose facts may be combined."""

    def facts(self) -> tuple[Affine, ...]:
        """Forms that are known not to be negative."""
        return tuple(self._facts)


def analyzer_of(func: PrimFunc, domains: Mapping[Var, Range] | None = None) -> IndexAnalyzer:
    """An analyzer that knows the function's symbolic sizes to be positive, and variables with their domains."""
    analyzer = IndexAnalyzer()
    for param in func.params:
        for e in param.shape if isinstance(param, Buffer) else ():
            if isinstance(e, Var):
                analyzer.bind(e, Interval(1, dt.int_range(e.dtype)[1] // 2))
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
    return _at_least_zero(gap, analyzer)


def relaxed(region: BufferRegion, loops: Sequence[For]) -> BufferRegion:
    """The box that ``region`` covers over all iterations of ``loops``, outer to inner; a whole dimension if unknown."""
    low = tuple(r.min for r in region.region)
    high = tuple(simplify(ops.sub(ops.add(r.min, r.extent), 1)) for r in region.region)
    nest: Stmt = seq(*(Evaluate(BufferLoad(region.buffer, corner)) for corner in (low, high)))
    for loop in reversed(loops):
        nest = For(loop.var, loop.min, loop.extent, nest)
    return next(r for r in infer_accesses(nest).reads if r.buffer is region.buffer)


def united(regions: Sequence[BufferRegion]) -> BufferRegion:
    """The box around regions of one buffer; a whole dimension where that cannot be told."""
    found: list[Stmt] = []
    for region in regions:
        high = (simplify(ops.sub(ops.add(r.min, r.extent), 1)) for r in region.region)
        for corner in (tuple(r.min for r in region.region), tuple(high)):
            found.append(Evaluate(BufferLoad(region.buffer, corner)))
    return next(r for r in infer_accesses(seq(*found)).reads if r.buffer is regions[0].buffer)


def clamped(region: BufferRegion, within: Sequence[Range], analyzer: Analyzer) -> tuple[Range, ...]:
    """``region`` where it certainly lies inside ``within``, that dimension of ``within`` where it may not."""
    result = []
    for r, outer in zip(region.region, within):
        start, stop = fold(r.min, analyzer), fold(simplify(ops.add(r.min, r.extent)), analyzer)
        end = simplify(ops.add(outer.min, outer.extent))
        inside = proves(ops.compare("ge", start, outer.min), analyzer) and proves(
            ops.compare("le", stop, end), analyzer
        )
        result.append(Range(start, fold(r.extent, analyzer)) if inside else outer)
    return tuple(result)


def why_not_onto(
    values: Sequence[Expr], box: Sequence[Range], loops: Mapping[Var, Expr], conditions: Sequence[Expr]
) -> str | None:
    """None when ``values`` take every point of ``box`` over the loops (from 0) where all conditions hold.

    Else why that is not known. Loops that the values do not use are assumed to run.
    """
    offsets = [simplify(ops.sub(value, r.min)) for value, r in zip(values, box)]
    used = {n for e in offsets for n in walk(e) if isinstance(n, Var)}
    over = {var: extent for var, extent in loops.items() if var in used}
    forms = IterMap(over)
    problem = forms.injective(offsets)
    if problem is not None:
        return problem
    for offset, r in zip(offsets, box):
        try:
            form = forms.form(offset)
        except NotAffine as reason:
            return str(reason)
        if form.constant:
            return "it does not begin at the first"
        reach = Size(1)
        for term in reversed(form.terms):
            if term.scale != reach:
                return "it leaves gaps"
            if is_rounded(term.digit.extent):
                return "its last iterations are not full"
            reach = reach * term.digit.extent
        wanted = forms.size(r.extent)
        if reach != wanted and not _reaches(reach, offset, over, r.extent):
            return "it does not reach the end"
    return _why_cut(conditions, values, box, over)


def _why_cut(
    conditions: Sequence[Expr], values: Sequence[Expr], box: Sequence[Range], over: Mapping[Var, Expr]
) -> str | None:
    """None when the conditions hold at every point of the box: each is ``value < bound`` with a bound past the box."""
    for condition in conditions:
        if not any(n in over for n in walk(condition)):
            continue
        if not (isinstance(condition, Binary) and condition.op == "lt"):
            return "a condition leaves some out"
        left = affine(condition.a)
        for value, r in zip(values, box):
            same = affine(value)
            same.add(left, -1)
            if same.terms:
                continue
            slack = affine(condition.b)  # value < b + same: fine where b + same is not before the box's end
            slack.constant += same.constant
            slack.add(affine(ops.add(r.min, r.extent)), -1)
            if not slack.terms and slack.constant >= 0:
                break
        else:
            return "a condition leaves some out"
    return None


def conjuncts(condition: Expr) -> tuple[Expr, ...]:
    """The conditions that a conjunction is made of; none for true."""
    if isinstance(condition, Binary) and condition.op == "and":
        return (*conjuncts(condition.a), *conjuncts(condition.b))
    return () if const_int(condition) == 1 else (condition,)


def ceil_div(value: Expr, by: int) -> Expr:
    """``value / by`` rounded up, a number where it is one."""
    number = const_int(value)
    if number is not None:
        return ops.const(-(-number // by), value.dtype)
    return value if by == 1 else ops.floordiv(simplify(ops.add(value, by - 1)), by)


def _reaches(reach: Size, offset: Expr, over: Mapping[Var, Expr], extent: Expr) -> bool:
    """True when ``reach``, how many values ``offset`` takes without conditions, is at least ``extent``."""
    number = const_int(extent)
    if not reach.symbols:
        return number is not None and reach.factor >= number
    form = affine(offset)
    result = Affine(form.constant + 1)  # offset's largest value + 1, from the loops
    for key, coefficient in form.terms.items():
        atom = form.atoms[key]
        if not isinstance(atom, Var) or atom not in over:
            return False
        result.add(affine(over[atom]), coefficient)
        result.constant -= coefficient
    result.add(affine(extent), -1)
    return _at_least_zero(result, IndexAnalyzer())


def _at_least_zero(form: Affine, analyzer: Analyzer, steps: int = 4) -> bool:
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
                if len(left.terms) <= len(form.terms) and _at_least_zero(left, analyzer, steps - 1):
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
        if _at_least_zero(left, analyzer, steps - 1):
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


def is_rounded(extent: Size) -> bool:
    """True for the count of a quotient that was rounded up."""
    return any(isinstance(s, tuple) and len(s) > 0 and s[0] == "ceil" for s in extent.symbols)


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
        form = affine(node)
        while _join_digits(form):
            pass
        result = form.to_expr(node.dtype)
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


def _join_digits(form: Affine) -> bool:
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
        other = structural_key(quotient)
        if form.terms.get(other) == coefficient * divisor:
            form.add(Affine(0, {other: 1}, {other: form.atoms[other]}), -coefficient * divisor)
            form.add(Affine(0, {key: 1}, {key: atom}), -coefficient)
            form.add(affine(atom.a), coefficient)
            return True
    return False


def _logical(node: Binary) -> Expr:
    absorbing = node.op == "or"
    for side, other in ((node.a, node.b), (node.b, node.a)):
        value = const_int(side)
        if value is not None:
            return side if bool(value) == absorbing else other
    return node
