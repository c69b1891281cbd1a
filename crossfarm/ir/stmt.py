"""Statements. Two forms live side by side: the block form, which schedules work on, and the lowered form.

In the *block form* computation sits in ``BlockRealize`` nodes under loops, temporaries are ``Block.alloc_buffers``, and
a function's body is always one ``BlockRealize`` of a block named ``root`` without axes. In the *lowered form* there are
no blocks, and temporaries are ``Allocate`` statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import Expr, Range, Var

#: What annotations and attributes hold: plain data or an Expr; never code.
AttrValue = Union[bool, int, float, str, None, Expr, "tuple[AttrValue, ...]", "Mapping[str, AttrValue]"]
Annotations = Mapping[str, AttrValue]

LOOP_KINDS = ("serial", "parallel", "vectorized", "unrolled", "thread_binding")
AXIS_KINDS = ("spatial", "reduce", "scan", "opaque")


@dataclass(frozen=True, eq=False)
class Stmt:
    """Base of all statements."""


@dataclass(frozen=True, eq=False)
class SeqStmt(Stmt):
    """Statements in order. Never nested directly in another SeqStmt, never of one; () is the empty statement."""

    stmts: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False)
class For(Stmt):
    """``for var in range(min, min + extent)``, kind one of LOOP_KINDS; ``thread`` is set for thread_binding only."""

    var: Var
    min: Expr
    extent: Expr
    body: Stmt
    kind: str = "serial"
    thread: str = ""
    annotations: Annotations = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class While(Stmt):
    condition: Expr
    body: Stmt


@dataclass(frozen=True, eq=False)
class IfThenElse(Stmt):
    condition: Expr
    then_body: Stmt
    else_body: Stmt | None = None


@dataclass(frozen=True, eq=False)
class BufferStore(Stmt):
    """``buffer[indices] = value``; a vector value stores each lane to the element its vector index names."""

    buffer: Buffer
    value: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class LetStmt(Stmt):
    """``var = value`` for the rest of the scope, ``body``."""

    var: Var
    value: Expr
    body: Stmt


@dataclass(frozen=True, eq=False)
class Evaluate(Stmt):
    """An expression for its effect."""

    value: Expr


@dataclass(frozen=True, eq=False)
class AssertStmt(Stmt):
    """Fails the call with ``message`` when ``condition`` is false. (``T.assume``: Evaluate.)"""

    condition: Expr
    message: str


@dataclass(frozen=True, eq=False)
class AttrStmt(Stmt):
    """A named attribute over ``body`` (``T.attr``); ``node`` is what it is about, a string, Var or Buffer name."""

    key: str
    value: AttrValue
    body: Stmt
    node: str = ""


@dataclass(frozen=True, eq=False)
class Allocate(Stmt):
    """Lowered form: ``buffer`` exists for ``body``."""

    buffer: Buffer
    body: Stmt
    annotations: Annotations = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class IterVar:
    """A block axis: ``kind`` one of AXIS_KINDS, ``dom`` the domain its values lie in."""

    var: Var
    dom: Range
    kind: str = "spatial"


@dataclass(frozen=True, eq=False)
class MatchBufferRegion:
    """``buffer`` is a view of ``source`` inside the block."""

    buffer: Buffer
    source: BufferRegion


@dataclass(frozen=True, eq=False)
class Block(Stmt):
    """A unit of computation. ``init`` runs when all reduce axes are at their domain's first value.

    ``reads`` and ``writes`` are always filled: the parser infers what the text leaves out (``crossfarm.ir.regions``).
    """

    name: str
    iter_vars: tuple[IterVar, ...]
    reads: tuple[BufferRegion, ...]
    writes: tuple[BufferRegion, ...]
    body: Stmt
    init: Stmt | None = None
    alloc_buffers: tuple[Buffer, ...] = ()
    match_buffers: tuple[MatchBufferRegion, ...] = ()
    annotations: Annotations = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class BlockRealize(Stmt):
    """Runs ``block`` with its axes bound to ``iter_values``, where ``predicate`` holds."""

    iter_values: tuple[Expr, ...]
    predicate: Expr
    block: Block
