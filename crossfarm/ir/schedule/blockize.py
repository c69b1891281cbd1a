"""blockize: the loops below a point become one block, whose axes are the loops above.

Each axis value of the block below is divided into ``outer * size + inner``, ``inner`` being made of the loops that move
into the new block and reaching ``size`` values. The new block has the axis ``outer``; inside it the old block gets
``outer * size + inner``, so its own axes, regions and body stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, affine, const_int
from crossfarm.ir.expr import Binary, Expr, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses, key
from crossfarm.ir.schedule.dependencies import require_reduction
from crossfarm.ir.schedule.fresh import fresh_copy
from crossfarm.ir.schedule.iter_map import IterMap, NotAffine
from crossfarm.ir.schedule.tree import find_loop, loops_above, refuse, replace_stmt, unique_name
from crossfarm.ir.stmt import Block, BlockRealize, For, IterVar, Stmt
from crossfarm.ir.visitor import walk


def blockize(func: PrimFunc, loop: Var, preserve_unit_iters: bool = True) -> tuple[PrimFunc, str]:
    """The subtree under ``loop`` as a block; see ``Schedule.blockize``."""
    top = find_loop(func, loop, "blockize")
    moved, realize = _nest(top)
    above = loops_above(func, realize)
    for one in above:
        if const_int(one.min) != 0:
            refuse("blockize", f"loop {one.var.name} does not start at 0", at=top)
    kept = above[: len(above) - len(moved)]
    for one in moved:
        if _variables(one.extent) & {k.var for k in kept}:
            refuse("blockize", f"how long loop {one.var.name} runs depends on a loop outside the new block", at=top)
    if realize.block.init is not None:
        require_reduction(func, realize, "blockize")
    division = _Division(realize, kept, moved, preserve_unit_iters)
    outer_guards, inner_guards = division.guards(realize.predicate)
    inner_values = division.inner_values
    inner = BlockRealize(inner_values, _all(inner_guards), without_init(realize.block))
    body = _loops(moved, inner)
    init = _init(func, realize, moved, inner_values, inner_guards)
    accesses = infer_accesses(body, init)
    name = unique_name(func, f"{realize.block.name}_o")
    block = Block(name, tuple(division.axes), accesses.reads, accesses.writes, body, init)
    return replace_stmt(func, top, BlockRealize(tuple(division.outer_values), _all(outer_guards), block)), name


def without_init(block: Block) -> Block:
    """``block`` that finds its target initialized, and so declares that it reads it."""
    if block.init is None:
        return block
    found = infer_accesses(block.body, None, block.alloc_buffers, block.match_buffers).reads
    declared = {region.buffer for region in block.reads}
    return replace(block, init=None, reads=(*(r for r in found if r.buffer not in declared), *block.reads))


class _Division:
    """The axes of a block divided between the loops outside and inside of the new one.

    Attributes:
        axes: the new block's axes.
        outer_values: what each of them is bound to.
        inner_values: for each axis of the old block, its value inside the new one.
    """

    def __init__(
        self, realize: BlockRealize, kept: tuple[For, ...], moved: tuple[For, ...], preserve_unit_iters: bool
    ) -> None:
        self._realize = realize
        self._moved = {loop.var: loop.extent for loop in moved}
        self._kept = {loop.var for loop in kept}
        self._forms = IterMap({loop.var: loop.extent for loop in (*kept, *moved)})
        self._outer_forms: list[tuple[Affine, Var, int]] = []
        self.axes: list[IterVar] = []
        self.outer_values: list[Expr] = []
        values: list[Expr] = []
        for axis, value in zip(realize.block.iter_vars, realize.iter_values):
            values.append(self._divide(axis, value, preserve_unit_iters))
        self.inner_values = tuple(values)

    def _divide(self, axis: IterVar, value: Expr, preserve_unit_iters: bool) -> Expr:
        if const_int(axis.dom.min) != 0:
            self._refuse(f"axis {axis.var.name} does not start at 0")
        value = self._forms.simplified(value)
        outer, inner = self._parts(value, f"axis {axis.var.name}")
        dtype = value.dtype
        if not inner.terms:
            if not outer.terms and not outer.constant:
                return self._whole(axis, value, preserve_unit_iters)
            return self._outer(axis, axis.dom.extent, value, outer, 1)
        if not outer.terms and not outer.constant:
            return self._whole(axis, inner.to_expr(dtype), preserve_unit_iters)
        size = self._reach(axis, inner.to_expr(dtype))
        if outer.constant % size or any(c % size for c in outer.terms.values()):
            self._refuse(
                f"axis {axis.var.name} takes {size} values in the loops below, which does not divide the steps above"
            )
        quotient, _ = outer.split(size)
        extent = ops.const(size, dtype)
        blocks = const_int(axis.dom.extent)
        count: Expr = (
            ops.floordiv(ops.add(axis.dom.extent, size - 1), extent)
            if blocks is None
            else ops.const(-(-blocks // size), dtype)
        )
        start = self._outer(axis, count, quotient.to_expr(dtype), outer, size)
        return ops.add(ops.mul(start, extent), inner.to_expr(dtype))

    def _whole(self, axis: IterVar, inner: Expr, preserve_unit_iters: bool) -> Expr:
        """All of the axis runs inside."""
        if preserve_unit_iters:
            dtype = axis.var.dtype
            self._outer(axis, ops.const(1, dtype), ops.const(0, dtype), Affine(), 1)
        return inner

    def _outer(self, axis: IterVar, extent: Expr, value: Expr, form: Affine, size: int) -> Var:
        dtype = axis.var.dtype
        var = Var(f"{axis.var.name}_o", dtype)
        self.axes.append(IterVar(var, Range(ops.const(0, dtype), extent), axis.kind))
        self.outer_values.append(value)
        if form.terms:
            self._outer_forms.append((form, var, size))
        return var

    def _parts(self, value: Expr, what: str) -> tuple[Affine, Affine]:
        """Terms of the loops outside (and the constant), and terms of the loops inside."""
        total = affine(value, key)
        outer, inner = Affine(total.constant), Affine()
        for name, coefficient in total.terms.items():
            used = _variables(total.atoms[name])
            if used & self._moved.keys() and used & self._kept:
                self._refuse(f"{what} mixes loops outside and inside of the new block in one term")
            part = inner if used & self._moved.keys() else outer
            part.add(Affine(0, {name: coefficient}, {name: total.atoms[name]}))
        return outer, inner

    def _reach(self, axis: IterVar, inner: Expr) -> int:
        """How many values the part of the loops inside takes: from 0 to this less one."""
        try:
            form = IterMap(self._moved).form(inner)
        except NotAffine as reason:
            self._refuse(f"axis {axis.var.name}: {reason}")
        sizes = [(term.scale, term.digit.extent) for term in form.terms]
        if any(size.symbols for pair in sizes for size in pair):
            self._refuse(f"axis {axis.var.name} takes a number of values in the loops below that is not constant")
        return 1 + sum(scale.factor * (extent.factor - 1) for scale, extent in sizes)

    def guards(self, predicate: Expr) -> tuple[list[Expr], list[Expr]]:
        """The conditions of a predicate that hold for whole instances of the new block, and those for inside."""
        outer, inner = [], []
        for condition in _conjuncts(predicate):
            used = _variables(condition)
            if not used & self._moved.keys():
                outer.append(condition)
            else:
                inner.append(condition if not used & self._kept else self._inside(condition))
        return outer, inner

    def _inside(self, condition: Expr) -> Expr:
        """A comparison that speaks of loops outside, in terms of the new block's axes."""
        if isinstance(condition, Binary) and condition.op in ("lt", "le", "gt", "ge"):
            dtype = condition.a.dtype
            value, bound = self._forms.simplified(condition.a), condition.b
            if _variables(bound) & (self._moved.keys() | self._kept):
                value, bound = ops.sub(value, self._forms.simplified(bound)), ops.const(0, dtype)
            outer, rest = self._parts(value, "the predicate")
            for form, var, size in self._outer_forms:
                factor = _multiple(outer, form)
                if factor is None:
                    continue
                whole = Affine(outer.constant - factor * form.constant)  # form is size * var
                whole.add(affine(var), factor * size)
                whole.add(rest)
                return Binary(condition.op, whole.to_expr(dtype), bound)
        self._refuse("its predicate cannot be told apart into loops outside and inside of the new block")

    def _refuse(self, reason: str) -> NoReturn:
        refuse("blockize", f"block {self._realize.block.name}: {reason}", at=self._realize)


def _nest(top: For) -> tuple[tuple[For, ...], BlockRealize]:
    """The loops from ``top`` down to the only block below it."""
    loops: list[For] = []
    stmt: Stmt = top
    while isinstance(stmt, For):
        loops.append(stmt)
        stmt = stmt.body
    if not isinstance(stmt, BlockRealize):
        refuse("blockize", f"under loop {top.var.name} is not one nest of loops around one block", at=top)
    return tuple(loops), stmt


def _init(
    func: PrimFunc, realize: BlockRealize, moved: tuple[For, ...], values: tuple[Expr, ...], guards: list[Expr]
) -> Stmt | None:
    """The old block's init for all elements of one instance of the new block."""
    if realize.block.init is None:
        return None
    spatial = [(axis, v) for axis, v in zip(realize.block.iter_vars, values) if axis.kind == "spatial"]
    inside = {loop.var for loop in moved}
    needed = {var for _, v in spatial for var in _variables(v) & inside}
    loops = tuple(loop for loop in moved if loop.var in needed)
    kept = []
    for guard in guards:
        used = _variables(guard) & inside
        if used <= needed:
            kept.append(guard)
        elif used & needed:
            reason = "its predicate ties what is initialized to its reduction"
            refuse("blockize", f"block {realize.block.name}: {reason}", at=realize)
    for loop in loops:
        if not _variables(loop.extent) & inside <= needed:
            refuse("blockize", f"how long loop {loop.var.name} runs depends on a reduction", at=realize)
    accesses = infer_accesses(realize.block.init)
    axes = tuple(axis for axis, _ in spatial)
    block = Block(f"{realize.block.name}_init", axes, accesses.reads, accesses.writes, realize.block.init)
    return fresh_copy(func, _loops(loops, BlockRealize(tuple(v for _, v in spatial), _all(kept), block)))


def _loops(loops: tuple[For, ...], body: Stmt) -> Stmt:
    for loop in reversed(loops):
        body = replace(loop, body=body)
    return body


def _conjuncts(condition: Expr) -> list[Expr]:
    if isinstance(condition, Binary) and condition.op == "and":
        return [*_conjuncts(condition.a), *_conjuncts(condition.b)]
    return [] if const_int(condition) == 1 else [condition]


def _all(conditions: list[Expr]) -> Expr:
    return ops.logical_and(*conditions)


def _variables(expr: Expr) -> set[Var]:
    return {node for node in walk(expr) if isinstance(node, Var)}


def _multiple(form: Affine, of: Affine) -> int | None:
    """The integer ``n`` with ``form = n * of`` but for constants, else None."""
    if form.terms.keys() != of.terms.keys():
        return None
    factors = {form.terms[name] // c if form.terms[name] % c == 0 else None for name, c in of.terms.items()}
    return factors.pop() if len(factors) == 1 else None
