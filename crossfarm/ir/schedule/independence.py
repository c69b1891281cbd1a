"""May the iterations of a loop run in another order, or at once?

Yes, when for every buffer that is written under the loop one of these holds:

* it is *partitioned* by the loop: which element is touched tells which iteration touches it;
* it is *private*: nothing outside the loop uses it, and each iteration writes what it then reads;
* for another order alone: one block accumulates into it, and the loop only drives that block's reduce axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crossfarm.ir import ops
from crossfarm.ir.arith import affine
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule.dependencies import is_unit
from crossfarm.ir.schedule.iter_map import Digit, IterMap, NotAffine, Size, Term, covers_source, is_smaller
from crossfarm.ir.schedule.touches import Touch, bare_statement, makes_all, reduces_over, touches_under
from crossfarm.ir.schedule.tree import ancestors, children_of, outermost_blocks, refuse
from crossfarm.ir.stmt import Block, BlockRealize, For
from crossfarm.ir.visitor import substitute, walk


def require_independent(func: PrimFunc, loop: For, primitive: str, *, reduction: bool = False) -> None:
    """Raises ScheduleError unless the loop's iterations may run at once.

    Args:
        reduction: accept a loop that only drives reduce axes of one block (a reduction across threads).
    """
    if is_unit(loop.extent):
        return
    touched = _accesses(func, loop, primitive)
    for buffer in _written(touched):
        of_buffer = [a for a in touched if a.buffer is buffer]
        if _partitions(func, loop, of_buffer) or _private(func, loop, of_buffer):
            continue
        if reduction and _accumulates(func, loop, of_buffer):
            continue
        reason = _why(loop, of_buffer)
        refuse(primitive, f"iterations of loop {loop.var.name} are not independent: {reason}", at=loop)


def require_reorderable(func: PrimFunc, nest: Sequence[For], moved: Iterable[For], primitive: str) -> None:
    """Raises ScheduleError unless the iterations of the ``moved`` loops of a nest may change their order."""
    touched = _accesses(func, nest[0], primitive)
    moving = [loop for loop in moved if not is_unit(loop.extent)]
    for buffer in _written(touched):
        of_buffer = [a for a in touched if a.buffer is buffer]
        odd = [loop for loop in moving if not _partitions(func, loop, of_buffer)]
        if not odd or _private(func, nest[0], of_buffer, inside=nest[-1]):
            continue
        if all(_accumulates(func, loop, of_buffer) or _repeats(loop, of_buffer) for loop in odd):
            continue
        bad = next(loop for loop in odd if not _accumulates(func, loop, of_buffer) and not _repeats(loop, of_buffer))
        reason = _why(bad, of_buffer)
        refuse(primitive, f"iterations of loop {bad.var.name} must keep their order: {reason}", at=nest[0])


def _accesses(func: PrimFunc, top: For, primitive: str) -> list[Touch]:
    bare = bare_statement(top)
    if bare is not None:
        refuse(primitive, f"under loop {top.var.name} is a statement outside any block", at=bare)
    return touches_under(top)


def _written(touched: Iterable[Touch]) -> list[Buffer]:
    return list(dict.fromkeys(a.buffer for a in touched if a.is_write))


def _partitions(func: PrimFunc, loop: For, touched: Sequence[Touch]) -> bool:
    """True when the element tells the iteration of ``loop``, in the same way for every access."""
    outer = {s.var: s.extent for s in reversed(_scope_loops(func, loop))}
    ways = [_decoded(loop, a, outer) for a in touched]
    return ways[0] is not None and all(way == ways[0] for way in ways)


def _private(func: PrimFunc, loop: For, touched: Sequence[Touch], inside: For | None = None) -> bool:
    """True when the buffer lives in an iteration: allocated here, used only under ``loop``, written before read.

    Args:
        inside: a loop at or below ``loop`` whose one iteration must both write and read.
    """
    buffer = touched[0].buffer
    scopes = [s for s in ancestors(func, loop) if isinstance(s, Block)]
    if not any(buffer in block.alloc_buffers for block in scopes):
        return False
    if any(inside is not None and inside not in a.loops for a in touched):
        return False
    under = {a.block for a in touched}
    users = {s for s in outermost_blocks(*children_of(scopes[-1])) if _uses(s, buffer)}
    if users != under or not any(buffer in block.alloc_buffers for block in scopes[-1:]):
        return False
    outside = [outer for outer in _scope_loops(func, loop) if outer is not loop]
    for position, access in enumerate(touched):
        if access.is_write and (access.block.block.init is not None or not _reads(access, touched)):
            if reduces_over(access.block, _around(access, inside or loop)):
                return False
            continue
        if access.is_write:
            continue
        if not any(
            w.is_write and w.block is not access.block and makes_all(w, access, outside) for w in touched[:position]
        ):
            return False
    return True


def _accumulates(func: PrimFunc, loop: For, touched: Sequence[Touch]) -> bool:
    """True when one block alone touches the buffer, and ``loop`` drives nothing but reduce axes of it."""
    if len({a.block for a in touched}) != 1:
        return False
    block = touched[0].block
    driven = [axis for axis, value in _axes(block) if _mentions(value, loop)]
    if not driven or any(axis.kind != "reduce" for axis in driven):
        return False
    if any(_mentions(e, loop) for a in touched for part in a.box for e in (part.min, part.extent)):
        return False
    loops = (*_scope_loops(func, loop), *touched[0].loops)
    driving = {f.var for f in touched[0].loops if _drives(block, f)}
    return IterMap({f.var: f.extent for f in loops}).separates([v for _, v in _axes(block)], driving)


def _repeats(loop: For, touched: Sequence[Touch]) -> bool:
    """True when each iteration of ``loop`` computes the same again: one complete block that ``loop`` does not drive."""
    block = touched[0].block
    return (
        all(a.block is block and a.is_write for a in touched)
        and all(axis.kind == "spatial" for axis in block.block.iter_vars)
        and not _drives(block, loop)
        and not _mentions(block.predicate, loop)
    )


def _decoded(loop: For, access: Touch, outer: dict[Var, Expr]) -> object:
    """How the element tells the iteration of ``loop``: equal where it does so alike, None where it does not."""
    extents = {**outer, **{f.var: f.extent for f in access.loops}}
    way = _told(loop.var, loop.extent, access.box, extents)
    return way if way is not None else _told_by_all(loop, access.box, extents)


def _told_by_all(loop: For, box: Sequence[Range], extents: dict[Var, Expr]) -> object:
    """The same by one count of the iterations of all loops that matter: digits of a loop that was split lie across the
    loops which it became, and are digits of their count."""
    used = {n for part in box for e in (part.min, part.extent) for n in walk(e)}
    loops = {var: extent for var, extent in extents.items() if var in used and not is_unit(extent)}
    if loop.var not in loops or len(loops) < 2:
        return None
    count = Var("count", loop.var.dtype)
    inner: Expr = ops.const(1, count.dtype)
    values: dict[Var, Expr] = {var: ops.const(0, var.dtype) for var, extent in extents.items() if is_unit(extent)}
    for var, extent in reversed(loops.items()):
        size = ops.cast(extent, count.dtype)
        values[var] = ops.cast(ops.floormod(ops.floordiv(count, inner), size), var.dtype)
        inner = ops.mul(inner, size)
    counted = [Range(substitute(part.min, values), part.extent) for part in box]
    way = _told(count, inner, counted, {count: inner})
    return None if way is None else (tuple(loops), _renamed(way, count))


def _told(var: Var, extent: Expr, box: Sequence[Range], extents: Mapping[Var, Expr]) -> object:
    """How the least element of ``box`` tells the value of ``var``; None where that is not known."""
    shape = IterMap(extents)
    digits: dict[Any, list[Digit]] = {}
    way: list[object] = []
    for dim, part in enumerate(box):
        fixed, moving = _split_fixed(part.min, extents)
        try:
            form = shape.form(moving)
            window = shape.size(part.extent)
        except NotAffine:
            continue
        terms = _readable(form.terms, window)
        for term in terms:
            digits.setdefault(term.digit.source, []).append(term.digit)
        above = {t: wide.scale for t, wide in zip(form.terms[1:], form.terms)}
        way.append((dim, fixed, form.constant, tuple((t, above.get(t)) for t in terms)))
    shape.unfold(digits)
    if covers_source(digits.get(var, []), shape.size(extent)) is not None:
        return None
    relevant = [w for w in way if isinstance(w, tuple) and _speaks_of(w[3], var)]
    return tuple(
        (dim, fixed, constant, tuple(t for t in terms if _term_speaks_of(t[0], var)))
        for dim, fixed, constant, terms in relevant
    )


def _renamed(way: Any, count: Var) -> object:
    """``way`` without the variable that was made for it, so that it equals another one's."""
    if isinstance(way, Digit):
        return ("count", way.lower, way.extent) if way.source is count else way
    if isinstance(way, Term):
        return (_renamed(way.digit, count), way.scale)
    return tuple(_renamed(part, count) for part in way) if isinstance(way, tuple) else way


def _readable(terms: Sequence[Term], window: Size) -> list[Term]:
    """The terms whose digit can be told from the sum, where it is known up to less than ``window``."""
    found = []
    reach: Size | None = window
    for term in reversed(terms):
        if reach is not None and (term.scale == reach or is_smaller(reach, term.scale)):
            found.append(term)
            reach = term.scale * term.digit.extent
        elif reach is not None and not (reach.symbols or term.scale.symbols or term.digit.extent.symbols):
            reach = Size(reach.factor + term.scale.factor * (term.digit.extent.factor - 1))
        else:
            reach = None
    return found


def _split_fixed(value: Expr, loops: Mapping[Var, Expr]) -> tuple[object, Expr]:
    """The part of a sum without loop variables, as a comparable value, and the rest."""
    form = affine(value)
    fixed = {key for key, atom in form.atoms.items() if not any(n in loops for n in walk(atom))}
    parts = frozenset((key, form.terms[key]) for key in fixed if key in form.terms)
    for key in fixed:
        form.terms.pop(key, None)
    return parts, form.to_expr(value.dtype)


def _speaks_of(terms: Any, var: Var) -> bool:
    return any(_term_speaks_of(term, var) for term, _ in terms)


def _term_speaks_of(term: Term, var: Var) -> bool:
    source: Any = term.digit.source
    if isinstance(source, Var):
        return source is var
    return any(_term_speaks_of(inner, var) for inner in source[1].terms)


def _scope_loops(func: PrimFunc, loop: For) -> list[For]:
    found: list[For] = []
    for stmt in reversed(ancestors(func, loop)):
        if isinstance(stmt, Block):
            break
        if isinstance(stmt, For):
            found.append(stmt)
    return found


def _uses(realize: BlockRealize, buffer: Buffer) -> bool:
    return any(region.buffer is buffer for region in (*realize.block.reads, *realize.block.writes))


def _reads(write: Touch, touched: Sequence[Touch]) -> bool:
    return any(a.block is write.block and not a.is_write for a in touched)


def _around(access: Touch, loop: For) -> tuple[For, ...]:
    """The loops down to and including ``loop``."""
    return access.loops[: access.loops.index(loop) + 1] if loop in access.loops else ()


def _axes(realize: BlockRealize) -> list[tuple[Any, Expr]]:
    return list(zip(realize.block.iter_vars, realize.iter_values))


def _drives(realize: BlockRealize, loop: For) -> bool:
    return any(_mentions(value, loop) for value in realize.iter_values)


def _mentions(value: Expr, loop: For) -> bool:
    return any(n is loop.var for n in walk(value))


def _why(loop: For, touched: Sequence[Touch]) -> str:
    """The likeliest reason in words."""
    buffer = touched[0].buffer.name
    for access in touched:
        for axis, value in _axes(access.block):
            if axis.kind != "spatial" and _mentions(value, loop):
                return f"it drives the {axis.kind} axis {axis.var.name} of block {access.block.block.name}"
    reader = next((a for a in touched if not a.is_write), None)
    writer = next(a for a in touched if a.is_write)
    if reader is not None and reader.block is not writer.block:
        names = (writer.block.block.name, reader.block.block.name)
        return f"block {names[1]} may read in one what block {names[0]} writes to {buffer} in another"
    return f"several may touch one element of {buffer} in block {writer.block.block.name}"
