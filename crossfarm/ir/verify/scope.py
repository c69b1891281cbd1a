"""What is in scope at a node: variables, buffers, enclosing blocks, and which values a loop variable takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.stmt import Block


@dataclass(frozen=True)
class Linear:
    """``sum(coefficient * loop variable) + constant``."""

    terms: dict[Var, int]
    constant: int


@dataclass
class BlockScope:
    """An enclosing block and where its views lead."""

    block: Block
    is_root: bool
    own: set[Buffer] = field(default_factory=set)
    source_of: dict[Buffer, Buffer] = field(default_factory=dict)


@dataclass
class Scope:
    """State of the walk.

    Attributes:
        function: name of the function.
        variables, buffers: defined here; ``once_variables`` and ``once_buffers`` also those that went out of scope.
        blocks: enclosing blocks, outermost first.
        guarded: above 0 where code may be skipped at run time, so that nothing is provable about it.
        loops: constant (min, max) of loop variables; linear: block axes and lets in terms of those.
    """

    function: str
    variables: set[Var] = field(default_factory=set)
    buffers: set[Buffer] = field(default_factory=set)
    once_variables: set[Var] = field(default_factory=set)
    once_buffers: set[Buffer] = field(default_factory=set)
    blocks: list[BlockScope] = field(default_factory=list)
    guarded: int = 0
    loops: dict[Var, tuple[int, int]] = field(default_factory=dict)
    linear: dict[Var, Linear] = field(default_factory=dict)

    def define(self, var: Var) -> None:
        self.variables.add(var)
        self.once_variables.add(var)

    def define_buffer(self, buffer: Buffer) -> None:
        self.buffers.add(buffer)
        self.once_buffers.add(buffer)
        if self.blocks:
            self.blocks[-1].own.add(buffer)

    def linear_of(self, e: Expr) -> Linear | None:
        """``e`` as a linear form of loop variables with constant ranges, or None."""
        if isinstance(e, IntImm):
            return Linear({}, e.value)
        if isinstance(e, Var):
            return Linear({e: 1}, 0) if e in self.loops else self.linear.get(e)
        if not isinstance(e, Binary) or e.op not in ("add", "sub", "mul"):
            return None
        a, b = self.linear_of(e.a), self.linear_of(e.b)
        if a is None or b is None:
            return None
        if e.op == "mul":
            if a.terms and b.terms:
                return None
            a, factor = (a, b.constant) if not b.terms else (b, a.constant)
            return Linear({v: c * factor for v, c in a.terms.items()}, a.constant * factor)
        sign = 1 if e.op == "add" else -1
        terms = dict(a.terms)
        for v, c in b.terms.items():
            terms[v] = terms.get(v, 0) + sign * c
        return Linear(terms, a.constant + sign * b.constant)

    def values_of(self, e: Expr) -> tuple[int, int] | None:
        """Smallest and largest value that ``e`` really takes, or None where that is not known.

        Exact, not an estimate: a linear form reaches its extremes at corners of the loops' ranges.
        """
        form = self.linear_of(e)
        if form is None:
            return None
        low = high = form.constant
        for v, c in form.terms.items():
            ends = (c * self.loops[v][0], c * self.loops[v][1])
            low, high = low + min(ends), high + max(ends)
        return low, high
