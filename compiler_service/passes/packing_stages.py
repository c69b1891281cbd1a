"""Stages of a tensor program that lay a parameter out anew, and the program without them.

Rules for CPUs copy factors into panels, add an index for groups, pad filters to whole tiles: stages of their own, which
write a temporary from the elements of one parameter and numbers. They need nothing else, so they can run elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import count

from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr, FloatImm, IntImm, Select, Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.schedule.fresh import fresh_function
from crossfarm.ir.schedule.tree import rewrite
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IfThenElse, SeqStmt, Stmt
from crossfarm.ir.visitor import seq, walk

#: What is laid out anew may have this many times the bytes of the parameter, or these bytes where that is more: what
#: only repeats elements is better made where it is used than kept.
_MOST_GROWTH, _SMALL_BYTES = 4, 1 << 20


@dataclass(frozen=True)
class Packing:
    """A parameter as the rest of a program takes it.

    Attributes:
        param: position of the parameter.
        source: the parameter.
        result: the temporary that the last stage writes: of constant shape, compact.
        stages: in order; each reads what the one before wrote, the first one the parameter.
        between: the temporaries between them.
    """

    param: int
    source: Buffer
    result: Buffer
    stages: tuple[Stmt, ...]
    between: tuple[Buffer, ...]

    def function(self, like: PrimFunc) -> PrimFunc:
        """``pack(source, result)``, private, with the attributes of ``like``, which the stages are from.

        Its blocks are called the same for every parameter, so that equal ones are equal.
        """
        numbers = count()

        def named(node: Stmt) -> Stmt:
            return replace(node, name=f"packed_{next(numbers)}") if isinstance(node, Block) else node

        stages = [rewrite(stage, named) for stage in self.stages]
        root = Block("root", (), (), (), seq(*stages), alloc_buffers=self.between)
        return fresh_function(PrimFunc((self.source, self.result), _realized(root), like.attrs, private=True))


def packings_of(func: PrimFunc) -> tuple[Packing, ...]:
    """The packings of a scheduled function's parameters, in the order of their stages; none where it is lowered."""
    if not isinstance(func.body, BlockRealize) or not isinstance(func.body.block.body, SeqStmt):
        return ()
    root = func.body.block
    stages = func.body.block.body.stmts
    copies = [_copied(stage) for stage in stages]
    if not any(copies):
        return ()
    touched = [_Touched.by(stage) for stage in stages]
    written = [buffer for each in touched for buffer in each.written]
    sources = {p: i for i, p in enumerate(func.params) if isinstance(p, Buffer) and p not in written and _bytes(p)}
    made: dict[Buffer, Packing] = {}
    for stage, copy in zip(stages, copies):
        if copy is None or copy.target not in root.alloc_buffers or written.count(copy.target) > 1:
            continue
        if not _is_compact(copy.target):
            continue
        if copy.source in made:
            before = made[copy.source]
            between = (*before.between, before.result)
            made[copy.target] = Packing(before.param, before.source, copy.target, (*before.stages, stage), between)
        elif copy.source in sources:
            made[copy.target] = Packing(sources[copy.source], copy.source, copy.target, (stage,), ())
    read = {buffer for each in touched for buffer in each.read}
    made = {result: packing for result, packing in made.items() if result in read}  # the others are nobody's business
    inside = {stage for packing in made.values() for stage in packing.stages}
    needed = {b for stage, each in zip(stages, touched) if stage not in inside for b in each.all}
    found = tuple(p for p in made.values() if p.result in needed)
    # all of a parameter or nothing: its stages go together
    large = {p.param for p in found if not _is_worth_keeping(p)}
    return tuple(p for p in found if p.param not in large)


@dataclass(frozen=True)
class Unpacked:
    """A program that takes parameters as they are laid out for it.

    Attributes:
        function: instead of a parameter it takes the results of its packings, in order, and before them the parameter
            itself where it is still used.
        kept: positions in the program before of packed parameters that it still takes.
    """

    function: PrimFunc
    kept: frozenset[int]


def unpacked(func: PrimFunc, packings: Sequence[Packing], positions: Collection[int]) -> Unpacked:
    """``func`` without the stages of ``packings`` (those of ``packings_of``) of the parameters at ``positions``."""
    assert isinstance(func.body, BlockRealize)
    root = func.body.block
    assert isinstance(root.body, SeqStmt)
    chosen = [p for p in packings if p.param in positions]
    gone = {stage for p in chosen for stage in p.stages}
    made = {buffer for p in chosen for buffer in (p.result, *p.between)}
    rest = [stage for stage in root.body.stmts if stage not in gone]
    used = {buffer for stage in rest for buffer in _Touched.by(stage).all}
    params: list[Param] = []
    kept = set()
    for position, param in enumerate(func.params):
        results = [p.result for p in chosen if p.param == position]
        if not results or param in used:
            params.append(param)
            kept |= {position} if results else set()
        params.extend(results)
    body = replace(root, body=seq(*rest), alloc_buffers=tuple(b for b in root.alloc_buffers if b not in made))
    return Unpacked(replace(func, params=tuple(params), body=_realized(body)), frozenset(kept))


@dataclass(frozen=True)
class _Touched:
    """What a statement reads and writes, views as what they are of; an address stands for both."""

    read: frozenset[Buffer]
    written: frozenset[Buffer]

    @property
    def all(self) -> frozenset[Buffer]:
        return self.read | self.written

    @classmethod
    def by(cls, stmt: Stmt) -> _Touched:
        read: set[Buffer] = set()
        written: set[Buffer] = set()
        views: dict[Buffer, Buffer] = {}
        for node in walk(stmt):
            match node:
                case Block():
                    for matched in node.match_buffers:
                        views[matched.buffer] = views.get(matched.source.buffer, matched.source.buffer)
                case BufferStore(buffer=buffer):
                    written.add(views.get(buffer, buffer))
                case BufferLoad(buffer=buffer):
                    read.add(views.get(buffer, buffer))
                case Call(op="address_of", args=(BufferLoad(buffer=buffer), *_)):
                    written.add(views.get(buffer, buffer))
        return cls(frozenset(read), frozenset(written))


@dataclass(frozen=True)
class _Copy:
    """A stage that writes elements of ``source``, and numbers, to ``target``."""

    source: Buffer
    target: Buffer


def _copied(stage: Stmt) -> _Copy | None:
    """What a stage copies; None for one that does anything else."""
    found = _Elements()
    if not found.statement(stage) or len(found.targets) != 1 or len(found.sources) != 1:
        return None
    if found.used - found.defined:
        return None  # a scalar or a size: the copy would be another at each call
    return _Copy(found.sources.pop(), found.targets.pop())


class _Elements:
    """Collects what a stage takes from where; each method is False for what is more than moving elements.

    Attributes:
        targets, sources: buffers written and read.
        defined, used: variables.
    """

    def __init__(self) -> None:
        self.targets: set[Buffer] = set()
        self.sources: set[Buffer] = set()
        self.defined: set[Var] = set()
        self.used: set[Var] = set()

    def statement(self, node: Stmt) -> bool:
        match node:
            case SeqStmt(stmts=stmts):
                return all(map(self.statement, stmts))
            case For():
                self.defined.add(node.var)
                return not node.thread and self._index(node.min, node.extent) and self.statement(node.body)
            case IfThenElse(else_body=None):
                return self._index(node.condition) and self.statement(node.then_body)
            case BlockRealize(block=block):
                self.defined.update(axis.var for axis in block.iter_vars)
                return (
                    block.init is None
                    and not block.alloc_buffers
                    and not block.match_buffers
                    and self._index(*node.iter_values, node.predicate)
                    and self.statement(block.body)
                )
            case BufferStore():
                self.targets.add(node.buffer)
                return self._index(*node.indices) and self._element(node.value)
            case _:
                return False

    def _element(self, value: Expr) -> bool:
        match value:
            case BufferLoad():
                self.sources.add(value.buffer)
                return self._index(*value.indices)
            case IntImm() | FloatImm():
                return True
            case (
                Select(condition=condition, true_value=a, false_value=b)
                | Call(op="if_then_else", args=(condition, a, b))
            ):
                return self._index(condition) and self._element(a) and self._element(b)
            case _:
                return False

    def _index(self, *exprs: Expr) -> bool:
        """True for numbers that depend on nothing but variables."""
        nodes = [node for expr in exprs for node in walk(expr)]
        self.used.update(node for node in nodes if isinstance(node, Var))
        return not any(isinstance(node, BufferLoad | Call) for node in nodes)


def _is_compact(buffer: Buffer) -> bool:
    return buffer.scope == "global" and not buffer.strides and buffer.elem_offset is None and _bytes(buffer) > 0


def _is_worth_keeping(packing: Packing) -> bool:
    return _bytes(packing.result) <= max(_MOST_GROWTH * _bytes(packing.source), _SMALL_BYTES)


def _bytes(buffer: Buffer) -> int:
    """0 where the shape is no constant."""
    return math.prod(const_int(extent) or 0 for extent in buffer.shape) * dt.itemsize(buffer.dtype)


def _realized(root: Block) -> BlockRealize:
    return BlockRealize((), IntImm(1, "bool"), root)
