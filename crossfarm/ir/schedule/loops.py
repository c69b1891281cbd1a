"""Reshaping loop nests: split, fuse, reorder, and loops of one iteration.

A loop that is replaced must be serial and without annotations: what its kind and annotations say is about that loop,
and would mean nothing on parts of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer, const_int
from crossfarm.ir.expr import COMPARISONS, Binary, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import simplify
from crossfarm.ir.schedule.independence import require_reorderable
from crossfarm.ir.schedule.iter_map import IterMap
from crossfarm.ir.schedule.tree import ancestors, find_block, find_loop, refuse, replace_stmt
from crossfarm.ir.stmt import Block, BlockRealize, For, IfThenElse, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, substitute, walk


def split(
    func: PrimFunc,
    loop: Var,
    factors: Sequence[int | Expr | None],
    preserve_unit_iters: bool = True,
    disable_predication: bool = False,
) -> tuple[PrimFunc, tuple[Var, ...]]:
    """One loop as a nest of ``len(factors)`` loops; a ``None`` factor is what is left, rounded up."""
    node = _plain_loop(func, loop, "split")
    extents = _extents(node, factors)
    kept = [not (const_int(e) == 1 and not preserve_unit_iters) for e in extents]
    new = tuple(Var(f"{loop.name}_{n}", loop.dtype) for n in range(len(extents)))
    value: Expr = ops.const(0, loop.dtype)
    for var, extent, keep in zip(new, extents, kept):
        value = value if const_int(value) == 0 else simplify(ops.mul(value, extent))
        value = ops.add(value, var) if keep and const_int(value) != 0 else var if keep else value
    whole = simplify(_product(extents, loop.dtype))
    guard = None if disable_predication or _divides(node, extents, whole) else ops.binary("lt", value, node.extent)
    body = _substituted(func, node, {loop: value}, dict(zip(new, extents)), guard)
    for var, extent, keep in reversed(list(zip(new, extents, kept))):
        body = For(var, ops.const(0, loop.dtype), extent, body) if keep else body
    return replace_stmt(func, node, body), tuple(var for var, keep in zip(new, kept) if keep)


def fuse(func: PrimFunc, *loops: Var, preserve_unit_iters: bool = True) -> tuple[PrimFunc, Var]:
    """Loops that are directly inside one another, outer to inner, as one loop over all their iterations."""
    if not loops:
        refuse("fuse", "there are no loops to fuse")
    nodes = [_plain_loop(func, loop, "fuse") for loop in loops]
    for outer, inner in pairwise(nodes):
        if outer.body is not inner:
            refuse("fuse", f"loop {inner.var.name} is not the one thing directly inside {outer.var.name}", at=outer)
        used = next((n for n in walk(inner.extent) if isinstance(n, Var) and n in loops), None)
        if used is not None:
            refuse("fuse", f"the extent of loop {inner.var.name} depends on loop {used.name}", at=outer)
    dtype = max((loop.dtype for loop in loops), key=dt.bits)
    kept = [n for n in nodes if preserve_unit_iters or const_int(n.extent) != 1] or nodes[-1:]
    fused = Var("_".join(n.var.name for n in kept) + ("_fused" if len(kept) > 1 else ""), dtype)
    try:
        extent = simplify(_product([ops.cast(n.extent, dtype) for n in kept], dtype))
    except InvalidModule:
        refuse("fuse", f"the fused loop has more iterations than {dtype} can count", at=nodes[0])
    values: dict[Var, Expr] = {n.var: ops.const(0, n.var.dtype) for n in nodes}
    inner_extents: list[Expr] = []
    for position, node in reversed(list(enumerate(kept))):
        below = _product(inner_extents, dtype)
        value: Expr = fused if const_int(below) == 1 else ops.floordiv(fused, below)
        if position:
            value = ops.floormod(value, ops.cast(node.extent, dtype))
        values[node.var] = ops.cast(value, node.var.dtype)
        inner_extents.insert(0, ops.cast(node.extent, dtype))
    body = _substituted(func, nodes[-1], values, {fused: extent}, None, dropped=loops)
    return replace_stmt(func, nodes[0], For(fused, ops.const(0, dtype), extent, body)), fused


def reorder(func: PrimFunc, *loops: Var) -> tuple[PrimFunc, None]:
    """The loops of one nest in the given order; those of the nest that are not named stay in their places."""
    if len(set(loops)) != len(loops):
        refuse("reorder", "a loop is named twice")
    nodes = {loop: find_loop(func, loop, "reorder") for loop in loops}
    if len(nodes) < 2:
        return func, None
    nest = _nest(func, nodes)
    places = [place for place, node in enumerate(nest) if node.var in nodes]
    after = list(nest)
    for place, loop in zip(places, loops):
        after[place] = nodes[loop]
    if all(a is b for a, b in zip(after, nest)):
        return func, None
    for place, node in enumerate(after):
        later = {n.var for n in after[place:]}
        used = next((n for e in (node.min, node.extent) for n in walk(e) if n in later), None)
        if isinstance(used, Var):
            refuse("reorder", f"the range of loop {node.var.name} depends on loop {used.name}", at=nest[0])
    moved = [node for node, was in zip(after, nest) if node is not was]
    require_reorderable(func, nest, moved, "reorder")
    body = nest[-1].body
    for node in reversed(after):
        body = replace(node, body=body)
    return replace_stmt(func, nest[0], body), None


def add_unit_loop(func: PrimFunc, at: str | Var) -> tuple[PrimFunc, Var]:
    """A loop of one iteration around a block or a loop."""
    stmt: BlockRealize | For
    if isinstance(at, Var):
        stmt, dtype = find_loop(func, at, "add_unit_loop"), at.dtype
    else:
        stmt = find_block(func, at, "add_unit_loop")
        dtype = stmt.iter_values[0].dtype if stmt.iter_values else "int32"
    if stmt is func.body:
        refuse("add_unit_loop", "nothing can be around the root block", at=stmt)
    var = Var("u", dtype)
    return replace_stmt(func, stmt, For(var, ops.const(0, dtype), ops.const(1, dtype), stmt)), var


def _plain_loop(func: PrimFunc, loop: Var, primitive: str) -> For:
    """The loop, which must be one that may be replaced."""
    node = find_loop(func, loop, primitive)
    if node.kind != "serial":
        refuse(primitive, f"loop {loop.name} is {node.kind}; only a serial loop can be replaced", at=node)
    if node.annotations:
        refuse(primitive, f"loop {loop.name} has the annotation {min(node.annotations)!r}", at=node)
    if const_int(node.min) != 0:
        refuse(primitive, f"loop {loop.name} does not start at 0", at=node)
    return node


def _extents(node: For, factors: Sequence[int | Expr | None]) -> list[Expr]:
    """The extents of the new loops."""
    name, dtype = node.var.name, node.var.dtype
    unknown = [place for place, factor in enumerate(factors) if factor is None]
    if not factors:
        refuse("split", "there are no factors", at=node)
    if len(unknown) > 1:
        refuse("split", "more than one factor is None", at=node)
    known = [ops.cast(f, dtype) if isinstance(f, Expr) else ops.const(f, dtype) for f in factors if f is not None]
    for factor in known:
        if isinstance(factor, IntImm) and factor.value <= 0:
            refuse("split", f"a factor of {factor.value} for loop {name}: factors are positive", at=node)
    product = simplify(_product(known, dtype))
    if not unknown:
        if not Analyzer().prove(ops.binary("ge", product, node.extent)):
            hint = "leave one factor None to get what is needed"
            refuse("split", f"the factors do not cover the extent of loop {name}", at=node, hint=hint)
        return known
    known.insert(unknown[0], _ceil_div(node.extent, product))
    return known


def _divides(node: For, extents: list[Expr], whole: Expr) -> bool:
    """True when the new loops run exactly the old loop's iterations."""
    return (
        const_int(simplify(ops.sub(whole, node.extent))) == 0
        if const_int(node.extent) is None
        else (const_int(whole) == const_int(node.extent))
    )


def _ceil_div(extent: Expr, by: Expr) -> Expr:
    if isinstance(extent, IntImm) and isinstance(by, IntImm):
        return ops.const(-(-extent.value // by.value), extent.dtype)
    exact = IterMap({}).quotient(extent, by)
    return exact if exact is not None else ops.floordiv(simplify(ops.sub(ops.add(extent, by), 1)), by)


def _product(extents: Sequence[Expr], dtype: str) -> Expr:
    """The product, constants folded. Raises InvalidModule where a constant leaves the dtype."""
    constant, rest = 1, None
    for extent in extents:
        if isinstance(extent, IntImm):
            constant *= extent.value
        else:
            rest = extent if rest is None else ops.mul(rest, extent)
    if rest is None:
        return ops.const(constant, dtype)
    return rest if constant == 1 else ops.mul(rest, constant)


def _substituted(
    func: PrimFunc,
    node: For,
    values: Mapping[Var, Expr],
    new: Mapping[Var, Expr],
    guard: Expr | None,
    dropped: Sequence[Var] = (),
) -> Stmt:
    """The body of ``node`` with loop variables replaced, under ``guard``, bindings written shortly.

    Args:
        new: extents of the loops that come instead.
    """
    gone = {*values, *dropped}
    around = {s.var: s.extent for s in _until_block(ancestors(func, node)) if isinstance(s, For) and s.var not in gone}
    return _Rewrite(dict(values), {**around, **new}, guard).mutate(node.body)


def _until_block(path: tuple[Stmt, ...]) -> list[Stmt]:
    found: list[Stmt] = []
    for stmt in reversed(path):
        if isinstance(stmt, Block):
            break
        found.insert(0, stmt)
    return found


def _simplified(predicate: Expr, bindings: IterMap) -> Expr:
    """The comparisons of a predicate with their sides written shortly."""
    if isinstance(predicate, Binary) and predicate.op == "and":
        return ops.logical_and(_simplified(predicate.a, bindings), _simplified(predicate.b, bindings))
    if isinstance(predicate, Binary) and predicate.op in COMPARISONS and dt.is_int(predicate.a.dtype):
        return replace(predicate, a=bindings.simplified(predicate.a), b=bindings.simplified(predicate.b))
    return predicate


class _Rewrite(Mutator):
    """Substitutes loop variables down to the first blocks, whose predicates take the guard."""

    def __init__(self, values: dict[Var, Expr], extents: dict[Var, Expr], guard: Expr | None) -> None:
        self.values = values
        self.extents = extents
        self.guard = guard

    def mutate_Var(self, node: Var) -> Expr:
        return self.values.get(node, node)

    def mutate_For(self, node: For) -> Stmt:
        if self.guard is not None and any(n in self.values for e in (node.min, node.extent) for n in walk(e)):
            return self._guarded(node)  # a range computed from beyond the old loop's end means nothing
        self.extents = {**self.extents, node.var: node.extent}
        changed = self.mutate_children(node)
        del self.extents[node.var]
        return changed

    def mutate_SeqStmt(self, node: SeqStmt) -> Stmt:
        return self.mutate_children(node)

    def mutate_BlockRealize(self, node: BlockRealize) -> Stmt:
        before = (*node.iter_values, node.predicate)
        short = IterMap(self.extents)
        values = tuple(v if v is (new := self.mutate(v)) else short.simplified(new) for v in node.iter_values)
        predicate = self.mutate(node.predicate)
        predicate = node.predicate if predicate is node.predicate else _simplified(predicate, short)
        if self.guard is not None:
            predicate = self.guard if const_int(predicate) == 1 else ops.logical_and(predicate, self.guard)
        block = substitute(node.block, self.values)
        if block is node.block and all(a is b for a, b in zip((*values, predicate), before)):
            return node
        return BlockRealize(values, predicate, block)

    def mutate(self, node):  # type: ignore[no-untyped-def]
        if isinstance(node, Stmt) and not isinstance(node, For | SeqStmt | BlockRealize) and self.guard is not None:
            return self._guarded(node)
        return super().mutate(node)

    def _guarded(self, node: Stmt) -> Stmt:
        guard, self.guard = self.guard, None
        inner = self.mutate(node)
        self.guard = guard
        assert guard is not None
        return IfThenElse(guard, inner)


def _nest(func: PrimFunc, nodes: Mapping[Var, For]) -> list[For]:
    """All loops from the outermost of ``nodes`` to the innermost, which must be one straight nest."""
    depth = {var: len(ancestors(func, node)) for var, node in nodes.items()}
    top, bottom = (nodes[pick(depth, key=lambda var: depth[var])] for pick in (min, max))
    nest: list[For] = [top]
    while nest[-1] is not bottom:
        inner = nest[-1].body
        if not isinstance(inner, For):
            reason = f"between loops {top.var.name} and {bottom.var.name} is more than loops"
            refuse("reorder", reason, at=top)
        nest.append(inner)
    missing = next((n for n in nodes.values() if n not in nest), None)
    if missing is not None:
        refuse("reorder", f"loops {missing.var.name} and {bottom.var.name} are not in one nest", at=missing)
    return nest
