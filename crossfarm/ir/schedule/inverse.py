"""Which instance of a block stores an element: the store's index turned around."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from crossfarm.ir import ops
from crossfarm.ir.arith import affine, const_int
from crossfarm.ir.expr import Binary, Expr, Var
from crossfarm.ir.regions import key
from crossfarm.ir.schedule.spans import floordiv, tidy
from crossfarm.ir.stmt import IterVar
from crossfarm.ir.visitor import walk


def solve_axes(indices: Sequence[Expr], element: Sequence[Expr], axes: Sequence[IterVar]) -> dict[Var, Expr] | None:
    """Axis values of the instance whose ``indices`` are ``element``; None where an index cannot be turned around.

    Understood are ``scale * v + c``, mixed-radix sums as ``4 * v + w`` with ``w`` below 4, quotients and remainders of
    one axis in two dimensions as ``[v // 4, v % 4]``, and axes of one value. Meaningful for elements that some
    instance stores.
    """
    found: dict[Var, Expr] = {a.var: a.dom.min for a in axes if const_int(a.dom.extent) == 1}
    extents = {a.var: const_int(a.dom.extent) for a in axes}
    quotients: dict[object, tuple[Var, Expr, Expr]] = {}
    remainders: dict[object, Expr] = {}
    for index, value in zip(indices, element):
        if isinstance(index, Binary) and isinstance(index.a, Var) and index.op in ("floordiv", "floormod"):
            if any(n in extents for n in walk(index.b)):
                return None
            name = key((index.a, index.b))
            if index.op == "floordiv":
                quotients[name] = (index.a, index.b, value)
            else:
                remainders[name] = value
        elif not _solve_sum(index, value, extents, found):
            return None
    for name, (var, by, value) in quotients.items():
        if name not in remainders:
            return None
        whole = ops.mul(value, by)
        found[var] = tidy(ops.cast(ops.add(whole, remainders[name]), var.dtype))
    return found if set(found) == set(extents) else None


def _solve_sum(index: Expr, value: Expr, extents: dict[Var, int | None], found: dict[Var, Expr]) -> bool:
    """Adds what ``index == value`` says of the axes; False where it is not understood."""
    form = affine(tidy(index), key)
    terms: list[tuple[int, Var]] = []
    for name, scale in form.terms.items():
        atom = form.atoms[name]
        if isinstance(atom, Var) and atom in extents:
            terms.append((scale, atom))
        else:
            return False
    terms.sort(key=lambda term: term[0], reverse=True)
    if any(scale <= 0 for scale, _ in terms):
        return False
    for (wide, _), (narrow, inner) in itertools.pairwise(terms):
        extent = extents[inner]
        if extent is None or wide != narrow * extent:
            return False
    rest = tidy(ops.sub(value, form.constant)) if form.constant else value
    for position, (scale, var) in enumerate(terms):
        part = floordiv(rest, ops.const(scale, rest.dtype)) if scale != 1 else rest
        if position:
            part = ops.floormod(part, extents[var] or 1)
        found[var] = ops.cast(part, var.dtype)
    return True
