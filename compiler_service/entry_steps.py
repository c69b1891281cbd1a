"""What an artifact says of a function's parts: the programs that run one after another, and what each has to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler_service.roles import parameter_roles
from compiler_service.symbols import function_symbols, index_expr
from crossfarm.artifact.sizes import MAX_OPS
from crossfarm.errors import ArgumentError, BuildFailed
from crossfarm.ir.arith import Key, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import calls_of, dimension_symbols, is_caller
from crossfarm.ir.estimate import work
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.wire.v1.artifact_pb2 import IndexExpr, Parameter, Step


@dataclass
class EntrySteps:
    """Lists the steps of a module's functions; what it counted once it knows.

    Args:
        written: the module before anything was scheduled: what there is to do, not how.
    """

    written: IRModule
    _counted: dict[Key, tuple[Expr, Expr] | None] = field(default_factory=dict)

    def of(self, name: str, func: PrimFunc, launches: Sequence[int] = ()) -> list[Step]:
        """The steps of a function.

        Args:
            func: it in lowered form, whose symbols counts are in.
            launches: how many each of its calls makes, or the whole where it makes no calls; () on CPUs.
        """
        symbols, written = function_symbols(func), self.written.prim_funcs.get(name)
        natural = frozenset(dimension_symbols(func))
        steps = []
        if is_caller(func):
            calls = calls_of(written) if written is not None else []
            for call in calls:
                callee = self.written.prim_func(call.function)
                counts = self._counts(call.function, callee, call.values(callee), natural)
                steps.append(_step(call.function, call.origin, counts, symbols))
            # what came later, for constants: nobody wrote it, and it runs once
            steps.extend(_step(call.function, call.origin, None, symbols) for call in calls_of(func)[len(calls) :])
        else:
            assert written is not None, f"{name} was made by the compiler, and makes no calls"
            steps.append(_step(name, "", self._counts(name, written, {s: s for s in symbols}, natural), symbols))
        for step, number in zip(steps, launches, strict=True) if launches else ():
            step.launches = number
        return steps

    def _counts(
        self, name: str, func: PrimFunc, values: Mapping[Var, Expr], natural: frozenset[Var]
    ) -> tuple[Expr, Expr] | None:
        """Operations and bytes of a call; None where they are not known from the sizes."""
        key = (name, tuple(structural_key(value) for value in values.values()))
        if key not in self._counted:
            try:
                done = work(func, values, natural)
            except ArgumentError:
                self._counted[key] = None
            else:
                # what is only written may be read as a sum in the making, which is no traffic
                roles = zip(func.params, parameter_roles(func))
                moved = [done.read.get(p) for p, role in roles if role != Parameter.OUT and isinstance(p, Buffer)]
                self._counted[key] = done.operations, _sum([*(m for m in moved if m), *done.written.values()])
        return self._counted[key]


def _step(function: str, origin: str, counts: tuple[Expr, Expr] | None, symbols: tuple[Var, ...]) -> Step:
    operations, moved = (IndexExpr(), IndexExpr()) if counts is None else (_index(c, symbols) for c in counts)
    return Step(function=function, origin=origin, operations=operations, bytes=moved)


def _index(count: Expr, symbols: tuple[Var, ...]) -> IndexExpr:
    """A count as artifacts have it; without operations where it is of more than the entry point's symbols, or too
    long."""
    try:
        found = index_expr(count, symbols, "a count")
    except (BuildFailed, ValueError):  # the latter from protobuf, for what is no 64-bit number
        return IndexExpr()
    return found if len(found.ops) <= MAX_OPS else IndexExpr()


def _sum(parts: Sequence[Expr]) -> Expr:
    """The sum, constants as one."""
    constant = sum(part.value for part in parts if isinstance(part, IntImm))
    total: Expr | None = None
    for part in (p for p in parts if not isinstance(p, IntImm)):
        total = part if total is None else Binary("add", total, part)
    if total is None:
        return IntImm(constant, "int64")
    return Binary("add", total, IntImm(constant, "int64")) if constant else total
