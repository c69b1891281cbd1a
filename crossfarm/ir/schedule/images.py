"""What loops reach: do indices take exactly the values of a box, does a nest run every instance of a block?

Boxes of ``covering`` hold at least what is touched. Where a statement moves in front of its inputs' other iterations,
or a store must not be lost, the opposite is needed: that nothing of a box is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, Analyzer, affine, const_int, structural_key
from crossfarm.ir.expr import Binary, Expr, Range, Var
from crossfarm.ir.regions import key, simplify
from crossfarm.ir.schedule.index_arith import IndexAnalyzer, at_least_zero
from crossfarm.ir.schedule.iter_map import ONE, Form, IterMap, NotAffine, Size, Term, is_rounded_up
from crossfarm.ir.schedule.spans import tidy
from crossfarm.ir.schedule.tree import children_of
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IfThenElse, IterVar, LetStmt, Stmt, While
from crossfarm.ir.visitor import substitute, walk


def is_full_image(indices: Sequence[Expr], moving: Mapping[Var, Expr]) -> bool:
    """True when ``indices`` take every combination of values of their box, each once, while ``moving`` run.

    Args:
        moving: extents of the variables that run, from their least value on.
    """
    parts = []
    for index in indices:
        part = _moving_part(index, moving)
        if part is None:
            return False
        parts.append(part)
    used = {n: moving[n] for part in parts for n in walk(part) if isinstance(n, Var) and n in moving}
    return _is_one_box(IterMap(used), parts) and all(_is_compact(part, used) for part in parts)


def why_not_one_to_one(block: Block) -> str | None:
    """None when different spatial instances of ``block`` store to different elements, else why that is not known."""
    spatial = {axis.var: axis.dom.extent for axis in block.iter_vars if axis.kind == "spatial"}
    for at in stores(block):
        used = {n for index in at.indices for n in walk(index) if isinstance(n, Var)}
        extents = {**spatial, **{var: extent for var, extent in at.loops.items() if var in used}}
        starts = {axis.var: axis.dom.min for axis in block.iter_vars}
        fixed = {v: zero_of(v) for v in used if v not in extents}
        problem = IterMap(extents).injective([substitute(index, fixed) for index in at.indices])
        if problem is not None and all(const_int(start) == 0 for start in starts.values()):
            return problem.replace("loop ", "axis ").replace("in the axes", "in the index")
        if problem is not None:
            return "its axes do not start at 0"
    return None


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
    problem = forms.injective(offsets) or forms.why_not_independent(offsets)
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
            if is_rounded_up(term.digit.extent):
                return "its last iterations are not full"
            reach = reach * term.digit.extent
        wanted = forms.size(r.extent)
        if reach != wanted and not _reaches(reach, offset, over, r.extent):
            return "it does not reach the end"
    return _why_cut(conditions, values, box, over)


@dataclass(frozen=True)
class StoreAt:
    """A store in a block.

    Attributes:
        indices: in terms of the block's axes and ``loops``.
        loops: extents of the loops in the block that are around it.
        surely: every instance makes this store (of an ``init``: every instance of the spatial axes).
    """

    store: BufferStore
    indices: tuple[Expr, ...]
    loops: Mapping[Var, Expr]
    surely: bool


def stores(block: Block) -> list[StoreAt]:
    """The stores of a block, those of its init first."""
    found: list[StoreAt] = []

    def visit(stmt: Stmt, values: dict[Var, Expr], loops: dict[Var, Expr], surely: bool) -> None:
        match stmt:
            case BufferStore():
                found.append(StoreAt(stmt, tuple(substitute(i, values) for i in stmt.indices), loops, surely))
                return
            case For():
                loops = {**loops, stmt.var: substitute(stmt.extent, values)}
            case LetStmt():
                values = {**values, stmt.var: substitute(stmt.value, values)}
            case BlockRealize():
                bound = {a.var: substitute(v, values) for a, v in zip(stmt.block.iter_vars, stmt.iter_values)}
                values, surely = {**values, **bound}, surely and const_int(stmt.predicate) == 1
            case IfThenElse() | While():
                surely = False
        for child in children_of(stmt):
            visit(child, values, loops, surely)

    for part in children_of(block):
        visit(part, {}, {}, True)
    return found


def why_not_covering(
    realize: BlockRealize, loops: Sequence[For], analyzer: Analyzer, up_to: Mapping[Var, int] | None = None
) -> str | None:
    """None when ``loops`` run every instance in the domains of the block's axes, else which axis may miss some.

    Args:
        up_to: greatest values of axes that are of interest.
    """
    extents = {loop.var: loop.extent for loop in loops}
    together = _is_one_box(IterMap(extents), realize.iter_values)
    seen: set[Var] = set()
    for axis, value in zip(realize.block.iter_vars, realize.iter_values):
        used = {n for n in walk(value) if isinstance(n, Var) and n in extents}
        if (not together and used & seen) or not _covers(axis, value, extents, (up_to or {}).get(axis.var)):
            return f"its loops are not known to give every value of axis {axis.var.name}"
        seen |= used
    return None


def _is_one_box(forms: IterMap, values: Sequence[Expr]) -> bool:
    """Whether each combination of what the values take by themselves is taken, once."""
    return forms.injective(values) is None and forms.why_not_independent(values) is None


def zero_of(var: Var) -> Expr:
    """0 in the dtype of ``var``."""
    return ops.const(0, var.dtype)


def _covers(axis: IterVar, value: Expr, extents: Mapping[Var, Expr], up_to: int | None) -> bool:
    count, first = axis.dom.extent, const_int(axis.dom.min)
    if up_to is not None and first is not None and (const_int(count) or up_to) > up_to - first + 1 > 0:
        count = ops.const(up_to - first + 1, count.dtype)
    offset = tidy(ops.sub(value, axis.dom.min))
    start = affine(offset, key)
    if start.constant != 0:
        return False
    try:
        form = IterMap(extents).form(offset)
    except NotAffine:
        return False
    if not form.terms:
        return Size.of(count) == ONE
    if not _is_gapless(form):
        return _overlapping(start, extents, count)
    reach, wanted = form.terms[0].scale * form.terms[0].digit.extent, Size.of(count)
    if reach == wanted or _rounded_up(form.terms[0], count):
        return True
    number = _number(reach)
    return number is not None and not wanted.symbols and number >= wanted.factor


def _number(size: Size) -> int | None:
    """The value of a size without symbols; a quotient rounded up counts as one where it is of such."""
    if not size.symbols:
        return size.factor
    match size.symbols:
        case (("ceil", Size(total, ()), Size(by, ())),):
            return size.factor * -(-total // by)
    return None


def _is_gapless(form: Form) -> bool:
    """The terms reach every number from 0 up to what all of them add to, each once."""
    return form.terms[-1].scale == ONE and all(
        wide.scale == narrow.scale * narrow.digit.extent for wide, narrow in pairwise(form.terms)
    )


def _rounded_up(top: Term, wanted: Expr) -> bool:
    """The loop of the largest steps makes ``(wanted + scale - 1) // scale`` of them, as splitting writes it."""
    if top.scale.symbols:
        return False
    rounded = ops.add(wanted, top.scale.factor - 1)
    written = [ops.floordiv(e, top.scale.factor) for e in (rounded, tidy(rounded))]
    return any(top.digit.extent == Size(1, (structural_key(e),)) for e in written)


def _overlapping(form: Affine, extents: Mapping[Var, Expr], wanted: Expr) -> bool:
    """Steps that are not wider than what the inner loops reach leave no gap, as in sliding windows."""
    reach = 1
    for name, scale in sorted(form.terms.items(), key=lambda item: item[1]):
        extent = const_int(extents[form.atoms[name]]) if form.atoms[name] in extents else None  # type: ignore[index]
        if extent is None or not 0 < scale <= reach:
            return False
        reach += scale * (extent - 1)
    size = const_int(wanted)
    return size is not None and reach >= size


def _moving_part(index: Expr, moving: Mapping[Var, Expr]) -> Expr | None:
    """The terms of ``index`` with moving variables; None where an atom mixes them with others."""
    form = affine(tidy(index), key)
    part = Affine()
    for name, coefficient in form.terms.items():
        atom = form.atoms[name]
        variables = {n for n in walk(atom) if isinstance(n, Var)}
        if not variables & set(moving):
            continue
        symbols = variables - set(moving)
        if symbols and not (isinstance(atom, Binary) and _only_divides(atom, moving)):
            return None
        part.terms[name], part.atoms[name] = coefficient, atom
    return part.to_expr(index.dtype)


def _only_divides(atom: Binary, moving: Mapping[Var, Expr]) -> bool:
    """The variables that do not move are in a divisor or factor alone."""
    if atom.op not in ("floordiv", "floormod", "mul"):
        return False
    return not any(isinstance(n, Var) and n not in moving for n in walk(atom.a)) or (
        atom.op == "mul" and not any(isinstance(n, Var) and n not in moving for n in walk(atom.b))
    )


def _is_compact(part: Expr, extents: Mapping[Var, Expr]) -> bool:
    try:
        form = IterMap(extents).form(part)
    except NotAffine:
        return False
    return not form.terms or _is_gapless(form)


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


def _reaches(reach: Size, offset: Expr, over: Mapping[Var, Expr], extent: Expr) -> bool:
    """True when ``reach``, how many values ``offset`` takes without conditions, is at least ``extent``."""
    number = const_int(extent)
    if not reach.symbols:
        return number is not None and reach.factor >= number
    form = affine(offset)
    result = Affine(form.constant + 1)  # offset's largest value + 1, from the loops
    for name, coefficient in form.terms.items():
        atom = form.atoms[name]
        if not isinstance(atom, Var) or atom not in over:
            return False
        result.add(affine(over[atom]), coefficient)
        result.constant -= coefficient
    result.add(affine(extent), -1)
    return at_least_zero(result, IndexAnalyzer())
