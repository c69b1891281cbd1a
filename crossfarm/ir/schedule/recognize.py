"""Is a block's content what a description says? Loops, statements and expressions side by side.

Block axes stand for what they are bound to, so the number of axes and where loops were split does not matter; what must
agree are the loops' extents and order, the statements, and for each buffer how its indices depend on the loops. Where a
buffer starts may differ, but not from access to access. Factors and summands may be the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossfarm.ir.arith import affine, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import (
    Binary,
    BufferLoad,
    Call,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Not,
    Select,
    Var,
)
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import key
from crossfarm.ir.schedule.iter_map import IterMap
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IfThenElse, SeqStmt, Stmt
from crossfarm.ir.structural import structural_equal
from crossfarm.ir.visitor import substitute, walk

_COMMUTATIVE = ("add", "mul", "bitand", "bitor", "bitxor", "eq", "ne")


class Mismatch(Exception):
    """How the content differs from the description, in words."""


@dataclass(frozen=True)
class Place:
    """Where a description's buffer is in a program: the buffer, and its first element in terms of the block's axes."""

    buffer: Buffer
    start: tuple[Expr, ...]


def recognize(desc: PrimFunc, block: Block) -> dict[Buffer, Place]:
    """Where each parameter of ``desc`` is in ``block``. Raises Mismatch where its content is something else."""
    if block.match_buffers or block.alloc_buffers:
        raise Mismatch("it has buffers of its own")
    assert isinstance(desc.body, BlockRealize), "a description is in block form"
    matcher = _Matcher(block)
    matcher.statement(desc.body.block.body, block.body)
    matcher.check_aliases(desc)
    return matcher.places


class _Matcher:
    """Carries what corresponds to what; the first argument of each method is the description's."""

    def __init__(self, block: Block) -> None:
        self.places: dict[Buffer, Place] = {}
        self._described: dict[Var, Expr] = {}  # its loops and axes, in terms of the program's loops
        self._meant: dict[Var, Expr] = {}  # the program's axes, in terms of its loops
        self._loops: set[Var] = set()
        self._extents = {axis.var: axis.dom.extent for axis in block.iter_vars if const_int(axis.dom.min) == 0}

    def check_aliases(self, desc: PrimFunc) -> None:
        """What is written is one parameter's alone: an implementation may store before it has read everything."""
        assert isinstance(desc.body, BlockRealize)
        written = {n.buffer for n in walk(desc.body) if isinstance(n, BufferStore)}
        for param in written:
            for other, place in self.places.items():
                if other is not param and place.buffer is self.places[param].buffer:
                    raise Mismatch(f"{param.name} and {other.name} are both {place.buffer.name}, which is written")

    # --- statements

    def statement(self, d: Stmt, p: Stmt) -> None:
        if isinstance(p, For) and const_int(p.extent) == 1 and not (isinstance(d, For) and const_int(d.extent) == 1):
            self._meant[p.var] = p.min  # a loop of one iteration, which descriptions leave out
            self.statement(d, p.body)
            return
        match d, p:
            case For(), For():
                self._loop(d, p)
            case BlockRealize(), BlockRealize():
                self._realize(d, p)
            case SeqStmt(), SeqStmt() if len(d.stmts) == len(p.stmts):
                for a, b in zip(d.stmts, p.stmts):
                    self.statement(a, b)
            case BufferStore(), BufferStore():
                self._access(d, p)
                self.expression(d.value, p.value)
            case IfThenElse(), IfThenElse() if (d.else_body is None) == (p.else_body is None):
                self.expression(d.condition, p.condition)
                self.statement(d.then_body, p.then_body)
                if d.else_body is not None and p.else_body is not None:
                    self.statement(d.else_body, p.else_body)
            case _:
                raise Mismatch(f"it has {_a(p)} where the description has {_a(d)}")

    def _loop(self, d: For, p: For) -> None:
        here, there = const_int(p.extent), const_int(d.extent)
        if here is None or here != there or const_int(p.min) != 0 or const_int(d.min) != 0:
            text = "a number of times that is not constant" if here is None else f"{here} times"
            raise Mismatch(f"loop {p.var.name} runs {text}, the description's loop {d.var.name} {there}")
        self._described[d.var] = p.var
        self._extents[p.var] = p.extent
        self._loops.add(p.var)
        self.statement(d.body, p.body)

    def _realize(self, d: BlockRealize, p: BlockRealize) -> None:
        if const_int(p.predicate) != 1:
            raise Mismatch(f"block {p.block.name} has a predicate, so not all of it is computed")
        if p.block.init is not None:
            raise Mismatch(f"block {p.block.name} has an init; decompose_reduction takes it out")
        if p.block.alloc_buffers or p.block.match_buffers:
            raise Mismatch(f"block {p.block.name} has buffers of its own")
        for axis, value in zip(d.block.iter_vars, d.iter_values):
            self._described[axis.var] = substitute(value, self._described)
        for axis, value in zip(p.block.iter_vars, p.iter_values):
            self._meant[axis.var] = substitute(value, self._meant)
        self.statement(d.block.body, p.block.body)

    # --- expressions

    def expression(self, d: Expr, p: Expr) -> None:
        if d.dtype != p.dtype:
            raise Mismatch(f"it computes {p.dtype} where the description has {d.dtype}")
        match d, p:
            case BufferLoad(), BufferLoad():
                self._access(d, p)
            case IntImm(), IntImm() if d.value == p.value:
                pass
            case FloatImm(), FloatImm() if structural_equal(d, p):
                pass
            case Var(), _:
                if _difference(self._here(p), self._there(d)) != 0:
                    raise Mismatch(f"it does not use {d.name} as the description does")
            case Binary(), Binary() if d.op == p.op:
                self._binary(d, p)
            case Cast(), Cast():
                self.expression(d.value, p.value)
            case Not(), Not():
                self.expression(d.a, p.a)
            case Select(), Select():
                self._all((d.condition, d.true_value, d.false_value), (p.condition, p.true_value, p.false_value))
            case Call(), Call() if d.op == p.op and len(d.args) == len(p.args):
                self._all(d.args, p.args)
            case _:
                raise Mismatch(f"it has {_a(p)} where the description has {_a(d)}")

    def _binary(self, d: Binary, p: Binary) -> None:
        before = dict(self.places)
        try:
            self._all((d.a, d.b), (p.a, p.b))
        except Mismatch as first:
            self.places = before
            if d.op not in _COMMUTATIVE:
                raise
            try:
                self._all((d.a, d.b), (p.b, p.a))
            except Mismatch:
                raise first from None  # as it is written, the two are more alike

    def _all(self, ds: Sequence[Expr], ps: Sequence[Expr]) -> None:
        for a, b in zip(ds, ps):
            self.expression(a, b)

    def _access(self, d: BufferLoad | BufferStore, p: BufferLoad | BufferStore) -> None:
        described, buffer = d.buffer, p.buffer
        if described.dtype != buffer.dtype:
            raise Mismatch(f"{buffer.name} is {buffer.dtype}, the description's {described.name} {described.dtype}")
        if described.scope not in ("global", buffer.scope):
            raise Mismatch(f"{buffer.name} is in scope {buffer.scope}, {described.name} in {described.scope}")
        extra = len(p.indices) - len(d.indices)
        if extra < 0:
            raise Mismatch(f"{buffer.name} has fewer dimensions than the description's {described.name}")
        start = []
        for axis, index in enumerate(p.indices):
            form = affine(self._here(index), key)
            if axis >= extra:
                form.add(affine(self._there(d.indices[axis - extra]), key), -1)
            if any(n in self._loops for name in form.terms for n in walk(form.atoms[name])):
                raise Mismatch(f"index {axis} of {buffer.name} follows the loops otherwise than {described.name} does")
            start.append(form.to_expr(index.dtype))
        known = self.places.setdefault(described, Place(buffer, tuple(start)))
        if known.buffer is not buffer:
            raise Mismatch(f"{described.name} would be {known.buffer.name} and {buffer.name}")
        if any(_difference(a, b) != 0 for a, b in zip(known.start, start)):
            raise Mismatch(f"{described.name} would start at two places of {buffer.name}")

    def _here(self, value: Expr) -> Expr:
        return IterMap(self._extents).simplified(substitute(value, self._meant))

    def _there(self, value: Expr) -> Expr:
        return IterMap(self._extents).simplified(substitute(value, self._described))


def _difference(a: Expr, b: Expr) -> int | None:
    """``a - b`` where that is a constant."""
    form = affine(a, key)
    form.add(affine(b, key), -1)
    return None if form.terms else form.constant


def _a(node: Stmt | Expr) -> str:
    match node:
        case For():
            return "a loop"
        case BlockRealize():
            return "a block"
        case SeqStmt():
            return f"{len(node.stmts)} statements"
        case Binary() | Call():
            return f"the operation {node.op}"
        case IntImm() | FloatImm():
            return f"the constant {node.value}"
    return f"a {type(node).__name__}"
