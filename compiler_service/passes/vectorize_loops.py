"""Loops that the program asks to vectorize."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from compiler_service.passes.copies import fresh_copy
from compiler_service.passes.hoist_conditions import all_of
from compiler_service.passes.lane_guards import LaneGuards
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import affine, const_int, fold_int, may_fail, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Broadcast, BufferLoad, Call, Cast, Expr, IntImm, Let, Not, Ramp, Select, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import BufferStore, For, IfThenElse, LetStmt, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class VectorizeLoops:
    """A ``T.vectorized`` loop of constant extent becomes vector statements; what cannot be one runs lane by lane.

    ``vectorized`` is a wish, never a change of meaning: statements are vectorized only where lanes touch different
    elements of what is written, so that running each statement for all lanes gives what running the lanes in order
    does. An extern call or an allocation makes that statement serial. A statement under a condition on the lane, as the
    last part of a split that does not divide, runs as a vector where all lanes meet it, and else lane by lane.

    Args:
        max_lanes: a longer loop, or one whose extent is no constant, stays a loop for LLVM to vectorize.
    """

    name: ClassVar[str] = "vectorize_loops"
    max_lanes: int = 64

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: self._vectorize(func))

    def _vectorize(self, func: PrimFunc) -> PrimFunc:
        flag = func.attrs.get("tir.noalias", False)
        distinct = bool(flag.value) if isinstance(flag, IntImm) else bool(flag)
        shared = frozenset() if distinct else frozenset(p for p in func.params if isinstance(p, Buffer))
        body = _Loops(self.max_lanes, shared).mutate(func.body)
        return func if body is func.body else replace(func, body=body)


class _Loops(Mutator):
    """Finds the loops.

    Args:
        shared: buffers that may be the same memory.
    """

    def __init__(self, max_lanes: int, shared: frozenset[Buffer]) -> None:
        self.max_lanes = max_lanes
        self.shared = shared

    def mutate_For(self, node: For) -> Stmt:
        body = self.mutate(node.body)
        if node.kind != "vectorized":
            return node if body is node.body else replace(node, body=body)
        lanes = const_int(node.extent)
        if lanes is None or not 2 <= lanes <= self.max_lanes or not _lanes_are_independent(node, self.shared):
            return replace(node, body=body, kind="serial")
        return _Lanes(node, lanes).statement(body)


class _Scalarize(Exception):
    """The statement has no vector form."""


class _Lanes:
    """Rewrites the body of one loop for all its lanes at once."""

    def __init__(self, loop: For, lanes: int) -> None:
        self.loop = loop
        self.lanes = lanes
        ramp = Ramp(loop.min, IntImm(1, loop.var.dtype), lanes)
        self.vectors: dict[Var, Expr] = {loop.var: ramp}

    # --- statements

    def statement(self, node: Stmt) -> Stmt:
        try:
            return self._vector(node)
        except _Scalarize:
            copy = fresh_copy(node, {})
            var = Var(self.loop.var.name, self.loop.var.dtype)
            one_by_one = For(var, self.loop.min, self.loop.extent, fresh_copy(copy, {self.loop.var: var}))
            return self._where_all_lanes_run(node, one_by_one)

    def _where_all_lanes_run(self, node: Stmt, otherwise: Stmt) -> Stmt:
        """The vector form where the conditions on the lane hold in every one; ``otherwise`` elsewhere, as in tails."""
        if not isinstance(node, (BufferStore, IfThenElse)):
            return otherwise
        guards = LaneGuards(self.loop.var, IntImm(self.lanes - 1, self.loop.var.dtype), self.loop.min)
        unguarded = guards.mutate(node)
        if not guards.tests:
            return otherwise
        try:
            return IfThenElse(all_of(guards.tests), self._vector(unguarded), otherwise)
        except _Scalarize:
            return otherwise

    def _vector(self, node: Stmt) -> Stmt:
        if isinstance(node, SeqStmt):
            return seq(*(self.statement(s) for s in node.stmts))
        if isinstance(node, BufferStore):
            indices = tuple(self.expr(i) for i in node.indices)
            value = self.expr(node.value)
            if all(dt.lanes_of(i.dtype) == 1 for i in indices):
                raise _Scalarize
            return BufferStore(node.buffer, self._widen(value), indices)
        if isinstance(node, IfThenElse):
            condition = self._invariant(node.condition)
            other = None if node.else_body is None else self.statement(node.else_body)
            return IfThenElse(condition, self.statement(node.then_body), other)
        if isinstance(node, For):
            start, extent = self._invariant(node.min), self._invariant(node.extent)
            return replace(node, min=start, extent=extent, body=self.statement(node.body))
        if isinstance(node, LetStmt):
            return self._let(node)
        raise _Scalarize

    def _let(self, node: LetStmt) -> Stmt:
        """A let whose uses cannot all be vector statements would be needed in both forms: it is serial as a whole."""
        value = self.expr(node.value)
        if dt.lanes_of(value.dtype) == 1:
            return LetStmt(node.var, value, self.statement(node.body))
        vector = Var(node.var.name, value.dtype)
        self.vectors[node.var] = vector
        return LetStmt(vector, value, self._vector_only(node.body))

    def _vector_only(self, node: Stmt) -> Stmt:
        if isinstance(node, SeqStmt):
            return seq(*(self._vector_only(s) for s in node.stmts))
        return self._vector(node)

    def _invariant(self, node: Expr) -> Expr:
        result = self.expr(node)
        if dt.lanes_of(result.dtype) > 1:
            raise _Scalarize
        return result

    # --- expressions

    def expr(self, node: Expr) -> Expr:
        """``node`` for all lanes: a vector, or the scalar that it is in each."""
        if isinstance(node, Var):
            return self.vectors.get(node, node)
        if not any(n in self.vectors for n in walk(node) if isinstance(n, Var)):
            return node
        if dt.lanes_of(node.dtype) > 1:
            raise _Scalarize
        method = getattr(self, f"_expr_{type(node).__name__}", None)
        if method is None:
            raise _Scalarize
        result: Expr = method(node)
        return result

    def _expr_Binary(self, node: Binary) -> Expr:
        if node.op in ("and", "or") and _needs_guard(node.b):
            raise _Scalarize
        a, b = self.expr(node.a), self.expr(node.b)
        if node.op in ("add", "sub") and isinstance(a, Ramp) and dt.lanes_of(b.dtype) == 1:
            return Ramp(_fold(node.op, a.base, b), a.stride, self.lanes)
        if node.op == "add" and isinstance(b, Ramp) and dt.lanes_of(a.dtype) == 1:
            return Ramp(_fold("add", a, b.base), b.stride, self.lanes)
        if node.op == "mul" and isinstance(a, Ramp) and dt.lanes_of(b.dtype) == 1:
            return Ramp(_fold("mul", a.base, b), _fold("mul", a.stride, b), self.lanes)
        if node.op == "mul" and isinstance(b, Ramp) and dt.lanes_of(a.dtype) == 1:
            return Ramp(_fold("mul", a, b.base), _fold("mul", a, b.stride), self.lanes)
        return Binary(node.op, self._widen(a), self._widen(b))

    def _expr_Not(self, node: Not) -> Expr:
        return Not(self.expr(node.a))

    def _expr_Cast(self, node: Cast) -> Expr:
        return Cast(self.expr(node.value), dt.with_lanes(node.dtype, self.lanes))

    def _expr_Select(self, node: Select) -> Expr:
        return self._choice(node.condition, node.true_value, node.false_value)

    def _expr_Let(self, node: Let) -> Expr:
        value = self.expr(node.value)
        if dt.lanes_of(value.dtype) == 1:
            return Let(node.var, value, self.expr(node.body))
        vector = Var(node.var.name, value.dtype)
        self.vectors[node.var] = vector
        return Let(vector, value, self._widen(self.expr(node.body)))

    def _expr_BufferLoad(self, node: BufferLoad) -> Expr:
        return BufferLoad(node.buffer, tuple(self.expr(i) for i in node.indices))

    def _expr_Call(self, node: Call) -> Expr:
        if node.op == "if_then_else":
            return self._choice(*node.args)
        if not INTRINSICS[node.op].pure or node.op in ("call_pure_extern", "address_of"):
            raise _Scalarize
        if any(dt.lanes_of(a.dtype) > 1 for a in node.args):
            raise _Scalarize  # a scalar made of vectors, as dot4 gives
        args = tuple(self._widen(self.expr(a)) for a in node.args)
        return Call(node.op, args, dt.with_lanes(node.dtype, self.lanes))

    def _choice(self, condition: Expr, if_true: Expr, if_false: Expr) -> Expr:
        flag = self.expr(condition)
        if dt.lanes_of(flag.dtype) == 1:
            arms = (self._widen(self.expr(if_true)), self._widen(self.expr(if_false)))
            return Call("if_then_else", (flag, *arms), arms[0].dtype)
        if _needs_guard(if_true) or _needs_guard(if_false):
            raise _Scalarize
        return Select(flag, self._widen(self.expr(if_true)), self._widen(self.expr(if_false)))

    def _widen(self, node: Expr) -> Expr:
        return node if dt.lanes_of(node.dtype) == self.lanes else Broadcast(node, self.lanes)


def _needs_guard(node: Expr) -> bool:
    """True when evaluating ``node`` in a lane that does not want it could fail or read out of bounds."""
    return may_fail(node) or any(isinstance(n, BufferLoad) for n in walk(node))


def _fold(op: str, a: Expr, b: Expr) -> Expr:
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None:
        folded = fold_int(op, x, y, a.dtype)
        return Binary(op, a, b) if folded is None else IntImm(folded, a.dtype)
    if op == "mul" and 1 in (x, y):
        return b if x == 1 else a
    if op == "add" and 0 in (x, y):
        return b if x == 0 else a
    return Binary(op, a, b)


def _lanes_are_independent(loop: For, shared: frozenset[Buffer]) -> bool:
    """True when no lane touches an element that another lane writes.

    Each buffer that is written must be accessed at one and the same index only, and one component of that index must be
    the loop's variable times a constant plus what neither the loop's body defines nor loads.
    """
    written: dict[object, list[tuple[Expr, ...]]] = {}
    read: dict[object, list[tuple[Expr, ...]]] = {}
    inner: set[Var] = set()
    for node in walk(loop.body):
        if isinstance(node, BufferStore):
            written.setdefault(_memory(node.buffer, shared), []).append(node.indices)
        elif isinstance(node, BufferLoad):
            read.setdefault(_memory(node.buffer, shared), []).append(node.indices)
        elif isinstance(node, (For, LetStmt, Let)):
            inner.add(node.var)
    for memory, stores in written.items():
        accesses = [*stores, *read.get(memory, ())]
        keys = {tuple(structural_key(i) for i in indices) for indices in accesses}
        if len(keys) > 1 or not any(_distinguishes(i, loop.var, inner) for i in stores[0]):
            return False
    return True


def _memory(buffer: Buffer, shared: frozenset[Buffer]) -> object:
    return shared if buffer in shared else buffer


def _distinguishes(index: Expr, var: Var, inner: set[Var]) -> bool:
    if dt.lanes_of(index.dtype) > 1 or not dt.is_int(index.dtype):
        return False
    form = affine(index)
    if not form.terms.get(var):
        return False
    others = [n for key, atom in form.atoms.items() if key is not var for n in walk(atom)]
    return not any(n is var or n in inner or isinstance(n, (BufferLoad, Call)) for n in others)
