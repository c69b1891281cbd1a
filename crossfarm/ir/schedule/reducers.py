"""Commutative reductions: recognised in a block's body, and put together again for other operands.

A reduction updates one element by a commutative operator, or the two elements of an argmax or argmin by Selects. With
such a one the order of steps does not matter (for float sums and products: but for rounding), and steps may be
grouped: that is what ``rfactor`` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from crossfarm.ir import ops
from crossfarm.ir.arith import affine
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Expr, Select, Var
from crossfarm.ir.regions import key
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, LetStmt, SeqStmt, Stmt
from crossfarm.ir.visitor import seq, substitute, walk

#: Operators, with the value that changes nothing; None: any number of times the same start changes nothing.
_OPERATORS: dict[str, int | None] = {
    "add": 0,
    "mul": 1,
    "bitxor": 0,
    "min": None,
    "max": None,
    "bitand": None,
    "bitor": None,
    "and": None,
    "or": None,
}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


@dataclass(frozen=True)
class Reduction:
    """``targets = combine(targets, operands)``.

    Attributes:
        kind: an operator, ``argmax`` or ``argmin``.
        targets: what is updated, one element or (index, value).
        operands: what a step adds to it, one a target.
        least: of an argmax or argmin, whether the least index wins among equal values.
    """

    kind: str
    targets: tuple[BufferLoad, ...]
    operands: tuple[Expr, ...]
    least: bool = True

    def combine(self, left: Sequence[Expr], right: Sequence[Expr]) -> tuple[Expr, ...]:
        """Two results as one, one expression a target."""
        if len(self.targets) == 1:
            return (Binary(self.kind, left[0], right[0]),)
        (index, value), (other_index, other_value) = left, right
        better = ops.compare("gt" if self.kind == "argmax" else "lt", value, other_value)
        first = ops.compare("lt" if self.least else "gt", index, other_index)
        wins = ops.logical_or(better, ops.logical_and(ops.compare("eq", value, other_value), first))
        return Select(wins, index, other_index), Select(better, value, other_value)

    def starts(self, init: Sequence[Expr]) -> tuple[Expr, ...]:
        """What a part of the reduction starts from, given what the whole starts from."""
        neutral = _OPERATORS.get(self.kind)
        return tuple(init) if neutral is None else (ops.const(neutral, self.targets[0].dtype),)

    def update(self, targets: Sequence[BufferLoad], operands: Sequence[Expr]) -> Stmt:
        """The statement of one step on other targets: all are read before any is written."""
        values = self.combine(targets, operands)
        if len(targets) == 1:
            return BufferStore(targets[0].buffer, values[0], targets[0].indices)
        lets = [Var(f"v_{target.buffer.name}", target.dtype) for target in targets]
        body = seq(*(BufferStore(t.buffer, var, t.indices) for t, var in zip(targets, lets)))
        for var, value in reversed(list(zip(lets, values))):
            body = LetStmt(var, value, body)
        return body


def reduction_of(block: Block) -> Reduction | None:
    """The reduction that ``block`` is, or None where it is not known to be commutative."""
    stores = _simultaneous(block.body)
    if stores is None:
        return None
    if len(stores) == 1:
        return _operator(stores[0])
    if len(stores) == 2:
        return _selection(stores[0], stores[1], block) or _selection(stores[1], stores[0], block)
    return None


def init_values(block: Block, reduction: Reduction) -> tuple[Expr, ...] | None:
    """What each target starts from; None where ``init`` is not one store for each, of the same element."""
    if block.init is None:
        return None
    stores = block.init.stmts if isinstance(block.init, SeqStmt) else (block.init,)
    values = []
    for target in reduction.targets:
        found = [s for s in stores if isinstance(s, BufferStore) and s.buffer is target.buffer]
        if len(found) != 1 or not _same(found[0].indices, target.indices):
            return None
        values.append(found[0].value)
    if len(stores) != len(values) or any(isinstance(n, BufferLoad) for v in values for n in walk(v)):
        return None
    return tuple(values)


def keeps_order(realize: BlockRealize, loops: Sequence[For]) -> bool:
    """True when the reduce axes' values come in lexicographic order, as loops over the axes would give them."""
    depth = {loop.var: position for position, loop in enumerate(loops)}
    order: list[int] = []
    for axis, value in zip(realize.block.iter_vars, realize.iter_values):
        if axis.kind != "reduce":
            continue
        terms = []
        form = affine(value, key)
        for name, coefficient in form.terms.items():
            atom = form.atoms[name]
            if atom in depth:
                terms.append((coefficient, depth[atom]))
            elif any(n in depth for n in walk(atom)):
                return False
        if any(coefficient <= 0 for coefficient, _ in terms):
            return False
        order += [position for _, position in sorted(terms, reverse=True)]
    return all(a < b for a, b in itertools.pairwise(order))


def _simultaneous(body: Stmt) -> list[BufferStore] | None:
    """The stores of a body in which no store changes what a later one reads, lets substituted."""
    values: dict[Var, Expr] = {}
    under_let = isinstance(body, LetStmt)
    while isinstance(body, LetStmt):
        values[body.var] = substitute(body.value, values)
        body = body.body
    stores: list[BufferStore] = []
    for part in body.stmts if isinstance(body, SeqStmt) else (body,):
        if not isinstance(part, BufferStore):
            return None
        if not (under_let and isinstance(part.value, Var)):
            written = {s.buffer for s in stores}
            if any(isinstance(n, BufferLoad) and n.buffer in written for n in walk(part.value)):
                return None
        stores.append(BufferStore(part.buffer, substitute(part.value, values), part.indices))
    return stores


def _operator(store: BufferStore) -> Reduction | None:
    """``B[i] = B[i] op …``: of a chain of one operator, exactly one leaf is the element itself."""
    value = store.value
    if not isinstance(value, Binary) or value.op not in _OPERATORS:
        return None
    leaves = _leaves(value.op, value)
    own = [leaf for leaf in leaves if _is_element(leaf, store)]
    rest = [leaf for leaf in leaves if not _is_element(leaf, store)]
    if len(own) != 1 or not rest or any(_reads(leaf, (store.buffer,)) for leaf in rest):
        return None
    operand = rest[0]
    for leaf in rest[1:]:
        operand = Binary(value.op, operand, leaf)
    return Reduction(value.op, (BufferLoad(store.buffer, store.indices),), (operand,))


def _leaves(op: str, value: Expr) -> list[Expr]:
    if isinstance(value, Binary) and value.op == op:
        return [*_leaves(op, value.a), *_leaves(op, value.b)]
    return [value]


def _selection(index: BufferStore, value: BufferStore, block: Block) -> Reduction | None:
    """An argmax or argmin whose index goes to one store and value to the other."""
    if not isinstance(index.value, Select) or not _same(index.indices, value.indices):
        return None
    chosen, kept_index = index.value.false_value, index.value.true_value
    if not _is_element(kept_index, index) or _reads(chosen, (index.buffer, value.buffer)):
        return None
    found = _better(value)
    if found is None:
        return None
    kind, candidate = found
    if _reads(candidate, (index.buffer, value.buffer)):
        return None
    targets = (BufferLoad(index.buffer, index.indices), BufferLoad(value.buffer, value.indices))
    least = _tie(index.value.condition, kind, targets, candidate, chosen)
    if least is None:
        return None
    return Reduction(kind, targets, (chosen, candidate), least)


def _better(value: BufferStore) -> tuple[str, Expr] | None:
    """(argmax or argmin, candidate) of ``V = V better x ? V : x``, written as a Select, max or min."""
    expr = value.value
    if isinstance(expr, Binary) and expr.op in ("max", "min"):
        for own, other in ((expr.a, expr.b), (expr.b, expr.a)):
            if _is_element(own, value):
                return f"arg{expr.op}", other
    if isinstance(expr, Select) and isinstance(expr.condition, Binary) and _is_element(expr.true_value, value):
        compared = _compared(expr.condition, expr.true_value, expr.false_value)
        if compared in ("gt", "ge", "lt", "le"):
            return ("argmax" if compared[0] == "g" else "argmin"), expr.false_value
    return None


def _tie(
    condition: Expr, kind: str, targets: tuple[BufferLoad, BufferLoad], candidate: Expr, chosen: Expr
) -> bool | None:
    """Whether the least index wins among equal values; None where the condition does not settle it by index."""
    index, value = targets
    strict = "gt" if kind == "argmax" else "lt"
    if not (isinstance(condition, Binary) and condition.op == "or"):
        return None
    for better, equal in ((condition.a, condition.b), (condition.b, condition.a)):
        if _compared(better, value, candidate) != strict or not (isinstance(equal, Binary) and equal.op == "and"):
            continue
        for same, order in ((equal.a, equal.b), (equal.b, equal.a)):
            by = _compared(order, index, chosen)
            if _compared(same, value, candidate) == "eq" and by is not None and by != "eq":
                return by in ("lt", "le")
    return None


def _compared(condition: Expr, a: Expr, b: Expr) -> str | None:
    """The operator of ``condition`` as a comparison of ``a`` with ``b``."""
    if not isinstance(condition, Binary):
        return None
    if _same((condition.a, condition.b), (a, b)):
        return condition.op
    if _same((condition.a, condition.b), (b, a)):
        return _MIRRORED.get(condition.op, condition.op)
    return None


def _is_element(expr: Expr, store: BufferStore) -> bool:
    return isinstance(expr, BufferLoad) and expr.buffer is store.buffer and _same(expr.indices, store.indices)


def _same(a: Sequence[Expr], b: Sequence[Expr]) -> bool:
    return len(a) == len(b) and all(key(x) == key(y) for x, y in zip(a, b))


def _reads(expr: Expr, buffers: Sequence[Buffer]) -> bool:
    return any(isinstance(n, Buffer) and n in buffers for n in walk(expr))
